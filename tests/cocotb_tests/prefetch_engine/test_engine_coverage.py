"""The regression that fills the bins of coverage: every mode, class of shapes, back-pressure and error, in lock-step.

One engine, generated for the widest shape, is configured for each in turn, without a reset.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cocotb_tests.models.files import LAST, RESPONSE, WRITE, Fault
from cocotb_tests.prefetch_engine import coverage
from cocotb_tests.prefetch_engine.replay import Replay, replay_in_turn
from cocotb_tests.prefetch_engine.run import MISUSE_SCRIPT
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EngineError, EventArrays, EventKind, trace_events
from predictor.engine.settings import Mode
from tests.cocotb_tests.prefetch_engine.small_engines import (
    SLOTS,
    Model,
    replay_of,
    skip_without_tools,
    small_limits,
    with_a_bad_copy,
)

pytestmark = pytest.mark.long  # its build takes minutes

LAYERS = 3
LIMITS = small_limits(layers=LAYERS, experts=128, row_words=8192, stager_lanes=16)
MODELS = tuple(Model(layers=LAYERS, experts=experts) for experts in (8, 32, 128))
TRACE: dict[str, Any] = {"lengths": (30, 26), "shared": 3}
"""What one sequence demands is then demanded by the other, too, before it is there."""
FAULTS = {
    "far": [*(Fault(RESPONSE, burst, 3, 2) for burst in (3, 11)), Fault(LAST, 17, 2), Fault(LAST, 26, 15)],
    "staging": [Fault(WRITE, burst, 0, 2) for burst in (5, 21)],
}
HARMED = EngineError.READ | EngineError.WRITE | EngineError.LAST | EngineError.LAYER | EngineError.ORDER


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    skip_without_tools()


@pytest.fixture(autouse=True, scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What these tests saw, and no others; in the end it joins what others left."""
    folder = tmp_path_factory.mktemp("coverage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(coverage.FOLDER, str(folder))
        yield folder
    for one in coverage.read(folder):
        coverage.leave(one)


def with_bad_events(events: EventArrays, experts: int) -> tuple[EventArrays, Any]:
    """Before some gates comes one with an expert, or of a layer, that there is not; which are bad."""
    gates = np.flatnonzero((events.kind == EventKind.GATE) & events.known)[[2, 9, 20]]
    order = np.sort(np.concatenate([np.arange(len(events.kind)), gates]), kind="stable")
    bad = np.zeros(len(order), np.bool_)
    bad[gates + np.arange(len(gates))] = True
    told = EventArrays(*(column[order].copy() for column in events))
    first, *others = np.flatnonzero(bad)
    # A number beyond 128 experts does not fit its bits; there one is named twice.
    told.experts[others, 1] = experts if experts < LIMITS.experts_max else told.experts[others, 0]
    told.layer[first] = LAYERS
    return told, bad


def replay(mode: Mode, model: Model, waits: int, *, harmed: bool) -> Replay:
    """Two sequences together."""
    share = max(3, model.experts // 8)
    if mode is Mode.LEARNED:
        of = model.learned(model.trace(**TRACE), share=share)
    else:
        of = {
            "settings": model.settings(mode, share=share),
            "events": trace_events(model.trace(**TRACE), slots=SLOTS),
            "times": LayerTimes(before_gate_cycles=20, layer_cycles=150),
            "tables": model.tables(LIMITS) if mode is Mode.TABLES else None,
        }
    if harmed:
        events, bad = with_bad_events(of["events"], model.experts)
        of |= {"events": events, "bad": bad, "faults": FAULTS}
    return replay_of(**of, limits=LIMITS, waits=waits, seed=7)


@pytest.mark.parametrize("waits", [0, 90])
@pytest.mark.parametrize("harmed", [False, True])
def test_every_mode_and_shape_in_turn_is_in_lock_step_with_and_without_harm(waits: int, harmed: bool) -> None:
    chosen = list(product(Mode, MODELS))
    results = replay_in_turn([replay(mode, model, waits, harmed=harmed) for mode, model in chosen])
    for (mode, model), result in zip(chosen, results, strict=True):
        which = f"{mode.name}, {model.experts} experts"
        assert result.mismatches == 0, f"{which}: {result.first_mismatch}"
        assert result.breaches == 0, which
        bad_expert = EngineError.EXPERT if model.experts < LIMITS.experts_max else EngineError.DUPLICATE
        assert EngineError(result.errors) == (HARMED | bad_expert if harmed else EngineError(0)), which


@pytest.mark.parametrize("waits", [0, 90])
def test_every_shape_in_turn_is_in_lock_step_after_bad_images(waits: int) -> None:
    of = [model.learned(model.trace(**TRACE), share=max(3, model.experts // 8)) for model in MODELS]
    results = replay_in_turn(
        [
            replay_of(**one, limits=LIMITS, waits=waits, seed=7, script=MISUSE_SCRIPT, spoil=with_a_bad_copy)
            for one in of
        ]
    )
    for model, result in zip(MODELS, results, strict=True):
        assert result.mismatches == 0, f"{model.experts} experts: {result.first_mismatch}"
        assert (result.breaches, result.errors) == (0, 0), model.experts


def test_every_bin_that_can_be_filled_is_filled(left: Path) -> None:
    """By the tests above alone."""
    merged = coverage.merge(coverage.read(left))
    print(coverage.table(merged))
    assert not merged.empty, f"{len(merged.empty)} bins are empty: {', '.join(merged.empty)}"
