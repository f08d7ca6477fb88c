"""The PIM tile on the shipped checkpoint, as the study runs it."""

import pytest

from gpu_reference.files import SHIPPED_TRACE
from study.subjects.tile import check_tile
from traces import RoutingTrace


@pytest.mark.long
@pytest.mark.parametrize("layer", [0, 7])
def test_an_expert_on_many_tokens(layer: int) -> None:
    result = check_tile(RoutingTrace.load(SHIPPED_TRACE), layer=layer, tokens=48, seed=0)
    assert result["tokens"] > 20
    assert result["products"] == 3 * result["tokens"]
    assert result["mismatches_with_twin"] == result["mismatches_with_pytorch"] == 0
    assert result["cycles"] == result["predicted_cycles"]
    assert 0 < result["relative_error"] < 0.05
