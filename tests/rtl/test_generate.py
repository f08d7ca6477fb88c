"""The Verilog and SystemRDL that are written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from catalog.errors import ForestageError, SettingError
from predictor.engine.limits import PrefetchEngineLimits
from predictor.st_moe.parameters import EngineLimits
from rtl.generate import DEFAULT_UNIT, TOP_MODULES, generate, table_engine_verilog, top_module
from rtl.prefetch.limits import sized_engine
from rtl.synthesis.units import UNITS

TABLES = EngineLimits(experts_max=8, layers_max=3, top_k_max=2, candidates_max=2)
WHOLE = sized_engine({"experts_max": 8, "layers_max": 3, "top_k_max": 2, "slots_max": 2}, learned=False)
SMALL: dict[str, Any] = {"prefetch-engine": WHOLE, "table-engine": TABLES}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "unit", ["table-engine", *(pytest.param(u, marks=pytest.mark.long) for u in ("prefetch-engine", "pim-unit"))]
)
def test_a_units_files_have_its_name(unit: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    paths = generate(tmp_path / "verilog", unit, SMALL.get(unit), lambda *done: seen.append(done))
    stem = unit.replace("-", "_")
    assert [path.name for path in paths] == [f"{stem}.rdl", f"{stem}.v"]
    assert sorted((tmp_path / "verilog").iterdir()) == paths
    assert f"addrmap {stem} {{" in paths[0].read_text()
    assert f"module {stem}(" in paths[1].read_text()
    assert all(0 < done < total for done, total in seen)


def test_the_whole_engine_is_meant_where_no_unit_is_named() -> None:
    assert top_module(DEFAULT_UNIT).defaults() == PrefetchEngineLimits()
    assert set(TOP_MODULES) < set(UNITS)
    with pytest.raises(SettingError, match="nearest known name is 'table-engine'"):
        top_module("tables-engine")


@pytest.mark.parametrize(
    "unit", ["table-engine", *(pytest.param(u, marks=pytest.mark.long) for u in ("prefetch-engine", "pim-unit"))]
)
def test_another_process_writes_the_same_files(unit: str, tmp_path: Path) -> None:
    """Text that depends on hash seeds, the folder or the run would defeat the cache of built models."""
    program = (
        "import sys; from pathlib import Path; from rtl.generate import generate, top_module; "
        "unit, out, limits = sys.argv[1:]; kind = top_module(unit).defaults; "
        "generate(Path(out), unit, kind.model_validate_json(limits) if limits else None)"
    )
    limits = SMALL[unit].model_dump_json() if unit in SMALL else ""
    command = [sys.executable, "-c", program, unit, str(tmp_path / "other"), limits]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for path in generate(tmp_path / "this", unit, SMALL.get(unit)):
        text = path.read_text()
        assert (tmp_path / "other" / path.name).read_text() == text
        assert str(ROOT) not in text
        assert "(* src" not in text


def test_canonical_port_names() -> None:
    text = table_engine_verilog(TABLES)
    for port in ("control__awvalid", "control__wstrb", "control__rresp", "events__payload", "requests__ready"):
        assert f"{port};" in text


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForestageError, match="cannot write"):
        generate(tmp_path / "file" / "verilog", "table-engine", TABLES)
    assert (tmp_path / "file").read_text() == ""
