"""The Verilog that is written."""

import subprocess
import sys
from pathlib import Path

import pytest

from catalog.errors import ForestageError
from predictor.st_moe.parameters import EngineLimits
from rtl.generate import FILES, generate, prefetch_engine_verilog

SMALL = EngineLimits(experts_max=8, layers_max=3, top_k_max=2, candidates_max=2)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_every_file_is_written(tmp_path: Path) -> None:
    paths = generate(tmp_path / "verilog", SMALL)
    assert [path.name for path in paths] == list(FILES)
    assert sorted((tmp_path / "verilog").iterdir()) == paths
    for path in paths:
        begins = f"module {path.stem}(" if path.suffix == ".v" else f"addrmap {path.stem} {{"
        assert begins in path.read_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "pim_unit.v" else ()) for name in FILES]
)
def test_another_process_writes_the_same_text(name: str) -> None:
    """Text that depends on hash seeds, the folder or the run would defeat the cache of built models."""
    program = (
        "from rtl.generate import FILES; "
        "from predictor.st_moe.parameters import EngineLimits as Limits; "
        "limits = Limits(experts_max=8, layers_max=3, top_k_max=2, candidates_max=2); "
        f"print(FILES[{name!r}](limits), end='')"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    text = FILES[name](SMALL)
    assert other.stdout == text
    assert str(ROOT) not in text
    assert "(* src" not in text


def test_canonical_port_names() -> None:
    text = prefetch_engine_verilog(SMALL)
    for port in ("control__awvalid", "control__wstrb", "control__rresp", "events__payload", "requests__ready"):
        assert f"{port};" in text


def test_unwritable_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "pim_unit.v", lambda _: "")  # which takes long
    (tmp_path / "file").write_text("")
    with pytest.raises(ForestageError, match="cannot write"):
        generate(tmp_path / "file" / "verilog", SMALL)
    assert (tmp_path / "file").read_text() == ""
