"""The engine's twin: its commands are the stager's, its answers the networks', its order the rules'."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from predictor.engine.commands import CommandKind, Done
from predictor.engine.counters import EngineCounter
from predictor.engine.environment import LayerTimes
from predictor.engine.events import Gate, Token
from predictor.engine.heads import Prefetch
from predictor.engine.notices import NoticeKind
from predictor.engine.predictors import Predicted, TablesPredictor
from predictor.engine.settings import Missing, Mode
from predictor.engine.timing import SteadyLink
from predictor.foresight.learned_predictions import learned_predictions
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.tables import StMoeTables
from staging.stager.answers import Kind, Step
from staging.stager.twin import Stager
from staging.steps import Steps
from tests.learned_samples import random_next_use, random_predictor
from tests.predictor.engine.engine_samples import (
    EXPERTS,
    LAYERS,
    LIMITS,
    TOP_K,
    small_events,
    small_settings,
    small_trace,
    small_twin,
)


def told(stager: Stager, done: Done) -> Step:
    """The same command to the stager's plain twin."""
    if done.kind is CommandKind.DEMAND:
        return stager.demand(done.layer, done.experts)
    if done.kind is CommandKind.RELEASE:
        return stager.release(done.layer, done.experts)
    if done.kind is CommandKind.PREFETCH:
        return stager.prefetch(done.layer, done.experts, done.chances, done.deadline)
    calls: dict[CommandKind, Callable[[], Step]] = {
        CommandKind.SET_VALUES: lambda: stager.set_values(done.layer, done.values),
        CommandKind.EXPIRE: lambda: stager.expire(done.deadline),
        CommandKind.GRANT: stager.grant,
        CommandKind.PREEMPT: lambda: stager.preempt(0),
        CommandKind.ARRIVE: lambda: stager.arrive(0),
    }
    return calls[done.kind]()


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("distance", [1, 2])
def test_every_command_does_what_the_stager_says(slots: int, distance: int) -> None:
    settings = small_settings(distance=distance)
    twin = small_twin(small_trace(slots), settings, slots=slots)
    stager = Stager(settings.stager_limits(LIMITS), settings.stager)
    seen = set()
    free = 0
    for done in twin.run():
        step = told(stager, done)
        assert [(of.kind, of.key, of.why) for of in step.actions] == list(done.actions)
        assert step.cycles == done.cycles
        assert done.start >= free
        free = done.start + done.cycles
        if step.transfer is not None:
            assert (done.transfer.key, done.transfer.victim) == (step.transfer.key, step.transfer.victim)
        else:
            assert done.transfer is None
        seen |= {done.kind, *(of.kind for of in done.actions)}
    assert seen >= {*CommandKind} - {CommandKind.FAIL, CommandKind.PRELOAD, CommandKind.FIX}
    assert seen >= {Kind.HIT, Kind.WAIT, Kind.PROMOTE, Kind.HOLD, Kind.DROP, Kind.PAUSE, Kind.EVICT}
    assert twin.counters[EngineCounter.EVICTED] == stager.counters.evicted > 0


def test_what_is_told_of_a_lone_sequence_is_what_both_networks_say() -> None:
    settings, trace = small_settings(), small_trace()
    network = random_predictor(layers=LAYERS, experts=EXPERTS, top_k=TOP_K).network
    of_use = random_next_use(np.random.default_rng(0), layers=LAYERS, experts=EXPERTS, top_k=TOP_K, ranked=True).network
    expected: list[tuple[Any, ...]] = []
    sequence = trace.sequence_index()
    recorded = trace.recorded()
    for token in range(trace.tokens):
        for one in (network, of_use):
            if token == 0 or sequence[token] != sequence[token - 1]:
                one.start_sequence()
            one.start_token(int(trace.token_hash[token]))
        for layer in range(-1, LAYERS):
            if layer >= 0:
                ids = trace.expert_ids[token, layer] if recorded[token, layer] else None
                network.observe(layer, ids)
                of_use.observe(layer, ids)
            if layer + 1 < LAYERS:
                chances = network.chances(layer + 1)[0].astype(int)
                best = sorted(range(EXPERTS), key=lambda e: (-chances[e], e))[: settings.prefetched]
                best = [e for e in best if chances[e] >= settings.threshold]
                if best:
                    deadline = (token + 1) * LAYERS + layer + 1
                    expected.append((layer + 1, tuple(best), tuple(chances[best].tolist()), deadline))
            if layer >= 0:
                expected.append((layer, of_use.chances(layer).astype(int).sum(axis=0).tolist()))
    found = []
    for done in small_twin(trace, settings).run():
        if done.kind is CommandKind.PREFETCH:
            found.append((done.layer, done.experts, done.chances, done.deadline))
        elif done.kind is CommandKind.SET_VALUES:
            found.append((done.layer, done.values.tolist()))
    assert found == expected


def test_a_running_batch_is_predicted_as_the_system_model_predicts_it() -> None:
    """``predictor.foresight.learned_predictions``, which merges by a formula of its own."""
    settings = small_settings(next_use=False, threshold=1)
    trace = small_trace(unrecorded=0.0, lengths=(6, 6, 6))
    tokens = np.arange(18).reshape(3, 6).T.ravel()
    steps = Steps(tokens=tokens, offsets=np.arange(0, 19, 3), timed=np.ones(6, np.bool_), sequential=False)
    predictor = random_predictor(layers=LAYERS, experts=EXPERTS, top_k=TOP_K)
    assert isinstance(predictor, NextLayerPredictor)
    expected = learned_predictions([predictor], trace, steps, settings.prefetched)
    count = 0
    for done in small_twin(trace, settings, slots=3).run():
        if done.kind is CommandKind.PREFETCH:
            step, layer = divmod(done.deadline, LAYERS)
            named = expected.experts[step - 1, layer, 0]
            assert done.experts == tuple(named[named >= 0].tolist())
            assert done.chances == tuple(expected.chances[step - 1, layer, 0][named >= 0].tolist())
            count += 1
    assert count == int((expected.experts[:, :, 0, 0] >= 0).sum()) > 20


def test_a_first_miss_cycle_by_cycle() -> None:
    trace = small_trace(unrecorded=0.0, lengths=(1,))
    settings = small_settings(mode=Mode.OFF, stager={"background": False}, link={"chunk_bytes": 1024})
    link = SteadyLink(chunks=1, chunk_cycles=100, latency=10)
    log = list(small_twin(trace, settings, link=link, times=LayerTimes(before_gate_cycles=50, layer_cycles=7)).run())
    grants = [done for done in log if done.kind is CommandKind.GRANT and done.transfer]
    demand, arrivals = log[0], [done for done in log if done.kind is CommandKind.ARRIVE]
    assert demand.kind is CommandKind.DEMAND
    assert demand.start == 50 + 2  # the TOKEN in cycle 0, the GATE in 50, checked, queued
    assert [done.kind for done in log[1:3]] == [CommandKind.EXPIRE, CommandKind.GRANT]
    assert log[1].start == demand.start + demand.cycles
    assert grants[0].start == log[1].start + log[1].cycles
    assert arrivals[0].start == grants[0].start + grants[0].cycles + 110
    assert grants[1].start == arrivals[0].start + arrivals[0].cycles
    assert arrivals[1].start == grants[1].start + grants[1].cycles + 110
    after = log[log.index(arrivals[1]) + 1]
    assert after.start == arrivals[1].start + arrivals[1].cycles + 1  # held up while READY is told
    release = next(done for done in log if done.kind is CommandKind.RELEASE)
    # READY is told when ARRIVE has ended and noticed a cycle later; the RELEASE, seven later, is checked and queued.
    assert release.start == arrivals[1].start + arrivals[1].cycles + 1 + 7 + 2


def test_a_prefetch_makes_way_for_a_demand_at_a_chunk_and_goes_on() -> None:
    trace = small_trace(lengths=(9, 9))
    settings = small_settings()
    kept: dict[int, int] = {}
    moved = 0
    twin = small_twin(trace, settings)
    first = 0
    for done in twin.run():
        decisions = twin.decisions
        if done.transfer is not None:
            assert decisions.first_chunk == kept.pop(done.transfer.key, 0)
            first = decisions.first_chunk
        for kind, key, _ in done.actions:
            if kind is Kind.PAUSE:
                kept[key] = decisions.kept[key][0]
                assert first < kept[key] < 4
                moved += (kept[key] - first) * 256
            elif kind is Kind.DROP and done.kind is not CommandKind.PREEMPT:
                kept.pop(key, None)
        if done.kind is CommandKind.ARRIVE:
            moved += 1000 - first * 256
    counters = twin.counters
    assert counters[EngineCounter.PAUSED] > 0
    assert counters[EngineCounter.BYTES] >= moved > 0


class _TwoTargets:
    """Predicts two layers at a TOKEN, the second ten cycles after the first."""

    def __init__(self) -> None:
        self.offered: list[int] = []

    def token(self, event: Token, base: int, now: int = 0, offered: int = 0) -> Predicted:
        self.offered.append(now + 1)
        answers = [(1 + 10 * layer, Prefetch(layer, (0,), (60_000,), base + layer)) for layer in range(2)]
        return Predicted(tuple(answers), 12)

    def gate(self, event: Gate, base: int, now: int = 0, offered: int = 0) -> Predicted:
        return Predicted((), 1)


def test_a_prediction_that_waits_for_the_stager_delays_the_next_of_its_event() -> None:
    predictor = _TwoTargets()
    trace = small_trace(lengths=(12,), unrecorded=0.0)
    twin = small_twin(trace, small_settings(distance=2), predictor=predictor)
    starts = [done.start for done in twin.run() if done.kind is CommandKind.PREFETCH]
    first, second = np.array(starts).reshape(-1, 2).T
    assert (first > predictor.offered).any(), "the stager was always free"
    assert (second - first).min() >= 10


def test_what_is_missing_may_be_computed_elsewhere() -> None:
    trace = small_trace()
    twin = small_twin(trace, small_settings(missing=Missing.ELSEWHERE))
    notices = [notice for done in twin.run() for notice in done.notices]
    elsewhere = [of for of in notices if of.kind is NoticeKind.ELSEWHERE]
    here = [of for of in notices if of.kind is NoticeKind.HERE]
    assert len(elsewhere) == twin.counters[EngineCounter.ELSEWHERE] > 0
    assert len(elsewhere) + len(here) == TOP_K * int(trace.recorded().sum())
    assert twin.counters[EngineCounter.WAITS] == 0
    assert not any(of.wanted for of in notices)


@pytest.mark.parametrize("slots", [1, 2])
def test_every_gate_is_told_here_or_arrived_of_each_expert_and_then_ready(slots: int) -> None:
    trace = small_trace(1)
    twin = small_twin(trace, small_settings(), slots=slots)
    waits: dict[int, set[int]] = {}
    ready = 0
    for done in twin.run():
        if done.kind is CommandKind.DEMAND:
            waits[done.slot] = set(done.experts)
            layer = done.layer
        for of in done.notices:
            if of.kind is NoticeKind.HERE:
                waits[of.slot].remove(of.expert)
            elif of.kind is NoticeKind.ARRIVED:
                assert of.wanted == any(of.expert in missing for missing in waits.values() if of.layer == layer)
                for missing in waits.values() if of.layer == layer else ():
                    missing.discard(of.expert)
            else:
                assert of.kind is NoticeKind.READY
                assert not waits[of.slot]
                ready += 1
    assert ready == trace.tokens * LAYERS


def test_tables_predict_what_they_request() -> None:
    trace = small_trace(unrecorded=0.1)
    random = np.random.default_rng(6).random((trace.tokens, LAYERS, EXPERTS)).argsort(axis=-1)[..., :TOP_K]
    ids = np.where(trace.recorded()[:, :, None], random, trace.unrecorded_id)
    trace = replace(trace, expert_ids=ids.astype(trace.expert_ids.dtype))
    limits = EngineLimits(experts_max=8, layers_max=4, top_k_max=2, candidates_max=2, slots_max=3)
    configuration = EngineConfiguration(
        experts=EXPERTS, layers=LAYERS, top_k=TOP_K, candidates=2, issue_limit=EXPERTS, threshold=1
    )
    generator = np.random.default_rng(5)
    candidates = generator.random((LAYERS, EXPERTS, EXPERTS)).argsort(axis=-1)[..., :2].astype(np.int16)
    confidences = generator.integers(0, 4, candidates.shape).astype(np.int8)

    def make() -> StMoeTables:
        return StMoeTables(limits, configuration, candidates, confidences)

    settings = small_settings(mode=Mode.TABLES)
    log = list(small_twin(trace, settings, predictor=TablesPredictor(make())).run())
    expected = []
    tables, step = make(), 0
    starts_token = starts_sequence = False
    for event in small_events(trace).events():
        if isinstance(event, Token):
            step += 1
            starts_token, starts_sequence = True, starts_sequence or event.starts_sequence
        elif isinstance(event, Gate) and event.experts is not None:
            result = tables.step(
                RoutingEvent(event.layer, event.experts, starts_token=starts_token, starts_sequence=starts_sequence)
            )
            starts_token = starts_sequence = False
            if result.requests:
                target = result.requests[0].layer
                expected.append((target, tuple(r.expert for r in result.requests), step * LAYERS + target))
    assert [(d.layer, d.experts, d.deadline) for d in log if d.kind is CommandKind.PREFETCH] == expected
    assert len(expected) > 20
    assert all(set(d.chances) == {65535} for d in log if d.kind is CommandKind.PREFETCH)
