"""Steps, gates and layers, compiled; the order of things within an instant is `perfmodel.engine.simulation`'s.

The device needs no events of its own: what is available runs in order, so the time at which it has run is known at
once, and a layer ends when that has passed, nothing is to come, and the host's result is there.

What runs in every layer is inlined (``INLINE``), and therefore has one place where it is called: a call would hand over
every array of the three tuples, one by one, which took half of the time.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from perfmodel.compiled import host, link
from perfmodel.compiled.state import NEVER, NUMBERS, Given, State
from perfmodel.fit import check_fit
from perfmodel.run import Parts, Run
from perfmodel.workload import Durations, Workload
from predictor.policies.counts import Counts
from predictor.policies.plan import Plan
from predictor.policies.sooner import fetched
from staging.stager.compiled import commands, queue
from staging.stager.compiled import directory as places
from staging.stager.compiled.state import ENTRY, INLINE, INSIDE, empty_state
from staging.stager.compiled.state import State as Stager
from staging.stager.directory import ABSENT, RESIDENT

NOT_ASKED = -1
"""In the place of a time: the answer is not asked for."""


def simulate(workload: Workload, durations: Durations, plan: Plan) -> Run:
    """Run all steps, one after the other: the same as `perfmodel.engine.simulate`, but for progress.

    Raises:
        ForestageError: if the three do not fit each other.
        ValueError: where the stager is told what its limits do not hold.
    """
    check_fit(workload, durations, plan)
    stager = empty_state(plan.limits, plan.settings, record_actions=False)
    given, state = _given(workload, durations, plan), _empty(workload, plan)
    _preload(stager, plan.resident, np.empty(1, np.int64), plan.fixed)
    _run(state, given, stager)
    n, told = state.numbers, stager.numbers
    counts = {name: int(n[name]) for name in ("lookups", "hits", "fetched", "computed", "demands", "late", "ahead")}
    decided = {name: int(told[name]) for name in ("useful", "wasted", "dropped", "refused", "evicted")}
    parts = {name: int(n[name]) for name in ("compute", "hbm", "demand_wait", "late_wait", "host_wait")}
    run = Run(
        step_ps=state.step_ps,
        parts=Parts(**parts),
        counts=Counts(**counts, **decided, abandoned_bytes=int(n["abandoned"])),
        link_busy_ps=int(n["link_busy"]),
        host_busy_ps=int(n["host_busy"]),
    )
    assert sum(parts.values()) == int(state.step_ps.sum()), "the parts do not sum to the time of the steps"
    return run


def _given(workload: Workload, durations: Durations, plan: Plan) -> Given:
    values, predictions = plan.values, plan.predictions
    return Given(
        layers=workload.layers,
        experts=workload.experts,
        tokens_of=workload.tokens_of,
        offsets=workload.offsets,
        timed=workload.timed,
        before_gate_ps=workload.before_gate_ps,
        before_gate_compute_ps=workload.before_gate_compute_ps,
        shared_ps=workload.shared_ps,
        shared_compute_ps=workload.shared_compute_ps,
        prefetch_engine_ps=workload.prefetch_engine_ps,
        values_engine_ps=workload.values_engine_ps,
        begin_engine_ps=workload.begin_engine_ps,
        chunk_bytes=durations.chunk_bytes,
        chunk_ps=durations.chunk_ps,
        expert_ps=durations.expert_ps,
        expert_compute_ps=durations.expert_compute_ps,
        host_work=durations.host_work,
        host_free_rate=durations.host_free_rate,
        host_shared_rate=durations.host_shared_rate,
        host_groups=durations.host_groups,
        host_before_ps=durations.host_before_ps,
        host_after_ps=durations.host_after_ps,
        host_token_ps=durations.host_token_ps,
        may_fetch=plan.missing.may_fetch,
        may_compute=plan.missing.may_compute,
        has_values=values is not None,
        values_at_step_end=values is not None and values.at_step_end,
        values=np.empty((0, 0, 0), np.int32) if values is None else _plain(values.rows),
        has_predictions=predictions is not None,
        distances=np.array(() if predictions is None else predictions.distances, np.int64),
        predicted=np.empty((0, 0, 0, 0), np.int16) if predictions is None else _plain(predictions.experts),
        chances=np.empty((0, 0, 0, 0), np.int32) if predictions is None else _plain(predictions.chances),
    )


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """As numba takes it: not a subclass (a memory map), and in one type of layout, without a copy where it has that."""
    return np.ascontiguousarray(np.asarray(array))


def _empty(workload: Workload, plan: Plan) -> State:
    layers, experts, steps = workload.layers, workload.model_experts, len(workload.timed)
    events = steps * (layers + 1) if plan.predictions is not None else 0
    events += steps * layers if plan.values is not None and not plan.values.at_step_end else 0
    numbers = np.zeros(1, NUMBERS)[0]
    for name in ("moving", "host_began", "host_result"):
        numbers[name] = -1
    for name in ("arrives", "stops", "host_next"):
        numbers[name] = NEVER
    numbers["told"] = 1
    keys = layers * experts
    return State(
        numbers=numbers,
        step_ps=np.zeros(steps, np.int64),
        answer_ps=np.empty(events, np.int64),
        answer_event=np.empty(events, np.int64),
        paused=np.empty(plan.limits.queue_depth + 2, np.int64),
        chunks=np.zeros(keys, np.int64),
        began=np.zeros(keys, np.uint8),
        awaited=np.zeros(keys, np.int64),
        host=np.empty(experts, np.int64),
        host_experts=np.empty(experts, np.int64),
        demanded=np.empty(experts, np.int64),
        scratch=np.empty(experts, np.int64),
        scratch_chances=np.empty(experts, np.int64),
        worth=np.empty(experts, np.int64),
        missing_tokens=np.empty(experts, np.int64),
        missing_at=np.empty(experts, np.int64),
        chosen=np.empty(experts, np.bool_),
    )


@njit(**ENTRY)
def _preload(stager: Stager, resident: NDArray[np.int64], one: NDArray[np.int64], fixed: bool) -> None:
    experts = stager.setup.experts
    for key in resident:
        one[0] = key % experts
        commands.preload(stager, key // experts, one)
        commands.fix(stager, key // experts, one, fixed)


@njit(**ENTRY)
def _run(state: State, given: Given, stager: Stager) -> None:
    n = state.numbers
    for step in range(len(given.timed)):
        n.step = step
        if not given.timed[step]:
            _warm(state, given, stager)
            continue
        began = n.now
        if given.has_predictions:
            _ask(state, given, -1, given.begin_engine_ps[step], NOT_ASKED)
        for layer in range(given.layers):
            _begin_layer(state, given, layer)
            while True:
                _pass_time(state, given, stager)
                if n.gate_at == NEVER:
                    break
                _gate(state, given, stager, layer)
                if _needs_nothing(state):
                    break
            _end_layer(state, stager, layer)
        state.step_ps[step] = n.now - began
        _set_values_at_end(state, given, stager)
    link.close(state, given)


# --- instants ---


@njit(**INLINE)
def _pass_time(state: State, given: Given, stager: Stager) -> None:
    """Until the device's next event: everything before it, and what is due then and comes first."""
    n = state.numbers
    while True:
        _do_due(state, given, stager)
        if _device_due(state) == n.now:
            return
        link.offer(state, given, stager)
        n.now = min(_due(state), _device_due(state))


@njit(**INLINE)
def _due(state: State) -> int:
    """When the link, the host or the prefetch engine does something next."""
    n = state.numbers
    return min(min(n.arrives, n.stops), min(n.host_next, _next_answer(state)))


@njit(**INLINE)
def _next_answer(state: State) -> int:
    n = state.numbers
    return state.answer_ps[n.read] if n.read < n.asked else NEVER


@njit(**INLINE)
def _do_due(state: State, given: Given, stager: Stager) -> None:
    """Everything of link, host and prefetch engine that is due now, one after the other."""
    n = state.numbers
    while True:
        if n.arrives == n.now or n.stops == n.now:
            link.step_on(state, given, stager)
        elif n.host_next == n.now:
            host.step_on(state, given)
        elif _next_answer(state) == n.now:
            n.read += 1
            _answered(state, given, stager, state.answer_event[n.read - 1])
        else:
            return


# --- the device ---


@njit(**INLINE)
def _device_due(state: State) -> int:
    """When the device does something next, by what is known: a gate, or the end of a layer."""
    n = state.numbers
    if n.gate_at != NEVER:
        return n.gate_at
    if n.coming > 0 or n.host_first < n.host_last or n.host_next != NEVER:
        return NEVER
    return max(n.free_at, n.host_result)


@njit(**INLINE)
def _begin_layer(state: State, given: Given, layer: int) -> None:
    """The kernels before its gate run."""
    n = state.numbers
    takes_ps, compute_ps = given.before_gate_ps[n.step, layer], given.before_gate_compute_ps[n.step, layer]
    n.gate_at = n.now + takes_ps
    n.compute += compute_ps
    n.hbm += takes_ps - compute_ps


@njit(**INLINE)
def _needs_nothing(state: State) -> bool:
    """Whether the layer ends with its gate, before anything else that is due then."""
    n = state.numbers
    return _device_due(state) == n.now and n.free_at == n.now and n.host_result < 0


@njit(**INLINE)
def _end_layer(state: State, stager: Stager, layer: int) -> None:
    """It has run."""
    n = state.numbers
    n.host_wait += n.now - n.free_at
    if n.demanded:
        commands.release(stager, layer, state.demanded[: n.demanded])
        n.told = 1


@njit(**INLINE)
def _gate(state: State, given: Given, stager: Stager, layer: int) -> None:
    """The experts of the layer are known; those that are demanded are first in ``state.demanded``."""
    n = state.numbers
    at = n.step * given.layers + layer
    first, last = given.offsets[at], given.offsets[at + 1]
    first_key = layer * stager.setup.experts
    n.gate_at = NEVER
    n.free_at = n.now
    n.coming = 0
    if given.shared_ps[n.step] > 0:
        n.free_at += given.shared_ps[n.step]
        n.compute += given.shared_compute_ps[n.step]
        n.hbm += given.shared_ps[n.step] - given.shared_compute_ps[n.step]
    missing = 0
    for use in range(first, last):
        if stager.keys[first_key + given.experts[use]].status == RESIDENT:
            link.run_kernel(state, given, given.tokens_of[use])
        else:
            state.missing_at[missing] = use
            missing += 1
    n.lookups += last - first
    n.hits += last - first - missing
    if given.may_fetch and given.may_compute and missing:
        _choose(state, given, stager, first_key, missing)
    else:
        state.chosen[:missing] = given.may_fetch
    demanded = on_host = nth = 0
    for use in range(first, last):
        expert = given.experts[use]
        if nth < missing and state.missing_at[nth] == use:
            nth += 1
            if not state.chosen[nth - 1]:
                state.host[on_host] = given.tokens_of[use]
                state.host_experts[on_host] = expert
                on_host += 1
                continue
            late = stager.keys[first_key + expert].status != ABSENT
            state.awaited[first_key + expert] = 2 * given.tokens_of[use] + late
            n.coming += 1
        state.demanded[demanded] = expert
        demanded += 1
    n.fetched += n.coming
    n.computed += on_host
    n.demanded = demanded
    if demanded:
        commands.demand(stager, layer, state.demanded[:demanded])
        n.told = 1
    if given.has_predictions:
        commands.expire(stager, at)
        n.told = 1
    tells_values = given.has_values and not given.values_at_step_end
    _ask(
        state, given, layer,
        given.prefetch_engine_ps[n.step, layer] if given.has_predictions else NOT_ASKED,
        given.values_engine_ps[n.step, layer] if tells_values else NOT_ASKED,
    )  # fmt: skip
    host.begin_layer(state, given, on_host)


@njit(**INLINE)
def _choose(state: State, given: Given, stager: Stager, first_key: int, missing: int) -> None:
    """Which of the missing experts are fetched, into ``state.chosen``."""
    n, moving = state.numbers, -1
    for nth in range(missing):
        use = state.missing_at[nth]
        key = first_key + given.experts[use]
        state.missing_tokens[nth] = given.tokens_of[use]
        state.worth[nth] = places.worth(stager, key)
        if key == n.moving:
            moving = nth
    link_free_ps = 0
    if n.moving >= 0:
        link_free_ps = n.arrives - n.now
        chunk = link.first_chunk(state, given)
        if moving < 0 and chunk < len(given.chunk_ps) - 1:
            link_free_ps = n.since + given.chunk_ps[chunk] - given.chunk_ps[n.kept] - n.now
    fetched(
        state.missing_tokens[:missing], state.worth[:missing], moving, link_free_ps, n.free_at - n.now,
        given.chunk_ps[-1],
        given.expert_ps, given.host_work, given.host_free_rate, given.host_shared_rate, given.host_groups,
        given.host_before_ps, given.host_after_ps, given.host_token_ps, state.chosen[:missing],
    )  # fmt: skip


# --- what is known ahead ---


@njit(**INLINE)
def _ask(state: State, given: Given, layer: int, predictions_ps: int, values_ps: int) -> None:
    """The prefetch engine is asked for a layer's gate, or −1, the beginning of the step: an answer, or two.

    Either may be ``NOT_ASKED``; of two that are due at once, values come first.
    """
    n = state.numbers
    begins = max(n.now, n.answered)
    values_first = values_ps <= predictions_ps
    for nth in range(2):
        is_values = values_first == (nth == 0)
        takes_ps = values_ps if is_values else predictions_ps
        if takes_ps == NOT_ASKED:
            continue
        n.answered = begins + takes_ps
        state.answer_ps[n.asked] = n.answered
        state.answer_event[n.asked] = 2 * (n.step * (given.layers + 1) + layer + 1) + is_values
        n.asked += 1


@njit(**INLINE)
def _answered(state: State, given: Given, stager: Stager, answer: int) -> None:
    """The stager is told what an event says; the beginning of the step says it of each layer before the farthest."""
    event, is_values = answer // 2, answer % 2
    step, layer = event // (given.layers + 1), event % (given.layers + 1) - 1
    if is_values:
        commands.set_values(stager, layer, given.values[step, layer])
        state.numbers.told = 1
        return
    before = 0
    for index in range(len(given.distances)):
        last = layer + given.distances[index]
        for target in range(last if layer >= 0 else before, min(last + 1, given.layers)):
            _prefetch(state, given, stager, step, target, index)
        before = last + 1


@njit(**INLINE)
def _prefetch(state: State, given: Given, stager: Stager, step: int, target: int, index: int) -> None:
    """The stager is told what ``target`` is expected to choose, by one of the distances."""
    count = 0
    for at in range(given.predicted.shape[3]):
        if given.predicted[step, target, index, at] >= 0:
            state.scratch[count] = given.predicted[step, target, index, at]
            state.scratch_chances[count] = given.chances[step, target, index, at]
            count += 1
    if count:
        deadline = step * given.layers + target
        commands.prefetch(stager, target, state.scratch[:count], state.scratch_chances[:count], deadline)
        state.numbers.told = 1


@njit(**INSIDE)
def _set_values_at_end(state: State, given: Given, stager: Stager) -> None:
    if given.has_values and given.values_at_step_end:
        for layer in range(given.layers):
            commands.set_values(stager, layer, given.values[state.numbers.step, layer])
            state.numbers.told = 1


# --- steps that are not timed ---


@njit(**INSIDE)
def _warm(state: State, given: Given, stager: Stager) -> None:
    """A step that takes no time."""
    n, experts = state.numbers, stager.setup.experts
    if given.may_fetch:
        link.complete(state, given, stager)
    for layer in range(given.layers):
        at = n.step * given.layers + layer
        first, last = given.offsets[at], given.offsets[at + 1]
        if first == last:
            continue
        if given.has_values and not given.values_at_step_end:
            commands.set_values(stager, layer, given.values[n.step, layer])
        demanded = 0
        for use in range(first, last):
            expert = given.experts[use]
            if given.may_fetch or stager.keys[layer * experts + expert].status == RESIDENT:
                state.demanded[demanded] = expert
                demanded += 1
        if not demanded:
            continue
        commands.demand(stager, layer, state.demanded[:demanded])
        while queue.holds_demand(stager):
            link.grant(state, given, stager)
            link.forget_completed(state, stager.numbers.key)
            commands.arrive(stager, 0)
        commands.release(stager, layer, state.demanded[:demanded])
    n.told = 1
    _set_values_at_end(state, given, stager)
