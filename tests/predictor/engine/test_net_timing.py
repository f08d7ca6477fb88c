"""The networks' times in the engine: those of their unit, with what a slot remembers."""

import numpy as np

from predictor.engine.commands import CommandKind
from predictor.engine.environment import Environment, LayerTimes
from predictor.engine.events import Gate, Token
from predictor.engine.net_timing import NetTiming
from predictor.engine.predictors import LearnedPredictor
from predictor.engine.timing import DmaLink
from predictor.engine.twin import EngineTwin
from predictor.row_network.cycles import NetSchedule
from predictor.row_network.program import head_program
from predictor.row_network.text_traffic import TextLimits, TextSettings
from predictor.row_network.twin import RowNetwork
from staging.transfer.timing import MemoryTiming
from tests.learned_samples import random_next_use, random_predictor
from tests.predictor.engine.engine_samples import (
    EXPERTS,
    LAYERS,
    LIMITS,
    TOP_K,
    small_events,
    small_heads,
    small_settings,
    small_trace,
)

LANES = 8
SHAPE = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}


def schedule() -> NetSchedule:
    use = random_next_use(np.random.default_rng(0), ranked=True, **SHAPE).network

    def program(network: RowNetwork, distance: int):
        return head_program(
            network.tables, network.config, top_k=TOP_K, ranked=network.ranked, distance=distance, lanes=LANES,
            origin="test",
        )  # fmt: skip

    return NetSchedule(program(random_predictor(**SHAPE).network, 1), program(use, 0), lanes=LANES)


def timing() -> NetTiming:
    """Of networks that no text and no identity feeds in time: END comes as soon as it can."""
    limits = TextLimits(slots=3, layers_max=LAYERS, experts_max=EXPERTS, top_k_max=TOP_K)
    return NetTiming(schedule(), slots=3, layers=LAYERS, limits=limits, settings=TextSettings(**SHAPE), latency=20)


def test_a_gate_takes_what_the_net_takes_by_what_its_slot_has_seen() -> None:
    of, net = timing(), schedule()
    of.token(Token(1, starts_sequence=True), 0, 0)
    never = of.gate(Gate(1, 0, None), 100, 100)
    known = of.gate(Gate(1, 1, (2, 5)), 500, 500)
    of.token(Token(1), 1000, 1000)
    again = of.gate(Gate(1, 1, None, last=False), 1500, 1500)
    of.token(Token(1, starts_sequence=True), 2000, 2000)
    anew = of.gate(Gate(1, 1, None), 2500, 2500)
    for found, expected in (
        (never, net.gate(0, known=False, held=False)),
        (known, net.gate(1, known=True, held=True)),
        (again, net.gate(1, known=False, held=True, closes=False)),
        (anew, net.gate(1, known=False, held=False)),
    ):
        assert (found.prefetches, found.values, found.next) == (expected.prefetches, expected.values, expected.next)


def test_the_whole_engine_runs_in_the_times_of_its_parts() -> None:
    settings = small_settings()
    events = small_events(small_trace())
    predictor = LearnedPredictor(small_heads(settings), timing())
    link = DmaLink(LIMITS, settings, MemoryTiming(latency=40))
    environment = Environment(events, LayerTimes(before_gate_cycles=400, expert_cycles=11))
    twin = EngineTwin(LIMITS, settings, events, environment, predictor=predictor, link_timing=link)
    log = list(twin.run())
    gates = [done for done in log if done.kind is CommandKind.DEMAND]
    values = [done for done in log if done.kind is CommandKind.SET_VALUES]
    assert len(gates) == len(values) == small_trace().tokens * LAYERS
    waits = [told.start - asked.start for asked, told in zip(gates, values, strict=True)]
    # A gate's DEMAND may itself wait for the stager: then its values come sooner after it.
    kinds = [(False, False), (False, True), (True, True)]
    takes = [schedule().gate(layer, known=known, held=held).values for layer in range(LAYERS) for known, held in kinds]
    assert min(waits) > min(takes) // 2
    assert max(waits) < max(takes) + 200
