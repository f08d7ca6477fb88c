"""Measure one predictor on one trace: the document of ``forestage predictor evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.catalogue import load_catalog
from catalog.config import StrictModel
from catalog.errors import ForestageError, SettingError, unknown_name
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
from traces.selection import select_sequences


class EvaluationSettings(StrictModel):
    """Which part of the trace is evaluated, and how.

    Attributes:
        issue: issue limits, in experts per layer and token.
        lookahead: layers ahead; ``None``: a trained predictor's own, 1 for a kind.
        split: the part of the trace by ``traces.split(seed=0)``; ``all`` for a trace not used in training.
        domains, datasets: evaluate only sequences with one of these labels; empty: all.
        only_covered: if a file of predictions lacks tokens, evaluate every predictor only on the sequences that the
            file covers completely.
        expert_bytes: bytes of one expert; ``None``: the catalogue's for the trace's model.
        bootstrap: how the intervals are resampled.
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
    """What was measured, and on which part of which trace.

    Attributes:
        predictor: the kind's name, or the file's without its ending.
        file: file of a trained predictor or of predictions; ``None`` for a kind.
        predictions: whether the file holds predictions, not a predictor.
        trace: name of the evaluated trace (the model's, if the caller gives none).
        model: the model whose routing it is.
        lookahead: layers ahead.
        split: the part of the trace that was evaluated.
        domains, datasets: the labels to which the part was restricted; empty: all.
        trained_on: the sequences that the predictor was made from; for predictions, who made them and how.
        synthetic: whether a generator made the trace.
        sequences, tokens: size of the evaluated part.
        parameters: the predictor's parameters with defaults filled in, or a file's description of itself.
        bootstrap: how the intervals were resampled.
        notes: remarks that a reader must know.
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
    """Recall and gate-mass recall, by issue limit, of a predictor that ignores the evaluated trace."""

    recall: ByLimit
    gate_mass: ByLimit


class Bounds(Document):
    """Recall that no predictor exceeds, and that needs no predictor, by issue limit *m*; *k* of *N* experts are chosen.

    Attributes:
        perfect: recall of a predictor that knows the future, min(m / k, 1).
        perfect_gate_mass: its gate-mass recall, if it issues the heaviest m chosen experts; ``None`` without weights.
        random: expected recall of a random choice, m / N; its expected gate-mass recall too.
        popularity: issuing the training part's most popular experts; ``None`` without a training part.
    """

    perfect: dict[str, float]
    perfect_gate_mass: ByLimit
    random: dict[str, float]
    popularity: Null | None


class EvaluationResult(Metrics, Evaluated):
    """Metrics by issue limit over layers ≥ lookahead, then by layer, domain and dataset.

    Attributes:
        bounds: bounds of the figures.
        issued_per_layer: experts issued uncapped if the predictor has a threshold, else at the largest limit.
        traffic: bytes moved and wasted per token.
        by_layer: one entry per layer of the trace, early ones included and marked.
        by_domain, by_dataset: one entry per label.
    """

    bounds: Bounds
    issued_per_layer: float | None
    traffic: Traffic
    by_layer: list[LayerResult]
    by_domain: dict[str, GroupResult]
    by_dataset: dict[str, GroupResult]


@dataclass(frozen=True)
class Parts:
    """The training and the evaluated part of a trace.

    Attributes:
        trace: the whole trace.
        train: sequences on which a kind is profiled.
        chosen: sequences that are evaluated.
        left_out: number of sequences left out of all figures because a file of predictions does not cover them.
        evaluated: the evaluated part, as a trace.
        name: the trace's name, for readers.
        size: size of one expert.
        settings: the settings of the evaluation.
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
"""What can be measured: the name of a kind, the file of a trained predictor, predictions aligned with the trace."""


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

    A kind is profiled on the training part of ``traces.split(seed=0)``, whichever part is evaluated (so
    ``split="all"`` mixes profiled and other sequences). The file of a trained predictor is loaded and not fitted to
    this trace. A predictor that adapts online sees only the evaluated sequences, in order. Predictions from a file are
    counted as they are. ``progress(done, total)`` is called with tokens evaluated.

    Raises:
        ForestageError: for an unknown predictor, parameter or label, a limit or lookahead out of range, a part without
            sequences, a file without a predictor for this model, or predictions of another trace.
    """
    parsed = EvaluationSettings.parse_settings(settings, origin="evaluation")
    named = laid(predictor, trace)
    parts = select_parts(trace, parsed, trace_name, [named])
    asked = [] if isinstance(named, LaidPredictions) else [named]
    check_request(trace, asked, limits=parts.settings.limits, lookahead=parts.settings.lookahead)
    chosen = load_or_fit(parts, named, parameters)
    tally = tally_predictor(chosen, parts.evaluated, parts.settings.limits, progress=progress)
    return document(parts, named, chosen, tally, bounds(parts, chosen.lookahead), parameters)


def laid(name: str | Path | Predictions, trace: RoutingTrace) -> Measurable:
    """``name`` itself; predictions are aligned with the whole ``trace`` and checked.

    Raises:
        ForestageError: as ``predictor.predictions.scorer.lay``.
    """
    return lay(name, trace) if isinstance(name, Predictions) else name


def called(name: Measurable) -> str:
    """The name used in tables: a kind's name, a file's without its ending."""
    if isinstance(name, LaidPredictions):
        return name.predictions.path.stem
    return Path(name).stem if registry.is_saved(name) else str(name)


def select_parts(
    trace: RoutingTrace,
    settings: EvaluationSettings,
    trace_name: str | None = None,
    measured: Sequence[Measurable] = (),
) -> Parts:
    """The training sequences of ``trace``, and the part that ``settings`` choose for evaluation.

    Raises:
        ForestageError: if the part is empty, no sequence has a given label, or, with ``only_covered``, the predictions
            among ``measured`` cover no sequence of the part completely.
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
        evaluated=trace if whole else select_sequences(trace, chosen),
        name=trace_name or trace.metadata.model,
        size=expert_size(trace, settings.expert_bytes),
        settings=settings,
    )


def _covered(chosen: NDArray[np.int64], measured: Sequence[Measurable]) -> NDArray[np.int64]:
    """The ``chosen`` sequences that every file of predictions covers completely."""
    files = [name for name in measured if isinstance(name, LaidPredictions)]
    if not files:
        raise SettingError("only_covered", "no predictions are given; it restricts what their files do not cover")
    kept = chosen[np.logical_and.reduce([name.covers()[chosen] for name in files])]
    if not len(kept):
        names = ", ".join(str(name.predictions.path) for name in files)
        raise ForestageError(f"{names}: no sequence of the part evaluated is covered whole; predict every token of one")
    return kept


def load_or_fit(parts: Parts, predictor: Measurable, parameters: dict[str, Any] | None = None) -> BatchPredictor:
    """As ``registry.load_or_fit``; training sequences are copied only for a kind, which needs them."""
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
        train = select_sequences(parts.trace, parts.train)
    return registry.load_or_fit(predictor, train, lookahead=parts.settings.lookahead, parameters=parameters)


def bounds(parts: Parts, lookahead: int) -> Bounds:
    """Bounds of recall on the evaluated part, ``lookahead`` layers ahead."""
    limits, part = parts.settings.limits, parts.evaluated
    keys = [str(limit) for limit in limits]
    popular = None
    if len(parts.train):
        fitted = PopularityPredictor.fit(select_sequences(parts.trace, parts.train), lookahead=lookahead)
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
    """The document of ``predictor``, which ``name`` means, with the counts ``tally`` of the evaluated part."""
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
    """Whether two traces' model strings mean the same model, as ``openai/gpt-oss-20b`` and ``gpt-oss-20b`` do."""
    catalog = load_catalog()
    return one == other or (catalog.match_shape(one) or one) == (catalog.match_shape(other) or other)


def _notes(parts: Parts, name: Measurable, predictor: BatchPredictor, tally: TraceTally) -> list[str]:
    """Remarks on the evaluated part and on predictions from files."""
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
        at_least = np.diff(tally.curve.issued.sum(axis=0), prepend=0)  # rows that issue at least 1, 2, … experts
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
