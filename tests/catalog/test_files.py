"""Files that are whole or not there, and what is never written over."""

import os
from pathlib import Path

import pytest

from catalog.errors import ForestageError
from catalog.files import check_writable, write_text


def test_a_pipe_is_not_written_over(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (check_writable, lambda path: write_text(path, "x")):
        with pytest.raises(ForestageError, match=r"pipe: is no file but a device, pipe or socket"):
            write(pipe)
    assert pipe.is_fifo()
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target" / "file")
    for text in ("first", "second"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "target" / "file").read_text() == text


def test_a_file_has_the_users_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
