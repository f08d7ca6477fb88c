"""The document of ``forestage cache compare``: replacement policies by cache size, and the share of the way from LRU to
Belady's bound that each goes.

All caches run over the same events, counted as ``staging.counting`` says, empty at first and living on from sequence to
sequence. The *share closed* of a policy is ``(hits − LRU's) / (Belady's − LRU's)``; its interval is the
bootstrap over sequences of ``predictor.measure.bootstrap``, each sequence counted with the residents it found.

Beside the policies stand two placements that never move (``staging.static``): the experts most used in the part that is
run, a null chosen in hindsight, and those most used in the training sequences, where the test sequences are run.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio
from predictor.measure.results import Document, SplitName
from predictor.next_use.calibration import HorizonCalibration, Reliability
from predictor.next_use.predictor import NextUsePredictor
from staging.counting import Count, Counting
from staging.events import Events, events_of
from staging.frequency import DEFAULT_SHIFT
from staging.oracle import oracle_chunks
from staging.results import CacheRun, Capacity, Scope
from staging.simulate import PriorityChunks, counted_events, run_policy, run_priorities
from staging.static import PROFILED, STATIC, counted_keys, run_static
from traces import RoutingTrace
from traces import split as split_sequences
from traces.selection import select_sequences

LEARNED = "next use"
CLASSICAL = ("lru", "lfu", "ema", "belady")
CHUNK_TOKENS = 512
"""Tokens scored at once: of two predictors, so that their chunks meet."""


class ComparisonSettings(StrictModel):
    """What is compared.

    Attributes:
        capacities: experts held, in each layer's cache (scope ``layer``) or in all (``global``).
        scope: one cache a layer, or one for all.
        split: the part of the trace by ``traces.split(seed=0)``.
        ema_shift: of the decayed counters.
        oracle: horizons of oracles of short sight, tokens.
        bootstrap: of the intervals.
    """

    capacities: tuple[int, ...] = Field(min_length=1)
    scope: Scope = "layer"
    split: SplitName = "test"
    ema_shift: int = DEFAULT_SHIFT
    oracle: tuple[int, ...] = ()
    bootstrap: Bootstrap = Bootstrap()


class PolicyPoint(Document):
    """One policy at one capacity.

    Attributes:
        policy: its name.
        capacity: experts held.
        hit_rate: event-atomic.
        loads: experts loaded in the events counted.
        hit_rate_by_layer: the same by layer; ``None`` for a layer without an event counted.
        share_closed: of the way from LRU's hits to Belady's; ``None`` where these are equal, and of what is
            held from the start.
        interval: its 95 % interval over sequences.
    """

    policy: str
    capacity: int
    hit_rate: float
    loads: int
    hit_rate_by_layer: list[float | None]
    share_closed: float | None
    interval: tuple[float, float] | None


class CacheComparison(Document):
    """All policies at all capacities.

    Attributes:
        trace, model: what was routed.
        synthetic: whether a generator made the trace.
        split, sequences, tokens: the part that was run.
        scope, count: of the caches, and of the events.
        counted: what is counted, and how prompts ran, in words.
        layers, experts: of the model.
        next_use, ahead: what the predictors say of their training; ``None`` without one.
        policies: names in the order of the points.
        points: capacity by capacity.
        calibration: of the next-use predictor's chances, a horizon an entry; none without a predictor.
        bootstrap: of the intervals.
    """

    trace: str
    model: str
    synthetic: bool
    split: SplitName
    sequences: int
    tokens: int
    scope: Scope
    count: Count
    counted: str
    layers: int
    experts: int
    next_use: str | None
    ahead: str | None
    policies: tuple[str, ...]
    points: list[PolicyPoint]
    calibration: list[HorizonCalibration]
    bootstrap: Bootstrap


def compare_caches(
    trace: RoutingTrace,
    predictor: NextUsePredictor | None = None,
    *,
    ahead: NextUsePredictor | None = None,
    trace_name: str | None = None,
    progress: Progress = lambda done, total: None,
    **settings: Any,
) -> CacheComparison:
    """Run every policy at every capacity.

    Args:
        trace: all of it; the settings say which part is run.
        predictor: of next use, asked once a layer's own gate is known.
        ahead: a second one with a lookahead, whose priorities refresh those of layers still to come.
        trace_name: for readers.
        progress: called with (caches and passes done, in all).
        settings: fields of ``ComparisonSettings``.

    Raises:
        ForestageError: for a setting out of range, predictors that do not fit, or an empty part.
    """
    chosen = ComparisonSettings.parse_settings(settings, origin="cache comparison")
    _check_predictors(trace, predictor, ahead)
    part = _part(trace, chosen.split)
    rooms = [Capacity(experts, scope=chosen.scope) for experts in sorted(set(chosen.capacities))]
    for room in rooms:
        room.check_within(trace.layers, trace.experts)
    events, counting = counted_events(part)
    count = counting.count
    profile = _profile(trace, chosen.split, counting)
    passes = len(CLASSICAL) * len(rooms) + len(chosen.oracle) + (predictor is not None)
    runs = [run_static(events, room, count=count) for room in rooms]
    if profile is not None:
        runs += [run_static(events, room, count=count, profile=profile) for room in rooms]
    reliability = None if predictor is None else Reliability(predictor, part)
    batches = _batches(part, events, rooms, count, chosen, predictor, ahead, reliability)
    for done, batch in enumerate(batches, start=1):
        runs += batch
        progress(done, passes)
    names = tuple(dict.fromkeys(run.policy for run in runs))
    static = tuple(name for name in names if name in (STATIC, PROFILED))
    learned = tuple(name for name in names if name not in (*CLASSICAL, *static))
    order = (*static, "lru", "lfu", "ema", *learned, "belady")
    return CacheComparison(
        trace=trace_name or trace.metadata.model,
        model=trace.metadata.model,
        synthetic=trace.metadata.synthetic,
        split=chosen.split,
        sequences=part.sequences,
        tokens=part.tokens,
        scope=chosen.scope,
        count=count,
        counted=counting.sentence,
        layers=part.layers,
        experts=part.experts,
        next_use=None if predictor is None else predictor.trained_on,
        ahead=None if ahead is None else ahead.trained_on,
        policies=order,
        points=_points(runs, rooms, order, part.sequence_offsets, chosen.bootstrap),
        calibration=[] if reliability is None else reliability.result(),
        bootstrap=chosen.bootstrap,
    )


def _check_predictors(trace: RoutingTrace, predictor: NextUsePredictor | None, ahead: NextUsePredictor | None) -> None:
    """Raise unless the first is asked at a layer's own gate and the second before it, both of this model's shape."""
    for given in (predictor, ahead):
        if given is not None:
            given.check_trace(trace)
    if predictor is not None and predictor.lookahead:
        raise ForestageError(
            f"next-use predictor: trained for lookahead {predictor.lookahead}; give one of lookahead 0, "
            "and this one to refresh it"
        )
    if ahead is not None and (predictor is None or not ahead.lookahead):
        raise ForestageError(
            "refreshing next-use predictor: it needs a lookahead of 1 or more, and one of lookahead 0 to refresh"
        )


def _part(trace: RoutingTrace, split: SplitName) -> RoutingTrace:
    """The sequences that are run.

    Raises:
        ForestageError: if there are none.
    """
    if split == "all":
        return trace
    sequences = split_sequences(trace)[1 if split == "test" else 0]
    if not len(sequences):
        raise ForestageError(f"split: the {split} part has no sequence; give a trace of more, or split all")
    return select_sequences(trace, sequences)


def _profile(trace: RoutingTrace, split: SplitName, counting: Counting) -> Events | None:
    """The events of the training sequences, to place experts by; ``None`` where they are run themselves, or none is
    counted."""
    if split != "test":
        return None
    sequences = split_sequences(trace)[0]
    if not len(sequences):
        return None
    events = events_of(select_sequences(trace, sequences), by_token=counting.prefill == "token")
    return events if len(counted_keys(events, counting.count)) else None


def _batches(
    part: RoutingTrace,
    events: Events,
    rooms: Sequence[Capacity],
    count: Count,
    chosen: ComparisonSettings,
    predictor: NextUsePredictor | None,
    ahead: NextUsePredictor | None,
    reliability: Reliability | None,
) -> Iterator[list[CacheRun]]:
    """The runs, in batches of what one pass over the trace gives."""
    for policy in CLASSICAL:
        for room in rooms:
            yield [run_policy(events, policy, room, count=count, ema_shift=chosen.ema_shift)]  # type: ignore[arg-type]
    for horizon in chosen.oracle:
        sighted = oracle_chunks(part, horizon, ema_shift=chosen.ema_shift)
        yield run_priorities(events, f"oracle {horizon}", sighted, rooms, count=count)
    if predictor is not None and reliability is not None:
        lookahead = 0 if ahead is None else ahead.lookahead
        learned = _learned_chunks(part, predictor, ahead, reliability)
        yield run_priorities(events, LEARNED, learned, rooms, lookahead=lookahead, count=count)


def _learned_chunks(
    part: RoutingTrace, predictor: NextUsePredictor, ahead: NextUsePredictor | None, reliability: Reliability
) -> PriorityChunks:
    """Priorities of one predictor, or of two side by side; the first one's chances are counted on the way."""
    refreshed = None if ahead is None else ahead.priority_chunks(part, chunk_tokens=CHUNK_TOKENS)
    for first, scores in predictor.score_chunks(part, chunk_tokens=CHUNK_TOKENS):
        reliability.add(first, scores)
        yield first, predictor.priorities_of(scores), None if refreshed is None else next(refreshed)[1]


def _points(
    runs: Iterable[CacheRun],
    rooms: Sequence[Capacity],
    order: Sequence[str],
    sequence_offsets: NDArray[np.int64],
    bootstrap: Bootstrap,
) -> list[PolicyPoint]:
    """The runs as documents, capacity by capacity and in the order of the policies."""
    by_name = {(run.policy, run.capacity.experts): run for run in runs}
    points = []
    for room in rooms:
        hits = {name: by_name[name, room.experts].by_sequence(sequence_offsets)[1] for name in order}
        gap = hits["belady"] - hits["lru"]
        for name in order:
            result = by_name[name, room.experts].result()
            share = Ratio(hits[name] - hits["lru"], gap)
            # What is held from the start pays no first load, so that it is nowhere on the way.
            never = name in (STATIC, PROFILED)
            low, high = (np.nan, np.nan) if never else interval(share, bootstrap)
            closed = np.nan if never else share.over(0).values()
            points.append(
                PolicyPoint(
                    policy=name,
                    capacity=room.experts or 0,
                    hit_rate=result.hit_rate,
                    loads=result.loads,
                    hit_rate_by_layer=result.hit_rate_by_layer,
                    share_closed=None if np.isnan(closed) else float(closed),
                    interval=None if np.isnan(low) else (float(low), float(high)),
                )
            )
    return points
