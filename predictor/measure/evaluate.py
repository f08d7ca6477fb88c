"""The document of ``forestage predictor evaluate``: one predictor measured on one trace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.catalogue import load_catalog
from catalog.config import StrictModel
from catalog.errors import ForestageError, unknown_name
from predictor import registry
from predictor.base import BatchPredictor
from predictor.baselines.popularity import PopularityPredictor
from predictor.measure.bootstrap import Bootstrap
from predictor.measure.metrics import (
    Progress,
    TraceTally,
    gate_mass_recall,
    perfect_gate_mass,
    recall,
    tally_predictor,
)
from predictor.measure.results import (
    OWN,
    ByLimit,
    Document,
    GroupResult,
    LayerResult,
    Metrics,
    SplitName,
    by_limit,
    layer_metrics,
    metrics,
)
from predictor.measure.traffic import ExpertSize, Traffic, expert_size, traffic
from predictor.predictions.file import Predictions
from predictor.predictions.misplaced import find_misplaced
from predictor.predictions.scorer import LaidPredictions, PredictionsScorer, lay
from predictor.requests import check_request
from traces import RoutingTrace
from traces import split as split_sequences


class EvaluationSettings(StrictModel):
    """What is evaluated, and how.

    Attributes:
        issue: issue limits, experts a layer and token.
        lookahead: layers ahead; ``None``: a trained predictor's own, and 1 for a kind.
        split: the part of the trace by ``traces.split(seed=0)``; ``all`` for a trace that was not trained on.
        domains, datasets: only sequences with one of these labels; none named: all.
        only_covered: of a file of predictions that lacks tokens, evaluate the sequences that it covers whole, and
            everyone on these.
        expert_bytes: of one expert; ``None``: the catalogue's for the trace's model.
        bootstrap: of the intervals.
    """

    issue: tuple[int, ...] = Field(default=(4, 6, 8), min_length=1)
    lookahead: int | None = None
    split: SplitName = "test"
    domains: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    only_covered: bool = False
    expert_bytes: int | None = None
    bootstrap: Bootstrap = Bootstrap()

    @property
    def limits(self) -> tuple[int, ...]:
        """The issue limits, ascending, each once."""
        return tuple(sorted(set(self.issue)))


class Evaluated(Document):
    """What was measured, and on what.

    Attributes:
        predictor: the kind's name, or that of the file without its ending.
        file: of a trained predictor, or of predictions.
        predictions: whether the file holds predictions that somebody made, and not a predictor.
        trace: name of the trace evaluated (the model's where the caller gives none).
        model: whose routing it is.
        lookahead: layers ahead.
        split: the part of the trace that was evaluated.
        domains, datasets: the labels it was restricted to; none: all.
        trained_on: which sequences the predictor was made from; of predictions, who made them and how.
        synthetic: whether the trace was made by a generator.
        sequences, tokens: size of the part evaluated.
        parameters: the predictor's parameters, defaults filled in; a file's description of itself.
        bootstrap: of the intervals.
        notes: what a reader must know besides.
    """

    predictor: str
    file: str | None
    predictions: bool
    trace: str
    model: str
    lookahead: int
    split: SplitName
    domains: tuple[str, ...]
    datasets: tuple[str, ...]
    trained_on: str
    synthetic: bool
    sequences: int
    tokens: int
    parameters: dict[str, Any]
    bootstrap: Bootstrap
    notes: tuple[str, ...]


class Null(Document):
    """Recall and gate-mass recall by issue limit of who looks at nothing that the trace shows."""

    recall: ByLimit
    gate_mass: ByLimit


class Bounds(Document):
    """What no predictor exceeds, and what needs none, by issue limit *m* of *N* experts, *k* of them chosen.

    Attributes:
        perfect: recall of one that knows the future, min(m / k, 1).
        perfect_gate_mass: its gate-mass recall, of the heaviest m of the chosen; ``None`` where no weights are.
        random: expected recall of a blind choice, m / N; so much of the gate mass too.
        popularity: the training part's most popular experts; ``None`` where there is no training part.
    """

    perfect: dict[str, float]
    perfect_gate_mass: ByLimit
    random: dict[str, float]
    popularity: Null | None


class EvaluationResult(Metrics, Evaluated):
    """Metrics by issue limit over layers ≥ lookahead, then in parts.

    Attributes:
        bounds: what the figures lie between.
        issued_per_layer: the predictor's own uncapped issue where it has a threshold, else that at the largest limit.
        traffic: bytes moved and wasted a token.
        by_layer: one entry a layer of the trace, early ones included and marked.
        by_domain, by_dataset: one entry a label.
    """

    bounds: Bounds
    issued_per_layer: float | None
    traffic: Traffic
    by_layer: list[LayerResult]
    by_domain: dict[str, GroupResult]
    by_dataset: dict[str, GroupResult]


@dataclass(frozen=True)
class Parts:
    """The two sides of an evaluation.

    Attributes:
        trace: all of it.
        train: sequences that a kind is profiled on.
        chosen: sequences that are measured.
        left_out: sequences of the part that no figure counts, as a file of predictions does not cover them.
        evaluated: the part measured.
        name: of the trace, for readers.
        size: of one expert.
        settings: as asked.
    """

    trace: RoutingTrace
    train: NDArray[np.int64]
    chosen: NDArray[np.int64]
    left_out: int
    evaluated: RoutingTrace
    name: str
    size: ExpertSize
    settings: EvaluationSettings


Measurable = str | Path | LaidPredictions
"""What can be measured: the name of a kind, the file of a trained predictor, predictions laid on the trace."""


def evaluate(
    trace: RoutingTrace,
    predictor: str | Path | Predictions,
    *,
    parameters: dict[str, Any] | None = None,
    trace_name: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> EvaluationResult:
    """Measure ``predictor`` on a part of ``trace``; ``settings`` are the fields of ``EvaluationSettings``.

    The name of a kind is profiled on the training part of ``traces.split(seed=0)``, whichever part is evaluated (so
    ``split="all"`` mixes sequences profiled and not); a file is loaded and knows nothing of this trace but what it was
    trained on. What adapts online sees the sequences evaluated, in order, and no others. Predictions that somebody made
    are counted as they are. ``progress(done, total)`` is called with tokens evaluated.

    Raises:
        ForestageError: for an unknown predictor, parameter or label, a limit or lookahead out of range, a part without
            sequences, a file that holds no predictor of this model, or predictions that are not of this trace.
    """
    parsed = EvaluationSettings.parse(settings, origin="evaluation")
    named = laid(predictor, trace)
    parts = select_parts(trace, parsed, trace_name, [named])
    asked = [] if isinstance(named, LaidPredictions) else [named]
    check_request(trace, asked, limits=parts.settings.limits, lookahead=parts.settings.lookahead)
    chosen = load_or_fit(parts, named, parameters)
    tally = tally_predictor(chosen, parts.evaluated, parts.settings.limits, progress=progress)
    return document(parts, named, chosen, tally, bounds(parts, chosen.lookahead), parameters)


def laid(name: str | Path | Predictions, trace: RoutingTrace) -> Measurable:
    """``name``, or where it is predictions, these laid on the whole ``trace`` and checked.

    Raises:
        ForestageError: as ``predictor.predictions.scorer.lay``.
    """
    return lay(name, trace) if isinstance(name, Predictions) else name


def called(name: Measurable) -> str:
    """What a table calls it: a kind by its name, a file without its ending."""
    if isinstance(name, LaidPredictions):
        return name.predictions.path.stem
    return Path(name).stem if registry.is_saved(name) else str(name)


def select_parts(
    trace: RoutingTrace,
    settings: EvaluationSettings,
    trace_name: str | None = None,
    measured: Sequence[Measurable] = (),
) -> Parts:
    """The training sequences of ``trace`` and the part that ``settings`` evaluate.

    Raises:
        ForestageError: if the part is empty, or no sequence has such a label, or with ``only_covered`` the predictions
            among those ``measured`` cover no sequence of it.
    """
    train, test = split_sequences(trace)
    chosen = {"train": train, "test": test, "all": np.arange(trace.sequences)}[settings.split]
    if not len(chosen):
        raise ForestageError(
            f"split: the {settings.split} part of {trace.sequences} sequence(s) is empty; give a trace with more "
            "sequences, or evaluate all"
        )
    for what, labels, wanted in (
        ("domain", trace.domains, settings.domains),
        ("dataset", trace.datasets, settings.datasets),
    ):
        for label in wanted:
            if label not in labels:
                raise unknown_name(what, label, sorted(set(labels)))
        if wanted:
            chosen = np.array([index for index in chosen if labels[index] in wanted], np.int64)
    if not len(chosen):
        named = ", ".join((*settings.domains, *settings.datasets))
        raise ForestageError(f"split: no sequence of the {settings.split} part is of {named}; evaluate all")
    asked = len(chosen)
    if settings.only_covered:
        chosen = _covered(chosen, measured)
    whole = len(chosen) == trace.sequences
    return Parts(
        trace=trace,
        train=train,
        chosen=chosen,
        left_out=asked - len(chosen),
        evaluated=trace if whole else trace.select_sequences(chosen),
        name=trace_name or trace.metadata.model,
        size=expert_size(trace, settings.expert_bytes),
        settings=settings,
    )


def _covered(chosen: NDArray[np.int64], measured: Sequence[Measurable]) -> NDArray[np.int64]:
    """Those of the sequences ``chosen`` that every file of predictions covers whole."""
    files = [name for name in measured if isinstance(name, LaidPredictions)]
    if not files:
        raise ForestageError("only_covered: no predictions are given; it restricts what their files do not cover")
    kept = chosen[np.logical_and.reduce([name.covers()[chosen] for name in files])]
    if not len(kept):
        names = ", ".join(str(name.predictions.path) for name in files)
        raise ForestageError(f"{names}: no sequence of the part evaluated is covered whole; predict every token of one")
    return kept


def load_or_fit(parts: Parts, predictor: Measurable, parameters: dict[str, Any] | None = None) -> BatchPredictor:
    """As ``registry.load_or_fit``; the training sequences are gathered only for a kind, which needs them."""
    if isinstance(predictor, LaidPredictions):
        path = predictor.predictions.path
        if parameters:
            raise ForestageError(f"{path}: {next(iter(parameters))} cannot be set; predictions are as they were made")
        if parts.settings.lookahead not in (None, predictor.lookahead):
            raise ForestageError(
                f"{path}: predictions at lookahead {predictor.lookahead}, not {parts.settings.lookahead}; ask for "
                "theirs, or bring others"
            )
        scorer, largest = predictor.scorer(parts.chosen), parts.settings.limits[-1]
        if scorer.listed is not None and largest > scorer.listed:
            raise ForestageError(
                f"{path}: issue: {largest}, but the file lists at most {scorer.listed} experts a row; ask for limits "
                f"up to {scorer.listed} (--issue {scorer.listed}), or bring longer rows"
            )
        return scorer
    if registry.is_saved(predictor):
        train = parts.evaluated
    elif not len(parts.train):
        raise ForestageError(
            f"predictor '{predictor}': the trace has no training sequences; give one of more sequences"
        )
    else:
        train = parts.trace.select_sequences(parts.train)
    return registry.load_or_fit(predictor, train, lookahead=parts.settings.lookahead, parameters=parameters)


def bounds(parts: Parts, lookahead: int) -> Bounds:
    """What recall on the part evaluated lies between, ``lookahead`` layers ahead."""
    limits, part = parts.settings.limits, parts.evaluated
    keys = [str(limit) for limit in limits]
    popular = None
    if len(parts.train):
        fitted = PopularityPredictor.fit(parts.trace.select_sequences(parts.train), lookahead=lookahead)
        tally = tally_predictor(fitted, part, limits).overall().over(0)
        popular = Null(
            recall=by_limit(recall(tally).values(), keys), gate_mass=by_limit(gate_mass_recall(tally).values(), keys)
        )
    return Bounds(
        perfect={str(m): min(m / part.top_k, 1.0) for m in limits},
        perfect_gate_mass=by_limit(np.array(perfect_gate_mass(part, limits, lookahead)), keys),
        random={str(m): m / part.experts for m in limits},
        popularity=popular,
    )


def document(
    parts: Parts,
    name: Measurable,
    predictor: BatchPredictor,
    tally: TraceTally,
    limits: Bounds,
    parameters: dict[str, Any] | None = None,
) -> EvaluationResult:
    """What ``tally`` says of ``predictor``, which ``name`` means, on the part evaluated."""
    settings, part = parts.settings, parts.evaluated
    keys = [str(limit) for limit in settings.limits]
    if predictor.threshold is not None:
        keys.append(OWN)
    overall = tally.overall()
    whole = metrics(overall, keys, settings.bootstrap)
    origin, notes = _origin(parts, name, predictor, parameters)
    notes += _notes(parts, name, predictor, tally)
    if parts.size.expert_bytes is None:
        notes.append(f"no bytes moved: {parts.size.source}; give --expert-bytes, or add a record of the model")
    return EvaluationResult(
        **origin,
        trace=parts.name,
        model=part.metadata.model,
        lookahead=predictor.lookahead,
        split=settings.split,
        domains=settings.domains,
        datasets=settings.datasets,
        synthetic=part.metadata.synthetic,
        sequences=part.sequences,
        tokens=part.tokens,
        bootstrap=settings.bootstrap,
        notes=tuple(notes),
        **whole,
        bounds=limits,
        issued_per_layer=whole["issued"][keys[-1]],
        traffic=traffic(overall, predictor, parts.size, keys, settings.bootstrap),
        by_layer=[
            LayerResult(layer=layer, early=layer < predictor.lookahead, **figures)
            for layer, figures in enumerate(layer_metrics(tally.by_layer, keys, settings.bootstrap))
        ],
        by_domain=_by_label(tally, part, part.domains, keys, settings.bootstrap),
        by_dataset=_by_label(tally, part, part.datasets, keys, settings.bootstrap),
    )


def _same_model(one: str, other: str) -> bool:
    """Whether two traces' model strings mean the same model: ``openai/gpt-oss-20b`` and ``gpt-oss-20b`` do."""
    catalog = load_catalog()
    return one == other or (catalog.match_shape(one) or one) == (catalog.match_shape(other) or other)


def _notes(parts: Parts, name: Measurable, predictor: BatchPredictor, tally: TraceTally) -> list[str]:
    """What a reader must know of the part evaluated, and of predictions that somebody made."""
    notes = []
    if parts.left_out:
        notes.append(
            f"evaluated on the {len(parts.chosen)} sequences that the predictions cover whole; {parts.left_out} others "
            "are left out for everyone"
        )
    if parts.trace.metadata.gate_weight_kind == "unknown":
        notes.append(
            "gate_mass: the trace does not say what its gate weights are; they are taken as proportional to each "
            "expert's weight"
        )
    unweighed = tally.by_layer.rows.sum() - tally.by_layer.weighed.sum()
    if parts.evaluated.gate_weights is not None and unweighed:
        notes.append(f"gate_mass: {unweighed} rows whose weights are all 0 are not counted")
    if not isinstance(name, LaidPredictions):
        return notes
    path = name.predictions.path
    if name.alignment.proof is None:
        notes.append(
            f"{path}: nothing in it proves that its rows are this trace's tokens, beyond their number; state "
            "trace_digest, token_hash, or sequence and position"
        )
    assert isinstance(predictor, PredictionsScorer), "predictions are scored as what they are"
    if (misplaced := find_misplaced(predictor, parts.evaluated)) is not None:
        notes.append(
            f"{path}: its rows seem misplaced: at {misplaced.limit} they foresee {misplaced.recall:.3f} of their "
            f"own experts, but {misplaced.neighbour_recall:.3f} of those of {misplaced.neighbour}; a row belongs to "
            "the token and the layer that it predicts"
        )
    largest = parts.settings.limits[-1]
    if predictor.threshold is None and tally.curve.issued.shape[1] >= largest:
        at_least = np.diff(tally.curve.issued.sum(axis=0), prepend=0)  # rows that issue 1, 2, … experts or more
        few = int(at_least[0] - at_least[largest - 1])
        if few:
            notes.append(
                f"{path}: {few} of the {int(at_least[0])} rows that it predicts list fewer than {largest} "
                "experts; compare at equal issue"
            )
    return notes


def _origin(
    parts: Parts, name: Measurable, predictor: BatchPredictor, parameters: dict[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """Where the predictor comes from, as fields of ``Evaluated``, and notes."""
    if isinstance(name, LaidPredictions):
        assert isinstance(predictor, PredictionsScorer), "predictions are scored as what they are"
        header = name.predictions.header
        other = header.model is not None and not _same_model(header.model, parts.trace.metadata.model)
        return {
            "predictor": called(name),
            "file": str(name.predictions.path),
            "predictions": True,
            "trained_on": header.source,
            "parameters": predictor.describe(),
        }, [
            f"{name.predictions.path} states routing of {header.model}, the trace is of {parts.trace.metadata.model}"
        ] * (other and header.trace_digest is None)
    if not registry.is_saved(name):
        return {
            "predictor": str(name),
            "file": None,
            "predictions": False,
            "trained_on": f"{len(parts.train)} training sequences of this trace (split seed 0)",
            "parameters": registry.resolved_parameters(str(name), parameters),
        }, []
    assert isinstance(predictor, registry.Saved), "what a file holds says where it was trained"
    notes = []
    if not _same_model(predictor.model, parts.trace.metadata.model):
        notes.append(
            f"{name} was trained on routing of {predictor.model}, the trace is of {parts.trace.metadata.model}"
        )
    return {
        "predictor": Path(name).stem,
        "file": str(name),
        "predictions": False,
        "trained_on": predictor.trained_on,
        "parameters": predictor.describe(),
    }, notes


def _by_label(
    tally: TraceTally, part: RoutingTrace, labels: Sequence[str], keys: list[str], bootstrap: Bootstrap
) -> dict[str, GroupResult]:
    """Overall metrics of the sequences of each label."""
    overall = tally.overall()
    lengths = np.diff(np.asarray(part.sequence_offsets))
    label_of = np.asarray(labels, dtype=object)
    results = {}
    for label in sorted(set(labels)):
        own = label_of == label
        results[label] = GroupResult(
            sequences=int(own.sum()),
            tokens=int(lengths[own].sum()),
            **metrics(overall.of(own), keys, bootstrap),
        )
    return results
