"""Which transfer is next: ``staging.stager.queue``, compiled. The queue is short, so each look reads all of it."""

from catalog.compiled import njit
from staging.stager.compiled.directory import group_of, worth
from staging.stager.compiled.state import INLINE, INSIDE, State
from staging.stager.directory import NO_PLACE, NONE


@njit(**INSIDE)
def first(state: State) -> int:
    """The next to move; ``NONE`` where nothing waits."""
    best = NONE
    for at in range(state.numbers.waiting):
        key = state.queue[at]
        if best == NONE or _sooner(state, key, best):
            best = key
    return best


@njit(**INLINE)
def holds_demand(state: State) -> bool:
    """Whether a demand waits."""
    for at in range(state.numbers.waiting):  # noqa: SIM110 - compiled
        if state.keys[state.queue[at]].demanded:
            return True
    return False


@njit(**INSIDE)
def last_with_place(state: State, group: int) -> int:
    """Of the prefetches of ``group`` that wait and hold a place, the last to move; ``NONE`` where there is none."""
    last = NONE
    for at in range(state.numbers.waiting):
        key = state.queue[at]
        of = state.keys[key]
        if of.demanded or of.place == NO_PLACE or group_of(state, key) != group:
            continue
        if last == NONE or not _sooner(state, key, last):
            last = key
    return last


@njit(**INLINE)
def append(state: State, key: int) -> None:
    """The latest that waits."""
    state.queue[state.numbers.waiting] = key
    state.numbers.waiting += 1


@njit(**INSIDE)
def remove(state: State, key: int) -> None:
    """Take out what waits."""
    at = 0
    while state.queue[at] != key:
        at += 1
    state.numbers.waiting -= 1
    for later in range(at, state.numbers.waiting):
        state.queue[later] = state.queue[later + 1]


@njit(**INSIDE)
def add(state: State, key: int) -> int:
    """Enter ``key``; returns who lost its entry: another, ``key`` itself, or ``NONE`` where there was room."""
    append(state, key)
    if state.numbers.waiting <= state.setup.depth:
        return NONE
    last = state.queue[0]
    for at in range(1, state.numbers.waiting):
        if not _sooner(state, state.queue[at], last):
            last = state.queue[at]
    remove(state, last)
    return last


@njit(**INSIDE)
def promote(state: State, key: int) -> None:
    """What waits is demanded from now on: the last of the demands."""
    state.keys[key].demanded = True
    remove(state, key)
    append(state, key)


@njit(**INLINE)
def _sooner(state: State, key: int, other: int) -> bool:
    """Whether ``key`` moves before ``other`` wherever both came."""
    here, there = state.keys[key], state.keys[other]
    if here.demanded or there.demanded:
        return here.demanded and not there.demanded
    if here.deadline != there.deadline:
        return here.deadline < there.deadline
    return worth(state, key) > worth(state, other)
