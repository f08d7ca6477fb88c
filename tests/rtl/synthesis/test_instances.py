"""Instances of generated Verilog have the names of the record's blocks."""

import pytest

from predictor.engine.limits import PrefetchEngineLimits
from rtl.prefetch.limits import table_limits
from rtl.prefetch.tables.predictor import TablePredictor
from rtl.synthesis.hierarchy import design_of
from rtl.synthesis.instances import block_name, instances
from rtl.verilog import to_verilog
from tests.rtl.synthesis.tiny_library import Pair


def test_paths_and_modules() -> None:
    found = instances(to_verilog(Pair(), "pair"), "pair")
    assert found == {"": "pair", "toggle0": "pair.toggle0", "toggle1": "pair.toggle1"}  # memories are no modules
    with pytest.raises(ValueError, match="no module other"):
        instances("module x();\nendmodule\n", "other")


def test_blocks_are_called_as_a_synthesis_calls_them() -> None:
    limits = table_limits(PrefetchEngineLimits(layers_max=2, experts_max=4, top_k_max=2, candidates_max=2))
    labels = set(design_of(TablePredictor(limits)).labels.values())
    assert len(labels) > 4
    modules = instances(to_verilog(TablePredictor(limits), "whole"), "whole")
    assert {block_name(module, "whole") for module in modules.values()} == labels


@pytest.mark.parametrize(
    ("module", "unit", "block"),
    [
        ("engine.core.net", "engine.core.net", ""),
        ("engine.core.net.sums$94.rows", "engine.core.net", "sums.rows"),
        ("engine.counters$389.x", "engine.counters$389", "x"),
        ("net_sum_lane.decay$38", "engine.core.net", "net_sum_lane.decay"),
        ("engine.core.network.x", "engine.core.net", "engine.core.network.x"),
    ],
)
def test_names(module: str, unit: str, block: str) -> None:
    assert block_name(module, unit) == block
