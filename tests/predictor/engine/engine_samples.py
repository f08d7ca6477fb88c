"""A small engine with random networks, and what it is told, for the tests of its twin."""

from typing import Any

import numpy as np

from predictor.engine.environment import Environment, LayerTimes
from predictor.engine.events import EventArrays, trace_events
from predictor.engine.heads import Heads
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.predictors import EnginePredictor, LearnedPredictor
from predictor.engine.settings import LinkSettings, Mode, PrefetchEngineSettings
from predictor.engine.timing import SteadyLink, SteadyPredictor
from predictor.engine.twin import EngineTwin
from staging.stager.limits import StagerSettings
from tests.learned_samples import identified_trace, random_next_use, random_predictor
from traces import RoutingTrace

LAYERS, EXPERTS, TOP_K = 4, 8, 2
LIMITS = PrefetchEngineLimits(
    slots_max=3, layers_max=4, experts_max=8, top_k_max=2, candidates_max=2, places=12, spare=4, queue_depth=8
)
LINK = SteadyLink(chunks=4, chunk_cycles=25, latency=10)
TIMES = LayerTimes(before_gate_cycles=60, expert_cycles=11)


def small_trace(seed: int = 0, **changes: Any) -> RoutingTrace:
    """Three sequences, some rows not recorded."""
    shape = {"experts": EXPERTS, "layers": LAYERS, "top_k": TOP_K, "unrecorded": 0.05, **changes}
    return identified_trace(seed=seed, **shape)


def small_settings(**changes: Any) -> PrefetchEngineSettings:
    """Shares of two experts a layer, values and predictions, background loads."""
    stager = {"shares": (2,) * LAYERS, "chance_scale": 2, "price": 20_000, "background": True, "by_recency": False}
    stager.update(changes.pop("stager", {}))
    link = {"expert_bytes": 1000, "chunk_bytes": 256, **changes.pop("link", {})}
    shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K, "identity_rows": 6, "prefetched": 3}
    return PrefetchEngineSettings(
        stager=StagerSettings(**stager), link=LinkSettings(**link), **{**shape, "threshold": 9000, **changes}
    )


def small_heads(settings: PrefetchEngineSettings, seed: int = 0) -> Heads:
    """Random networks of both heads."""
    next_layer = random_predictor(
        layers=LAYERS, experts=EXPERTS, top_k=TOP_K, lookahead=settings.distance, seed=seed
    ).network
    generator = np.random.default_rng(seed)
    next_use = random_next_use(generator, layers=LAYERS, experts=EXPERTS, top_k=TOP_K, ranked=True).network
    return Heads(settings, LIMITS.slots_max, next_layer, next_use)


def small_events(trace: RoutingTrace, slots: int = 1) -> EventArrays:
    """With the identity rows of ``small_heads``."""
    hashes = np.asarray(trace.token_hash).astype(np.int64)
    rows = random_predictor(layers=LAYERS, experts=EXPERTS, top_k=TOP_K).network.identity_index(hashes)
    return trace_events(trace, slots=slots, rows=rows)


def small_twin(
    trace: RoutingTrace,
    settings: PrefetchEngineSettings,
    *,
    slots: int = 1,
    predictor: EnginePredictor | None = None,
    times: LayerTimes = TIMES,
    link: SteadyLink = LINK,
) -> EngineTwin:
    """Nothing has run."""
    events = small_events(trace, slots)
    if predictor is None and settings.mode is Mode.LEARNED:
        predictor = LearnedPredictor(small_heads(settings), SteadyPredictor(20, 35, 40, settings.distance))
    return EngineTwin(LIMITS, settings, events, Environment(events, times), predictor=predictor, link_timing=link)
