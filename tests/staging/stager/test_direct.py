"""The stager in plain integers does what the compiled one does, command by command."""

from typing import Any

import numpy as np
import pytest

from staging.stager.answers import Kind
from staging.stager.compiled.direct import DirectStager
from staging.stager.compiled.stager import CompiledStager
from staging.stager.limits import StagerLimits, StagerSettings

LAYERS, EXPERTS = 3, 6


@pytest.mark.parametrize("seed", range(4))
def test_every_command_does_what_the_compiled_stagers_does(seed: int) -> None:
    generator = np.random.default_rng(seed)
    limits = StagerLimits(layers=LAYERS, experts=EXPERTS, places=6, spare=1, queue_depth=6, event_experts=3)
    settings = StagerSettings(shares=(6,), price=seed, background=seed % 2 == 1)
    direct, compiled = DirectStager(limits, settings), CompiledStager(limits, settings)
    assert direct.preload(1, 4, fixed=seed == 2) == 0
    compiled.preload(1, [4])
    compiled.fix(1, [4], fixed=seed == 2)
    held: tuple[int, list[int]] | None = None
    moving: int | None = None
    done = set()
    for turn in range(600):
        layer = int(generator.integers(LAYERS))
        some = generator.permutation(EXPERTS)[: generator.integers(1, 4)]
        step: Any = None
        match generator.choice(["values", "demand", "release", "prefetch", "expire", "grant", "preempt", "arrive"]):
            case "values":
                values = generator.integers(0, 50, EXPERTS)
                direct.set_values(layer, values)
                step = compiled.set_values(layer, values)
            case "demand" if held is None:
                held = (layer, some.tolist())
                here = compiled.lookup(*held).tolist()
                assert direct.are_resident(*held) == here
                assert direct.demand(*held) == here
                step = compiled.demand(*held)
            case "release" if held is not None:
                direct.release(*held)
                step, held = compiled.release(*held), None
            case "prefetch":
                chances, deadline = generator.integers(0, 90, len(some)), turn + int(generator.integers(-3, 20))
                direct.prefetch(layer, some, chances, deadline)
                step = compiled.prefetch(layer, some, chances, deadline)
            case "expire":
                direct.expire(turn)
                step = compiled.expire(turn)
            case "grant" if moving is None:
                step, found = compiled.grant(), direct.grant()
                of = step.transfer
                assert found == (None if of is None else (of.key, of.place, of.demanded))
                moving = None if of is None else of.key
            case "preempt" if moving is not None:
                step = compiled.preempt(0)
                goes_on = not any(action.key == moving for action in step.actions)
                assert direct.goes_on() == goes_on
                moving = moving if goes_on else None
                done.add(("preempt", goes_on))
            case "arrive" if moving is not None:
                direct.arrive()
                step, moving = compiled.arrive(0), None
        if step is not None:
            assert direct.dropped() == [action.key for action in step.actions if action.kind is Kind.DROP]
            done.update(action.kind for action in step.actions)
        keys = np.arange(LAYERS * EXPERTS)
        of = compiled.state.keys
        chance = np.where(of["deadline"] > compiled.state.numbers["now"], of["chance"], 0)
        np.testing.assert_array_equal(direct.worth(keys), of["value"] + chance)
        assert direct.counters == compiled.counters
    assert {Kind.DROP, Kind.EVICT, Kind.HIT, ("preempt", False), ("preempt", True)} <= done


def test_several_channels_are_refused() -> None:
    limits = StagerLimits(layers=1, experts=2, places=1, queue_depth=2, channels=2, event_experts=1)
    with pytest.raises(ValueError, match="channels: 2"):
        DirectStager(limits, StagerSettings(shares=(1,)))
