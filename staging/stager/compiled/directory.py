"""Who gives way, who enters, and which absent expert gains most: ``staging.stager.directory``, compiled.

A circuit looks at every entry of a group. Here the answer of each layer is remembered until that layer changes (see
``state.LAYER``), while the entries are counted as the circuit's.
"""

from typing import Any

from catalog.compiled import njit
from staging.stager.compiled.state import ENTRY, INLINE, INSIDE, NEVER, UNKNOWN, State
from staging.stager.cycles import CHOOSE, COMPARE, TOUCH
from staging.stager.directory import ABSENT, MOVING, NO_PLACE, NONE, RESIDENT

REFUSED = -2
"""In place of a place: it may not enter."""


@njit(**INLINE)
def group_of(state: State, key: int) -> int:
    """The group of layers that ``key`` shares places with."""
    return state.keys[key].layer if len(state.groups) > 1 else 0


@njit(**INLINE)
def worth(state: State, key: int) -> int:
    """A time."""
    of = state.keys[key]
    return of.value + (of.chance if of.deadline > state.numbers.now else 0)


@njit(**INLINE)
def status_of(state: State, key: int) -> int:
    """Of ``Status``."""
    return state.keys[key].status


@njit(**INLINE)
def over_share(state: State, group: int) -> int:
    """Spare places that a group holds."""
    return max(0, state.groups[group].held - state.groups[group].share)


# --- what may change who gives way, or who gains most ---


@njit(**INLINE)
def become(state: State, key: int, status: int) -> None:
    """``key`` is absent, queued or moving from now on (``arrive`` makes it resident)."""
    before = state.keys[key].status
    if before == RESIDENT:
        _stays(state, key)
        _strike(state, key)
    elif before == ABSENT:
        layer = state.layers[state.keys[key].layer]
        if layer.most == key:
            layer.most = UNKNOWN
    state.keys[key].status = status
    if status == ABSENT:
        _may_enter(state, key)


@njit(**INLINE)
def arrive(state: State, key: int) -> None:
    """The expert is complete."""
    state.keys[key].status = RESIDENT
    _list(state, key)
    _stamp(state, key)
    if _may_give_way(state.keys[key]):
        _gives_way(state, key)


@njit(**INLINE)
def pin(state: State, key: int) -> None:
    """A layer that needs it runs."""
    state.keys[key].pins += 1
    _stays(state, key)


@njit(**INLINE)
def unpin(state: State, key: int) -> None:
    """The layer has run: this use ends."""
    state.keys[key].pins -= 1
    _stamp(state, key)
    if _may_give_way(state.keys[key]):
        _gives_way(state, key)


@njit(**INLINE)
def fix(state: State, key: int, fixed: bool) -> None:
    """It never gives way, or may again."""
    state.keys[key].fixed = fixed
    state.layers[state.keys[key].layer].lowest = UNKNOWN


@njit(**INSIDE)
def set_values(state: State, layer: int, values: Any) -> None:
    """By what each expert's next use is worth, ``[experts]`` in units of ``value_scale``."""
    experts, scale = state.setup.experts, state.setup.value_scale
    for expert in range(experts):
        state.keys[layer * experts + expert].value = values[expert] * scale
    state.layers[layer].lowest = state.layers[layer].most = UNKNOWN


@njit(**INLINE)
def set_chance(state: State, key: int, chance: int, deadline: int) -> None:
    """That the layer of ``key`` wants it at ``deadline``; an earlier one that lies ahead stands."""
    of = state.keys[key]
    if not state.numbers.now < of.deadline < deadline:
        replace_chance(state, key, chance * state.setup.chance_scale, deadline)


@njit(**INLINE)
def replace_chance(state: State, key: int, chance: int, deadline: int) -> None:
    """Chance, a time, and deadline, whatever was known before."""
    of, layer = state.keys[key], state.layers[state.keys[key].layer]
    of.chance, of.deadline = chance, deadline
    layer.next_deadline = min(layer.next_deadline, deadline)
    _changed(state, key)


@njit(**INLINE)
def _changed(state: State, key: int) -> None:
    """The worth of ``key`` is another."""
    of = state.keys[key]
    if of.status == ABSENT:
        layer = state.layers[of.layer]
        if layer.most == key:
            layer.most = UNKNOWN
        _may_enter(state, key)
    elif _may_give_way(of):
        _stays(state, key)
        _gives_way(state, key)


@njit(**INLINE)
def _may_give_way(of: Any) -> bool:
    return of.status == RESIDENT and of.pins == 0 and not of.fixed


@njit(**INLINE)
def _stays(state: State, key: int) -> None:
    """``key`` does not give way any more, or not as it did."""
    layer = state.layers[state.keys[key].layer]
    if layer.lowest == key:
        layer.lowest = UNKNOWN


@njit(**INLINE)
def _gives_way(state: State, key: int) -> None:
    """``key`` may give way from now on, or as it does now."""
    layer, of, gain = state.layers[state.keys[key].layer], state.keys[key], worth(state, key)
    if layer.lowest == NONE or (
        layer.lowest != UNKNOWN
        and _before(state, gain, of.last, key, layer.lowest_worth, layer.lowest_last, layer.lowest)
    ):
        layer.lowest, layer.lowest_worth, layer.lowest_last = key, gain, of.last
    layer.wraps_at = min(layer.wraps_at, _wraps_at(state, key))


@njit(**INLINE)
def _may_enter(state: State, key: int) -> None:
    """``key`` is absent from now on, or of another worth."""
    layer = state.layers[state.keys[key].layer]
    if layer.most == UNKNOWN:
        return
    gain = worth(state, key)
    if layer.most == NONE or gain > layer.most_worth or (gain == layer.most_worth and key < layer.most):
        layer.most, layer.most_worth = key, gain


@njit(**INLINE)
def _list(state: State, key: int) -> None:
    """``key`` is among the residents of its layer from now on."""
    of = state.keys[key]
    layer = state.layers[of.layer]
    of.nth = layer.residents
    state.keys[of.layer * state.setup.experts + of.nth].resident = key
    layer.residents += 1


@njit(**INLINE)
def _strike(state: State, key: int) -> None:
    """``key`` is not among them any more; the last takes its place in the list."""
    of = state.keys[key]
    layer, first_key = state.layers[of.layer], of.layer * state.setup.experts
    layer.residents -= 1
    last = state.keys[first_key + layer.residents].resident
    state.keys[first_key + of.nth].resident = last
    state.keys[last].nth = of.nth


@njit(**INLINE)
def _stamp(state: State, key: int) -> None:
    """A use of ``key``, which may not give way meanwhile, ends: the latest of all."""
    state.keys[key].last = state.numbers.uses & state.setup.stamp_mask
    state.numbers.uses += 1


@njit(**INLINE)
def _age(state: State, last: int) -> int:
    """Uses that have ended since the one of stamp ``last``, as the stamps tell."""
    return (state.numbers.uses - 1 - last) & state.setup.stamp_mask


@njit(**INLINE)
def _wraps_at(state: State, key: int) -> int:
    """How many uses have ended when ``key`` looks young again."""
    if not state.setup.by_recency:
        return NEVER
    return state.numbers.uses + state.setup.stamp_mask - _age(state, state.keys[key].last) + 1


@njit(**INLINE)
def _before(state: State, gain: int, last: int, key: int, other_gain: int, other_last: int, other: int) -> bool:
    """Whether ``key``, of worth ``gain`` and stamp ``last``, gives way before ``other``."""
    if gain != other_gain:
        return gain < other_gain
    if state.setup.by_recency:
        age, other_age = _age(state, last), _age(state, other_last)
        if age != other_age:
            return age > other_age
    return key > other


# --- who gives way, and who gains most ---


@njit(**ENTRY)
def lowest(state: State, group: int) -> int:
    """Who gives way in ``group``; ``NONE`` where nobody may. Counts every entry of the group."""
    numbers, least, gain, stamp = state.numbers, NONE, 0, 0
    first, last = _layers_of(state, group)
    numbers.cycles += state.setup.scan_cycles
    numbers.entries += (last - first) * state.setup.experts
    for layer in range(first, last):
        of = state.layers[layer]
        _pass_deadlines(state, layer)
        if of.lowest == UNKNOWN or numbers.uses >= of.wraps_at:
            _find_lowest(state, layer)
        if of.lowest != NONE and (
            least == NONE or _before(state, of.lowest_worth, of.lowest_last, of.lowest, gain, stamp, least)
        ):
            least, gain, stamp = of.lowest, of.lowest_worth, of.lowest_last
    return least


@njit(**ENTRY)
def most_gain(state: State) -> int:
    """The absent expert that is worth moving most; ``NONE`` where none is."""
    best, most = NONE, state.setup.price
    for group in range(len(state.groups)):
        first, last = _layers_of(state, group)
        state.numbers.entries += (last - first) * state.setup.experts
        state.numbers.cycles += CHOOSE + state.setup.scan_cycles + CHOOSE
        key, gain = NONE, 0
        for layer in range(first, last):
            _pass_deadlines(state, layer)
            if state.layers[layer].most == UNKNOWN:
                _find_most(state, layer)
            of = state.layers[layer]
            if of.most != NONE and (key == NONE or of.most_worth > gain):
                key, gain = of.most, of.most_worth
        if key == NONE:
            continue
        if state.groups[group].held >= state.groups[group].share:
            victim = lowest(state, group)
            state.numbers.cycles += CHOOSE
            if victim == NONE:
                continue
            gain -= worth(state, victim)
        state.numbers.cycles += CHOOSE
        if gain > most:
            best, most = key, gain
    state.numbers.cycles += CHOOSE
    return best


@njit(**INLINE)
def _layers_of(state: State, group: int) -> tuple[int, int]:
    """The first layer of a group, and the one after its last."""
    return (group, group + 1) if len(state.groups) > 1 else (0, len(state.layers))


@njit(**INLINE)
def _pass_deadlines(state: State, layer: int) -> None:
    """If a deadline of the layer is past by now, what is remembered of it does not hold."""
    if state.layers[layer].next_deadline <= state.numbers.now:
        _forget(state, layer)


@njit(**INSIDE)
def _forget(state: State, layer: int) -> None:
    """What is remembered of the layer, all but the next deadline ahead."""
    of, now, experts = state.layers[layer], state.numbers.now, state.setup.experts
    of.lowest = of.most = UNKNOWN
    coming = NEVER
    for key in range(layer * experts, (layer + 1) * experts):
        deadline = state.keys[key].deadline
        if now < deadline < coming:
            coming = deadline
    of.next_deadline = coming


@njit(**INSIDE)
def _find_lowest(state: State, layer: int) -> None:
    of, first_key = state.layers[layer], layer * state.setup.experts
    least, least_worth, least_last, wraps_at = NONE, 0, 0, NEVER
    for nth in range(of.residents):
        key = state.keys[first_key + nth].resident
        other = state.keys[key]
        if _may_give_way(other):
            wraps_at = min(wraps_at, _wraps_at(state, key))
            gain = worth(state, key)
            if least == NONE or _before(state, gain, other.last, key, least_worth, least_last, least):
                least, least_worth, least_last = key, gain, other.last
    of.lowest, of.lowest_worth, of.lowest_last, of.wraps_at = least, least_worth, least_last, wraps_at


@njit(**INSIDE)
def _find_most(state: State, layer: int) -> None:
    experts = state.setup.experts
    best, most = NONE, 0
    for key in range(layer * experts, (layer + 1) * experts):
        if state.keys[key].status == ABSENT and (best == NONE or worth(state, key) > most):
            best, most = key, worth(state, key)
    state.layers[layer].most, state.layers[layer].most_worth = best, most


# --- places ---


@njit(**INSIDE)
def claim(state: State, key: int, demanded: bool) -> tuple[int, int]:
    """A place for an expert that holds none, and who gave way; ``(REFUSED, NONE)`` where it may not enter."""
    group, price = group_of(state, key), state.setup.price
    state.numbers.cycles += CHOOSE
    if state.groups[group].held < state.groups[group].share:
        if not demanded and worth(state, key) <= price:
            return REFUSED, NONE
        return _enter(state, key, group, _take_free(state)), NONE
    victim = lowest(state, group)
    state.numbers.cycles += COMPARE
    if victim != NONE and (demanded or worth(state, key) > worth(state, victim) + price):
        place = vacate(state, victim)
        state.numbers.cycles += TOUCH
        return _enter(state, key, group, place), victim
    if not demanded:
        return REFUSED, NONE
    taken = 0
    for other in range(len(state.groups)):
        taken += over_share(state, other)
    if taken < state.setup.spare:
        return _enter(state, key, group, _take_free(state)), NONE
    become(state, key, MOVING)
    return NO_PLACE, NONE


@njit(**INSIDE)
def free(state: State, key: int) -> None:
    """The expert is absent from now on; its place, where it holds one, is free."""
    place = vacate(state, key)
    if place != NO_PLACE:
        state.is_free[place] = True
        state.numbers.first_free = min(state.numbers.first_free, place)


@njit(**INLINE)
def vacate(state: State, key: int) -> int:
    """The expert is absent from now on; the place that nobody holds thereby, or ``NO_PLACE``."""
    place = state.keys[key].place
    become(state, key, ABSENT)
    state.keys[key].place = NO_PLACE
    if place != NO_PLACE:
        state.groups[group_of(state, key)].held -= 1
    return place


@njit(**INLINE)
def _enter(state: State, key: int, group: int, place: int) -> int:
    """The expert is moving to ``place``, which is returned."""
    state.keys[key].place = place
    state.groups[group].held += 1
    become(state, key, MOVING)
    return place


@njit(**INLINE)
def _take_free(state: State) -> int:
    """The lowest free place; there is one."""
    place = state.numbers.first_free
    while not state.is_free[place]:
        place += 1
    state.is_free[place] = False
    state.numbers.first_free = place + 1
    return place
