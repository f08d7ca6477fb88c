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
from predictor.base import Predictor
from predictor.bootstrap import Bootstrap
from predictor.metrics import Progress, TraceTally, tally_predictor
from predictor.results import OWN, Document, GroupResult, LayerResult, Metrics, SplitName, layer_metrics, metrics
from predictor.traffic import ExpertSize, Traffic, expert_size, traffic
from traces import RoutingTrace
from traces import split as split_sequences


class EvaluationSettings(StrictModel):
    """What is evaluated, and how.

    Attributes:
        issue: issue limits, experts a layer and token.
        lookahead: layers ahead; ``None``: a trained predictor's own, and 1 for a kind.
        split: the part of the trace by ``traces.split(seed=0)``; ``all`` for a trace that was not trained on.
        domains, datasets: only sequences with one of these labels; none named: all.
        expert_bytes: of one expert; ``None``: the catalogue's for the trace's model.
        bootstrap: of the intervals.
    """

    issue: tuple[int, ...] = Field(default=(4, 6, 8), min_length=1)
    lookahead: int | None = None
    split: SplitName = "test"
    domains: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
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
        file: of a trained predictor.
        trace: name of the trace evaluated (the model's where the caller gives none).
        model: whose routing it is.
        lookahead: layers ahead.
        split: the part of the trace that was evaluated.
        domains, datasets: the labels it was restricted to; none: all.
        trained_on: which sequences the predictor was made from.
        synthetic: whether the trace was made by a generator.
        sequences, tokens: size of the part evaluated.
        parameters: the predictor's parameters, defaults filled in; a trained one's description of itself.
        bootstrap: of the intervals.
        notes: what a reader must know besides.
    """

    predictor: str
    file: str | None
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


class EvaluationResult(Metrics, Evaluated):
    """Metrics by issue limit over layers ≥ lookahead, then in parts.

    Attributes:
        issued_per_layer: the predictor's own uncapped issue where it has a threshold, else that at the largest limit.
        traffic: bytes moved and wasted a token.
        by_layer: one entry a layer of the trace, early ones included and marked.
        by_domain, by_dataset: one entry a label.
    """

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
        evaluated: the part measured.
        name: of the trace, for readers.
        size: of one expert.
        settings: as asked.
    """

    trace: RoutingTrace
    train: NDArray[np.int64]
    evaluated: RoutingTrace
    name: str
    size: ExpertSize
    settings: EvaluationSettings


def evaluate(
    trace: RoutingTrace,
    predictor: str | Path,
    *,
    parameters: dict[str, Any] | None = None,
    trace_name: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> EvaluationResult:
    """Measure ``predictor`` on a part of ``trace``; ``settings`` are the fields of ``EvaluationSettings``.

    The name of a kind is profiled on the training part of ``traces.split(seed=0)``, whichever part is evaluated (so
    ``split="all"`` mixes sequences profiled and not); a file is loaded and knows nothing of this trace but what it was
    trained on. What adapts online sees the sequences evaluated, in order, and no others. ``progress(done, total)`` is
    called with tokens evaluated.

    Raises:
        ForestageError: for an unknown predictor, parameter or label, a limit or lookahead out of range, a part without
            sequences, or a file that holds no predictor of this model.
    """
    parts = select_parts(trace, EvaluationSettings.parse(settings, origin="evaluation"), trace_name)
    chosen = obtain(parts, predictor, parameters)
    tally = tally_predictor(chosen, parts.evaluated, parts.settings.limits, progress=progress)
    return document(parts, predictor, chosen, tally, parameters)


def select_parts(trace: RoutingTrace, settings: EvaluationSettings, trace_name: str | None = None) -> Parts:
    """The training sequences of ``trace`` and the part that ``settings`` evaluate.

    Raises:
        ForestageError: if the part is empty, or no sequence has such a label.
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
        asked = ", ".join((*settings.domains, *settings.datasets))
        raise ForestageError(f"split: no sequence of the {settings.split} part is of {asked}; evaluate all")
    whole = len(chosen) == trace.sequences
    return Parts(
        trace=trace,
        train=train,
        evaluated=trace if whole else trace.select_sequences(chosen),
        name=trace_name or trace.metadata.model,
        size=expert_size(trace, settings.expert_bytes),
        settings=settings,
    )


def obtain(parts: Parts, predictor: str | Path, parameters: dict[str, Any] | None = None) -> Predictor:
    """As ``registry.obtain``; the training sequences are gathered only for a kind, which needs them."""
    if registry.is_saved(predictor):
        train = parts.evaluated
    elif not len(parts.train):
        raise ForestageError(
            f"predictor '{predictor}': the trace has no training sequences; give one of more sequences"
        )
    else:
        train = parts.trace.select_sequences(parts.train)
    return registry.obtain(predictor, train, lookahead=parts.settings.lookahead, parameters=parameters)


def document(
    parts: Parts,
    name: str | Path,
    predictor: Predictor,
    tally: TraceTally,
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


def _origin(
    parts: Parts, name: str | Path, predictor: Predictor, parameters: dict[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """Where the predictor comes from, as fields of ``Evaluated``, and notes."""
    if not registry.is_saved(name):
        return {
            "predictor": str(name),
            "file": None,
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
