"""The commands of a stager: ``staging.stager.twin``, compiled. What they mean is said there.

Each changes a ``State`` in place. What it did is in ``state.numbers`` and ``state.actions`` until the next command
(see ``state.NUMBERS``). What would corrupt the state is refused with a ``ValueError`` before anything changes; that
deadlines fit is the caller's care (``staging.stager.arguments``).
"""

from typing import Any

from catalog.compiled import njit
from staging.stager.answers import Kind, Why
from staging.stager.compiled import directory as places
from staging.stager.compiled import queue
from staging.stager.compiled.state import COMMAND, ENTRY, INLINE, INSIDE, KINDS, REASONS, State
from staging.stager.cycles import BEGIN_AND_END, CHOOSE, TOUCH, WALK
from staging.stager.directory import ABSENT, MOVING, NO_PLACE, NONE, QUEUED, RESIDENT
from staging.stager.limits import FOREVER

_HIT, _WAIT, _PROMOTE = KINDS.index(Kind.HIT), KINDS.index(Kind.WAIT), KINDS.index(Kind.PROMOTE)
_HOLD, _QUEUE, _REFUSE = KINDS.index(Kind.HOLD), KINDS.index(Kind.QUEUE), KINDS.index(Kind.REFUSE)
_DROP, _PAUSE, _EVICT = KINDS.index(Kind.DROP), KINDS.index(Kind.PAUSE), KINDS.index(Kind.EVICT)
_ELSEWHERE = KINDS.index(Kind.ELSEWHERE)
_NO_REASON = REASONS.index(None)
_LATE, _FAR, _FULL = REASONS.index(Why.LATE), REASONS.index(Why.FAR), REASONS.index(Why.FULL)
_USELESS, _WORTH, _PLACE = REASONS.index(Why.USELESS), REASONS.index(Why.WORTH), REASONS.index(Why.PLACE)
_SHARE, _RELEASED, _FAILED = REASONS.index(Why.SHARE), REASONS.index(Why.RELEASED), REASONS.index(Why.FAILED)


# --- what is known of experts ---


@njit(**ENTRY)
def is_resident(state: State, layer: int, expert: int) -> bool:
    """Whether the expert is here, complete; changes nothing."""
    return places.status_of(state, _key(state, layer, expert)) == RESIDENT


@njit(**COMMAND)
def set_values(state: State, layer: int, values: Any) -> None:
    """What each expert of ``layer`` is worth by its next use, integers ``[experts]``."""
    setup = state.setup
    if not 0 <= layer < setup.layers or len(values) != setup.experts:
        raise ValueError("set_values: give one value for each expert of a layer")
    for value in values:
        if not -setup.value_limit <= value < setup.value_limit:
            raise ValueError("set_values: a value does not fit its bits")
    _begin(state)
    places.set_values(state, layer, values)
    state.numbers.entries += setup.experts
    waiting_here = 0  # their worth is kept in the queue
    for at in range(state.numbers.waiting):
        waiting_here += state.keys[state.queue[at]].layer == layer
    state.numbers.cycles += setup.values_cycles
    _walk(state, state.numbers.waiting, waiting_here)
    _end(state)


@njit(**ENTRY)
def preload(state: State, layer: int, experts: Any) -> None:
    """Before anything runs: these are resident, each the most recently used of all."""
    _begin(state)
    for expert in experts:
        key = _key(state, layer, expert)
        group = state.groups[places.group_of(state, key)]
        if places.status_of(state, key) != ABSENT or group.held >= group.share:
            raise ValueError("preload: it is not absent, or its group has no place left")
        places.claim(state, key, True)
        places.arrive(state, key)
    state.numbers.cycles = TOUCH * len(experts)
    _end(state)


@njit(**ENTRY)
def fix(state: State, layer: int, experts: Any, fixed: bool) -> None:
    """These never give way (a static placement), or may again; they need not be resident."""
    _begin(state)
    for expert in experts:
        places.fix(state, _key(state, layer, expert), fixed)
    state.numbers.cycles += TOUCH * len(experts)
    _end(state)


# --- what layers need ---


@njit(**COMMAND)
def demand(state: State, layer: int, experts: Any) -> None:
    """A gate chose these, distinct, integers; its layer runs once all are resident."""
    numbers = state.numbers
    _check_distinct(state, layer, experts)
    if numbers.needed + len(experts) > state.setup.most_pins:
        raise ValueError("demand: more uses at once than the limits allow")
    _begin(state)
    numbers.needed += len(experts)
    first_key = layer * state.setup.experts
    for expert in experts:
        key = first_key + expert
        places.pin(state, key)
        of = state.keys[key]
        if of.status == RESIDENT:
            numbers.hits += 1
            numbers.useful += of.unused
            of.unused = False
            _say(state, _HIT, key, _NO_REASON)
        elif of.status == ABSENT:
            numbers.waits += 1
            _say(state, _WAIT, key, _NO_REASON)
        else:
            numbers.promoted += 1
            _say(state, _PROMOTE, key, _NO_REASON)
            _promote(state, key)
    numbers.cycles += TOUCH * len(experts) + CHOOSE
    for expert in experts:  # after the others: what is promoted is not dropped for them
        if places.status_of(state, first_key + expert) == ABSENT:
            state.keys[first_key + expert].demanded = True
            numbers.cycles += CHOOSE + TOUCH
            _enqueue(state, first_key + expert)
    _end(state)


@njit(**ENTRY)
def demand_residents(state: State, layer: int, experts: Any) -> None:
    """As ``demand`` with ``resident_only``: what is missing is computed elsewhere."""
    numbers = state.numbers
    _check_distinct(state, layer, experts)
    first_key = layer * state.setup.experts
    needed = 0
    for expert in experts:
        needed += places.status_of(state, first_key + expert) == RESIDENT
    if numbers.needed + needed > state.setup.most_pins:
        raise ValueError("demand: more uses at once than the limits allow")
    _begin(state)
    numbers.needed += needed
    for expert in experts:
        key = first_key + expert
        of = state.keys[key]
        if of.status == RESIDENT:
            places.pin(state, key)
            numbers.hits += 1
            numbers.useful += of.unused
            of.unused = False
            _say(state, _HIT, key, _NO_REASON)
        else:
            _say(state, _ELSEWHERE, key, _NO_REASON)
    numbers.cycles += TOUCH * len(experts) + CHOOSE
    _end(state)


@njit(**COMMAND)
def release(state: State, layer: int, experts: Any) -> None:
    """The layer that demanded these has run, or waits for them no more; the last is the most recently used."""
    numbers = state.numbers
    _check_distinct(state, layer, experts)
    first_key = layer * state.setup.experts
    for expert in experts:
        if state.keys[first_key + expert].pins < 1 or numbers.needed < len(experts):
            raise ValueError("release: experts that nobody demanded")
    _begin(state)
    numbers.needed -= len(experts)
    for expert in experts:
        key = first_key + expert
        places.unpin(state, key)
        if state.keys[key].pins == 0:
            _leave(state, key)
    if len(experts):
        _trim(state, places.group_of(state, first_key))
    numbers.cycles += TOUCH * len(experts)
    _end(state)


# --- what is expected ---


@njit(**COMMAND)
def prefetch(state: State, layer: int, experts: Any, chances: Any, deadline: int) -> None:
    """``layer`` wants these, distinct, at ``deadline``, with chances in units of ``chance_scale``, best first."""
    _check_distinct(state, layer, experts)
    if len(chances) != len(experts):
        raise ValueError("prefetch: give one chance for each expert")
    for chance in chances:
        if not 0 <= chance < state.setup.chance_limit:
            raise ValueError("prefetch: a chance does not fit its bits")
    _begin(state)
    for at in range(len(experts)):
        _expect(state, layer * state.setup.experts + experts[at], chances[at], deadline)
    state.numbers.cycles += TOUCH * len(experts)
    _end(state)


@njit(**COMMAND)
def expire(state: State, deadline: int) -> None:
    """The gate of ``deadline`` is known, and its demands are made: what else was for it, or earlier, is useless."""
    _begin(state)
    numbers = state.numbers
    numbers.now = max(numbers.now, deadline)
    waiting, dropped, at = numbers.waiting, 0, 0
    while at < numbers.waiting:
        key = state.queue[at]
        if _is_useless(state, key):
            _drop(state, key, _USELESS)
            dropped += 1
        else:
            at += 1
    for key in state.moving:
        if key != NONE and _is_useless(state, key):
            state.keys[key].useless = True
    numbers.cycles += CHOOSE
    _walk(state, waiting, dropped)
    _end(state)


# --- what the link does ---


@njit(**COMMAND)
def grant(state: State) -> None:
    """A channel is free: the transfer that starts there, if there is one worth it."""
    numbers = state.numbers
    if free_channel(state) == NONE:
        raise ValueError("grant: every channel is taken")
    _begin(state)
    numbers.cycles += CHOOSE
    while numbers.channel == NONE and numbers.waiting:
        numbers.cycles += state.setup.look_cycles + CHOOSE
        _start(state, queue.first(state))
        numbers.cycles += CHOOSE * (numbers.channel == NONE)
    if numbers.channel == NONE and state.setup.background:
        key = places.most_gain(state)
        if key != NONE:
            numbers.cycles += TOUCH
            queue.append(state, key)
            if _is_useless(state, key):  # what was once predicted of it is past
                places.replace_chance(state, key, 0, FOREVER)
            _start(state, key)
    _end(state)


@njit(**COMMAND)
def preempt(state: State, channel: int) -> None:
    """The transfer on ``channel`` has passed a chunk: it goes on, unless an action says pause or drop."""
    key = _on(state, channel)
    _begin(state)
    of = state.keys[key]
    state.numbers.cycles += CHOOSE
    if not of.demanded and queue.holds_demand(state):
        state.moving[channel] = NONE
        state.numbers.cycles += TOUCH
        if of.useless:
            _give_up(state, key, _USELESS)
        else:
            _say(state, _PAUSE, key, _NO_REASON)
            _enqueue(state, key)
    _end(state)


@njit(**COMMAND)
def arrive(state: State, channel: int) -> None:
    """The transfer on ``channel`` is complete."""
    key = _on(state, channel)
    _begin(state)
    numbers, of = state.numbers, state.keys[key]
    state.moving[channel] = NONE
    places.arrive(state, key)
    if of.demanded:
        numbers.moved_demands += 1
    else:
        numbers.moved_prefetches += 1
        of.unused = True
    of.demanded = of.useless = False
    of.tries = 0
    numbers.cycles += TOUCH
    if of.pins == 0:
        _leave(state, key)
        _trim(state, places.group_of(state, key))
    _end(state)


@njit(**ENTRY)
def fail(state: State, channel: int) -> None:
    """The transfer on ``channel`` failed: nothing of it counts as moved, and nothing moves there now."""
    key = _on(state, channel)
    _begin(state)
    numbers, of = state.numbers, state.keys[key]
    state.moving[channel] = NONE
    numbers.failed += 1
    numbers.cycles += TOUCH
    if of.demanded and of.tries < state.setup.retries:
        of.tries += 1
        _say(state, _PAUSE, key, _FAILED)
        _enqueue(state, key)
    else:
        numbers.lost += of.demanded
        of.demanded = False
        _give_up(state, key, _FAILED)
    _end(state)


@njit(**INLINE)
def transfer_all(state: State) -> None:
    """What waits, and may move, moves in no time, on the channel that is free."""
    while True:
        grant(state)
        if state.numbers.channel == NONE:
            return
        arrive(state, state.numbers.channel)


@njit(**COMMAND)
def free_channel(state: State) -> int:
    """The channel that the next transfer takes; ``NONE`` where every one is taken."""
    for channel in range(len(state.moving)):
        if state.moving[channel] == NONE:
            return channel
    return NONE


# --- the rules ---


@njit(**INLINE)
def _begin(state: State) -> None:
    """No answer yet."""
    numbers = state.numbers
    numbers.actions = numbers.entries = numbers.cycles = 0
    numbers.channel = NONE


@njit(**INLINE)
def _end(state: State) -> None:
    """Account the command's work."""
    numbers = state.numbers
    numbers.cycles += BEGIN_AND_END
    numbers.all_entries += numbers.entries
    numbers.all_cycles += numbers.cycles


@njit(**INLINE)
def _walk(state: State, waiting: int, touched: int) -> None:
    """Account a visit of all that wait, some of which are touched."""
    state.numbers.cycles += WALK * waiting + CHOOSE + TOUCH * touched


@njit(**INLINE)
def _overflow(state: State) -> None:
    """Account that the queue was full."""
    state.numbers.cycles += state.setup.look_cycles + CHOOSE + TOUCH


@njit(**INLINE)
def _say(state: State, kind: int, key: int, why: int) -> None:
    numbers = state.numbers
    if len(state.actions):
        action = state.actions[numbers.actions]
        action.kind, action.key, action.why = kind, key, why
    numbers.actions += 1


@njit(**INLINE)
def _expect(state: State, key: int, chance: int, deadline: int) -> None:
    """One expert of a prediction."""
    numbers, horizon = state.numbers, state.setup.horizon
    if deadline <= numbers.now or (deadline - numbers.now > horizon and deadline != FOREVER):
        numbers.refused += 1
        _say(state, _REFUSE, key, _LATE if deadline <= numbers.now else _FAR)
        return
    places.set_chance(state, key, chance, deadline)
    if state.keys[key].status != ABSENT:
        state.keys[key].useless = False
        _say(state, _HOLD, key, _NO_REASON)
        return
    places.become(state, key, QUEUED)
    loser = queue.add(state, key)
    if loser != NONE:
        _overflow(state)
    if loser == key:
        places.free(state, key)
        numbers.refused += 1
        _say(state, _REFUSE, key, _FULL)
        return
    _say(state, _QUEUE, key, _NO_REASON)
    if loser != NONE:
        _give_up(state, loser, _FULL)


@njit(**INSIDE)
def _promote(state: State, key: int) -> None:
    """A gate waits for what is queued or moving."""
    of = state.keys[key]
    of.useless = False
    if of.demanded:
        return
    if of.status == QUEUED:
        queue.promote(state, key)
    of.demanded = True


@njit(**INSIDE)
def _enqueue(state: State, key: int) -> None:
    """Enter the queue, with what was demanded or moving before; who loses an entry there is dropped."""
    places.become(state, key, QUEUED)
    loser = queue.add(state, key)
    if loser != NONE:
        _overflow(state)
        _give_up(state, loser, _FULL)


@njit(**INLINE)
def _start(state: State, key: int) -> None:
    """Give a channel and a place to what is first in the queue, or drop it if it may not enter."""
    numbers, of = state.numbers, state.keys[key]
    place, victim = of.place, NONE
    numbers.cycles += TOUCH
    if place != NO_PLACE:
        numbers.cycles += CHOOSE
    else:
        place, victim = _claim(state, key, of.demanded)
        if place == places.REFUSED:
            _drop(state, key, _WORTH)
            return
    places.become(state, key, MOVING)
    queue.remove(state, key)
    channel = free_channel(state)
    state.moving[channel] = key
    numbers.passed += place == NO_PLACE
    numbers.channel, numbers.key, numbers.place = channel, key, place
    numbers.victim, numbers.demanded = victim, of.demanded


@njit(**INLINE)
def _claim(state: State, key: int, demanded: bool) -> tuple[int, int]:
    """A place and who lost it; ``(REFUSED, NONE)`` where it may not enter."""
    place, victim = places.claim(state, key, demanded)
    if place == NO_PLACE:
        paused = queue.last_with_place(state, places.group_of(state, key))
        state.numbers.cycles += state.setup.look_cycles + CHOOSE
        if paused != NONE:
            state.numbers.cycles += TOUCH
            _drop(state, paused, _PLACE)
            place, victim = places.claim(state, key, True)
    if victim != NONE:
        _evicted(state, victim, _NO_REASON)
    return place, victim


@njit(**INSIDE)
def _trim(state: State, group: int) -> None:
    """Let residents give way until the group holds no more than its share, where they may."""
    state.numbers.cycles += CHOOSE
    while places.over_share(state, group):
        victim = places.lowest(state, group)
        state.numbers.cycles += CHOOSE
        if victim == NONE:
            break
        places.free(state, victim)
        state.numbers.cycles += TOUCH + CHOOSE
        _evicted(state, victim, _SHARE)


@njit(**INLINE)
def _evicted(state: State, key: int, why: int) -> None:
    numbers, of = state.numbers, state.keys[key]
    numbers.evicted += 1
    numbers.wasted += of.unused
    of.unused = False
    _say(state, _EVICT, key, why)


@njit(**INLINE)
def _leave(state: State, key: int) -> None:
    """Nobody needs ``key`` any more."""
    of = state.keys[key]
    if of.status == RESIDENT and of.place == NO_PLACE:
        places.free(state, key)
        of.unused = False
    elif of.demanded:  # released before it came: it is what is predicted of it
        of.demanded = False
        if _is_useless(state, key):
            if of.status == QUEUED:
                _drop(state, key, _RELEASED)
            else:
                of.useless = True


@njit(**INSIDE)
def _drop(state: State, key: int, why: int) -> None:
    """Give up what waits."""
    queue.remove(state, key)
    _give_up(state, key, why)


@njit(**INSIDE)
def _give_up(state: State, key: int, why: int) -> None:
    """Give up what neither waits nor moves any more."""
    places.free(state, key)
    state.keys[key].useless = False
    state.keys[key].tries = 0
    state.numbers.dropped += 1
    _say(state, _DROP, key, why)


@njit(**INLINE)
def _is_useless(state: State, key: int) -> bool:
    """Whether what waits or moves was for a deadline that is past."""
    return not state.keys[key].demanded and state.keys[key].deadline <= state.numbers.now


# --- what is refused ---


@njit(**INLINE)
def _key(state: State, layer: int, expert: int) -> int:
    if not (0 <= layer < state.setup.layers and 0 <= expert < state.setup.experts):
        raise ValueError("a layer or an expert is beyond the limits")
    return layer * state.setup.experts + expert


@njit(**INLINE)
def _check_distinct(state: State, layer: int, experts: Any) -> None:
    for at in range(len(experts)):
        _key(state, layer, experts[at])
        for before in range(at):
            if experts[before] == experts[at]:
                raise ValueError("an expert is named twice")
    if not 0 <= layer < state.setup.layers:
        raise ValueError("a layer or an expert is beyond the limits")


@njit(**INLINE)
def _on(state: State, channel: int) -> int:
    """What moves on a channel."""
    if not 0 <= channel < len(state.moving) or state.moving[channel] == NONE:
        raise ValueError("nothing moves on this channel")
    return state.moving[channel]
