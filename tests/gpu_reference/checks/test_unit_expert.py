"""An expert of a checkpoint for the PIM unit: which tokens it is given, and what its output is compared with."""

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.checks.error import relative_error
from gpu_reference.checks.model_replay import layer_inputs
from gpu_reference.checks.unit_expert import most_used_expert
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from gpu_reference.moe_layer import ReplayMoELayer
from pim_model.numerics.expert import run_expert
from pim_model.numerics.floats import float_from_bf16
from pim_model.unit.program import WeightFormat
from traces import RoutingTrace


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    return RoutingTrace.load(SHIPPED_TRACE)


def test_the_tokens_are_those_that_chose_the_expert_over_several_sequences(trace: RoutingTrace) -> None:
    seen = [layer_inputs(SHIPPED_CHECKPOINT, trace.sequence(number), 2) for number in (4, 1)]
    expert = int(torch.bincount(seen[0].ids.flatten()).argmax())
    chosen = [part.x[(part.ids == expert).any(dim=1)] for part in seen]
    tokens = len(chosen[0]) + 1
    case = most_used_expert(SHIPPED_CHECKPOINT, trace, [4, 1, 0], 2, tokens)
    assert case.expert == expert
    assert torch.equal(case.x, torch.cat(chosen)[:tokens])
    most = sum(map(len, chosen))
    with pytest.raises(ForestageError, match=f"tokens: {most + 1}: {most} tokens of the test sequences chose"):
        most_used_expert(SHIPPED_CHECKPOINT, trace, [4, 1], 2, most + 1)


def test_the_reference_is_the_layers_expert_and_the_errors_are_the_formats(trace: RoutingTrace) -> None:
    case = most_used_expert(SHIPPED_CHECKPOINT, trace, [0], 3, 12)
    plain = ReplayMoELayer.from_checkpoint(SHIPPED_CHECKPOINT, 3).expert(case.expert, case.x)
    assert case.exact().dtype == np.float64
    assert relative_error(plain, case.exact()) < 1e-6
    assert relative_error(float_from_bf16(case.inputs()), case.x) < 2**-8
    most = []
    for weight_format in WeightFormat:
        whole, *each = case.errors(run_expert(case.weights(weight_format), case.inputs()).values)
        assert len(each) == 12
        assert min(each) <= whole <= max(each)
        most.append(whole)
    assert most[0] < 2**-7 < most[1] < 0.03 < most[2] < 0.2
