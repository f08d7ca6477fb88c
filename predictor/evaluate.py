"""The document of ``forestage predictor evaluate``: one predictor measured on one trace."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from catalog.errors import ForestageError
from predictor import registry
from predictor.metrics import Progress, Tally, issued_per_layer, precision, recall, tally_predictor
from traces import RoutingTrace
from traces import split as split_sequences

SplitName = Literal["train", "test", "all"]

OWN = "own"  # key of the uncapped issue of a predictor that has a threshold

ByLimit = dict[str, float | None]


class LayerResult(BaseModel):
    """Metrics of one layer; all ``None`` below the lookahead or where no row was recorded."""

    model_config = ConfigDict(frozen=True)

    layer: int
    recall: ByLimit
    precision: ByLimit
    issued: ByLimit


class DomainResult(BaseModel):
    """Metrics of the sequences of one domain."""

    model_config = ConfigDict(frozen=True)

    sequences: int
    tokens: int
    recall: ByLimit
    precision: ByLimit
    issued: ByLimit


class EvaluationResult(BaseModel):
    """Metrics by issue limit (the key; ``own``: uncapped, at the predictor's own threshold).

    ``predictor.metrics`` defines each; ``None`` where a metric has no row to stand on.

    Attributes:
        predictor: the kind's name.
        trace: name of the trace evaluated (the model's where the caller gives none).
        lookahead: layers ahead.
        split: the part of the trace that was evaluated; the profile is always of its training part.
        trained_on: which sequences the profile was made from.
        synthetic: whether the trace was made by a generator.
        sequences, tokens: size of the part evaluated.
        issued_per_layer: the predictor's own uncapped issue where it has a threshold, else that at the largest limit.
        by_layer: one entry a layer of the trace.
        by_domain: one entry a domain label.
        parameters: the predictor's parameters, defaults filled in.
    """

    model_config = ConfigDict(frozen=True)

    predictor: str
    trace: str
    lookahead: int
    split: SplitName
    trained_on: str
    synthetic: bool
    sequences: int
    tokens: int
    recall: ByLimit
    precision: ByLimit
    issued: ByLimit
    issued_per_layer: float | None
    by_layer: list[LayerResult]
    by_domain: dict[str, DomainResult]
    parameters: dict[str, Any]


def evaluate(
    trace: RoutingTrace,
    predictor_name: str,
    *,
    issue: tuple[int, ...] = (4, 6, 8),
    lookahead: int = 1,
    split: SplitName = "test",
    parameters: dict[str, Any] | None = None,
    trace_name: str | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Fit ``predictor_name`` on the training part of ``trace`` and measure it on the part ``split``.

    The training part is always that of ``traces.split(seed=0)``, also for ``split="all"``, whose result therefore mixes
    sequences profiled and not; ``"test"`` is the one to quote. What adapts online starts from the profile and sees the
    sequences evaluated, in order, and no others. ``progress(done, total)`` is called with tokens evaluated.

    Raises:
        ForestageError: for an unknown predictor or parameter, a limit or lookahead out of range, or a part without
            sequences.
    """
    if not issue:
        raise ForestageError("issue: no limit given; give at least one number of experts")
    limits = tuple(sorted(set(issue)))
    train, evaluated = _parts(trace, split)
    predictor = registry.fit(predictor_name, trace.select_sequences(train), lookahead=lookahead, parameters=parameters)
    part = trace if split == "all" else trace.select_sequences(evaluated)
    domains = sorted(set(part.domains))
    groups = np.array([domains.index(domain) for domain in part.domains])
    tally = tally_predictor(predictor, part, limits, groups=groups, progress=progress)

    keys = [str(limit) for limit in limits]
    if predictor.threshold is not None:
        keys.append(OWN)
    lengths = np.diff(np.asarray(part.sequence_offsets))
    whole = _metrics(tally.over((0, 1)), keys)
    by_layer = tally.over((0,))
    by_domain = tally.over((1,))
    return EvaluationResult(
        predictor=predictor_name,
        trace=trace_name or trace.metadata.model,
        lookahead=lookahead,
        split=split,
        trained_on=f"{len(train)} training sequences of this trace (split seed 0)",
        synthetic=trace.metadata.synthetic,
        sequences=part.sequences,
        tokens=part.tokens,
        **whole,
        issued_per_layer=whole["issued"][keys[-1]],
        by_layer=[LayerResult(layer=layer, **_metrics(by_layer.at(layer), keys)) for layer in range(part.layers)],
        by_domain={
            domain: DomainResult(
                sequences=int((groups == index).sum()),
                tokens=int(lengths[groups == index].sum()),
                **_metrics(by_domain.at(index), keys),
            )
            for index, domain in enumerate(domains)
        },
        parameters=registry.resolved_parameters(predictor_name, parameters),
    )


def _parts(trace: RoutingTrace, part: SplitName) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training sequences, sequences evaluated).

    Raises:
        ForestageError: if the part is empty, or has no such name.
    """
    train, test = split_sequences(trace)
    chosen = {"train": train, "test": test, "all": np.arange(trace.sequences)}
    if part not in chosen:
        raise ForestageError(f"split: unknown part '{part}'; choose test, train or all")
    if not len(chosen[part]):
        raise ForestageError(
            f"split: the {part} part of {trace.sequences} sequence(s) is empty; give a trace with more sequences, "
            "or evaluate all"
        )
    return train, chosen[part]


def _metrics(tally: Tally, keys: list[str]) -> dict[str, ByLimit]:
    """The three metrics of a tally without leading axes, by limit."""
    values = {"recall": recall(tally), "precision": precision(tally), "issued": issued_per_layer(tally)}
    return {
        name: {key: None if np.isnan(value) else float(value) for key, value in zip(keys, column, strict=False)}
        for name, column in values.items()
    }
