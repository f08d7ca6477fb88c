"""The figures in the guide's page on the PIM unit are those that its commands give."""

from pathlib import Path

import pytest

from pim_model.gemv.bounds import unit_bound
from pim_model.unit.program import WeightFormat
from study.subjects.memory_expert import expert_in_memory
from study.subjects.memory_shapes import shapes_in_memory
from tests.pim_model.gemv.test_gemv_closed_form import unit

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "pim-unit.md"


def table_rows(first: str, *, columns: int) -> list[list[str]]:
    """Rows of the guide's tables whose first cell is ``first``."""
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in GUIDE.read_text().splitlines()
        if line.startswith(f"| {first} |")
    ]
    return [row for row in rows if len(row) == columns]


def span(values: list[float]) -> str:
    low, high = f"{100 * min(values):.1f}", f"{100 * max(values):.1f}"
    return low if low == high else f"{low}–{high}"


@pytest.mark.parametrize("device", ["HBM2-PIM", "HBM4"])
def test_the_table_of_shapes(device: str) -> None:
    cases: dict[tuple, list] = {}
    for row in shapes_in_memory([device]):
        cases.setdefault((row["kernel"], row["format"], str(row["tokens"])), []).append(row)
    written = table_rows(device, columns=8)
    assert len(written) == len(cases) == 7
    for _, kernel, weight_format, tokens, free, bound, refreshed, refreshed_bound in written:
        rows = cases[kernel, weight_format, tokens]
        assert free == span([row["fraction_of_limit"] for row in rows])
        assert refreshed == span([row["refreshed_mean_fraction"] for row in rows])
        if kernel == "pingpong":
            assert bound == f"{100 * rows[0]['bound_fraction']:.1f}"
            assert refreshed_bound == f"{100 * rows[0]['refreshed_bound_fraction']:.1f}"


def test_the_table_of_experts() -> None:
    written = table_rows("Qwen3-30B-A3B", columns=9)
    assert len(written) == 6
    for model, device, weight_format, time, bound, pins, energy, hosts, lost in written:
        result = expert_in_memory(model, device, WeightFormat[weight_format.upper()])
        memory, over_pins = result["in_memory"], result["over_pins"]
        assert time == f"{1e6 * memory['time_s']:.1f} µs"
        assert bound == f"{1e6 * memory['bound']['time_s']:.1f} µs"
        assert pins == f"{1e6 * over_pins['time_s']:.1f} µs"
        assert energy == f"{1e3 * memory['energy_j']:.3f} / {1e3 * over_pins['energy_j']:.3f} mJ"
        host_s = [host["time_s"] for host in result["host"]]
        assert hosts == f"{1e6 * max(host_s):.0f} … {1e6 * min(host_s):.0f} µs"
        assert lost == f"{result['slower_than_pins_from_tokens']} tokens"


def test_the_reopenings_in_the_text() -> None:
    reopenings = [unit_bound(unit(name)).reopening_ck for name in ("HBM2-PIM", "HBM3", "HBM3E", "HBM4")]
    text = " ".join(GUIDE.read_text().split())
    assert f"(reopening {reopenings[0]} ≤ 132)" in text
    assert "({}, {}, {})".format(*reopenings[1:]) in text
