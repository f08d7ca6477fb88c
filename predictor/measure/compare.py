"""Compare predictors: each one's evaluation, and its whole curve of recall against issued experts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor import registry
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.evaluate import (
    Bounds,
    EvaluationResult,
    EvaluationSettings,
    Measurable,
    bounds,
    called,
    document,
    laid,
    load_or_fit,
    select_parts,
)
from predictor.measure.metrics import Ratio, Tally, issued_per_layer, recall, tally_predictor
from predictor.measure.results import OWN, Document, Ends, SplitName, ends_or_none, or_none
from predictor.measure.traffic import ExpertSize
from predictor.predictions.file import Predictions
from predictor.predictions.scorer import LaidPredictions
from predictor.requests import check_request
from traces import RoutingTrace


class Curve(Document):
    """Recall and issued experts at limits 1 … half of the experts, over rows with layer ≥ lookahead.

    Attributes:
        predictor: the predictor's label, unique in the comparison.
        issued: mean number of experts issued per layer and token, at each limit.
        recall: at each limit.
        low, high: ends of the recall's 95 % bootstrap interval; ``None`` where there is none.
    """

    predictor: str
    issued: list[float | None]
    recall: list[float | None]
    low: list[float | None]
    high: list[float | None]


class EqualTraffic(Document):
    """Every predictor's recall when it issues as many experts as one of them issues uncapped.

    Attributes:
        reference: the predictor with a threshold, from which the number is taken.
        issued: its mean number of experts issued per layer and token, without a limit.
        recall: each predictor's recall at that number, interpolated between two limits (as if each limit applied to a
            share of the rows); ``None`` if a predictor never issues so many.
        gain: that recall minus the reference's.
        gain_intervals: 95 % bootstrap interval of the gain; both predictors are resampled together.
    """

    reference: str
    issued: float
    recall: dict[str, float | None]
    gain: dict[str, float | None]
    gain_intervals: dict[str, Ends]


class Comparison(Document):
    """Every predictor on the same part of one trace, with the same bootstrap draws.

    Attributes:
        trace, model, layers, experts, top_k, synthetic: what was evaluated.
        split, lookahead, sequences, tokens: which part, and how far ahead.
        size: size of one expert.
        evaluations: one per predictor, in the order given.
        curves: in the same order.
        bounds: bounds at the issue limits.
        equal_traffic: one entry per predictor that has a threshold and issues anything.
    """

    trace: str
    model: str
    layers: int
    experts: int
    top_k: int
    synthetic: bool
    split: SplitName
    lookahead: int
    sequences: int
    tokens: int
    size: ExpertSize
    evaluations: list[EvaluationResult]
    curves: list[Curve]
    bounds: Bounds
    equal_traffic: list[EqualTraffic]


def compare(
    trace: RoutingTrace,
    predictors: Sequence[str | Path | Predictions],
    *,
    trace_name: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Comparison:
    """Measure each of ``predictors`` as ``predictor.measure.evaluate`` does, in one pass each.

    They are names of kinds, files of trained predictors, or opened files of predictions. Without a lookahead in
    ``settings``, kinds are fitted for the files' lookahead, or for 1 if there are no files.
    ``progress(done, total)`` counts tokens over all predictors.

    Raises:
        ForestageError: as ``evaluate``; also if no predictor is given, two have the same name, or the files were
            trained for different lookaheads.
    """
    wanted = EvaluationSettings.parse_settings(settings, origin="comparison")
    measured = [laid(name, trace) for name in predictors]
    labels = [called(name) for name in measured]
    if not labels:
        raise ForestageError("predictors: none to compare; name at least one")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ForestageError(f"predictors: two are called '{twice}'; rename a file")
    if wanted.lookahead is None:
        wanted = wanted.model_copy(update={"lookahead": _common_lookahead(measured)})
    parts = select_parts(trace, wanted, trace_name, measured)
    check_request(
        trace,
        [name for name in measured if not isinstance(name, LaidPredictions)],
        limits=wanted.limits,
        lookahead=wanted.lookahead,
    )
    part = parts.evaluated
    for name in measured:
        if isinstance(name, LaidPredictions):
            load_or_fit(parts, name)  # raises before the others are measured
    assert wanted.lookahead is not None, "set above"
    between = bounds(parts, wanted.lookahead)
    evaluations, tallies = [], []
    for number, name in enumerate(measured):

        def advance(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(predictors) * total)

        chosen = load_or_fit(parts, name)
        tally = tally_predictor(chosen, part, wanted.limits, progress=advance)
        evaluations.append(document(parts, name, chosen, tally, between))
        tallies.append(tally.curve)
    first = evaluations[0]
    return Comparison(
        trace=parts.name,
        model=first.model,
        layers=part.layers,
        experts=part.experts,
        top_k=part.top_k,
        synthetic=first.synthetic,
        split=first.split,
        lookahead=first.lookahead,
        sequences=first.sequences,
        tokens=first.tokens,
        size=parts.size,
        evaluations=evaluations,
        curves=[
            _curve(label, tally, part.experts, wanted.bootstrap) for label, tally in zip(labels, tallies, strict=True)
        ],
        bounds=between,
        equal_traffic=[
            _equal_traffic(number, labels, tallies, wanted.bootstrap)
            for number, evaluation in enumerate(evaluations)
            if evaluation.issued.get(OWN)
        ],
    )


def _common_lookahead(predictors: Sequence[Measurable]) -> int:
    """The lookahead of the files among ``predictors``; 1 if there are none."""
    depths: dict[int, str] = {}
    for name in predictors:
        if isinstance(name, LaidPredictions):
            depths.setdefault(name.lookahead, str(name.predictions.path))
        elif registry.is_saved(name):
            depths.setdefault(registry.load(name).lookahead, str(name))
    if len(depths) > 1:
        described = ", ".join(f"{name}: {depth}" for depth, name in sorted(depths.items()))
        raise ForestageError(f"lookahead: the files were made for different ones ({described}); compare them apart")
    return next(iter(depths), 1)


def _curve(label: str, tally: Tally, experts: int, bootstrap: Bootstrap) -> Curve:
    """The curve of ``tally [sequences]`` up to half of the experts: more would be moved for every token beyond that."""
    half = slice(0, max(1, experts // 2))
    narrow = tally.limited(half)
    low, high = interval(recall(narrow), bootstrap)
    columns = {
        "issued": issued_per_layer(narrow).over(0).values(),
        "recall": recall(narrow).over(0).values(),
        "low": low,
        "high": high,
    }
    return Curve(predictor=label, **{name: [or_none(value) for value in column] for name, column in columns.items()})


def _equal_traffic(reference: int, labels: list[str], tallies: list[Tally], bootstrap: Bootstrap) -> EqualTraffic:
    """Each of the curves ``tallies [sequences]`` at the issue of predictor ``reference`` without a limit."""
    own = tallies[reference]
    needed = own.rows * own.top_k
    issued = float(issued_per_layer(own).over(0).values()[-1])
    recalls: dict[str, float | None] = {}
    gains: dict[str, float | None] = {}
    ends: dict[str, Ends] = {}
    for number, (label, tally) in enumerate(zip(labels, tallies, strict=True)):
        hits = own.hits[:, -1] if number == reference else hits_at(tally, issued)
        if hits is None:
            recalls[label], gains[label], ends[label] = None, None, None
            continue
        recalls[label] = or_none(float(Ratio(hits, needed).over(0).values()))
        gain = Ratio(hits - own.hits[:, -1], needed)
        gains[label] = or_none(float(gain.over(0).values()))
        low, high = interval(gain, bootstrap)
        ends[label] = ends_or_none(float(low), float(high))
    return EqualTraffic(reference=labels[reference], issued=issued, recall=recalls, gain=gains, gain_intervals=ends)


def hits_at(tally: Tally, issued: float) -> NDArray[np.float64] | None:
    """Hits of each sequence if ``tally [sequences]`` (limits 1 … experts) issues ``issued`` experts per row.

    Interpolated between two limits; ``None`` if it never issues so many.
    """
    means = np.concatenate([[0.0], issued_per_layer(tally).over(0).values()])
    hits = np.concatenate([np.zeros((len(tally.hits), 1)), tally.hits], axis=1)
    above = int(np.searchsorted(means, issued))  # the first limit at which it issues at least so many
    if above == len(means):
        return None
    if above == 0:
        return hits[:, 0]
    share = (issued - means[above - 1]) / (means[above] - means[above - 1])
    return (1 - share) * hits[:, above - 1] + share * hits[:, above]
