"""What a synthesis' memories are taken to take: from the catalogue, never for a target that it does not name."""

from pathlib import Path

import pytest

from catalog import load_catalog
from catalog.errors import ForestageError
from rtl.synthesis.figures import Synthesis
from rtl.synthesis.sram import estimate

SRAM = """
[[sram]]
name = "mine"
node_nm = 5
cell_libraries = ["lib"]
source = "a test"
evidence = "assumption"
area_um2_per_bit = 2.0
array_share = 0.5
accesses = [{ bytes = 8, pj_per_bit = 1.0 }, { bytes = 64, pj_per_bit = 3.0 }]
"""


def synthesis(target: str = "lib", **changed: object) -> Synthesis:
    memory = {"block": "b", "name": "m", "depth": 8, "width": 8, "read_ports": 1, "write_ports": 1, "instances": 3}
    small = memory | {"name": "few", "flip_flops": True}
    fields = {"unit": "u", "target": target, "blocks": [], "total": {}, "not_counted": "", "tools": {},
              "memories": [memory | changed, small]}  # fmt: skip
    return Synthesis.model_validate(fields)


def test_area_is_of_all_instances_and_energy_of_one_access(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SRAM)
    catalog = load_catalog(tmp_path)
    found = estimate(synthesis(), catalog)
    assert found is not None
    (memory,) = found.memories  # the one of flip-flops is in the area of cells
    assert (memory.area_um2, memory.access_pj) == (3 * 64 * 2.0 / 0.5, 8.0)
    assert found.area_um2 == memory.area_um2
    assert found.sources["array_share"] == "a test [assumption]"
    larger = estimate(synthesis(depth=9), catalog)  # of more than 8 bytes
    largest = estimate(synthesis(depth=1000), catalog)  # of more than any
    assert larger is not None
    assert largest is not None
    assert (larger.memories[0].access_pj, largest.memories[0].access_pj) == (24.0, 24.0)


def test_without_figures_for_the_target_there_is_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SRAM.replace('["lib"]', '["another"]'))
    assert estimate(synthesis(), load_catalog(tmp_path)) is None
    (tmp_path / "mine.toml").write_text(SRAM)
    assert estimate(synthesis().model_copy(update={"memories": ()}), load_catalog(tmp_path)) is None


def test_figures_without_energy_tell_none() -> None:
    sky130 = synthesis("sky130_fd_sc_hd__tt_025C_1v80")
    found = estimate(sky130, load_catalog())
    assert found is not None
    assert found.memories[0].access_pj is None
    assert found.area_um2 == pytest.approx(3 * 64 * 24.10, abs=0.1)


def test_capacities_that_do_not_ascend_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SRAM.replace("bytes = 64", "bytes = 8"))
    with pytest.raises(ForestageError, match="capacities must ascend"):
        load_catalog(tmp_path)
