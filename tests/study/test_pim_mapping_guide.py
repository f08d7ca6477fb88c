"""The figures in the guide's page on the PIM unit are those that its commands give."""

import pytest

from pim_model.dram.devices import find_device
from pim_model.gemv.bounds import unit_bound
from pim_model.gemv.product import unit_for
from tests.pim_mapping_guide import GUIDE, expert_rows, shape_rows

ANEW = "the unit's clocks have changed: python -m tests.pim_mapping_guide"


@pytest.mark.parametrize("device", ["HBM2-PIM", "HBM4"])
def test_the_table_of_shapes(device: str) -> None:
    rows = shape_rows(device)
    assert len(rows) == 7
    assert set(rows) <= set(GUIDE.read_text().splitlines()), ANEW


def test_the_table_of_experts() -> None:
    for device in ("HBM2-PIM", "HBM3"):
        assert set(expert_rows("Qwen3-30B-A3B", device)) <= set(GUIDE.read_text().splitlines()), ANEW


def test_the_reopenings_in_the_text() -> None:
    devices = [find_device(name) for name in ("HBM2-PIM", "HBM3", "HBM3E", "HBM4")]
    reopenings = [unit_bound(unit_for(device, 64, 1, 0)).reopening_ck for device in devices]
    text = " ".join(GUIDE.read_text().split())
    assert f"(reopening {reopenings[0]} ≤ 132)" in text
    assert "({}, {}, {})".format(*reopenings[1:]) in text
