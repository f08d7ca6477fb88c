"""What the engine refuses of an event, and what it makes of a good one."""

import pytest

from predictor.engine.commands import CommandKind
from predictor.engine.events import NO_ERROR, EngineError, Event, Gate, Release, Token
from predictor.engine.front_end import FrontEnd
from tests.predictor.engine.engine_samples import LAYERS, LIMITS, small_settings


def front_end(*events: Event) -> FrontEnd:
    """After these events, all good."""
    of = FrontEnd(LIMITS, small_settings())
    for event in events:
        assert of.accept(event)[0] == NO_ERROR
    return of


BEGUN = (Token(0, starts_sequence=True),)
OPEN = (*BEGUN, Gate(0, 0, (1, 2)))
WHOLE = (*BEGUN, *(event for layer in range(LAYERS) for event in (Gate(0, layer, (1, 2)), Release(0, layer))))


@pytest.mark.parametrize(
    ("before", "event", "error"),
    [
        ((), Token(3, starts_sequence=True), EngineError.SLOT),
        (BEGUN, Gate(0, 4, (1, 2)), EngineError.LAYER | EngineError.ORDER),
        (BEGUN, Gate(0, 0, (1, 8)), EngineError.EXPERT),
        (BEGUN, Gate(0, 0, (3, 3)), EngineError.DUPLICATE),
        ((), Token(0, starts_sequence=True, row=6), EngineError.ROW),
        ((), Token(0, starts_sequence=True, domain=1), EngineError.DOMAIN),
        ((), Token(0), EngineError.ORDER),
        ((), Token(0, first=False, starts_sequence=True), EngineError.ORDER),
        ((), Gate(0, 0, (1, 2)), EngineError.ORDER),
        (BEGUN, Token(0), EngineError.ORDER),
        (BEGUN, Gate(0, 1, (1, 2)), EngineError.ORDER),
        (BEGUN, Gate(1, 0, (1, 2)), EngineError.ORDER),
        (BEGUN, Release(0, 0), EngineError.ORDER),
        (OPEN, Gate(0, 0, (1, 2)), EngineError.ORDER),
        (OPEN, Token(0, starts_sequence=True), EngineError.ORDER),
        (OPEN, Release(0, 1), EngineError.ORDER),
    ],
)
def test_a_bad_event_changes_nothing(before: tuple[Event, ...], event: Event, error: EngineError) -> None:
    of = front_end(*before)
    base = of.base
    assert of.accept(event) == (error, [])
    assert of.base == base
    # What would have come next still does.
    following: Event = {0: Token(0, starts_sequence=True), 1: Gate(0, 0, (1, 2)), 2: Release(0, 0)}[len(before)]
    assert of.accept(following)[0] == NO_ERROR


def test_a_gate_asks_for_its_experts_and_the_last_of_its_layer_for_its_deadline() -> None:
    of = front_end(Token(0, last=False, starts_sequence=True), Token(1, first=False, starts_sequence=True))
    error, told = of.accept(Gate(0, 0, (5, 2), last=False))
    assert (error, [(one.kind, one.slot, one.experts) for one in told]) == (NO_ERROR, [(CommandKind.DEMAND, 0, (5, 2))])
    error, told = of.accept(Gate(1, 0, None, first=False))
    assert [(one.kind, one.experts) for one in told] == [(CommandKind.DEMAND, ()), (CommandKind.EXPIRE, ())]
    assert told[1].deadline == LAYERS


def test_a_token_may_follow_the_whole_one_before_it() -> None:
    of = front_end(*WHOLE)
    assert of.accept(Token(0))[0] == NO_ERROR
    assert of.base == 2 * LAYERS


def test_no_deadline_is_taken_for_forever() -> None:
    limits = LIMITS.model_copy(update={"deadline_bits": 5})
    of = FrontEnd(limits, small_settings())
    steps = 0
    while of.accept(Token(0, starts_sequence=True))[0] == NO_ERROR:
        steps += 1
    assert of.base + LAYERS - 1 < 31 <= of.base + 2 * LAYERS - 1
    assert of.accept(Token(0, starts_sequence=True))[0] == EngineError.DEADLINE
