"""The host link: one transfer at a time, which may stop at a chunk; what moves is the stager's decision."""

from catalog.compiled import njit
from perfmodel.compiled import host
from perfmodel.compiled.state import AHEAD, FOR_A_GATE, NEVER, NOT, Given, State
from staging.stager.compiled import commands, queue
from staging.stager.compiled.state import INLINE, INSIDE
from staging.stager.compiled.state import State as Stager
from staging.stager.directory import NO_PLACE, NONE, QUEUED


@njit(**INLINE)
def offer(state: State, given: Given, stager: Stager) -> None:
    """Nothing more is due: an idle link takes a transfer; what no gate waits for may have to stop for a demand."""
    n = state.numbers
    if not n.told:
        return
    n.told = 0
    if n.moving < 0:
        grant(state, given, stager)
        if stager.numbers.channel != NONE:
            _start(state, given, stager)
    elif n.stops == NEVER and not stager.keys[n.moving].demanded and queue.holds_demand(stager):
        _set_stop(state, given)


@njit(**INLINE)
def grant(state: State, given: Given, stager: Stager) -> None:
    """The stager grants a transfer; chunks of paused keys that it has dropped since the last one are abandoned."""
    n = state.numbers
    at = 0
    while at < n.paused:
        key = state.paused[at]
        of = stager.keys[key]
        if of.status == QUEUED and of.place != NO_PLACE:
            at += 1
            continue
        n.abandoned += state.chunks[key] * given.chunk_bytes
        n.paused -= 1
        state.paused[at] = state.paused[n.paused]
    commands.grant(stager)


@njit(**INLINE)
def _start(state: State, given: Given, stager: Stager) -> None:
    n, key = state.numbers, stager.numbers.key
    n.kept = 0
    for at in range(n.paused):
        if state.paused[at] == key:
            n.kept = state.chunks[key]
            n.paused -= 1
            state.paused[at] = state.paused[n.paused]
            break
    else:
        state.began[key] = FOR_A_GATE if stager.numbers.demanded else AHEAD
    n.moving, n.since = key, n.now
    n.arrives = n.now + given.chunk_ps[-1] - given.chunk_ps[n.kept]
    n.stops = NEVER
    host.link_changed(state, given)


@njit(**INLINE)
def _set_stop(state: State, given: Given) -> None:
    """At the first chunk that has not passed."""
    n = state.numbers
    chunk = first_chunk(state, given)
    if chunk < len(given.chunk_ps) - 1:
        n.stop_chunk = chunk
        n.stops = n.since + given.chunk_ps[chunk] - given.chunk_ps[n.kept]


@njit(**INLINE)
def first_chunk(state: State, given: Given) -> int:
    """The first chunk of what moves that passes now or later."""
    n = state.numbers
    passed = n.now - n.since + given.chunk_ps[n.kept]
    low, high = n.kept, len(given.chunk_ps) - 1
    while low < high:
        middle = (low + high) // 2
        if given.chunk_ps[middle] < passed:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**INLINE)
def step_on(state: State, given: Given, stager: Stager) -> None:
    """What is due now: an arrival, or a stop."""
    n = state.numbers
    if n.arrives == n.now:
        _arrive(state, given, stager)
        return
    key, chunk = n.moving, n.stop_chunk
    n.stops = NEVER
    commands.preempt(stager, 0)
    if stager.moving[0] == NONE:
        _leave(state, given)
        if stager.keys[key].status == QUEUED:
            state.chunks[key] = chunk
            state.paused[n.paused] = key
            n.paused += 1
        else:
            n.abandoned += chunk * given.chunk_bytes
            state.began[key] = NOT
    n.told = 1


@njit(**INLINE)
def _leave(state: State, given: Given) -> None:
    n = state.numbers
    n.link_busy += n.now - n.since
    n.moving, n.arrives, n.stops = NONE, NEVER, NEVER
    host.link_changed(state, given)


@njit(**INLINE)
def _arrive(state: State, given: Given, stager: Stager) -> None:
    n, key = state.numbers, state.numbers.moving
    _count(state, stager, key)
    commands.arrive(stager, 0)
    n.told = 1
    _leave(state, given)
    told = state.awaited[key]
    if told:
        state.awaited[key] = 0
        n.coming -= 1
        if n.free_at < n.now:
            if told & 1:
                n.late_wait += n.now - n.free_at
            else:
                n.demand_wait += n.now - n.free_at
            n.free_at = n.now
        run_kernel(state, given, told >> 1)


@njit(**INLINE)
def _count(state: State, stager: Stager, key: int) -> None:
    """Of what kind the transfer of ``key`` was, which arrives."""
    n = state.numbers
    if state.began[key] == FOR_A_GATE:
        n.demands += 1
    elif stager.keys[key].demanded:
        n.late += 1
    else:
        n.ahead += 1
    state.began[key] = NOT


@njit(**INLINE)
def complete(state: State, given: Given, stager: Stager) -> None:
    """What moves arrives at once (before a step that takes no time)."""
    n = state.numbers
    if n.moving >= 0:
        key = n.moving
        _count(state, stager, key)
        commands.arrive(stager, 0)
        n.told = 1
        _leave(state, given)


@njit(**INLINE)
def run_kernel(state: State, given: Given, tokens: int) -> None:
    """The device runs an expert after what it has."""
    n = state.numbers
    n.free_at += given.expert_ps[tokens]
    n.compute += given.expert_compute_ps[tokens]
    n.hbm += given.expert_ps[tokens] - given.expert_compute_ps[tokens]


@njit(**INLINE)
def forget_completed(state: State, key: int) -> None:
    """A paused key is complete at once: its chunks were of use, but no transfer is counted."""
    n = state.numbers
    for at in range(n.paused):
        if state.paused[at] == key:
            n.paused -= 1
            state.paused[at] = state.paused[n.paused]
            return


@njit(**INSIDE)
def close(state: State, given: Given) -> None:
    """The end: what is on the link, or paused, is abandoned."""
    n = state.numbers
    if n.moving >= 0:
        n.link_busy += n.now - n.since
        chunk = n.kept
        while chunk + 1 < len(given.chunk_ps) and n.since + given.chunk_ps[chunk + 1] - given.chunk_ps[n.kept] <= n.now:
            chunk += 1
        n.abandoned += chunk * given.chunk_bytes
    for at in range(n.paused):
        n.abandoned += state.chunks[state.paused[at]] * given.chunk_bytes
