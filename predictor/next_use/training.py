"""Training a next-use predictor in PyTorch, layer by layer, and turning it into integers."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from catalog.errors import ForestageError
from predictor.base import read_ids
from predictor.next_use.features import features_of
from predictor.next_use.labels import wanted_within
from predictor.next_use.matches import matched_rows
from predictor.next_use.network import Network
from predictor.next_use.parameters import NextUseParameters, NextUseTraining
from predictor.next_use.progress_file import FinishedLayers
from predictor.next_use.quantise import quantise_layer
from predictor.next_use.sources import SourceArrays, as_arrays, sources_of
from predictor.next_use.tables import ARRAYS, NextUseTables, check_histories
from predictor.next_use.twin import NextUsePredictor
from traces import RoutingTrace
from traces.selection import select_sequences

CALIBRATION_TOKENS = 8192
"""Tokens whose activations set the integers' range."""

Progress = Callable[[int, int], None]
Log = Callable[[dict[str, Any]], None]


def train(
    trace: RoutingTrace,
    *,
    parameters: NextUseParameters | None = None,
    training: NextUseTraining | None = None,
    trained_on: str,
    resume: Path | None = None,
    progress: Progress = lambda done, total: None,
    log: Log = lambda line: None,
) -> NextUsePredictor:
    """A predictor trained on all sequences of ``trace``, a part of which is held back to stop by.

    Args:
        trace: the training sequences.
        parameters, training: defaults (for a trace with token identity, or without) where ``None``.
        trained_on: said of itself by the predictor.
        resume: a folder for finished layers: an interrupted training of the same sequences and settings goes on with
            the first that is missing. Emptied in the end.
        progress: called with (epochs done, epochs at most).
        log: called with one JSON-able record an epoch: layer, epoch, losses, seconds.

    Raises:
        ForestageError: if there are fewer than two sequences, or none long enough for a horizon; for a lookahead as
            deep as the model, histories beyond 32 bits, or a loss that grows beyond all numbers; for
            contexts of identities that the trace does not record.
    """
    identity = trace.token_hash is not None
    parameters = parameters or NextUseParameters.for_trace({}, identity=identity, origin="defaults")
    training = training or NextUseTraining()
    if parameters.lookahead >= trace.layers:
        raise ForestageError(f"lookahead: {parameters.lookahead} for a model of {trace.layers} layers; choose fewer")
    if parameters.looks_at_identity and not identity:
        raise ForestageError(
            f"contexts {parameters.contexts}: the trace does not record the identity of tokens; give none, contexts=[]"
        )
    check_histories(parameters, trace.top_k)
    fitted, held_back = _divide(trace, training)
    for chosen in (fitted, held_back):
        _check_lengths(np.diff(trace.sequence_offsets)[chosen], parameters)
    parts = [_Part.of(select_sequences(trace, chosen), parameters) for chosen in (fitted, held_back)]
    sources = as_arrays(sources_of(parameters))
    finished = None if resume is None else FinishedLayers(resume, trace, parameters, training)
    layers = []
    for target in range(trace.layers):
        kept = None if finished is None else finished.load(target)
        if kept is not None:
            layers.append(kept)
            continue
        torch.manual_seed(training.seed + target)

        def advance(epoch: int, target: int = target) -> None:
            progress(target * training.epochs + epoch, trace.layers * training.epochs)

        layers.append(_train_layer(parts[0], parts[1], target, trace, parameters, training, sources, advance, log))
        if finished is not None:
            finished.save(target, layers[-1])
    tables = NextUseTables(
        parameters=parameters,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        **{name: np.stack([layer[name] for layer in layers]).astype(dtype) for name, dtype in ARRAYS.items()},
    )
    if finished is not None:
        finished.remove()
    return NextUsePredictor(tables, model=trace.metadata.model, trained_on=trained_on)


def _divide(trace: RoutingTrace, training: NextUseTraining) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences to fit and to stop by, each ascending.

    Raises:
        ForestageError: if there are fewer than two.
    """
    if trace.sequences < 2:
        raise ForestageError("training part: one sequence; give a trace whose training part has two or more")
    order = np.random.Generator(np.random.PCG64(training.seed)).permutation(trace.sequences)
    lengths = np.diff(trace.sequence_offsets)[order]
    kept = max(2, int(np.searchsorted(np.cumsum(lengths), training.most_tokens, side="right")))
    order = order[:kept]
    held_back = min(len(order) - 1, max(1, round(training.validation_share * len(order))))
    return np.sort(order[held_back:]), np.sort(order[:held_back])


def _check_lengths(lengths: NDArray[np.int64], parameters: NextUseParameters) -> None:
    """Raise unless the longest of the sequences says what is wanted within the nearest horizon.

    Raises:
        ForestageError: if all are too short: there would be nothing to learn, or to stop by.
    """
    needed = parameters.horizons[0] + (parameters.lookahead == 0)
    if lengths.max() < needed:
        raise ForestageError(
            f"horizons: none ends within the {lengths.max()} tokens of the longest sequence to learn from or to stop "
            "by; choose smaller ones, or give a trace of longer sequences"
        )


@dataclass(frozen=True)
class _Part:
    """The tokens of some sequences: ids ``[tokens, layers, top_k]``, whether recorded, sequence bounds, and the row of
    the token that each one matches (−1: none)."""

    ids: NDArray[np.int32]
    recorded: NDArray[np.bool_]
    starts: NDArray[np.bool_]
    ends: NDArray[np.int64]
    matches: NDArray[np.int64]

    @classmethod
    def of(cls, trace: RoutingTrace, parameters: NextUseParameters) -> "_Part":
        ids, recorded = read_ids(trace, 0, trace.tokens)
        offsets = np.asarray(trace.sequence_offsets)
        starts = np.zeros(trace.tokens, np.bool_)
        starts[offsets[:-1]] = True
        ends = np.repeat(offsets[1:], np.diff(offsets))
        return cls(ids, recorded, starts, ends, matched_rows(trace, starts, parameters))

    def examples(
        self, target: int, experts: int, parameters: NextUseParameters, sources: SourceArrays
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features f16, labels bool ``[tokens, horizons, experts]`` and where they hold bool ``[tokens, horizons]``."""
        features = features_of(
            self.ids, self.recorded, self.starts, target, parameters.lookahead, sources, experts, self.matches,
            parameters.log_tokens,
        )  # fmt: skip
        wanted, known = wanted_within(
            np.ascontiguousarray(self.ids[:, target]),
            np.ascontiguousarray(self.recorded[:, target]),
            self.ends,
            experts,
            parameters.horizons,
            including_now=parameters.lookahead > 0,
        )
        return torch.from_numpy(features), torch.from_numpy(wanted), torch.from_numpy(known)


def _loss(logits: torch.Tensor, wanted: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over what is known."""
    each = functional.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="none").mean(dim=2)
    return (each * known).sum() / known.sum().clamp(min=1)


def _train_layer(
    fitted: _Part,
    held_back: _Part,
    target: int,
    trace: RoutingTrace,
    parameters: NextUseParameters,
    training: NextUseTraining,
    sources: SourceArrays,
    advance: Callable[[int], None],
    log: Log,
) -> dict[str, NDArray[np.integer]]:
    """The integers of one target layer, those of the best epoch."""
    if target < parameters.lookahead:
        return _silent(trace.experts, parameters, sources)
    features, wanted, known = fitted.examples(target, trace.experts, parameters, sources)
    checks = held_back.examples(target, trace.experts, parameters, sources)
    network = Network(features, trace.experts, parameters)
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    steps = math.ceil(len(features) / training.batch_tokens)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=training.epochs * steps + 1, pct_start=0.1
    )
    best, best_loss, worse = network.folded(), math.inf, 0
    begun = time.perf_counter()
    for epoch in range(training.epochs):
        total = 0.0
        for batch in torch.randperm(len(features)).split(training.batch_tokens):
            loss = _loss(network(features[batch]), wanted[batch], known[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        validation = _validation_loss(network, *checks)
        log(
            {
                "layer": target,
                "epoch": epoch,
                "training_loss": round(total / steps, 5),
                "validation_loss": round(validation, 5),
                "seconds": round(time.perf_counter() - begun, 2),
            }
        )
        if not math.isfinite(validation):
            raise ForestageError(
                f"learning_rate: {training.learning_rate:g} makes the training of layer {target} diverge; "
                "choose a smaller one"
            )
        advance(epoch + 1)
        worse = worse + 1 if validation >= best_loss else 0
        if validation < best_loss:
            best, best_loss = network.folded(), validation
        if worse >= training.patience:
            break
    every = max(1, len(features) // CALIBRATION_TOKENS)
    return quantise_layer(best, sources, features[::every].numpy())


def _validation_loss(network: Network, features: torch.Tensor, wanted: torch.Tensor, known: torch.Tensor) -> float:
    """The loss over all of the sequences held back."""
    losses, weights = [], []
    with torch.no_grad():
        for first in range(0, len(features), 4096):
            part = slice(first, first + 4096)
            losses.append(_loss(network(features[part]), wanted[part], known[part]).item())
            weights.append(int(known[part].sum()))
    return float(np.average(losses, weights=weights)) if sum(weights) else math.inf


def _silent(experts: int, parameters: NextUseParameters, sources: SourceArrays) -> dict[str, NDArray[np.integer]]:
    """A target that is never asked."""
    shapes = NextUseTables.shapes(parameters, 1, experts)
    return {name: np.zeros(shapes[name][1:], dtype) for name, dtype in ARRAYS.items()}
