"""The stager's circuit under Verilator against the twin: short here, tens of thousands of commands in the long ones."""

import pytest

from cocotb_tests.prefetch_stager.replay import replay_script
from staging.stager.answers import Kind
from staging.stager.limits import StagerLimits, StagerSettings
from tests.cocotb_tests.prefetch_stager.serving_scripts import serving_script

GPT_OSS_20B = StagerLimits(
    layers=24, experts=32, places=192, spare=32, queue_depth=48, sequence_slots=4, event_experts=4, value_bits=20
)
MANY_EXPERTS = StagerLimits(
    layers=48, experts=128, places=48 * 20, spare=64, queue_depth=48, sequence_slots=4, event_experts=8, value_bits=20
)
SMALL = StagerLimits(
    layers=3, experts=12, places=16, spare=4, queue_depth=14, sequence_slots=2, event_experts=4, value_bits=20, lanes=4
)
TIMES = {"value_scale": 40, "chance_scale": 30, "price": 60_000}


def kinds(script):
    return {kind for answer in script.answers for kind, *_ in answer["actions"]}


def check(script):
    """No difference, and everything happened."""
    assert kinds(script) == {kind.name for kind in Kind}
    result = replay_script(script)
    assert (result.mismatches, result.first_mismatch) == (0, "")
    assert result.commands == len(script.answers)


def test_a_served_model_is_staged_as_the_twin_does_it():
    check(serving_script(SMALL, StagerSettings(shares=(16,), background=True, **TIMES), 600, seed=1))


def test_a_circuit_for_a_larger_shape_serves_a_smaller_one_and_notices_what_differs():
    script = serving_script(SMALL, StagerSettings(shares=(5, 4), **TIMES), 300, seed=2, layers=2, experts=7)
    script.answers[120]["cycles"] += 1
    result = replay_script(script)
    assert result.mismatches == 1
    assert result.first_mismatch.startswith("command 120, ")


@pytest.mark.long
@pytest.mark.parametrize("background", [False, True])
def test_gpt_oss_20b_is_staged_as_the_twin_does_it(background):
    check(serving_script(GPT_OSS_20B, StagerSettings(shares=(192,), background=background, **TIMES), 20_000, seed=3))


@pytest.mark.long
def test_a_share_for_each_of_48_layers_of_128_experts_is_staged_as_the_twin_does_it():
    check(serving_script(MANY_EXPERTS, StagerSettings(shares=(20,) * 48, **TIMES), 20_000, seed=4))


@pytest.mark.long
def test_48_layers_of_128_experts_that_share_are_staged_as_the_twin_does_it():
    shared = StagerSettings(shares=(960,), background=True, **TIMES)
    check(serving_script(MANY_EXPERTS, shared, 4_000, seed=5))
