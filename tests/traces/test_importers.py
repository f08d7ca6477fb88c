"""Choosing the importer."""

import os
from pathlib import Path

import pytest

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace
from traces.importers import FORMATS, import_trace, sniff_format


def test_our_own_file_loads_as_it_is_whatever_its_name(tmp_path: Path) -> None:
    trace = make_trace()
    for name in ("trace.safetensors", "trace.bin"):
        trace.save(tmp_path / name)
        assert sniff_format(tmp_path / name) == "safetensors"
        assert import_trace(str(tmp_path / name)).equals(trace)
    with pytest.raises(ForestageError, match="--model: the format safetensors has no use for it"):
        import_trace(tmp_path / "trace.bin", model="gpt-oss-20b")


def test_an_imported_trace_is_checked_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.trace.VALIDATE_ON_LOAD_BYTES", 0)
    make_trace().save(tmp_path / "trace.safetensors")
    assert import_trace(tmp_path / "trace.safetensors").content == "checked"


def test_what_is_no_trace_is_refused_with_the_known_formats(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind, but long enough to be looked at")
    with pytest.raises(
        ForestageError,
        match=r"notes\.txt: no known trace format; known are safetensors, safetensors_load, .*npz, big_moe",
    ):
        import_trace(path)
    with pytest.raises(ForestageError, match="--format csv: unknown format; known are"):
        import_trace(path, "csv")
    path.write_bytes(b"\x1f\x8b\x08\x00 not really gzip")
    with pytest.raises(ForestageError, match="no known trace format"):
        import_trace(path)
    path.write_bytes(b"")
    with pytest.raises(ForestageError, match="empty file"):
        import_trace(path)
    with pytest.raises(ForestageError, match="cannot read"):
        import_trace(tmp_path / "absent")
    with pytest.raises(ForestageError, match="no folder of a known trace format"):
        import_trace(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_forced_on_the_wrong_file_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind, but long enough to be looked at")
    for source in (path, tmp_path / "absent", tmp_path):
        with pytest.raises(ForestageError) as caught:
            import_trace(source, name)
        assert str(source) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("format", [None, "table", "vllm_response"])
def test_a_pipe_is_refused_and_never_waited_for(format: str | None, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ForestageError, match="pipe: is a pipe or a device, which can be read only once; write what"):
        import_trace(tmp_path / "pipe", format)


def test_an_empty_object_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(ForestageError, match="no known trace format") as caught:
        sniff_format(tmp_path / "e.json")
    assert "columns none" not in str(caught.value)
