"""Measure everything for ``forestage trace stats``, as one document.

The hit rates of an LRU cache come from ``staging``, which ``traces`` may not import; that is why the parts meet here.
"""

from catalog.config import StrictModel
from catalog.progress import Progress
from staging.results import Capacity
from staging.simulate import counted_events, run_policy
from staging.static import run_static
from traces import RoutingTrace
from traces.statistics import (
    BatchStatistics,
    CrossLayerStatistics,
    TraceStatistics,
    WorkingSetStatistics,
    batch_statistics,
    cross_layer_statistics,
    statistics,
    working_set_statistics,
)
from traces.statistics.batches import SAMPLES, SIZES

LRU_TOKENS = 100_000
"""Most tokens on which the cache runs (the first sequences that fit), since its time grows with them."""

LRU_CAPACITIES = 8


class LruPoint(StrictModel):
    """Event-atomic hit rates with ``capacity`` experts of each layer held.

    Attributes:
        capacity: experts held.
        hit_rate: hit rate of an LRU cache in each layer.
        static_hit_rate: its null, the hit rate if the most used experts are held throughout (``staging.static``): what
            popularity alone gives.
    """

    capacity: int
    hit_rate: float
    static_hit_rate: float


class LruCurve(StrictModel):
    """Hit rate over capacity.

    Attributes:
        tokens: tokens on which the cache ran: whole sequences from the trace's first on.
        count: events counted, ``decode`` or ``all``.
        counted: in words, what is counted and how prompts ran (``staging.counting``).
        by_capacity: points by ascending capacity.
    """

    tokens: int
    count: str
    counted: str
    by_capacity: tuple[LruPoint, ...]


class TraceProfile(TraceStatistics):
    """``TraceStatistics``, and figures over several layers and tokens.

    Attributes:
        cross_layer: dependence of adjacent layers.
        batches: experts of sampled batches.
        histogram_batch: batch size whose tokens per expert tables and figures show.
        working_sets: experts of windows of tokens.
        lru: hit rates of an LRU cache.
    """

    cross_layer: CrossLayerStatistics
    batches: BatchStatistics
    histogram_batch: int
    working_sets: WorkingSetStatistics
    lru: LruCurve


def trace_profile(
    trace: RoutingTrace,
    *,
    batch: int = 64,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> TraceProfile:
    """Measure ``trace``.

    Args:
        trace: any trace; a lazily opened one is checked first.
        batch: batch size shown in the histogram; measured beside the powers of two.
        samples: number of batches drawn of each size.
        seed: seed of the draws.
        progress: called with (steps done, steps).

    Raises:
        ForestageError: for settings that are not positive, or an invalid trace.
    """
    trace = trace.checked()
    capacities = lru_capacities(trace.experts, trace.top_k)
    steps = 4 + len(capacities)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    general = statistics(trace)
    advance()
    cross_layer = cross_layer_statistics(trace)
    advance()
    batches = batch_statistics(trace, sizes=sorted({*SIZES, batch}), samples=samples, seed=seed)
    advance()
    working_sets = working_set_statistics(trace)
    advance()
    part = leading_sequences(trace, LRU_TOKENS)
    events, counting = counted_events(part)
    points = []
    for capacity in capacities:
        room = Capacity(capacity)
        lru = run_policy(events, "lru", room, count=counting.count).result()
        static = run_static(events, room, count=counting.count).result()
        points.append(LruPoint(capacity=capacity, hit_rate=lru.hit_rate, static_hit_rate=static.hit_rate))
        advance()
    return TraceProfile(
        **dict(general),
        cross_layer=cross_layer,
        batches=batches,
        histogram_batch=batch,
        working_sets=working_sets,
        lru=LruCurve(tokens=part.tokens, count=counting.count, counted=counting.sentence, by_capacity=tuple(points)),
    )


def lru_capacities(experts: int, top_k: int) -> list[int]:
    """Up to ``LRU_CAPACITIES`` capacities spread over top_k … experts; the last holds all experts."""
    room = experts - top_k
    return sorted({top_k + round(room * step / (LRU_CAPACITIES - 1)) for step in range(LRU_CAPACITIES)})


def leading_sequences(trace: RoutingTrace, tokens: int) -> RoutingTrace:
    """Whole sequences from the first on, up to ``tokens`` tokens; only the first one's beginning if it is longer."""
    fitting = int((trace.sequence_offsets <= tokens).sum()) - 1
    return trace.token_range(0, int(trace.sequence_offsets[fitting]) if fitting else tokens)
