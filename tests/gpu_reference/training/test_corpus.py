import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ForestageError
from gpu_reference.training import download
from gpu_reference.training.cleaning import code_from_source
from gpu_reference.training.corpus import (
    CODE,
    DOMAINS,
    SELECTIONS,
    SOURCES,
    Document,
    Selection,
    balanced_texts,
    load_corpus,
    read_selection,
)
from gpu_reference.training.download import SourceDistribution, default_cache, fetch, sha256_of


def _archive(folder: Path, files: dict[str, str]) -> SourceDistribution:
    path = folder / "thing-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"thing-1.0/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return SourceDistribution(
        name="thing", version="1.0", filename=path.name, sha256=sha256_of(path), licence="Apache-2.0"
    )


def _selection(source: SourceDistribution, *include: str) -> Selection:
    return Selection(domain=CODE, source=source, include=include, exclude=("*/tests/*",), clean=code_from_source)


LONG = "\n".join(f"x{i} = {i}" for i in range(60))


def test_selects_cleans_and_keeps_doubles_once(tmp_path: Path) -> None:
    files = {"b.py": LONG, "a.py": f"# Copyright.\n{LONG}", "tests/t.py": LONG, "c.txt": LONG, "d.py": "short = 1"}
    source = _archive(tmp_path, files)
    documents = load_corpus(tmp_path, (_selection(source, "*.py"),))
    assert [(document.name, document.text) for document in documents] == [("thing-1.0/a.py", LONG + "\n")]


def test_a_pattern_that_finds_nothing_is_an_error(tmp_path: Path) -> None:
    source = _archive(tmp_path, {"a.py": LONG})
    with pytest.raises(ForestageError, match="no file matches"):
        list(read_selection(_selection(source, "*.rs"), tmp_path / source.filename))


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    source = _archive(tmp_path, {"a.py": LONG})
    path = tmp_path / source.filename
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ForestageError, match="cannot be read as an archive"):
        list(read_selection(_selection(source, "*.py"), path))
    with pytest.raises(ForestageError, match=r"thing-1.0.tar.gz: SHA-256 is .*, expected .*; delete the file"):
        fetch(source, tmp_path)


@pytest.mark.parametrize(
    ("returncode", "stderr", "message"),
    [
        (1, "noise\nERROR: No matching distribution\n", r"thing==1\.0: download failed \(ERROR: No matching dist"),
        (3, "", r"download failed \(pip exited with status 3\)"),
        (0, "", r"pip fetched no file named thing-1\.0\.tar\.gz"),
    ],
)
def test_a_failed_download_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returncode: int, stderr: str, message: str
) -> None:
    source = _archive(tmp_path, {"a.py": LONG})
    seen: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(download.subprocess, "run", pip)
    with pytest.raises(ForestageError, match=message) as caught:
        fetch(source, tmp_path / "empty")
    assert "\n" not in str(caught.value)
    assert seen[0][1:4] == ["-m", "pip", "download"]
    assert seen[0][-1] == "thing==1.0"


def test_pip_that_hangs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(download.subprocess, "run", pip)
    with pytest.raises(ForestageError, match="pip took over 600 s"):
        fetch(SOURCES[0], tmp_path)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORESTAGE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("FORESTAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "forestage" / "corpus"


def test_an_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForestageError, match=r"cannot be created .* set FORESTAGE_CACHE"):
        fetch(SOURCES[0], tmp_path / "file" / "cache")


def test_every_source_is_pinned_licensed_and_used() -> None:
    assert {selection.source for selection in SELECTIONS} == set(SOURCES)
    assert {selection.domain for selection in SELECTIONS} == set(DOMAINS)
    for source in SOURCES:
        assert len(source.sha256) == 64
        assert source.licence
        assert source.version in source.filename


def test_about_one_document_in_twenty_is_held_out() -> None:
    documents = [Document(name=f"package/file_{number}.py", domain=CODE, text="") for number in range(4000)]
    assert 0.04 < sum(document.held_out for document in documents) / 4000 < 0.06


def test_the_tokenizer_sees_both_domains_alike() -> None:
    documents = [
        Document(name=f"{domain}{number}", domain=domain, text=domain[0] * 100)
        for domain, count in (("code", 50), ("prose", 10))
        for number in range(count)
    ]
    texts = balanced_texts(documents)
    assert sum(text[0] == "c" for text in texts) == sum(text[0] == "p" for text in texts) == 10
    assert texts == balanced_texts(documents[::-1])
