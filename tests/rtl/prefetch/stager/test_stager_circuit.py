"""The stager's circuit against the twin, command by command, over shapes of every kind."""

import numpy as np
import pytest
from pydantic import ValidationError

from cocotb_tests.prefetch_stager.script import StagerScript
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, StagerShape
from rtl.prefetch.stager.stager import Stager
from rtl.verilog import to_verilog
from staging.stager.answers import Kind, Why
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from tests.rtl.prefetch.stager.stager_bench import random_script, run_script

SMALL = {"layers": 3, "experts": 5, "places": 4, "spare": 1, "queue_depth": 4, "sequence_slots": 2, "event_experts": 2}
WIDE = {"value_bits": 32, "scale_bits": 24, "stamp_bits": 48, "deadline_bits": 48}
MOST = (1 << 24) - 1


def limits(**changes):
    return StagerLimits(**{**SMALL, "value_bits": 8, **changes})


@pytest.mark.parametrize(
    ("circuit", "settings", "used"),
    [
        pytest.param(limits(lanes=4, stamp_bits=4), {"shares": (4,), "background": True, "price": 1}, {}, id="shared"),
        pytest.param(limits(lanes=1, stamp_bits=2), {"shares": (2, 0, 2), "horizon": 2}, {}, id="one lane, by layer"),
        pytest.param(
            limits(lanes=16, spare=0, places=2), {"shares": (2,), "by_recency": False}, {}, id="no spare place"
        ),
        pytest.param(limits(lanes=2, places=0, spare=3), {"shares": (0,), "background": True}, {}, id="no place"),
        pytest.param(
            limits(lanes=4, **WIDE),
            {"shares": (1, 2, 1), "value_scale": MOST, "chance_scale": MOST, "price": MOST, "background": True},
            {},
            id="the largest times",
        ),
        pytest.param(
            limits(lanes=4, queue_depth=7), {"shares": (2, 2)}, {"layers": 2, "experts": 3}, id="less than all"
        ),
    ],
)
def test_every_answer_and_every_cycle_is_the_twins(circuit, settings, used):
    registers = (
        StagerSettings(value_scale=2, chance_scale=3, **settings)
        if "price" not in settings
        else (StagerSettings(**settings))
    )
    run_script(random_script(circuit, registers, 1, 120, **used))


def test_stamps_that_look_young_again_are_compared_as_the_twin_does_it():
    circuit = limits(places=10, lanes=4, stamp_bits=2)
    run_script(random_script(circuit, StagerSettings(shares=(10,), value_scale=0, retries=1), 3, 260))


def test_a_demand_has_its_tries_and_no_more():
    script = StagerScript(StagerShape(limits=limits(lanes=4)), StagerSettings(shares=(4,), retries=2))
    script.tell("demand", (1, [2, 0]))
    for _ in range(3):
        for _ in range(2):
            script.tell("grant", ())
            script.tell("fail", (0,))
    script.tell("release", (1, [2, 0]))
    assert script.counters["lost"] == 2
    run_script(script)


def test_idle_cycles_between_commands_change_nothing():
    registers = StagerSettings(shares=(4,), chance_scale=2, horizon=FOREVER, retries=1)
    run_script(random_script(limits(lanes=4), registers, 2, 80), wait=np.random.default_rng(0))


def test_what_differs_is_noticed():
    script = random_script(limits(lanes=4), StagerSettings(shares=(4,)), 3, 20)
    script.answers[15]["cycles"] += 1
    with pytest.raises(AssertionError, match="command 16, "):
        run_script(script)


def test_codes_of_actions_are_the_twins():
    assert [code.name for code in ActionKind] == [kind.name for kind in Kind]
    assert [code.name for code in ActionWhy] == ["NONE", *(why.name for why in Why)]


def test_what_cannot_be_generated_is_refused():
    for changes, named, fault in (
        ({"channels": 2}, 8, "channels: 2; the circuit has 1"),
        ({"lanes": 3}, 8, "lanes: 3; give a power of two"),
        ({}, 1, "named_experts: 1; give event_experts"),
    ):
        with pytest.raises(ValidationError, match=fault):
            StagerShape(limits=limits(**changes), named_experts=named)


@pytest.mark.parametrize("lanes", [1, 16])
def test_the_smallest_circuit_is_verilog(lanes):
    least = StagerLimits(layers=1, experts=1, places=0, queue_depth=1, event_experts=1, scale_bits=1, lanes=lanes)
    assert "module stager(" in to_verilog(Stager(StagerShape(limits=least, named_experts=1)), "stager")
