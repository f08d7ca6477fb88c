"""Training the learned predictor in PyTorch: all target layers at once, early stopping, resumable."""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.errors import ForestageError
from catalog.files import atomic_path
from predictor.learned.batches import Batches
from predictor.learned.config import Recipe, TrainingConfig
from predictor.learned.dataset import Dataset, frequent_tokens, prepare
from predictor.learned.integers import choose_integers, twin_recall
from predictor.learned.model_file import EpochLog, Provenance, ValidationRecall
from predictor.learned.network import Network, loss_of
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.quantise import Weights
from predictor.learned.requirements import check_trainable
from predictor.learned.tables import LearnedTables
from traces import RoutingTrace
from traces.selection import select_sequences

EVALUATION_TOKENS = 2048
HIDDEN_QUANTILE = 0.9995
ADAM_BETAS = (0.9, 0.98)
WARM_UP = 0.1

Progress = Callable[[int, int], None]
Report = Callable[[EpochLog], None]


@dataclass(frozen=True)
class Trained:
    """A trained predictor and the floating-point weights it was quantised from."""

    predictor: LearnedPredictor
    weights: Weights


def train(
    trace: RoutingTrace,
    recipe: Recipe,
    *,
    lookahead: int = 1,
    trained_on: str | None = None,
    state_path: Path | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Trained:
    """Train on ``trace``, of which ``recipe.training.validation`` is kept aside by sequence, and quantise.

    Args:
        trace: the training part of a trace.
        recipe: what and how.
        lookahead: layers between the known gate and the target.
        trained_on: what ``trace`` is, for a reader.
        state_path: a file that keeps the state after each epoch; training goes on from it where it is there and
            belongs to the same trace and recipe. The caller removes it.
        progress: called with steps done and in all.
        report: called after each epoch.

    Raises:
        ForestageError: if the trace lacks what the recipe needs, has nothing to predict or too few sequences, or if the
            loss grows beyond all numbers.
    """
    config = recipe.predictor
    ranked = check_trainable(trace, config, lookahead)
    fitted, kept = _parts(trace, recipe.training)
    tokens = frequent_tokens(fitted, config.identity_rows) if config.identities else np.empty(0, np.uint32)
    run = _Run(fitted, kept, recipe, lookahead, ranked, tokens)
    log = run.fit(state_path, _fingerprint(trace, recipe, lookahead), progress, report)
    weights = run.weights()

    def assemble(tables: LearnedTables, found: ValidationRecall | None = None) -> LearnedPredictor:
        provenance = Provenance(
            model=trace.metadata.model,
            trained_on=trained_on or f"{trace.sequences} sequences",
            synthetic=trace.metadata.synthetic,
            training=recipe.training,
            log=tuple(log),
            validation_recall=found or ValidationRecall(),
            machine=f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        )
        return LearnedPredictor(
            tables, config, top_k=trace.top_k, lookahead=lookahead, ranked=ranked, provenance=provenance
        )

    fixed, tables = choose_integers(weights, config, tokens, kept, assemble, lookahead=lookahead, ranked=ranked)
    limits = tuple(
        sorted({min(trace.experts, limit) for limit in (trace.top_k, trace.top_k * 3 // 2, 2 * trace.top_k)})
    )
    found = ValidationRecall(
        floating_point={str(limit): float(value) for limit, value in zip(limits, run.recall(limits), strict=True)},
        int8=twin_recall(assemble(fixed), kept, limits),
        adapting=twin_recall(assemble(tables), kept, limits),
    )
    return Trained(assemble(tables, found), weights)


def _parts(trace: RoutingTrace, training: TrainingConfig) -> tuple[RoutingTrace, RoutingTrace]:
    """(sequences to train on, sequences to stop and quantise by).

    Raises:
        ForestageError: if there are not two sequences.
    """
    if trace.sequences < 2:
        raise ForestageError(
            f"trace: {trace.sequences} training sequence(s); one is kept for validation, so give at least 2"
        )
    kept = min(max(1, round(trace.sequences * training.validation)), trace.sequences - 1)
    order = np.random.default_rng(training.seed).permutation(trace.sequences)
    return select_sequences(trace, np.sort(order[kept:])), select_sequences(trace, np.sort(order[:kept]))


def _fingerprint(trace: RoutingTrace, recipe: Recipe, lookahead: int) -> str:
    """Tells whether a kept state belongs to this training."""
    digest = hashlib.sha256()
    for part in trace.chunks():
        for array in (part.expert_ids, part.token_hash, part.gate_weights):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(np.asarray(trace.sequence_offsets).tobytes())
    settings = {
        "recipe": recipe.model_dump(mode="json"),
        "lookahead": lookahead,
        "ranked": trace.metadata.ranked,
        "torch": torch.__version__,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


class _Run:
    """One training: data, network, optimisers."""

    def __init__(
        self,
        fitted: RoutingTrace,
        kept: RoutingTrace,
        recipe: Recipe,
        lookahead: int,
        ranked: bool,
        tokens: NDArray[np.uint32],
    ) -> None:
        self.recipe = recipe
        self.lookahead = lookahead
        self.layers = fitted.layers
        config, training = recipe.predictor, recipe.training
        torch.manual_seed(training.seed)
        self.batches = Batches(self._dataset(fitted, ranked, tokens), config, lookahead)
        self.validation = Batches(self._dataset(kept, ranked, tokens), config, lookahead)
        sample = self.batches.inputs(np.arange(min(64, fitted.tokens)))
        density = float((sample**2).sum(2).mean().clamp(min=1.0))
        self.net = Network(
            config, layers=fitted.layers, inputs=sample.shape[2], experts=fitted.experts, density=density
        )
        identity = list(self.net.identity.parameters())
        dense = [value for name, value in self.net.named_parameters() if not name.startswith("identity")]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, training.learning_rate, betas=ADAM_BETAS, weight_decay=training.weight_decay)
        ]
        if identity:
            rate = training.learning_rate * training.identity_rate
            self.optimisers.append(torch.optim.SparseAdam(identity, rate, betas=ADAM_BETAS))
        self.steps = -(-fitted.tokens // training.batch)
        self.schedulers = [torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate) for optimiser in self.optimisers]

    def _dataset(self, trace: RoutingTrace, ranked: bool, tokens: NDArray[np.uint32]) -> Dataset:
        rows = self.recipe.predictor.identity_rows
        if not self.recipe.predictor.identities:
            return prepare(trace, self.recipe.predictor, ranked=ranked, identity=np.zeros(trace.tokens, np.int64))
        hashes = np.asarray(trace.token_hash)
        found = np.minimum(np.searchsorted(tokens, hashes), len(tokens) - 1)
        identity = np.where(tokens[found] == hashes, found, rows - 1).astype(np.int64)
        return prepare(trace, self.recipe.predictor, ranked=ranked, identity=identity)

    def _rate(self, step: int) -> float:
        """Share of the peak learning rate: up linearly, down along a cosine."""
        total = max(1, self.steps * self.recipe.training.epochs)
        share = min(1.0, step / total)
        if share < WARM_UP:
            return 0.04 + 0.96 * share / WARM_UP
        return float(0.5 * (1 + np.cos(np.pi * (share - WARM_UP) / (1 - WARM_UP))))  # a NumPy scalar would not reload

    def fit(
        self, state_path: Path | None, fingerprint: str, progress: Progress | None, report: Report | None
    ) -> list[EpochLog]:
        """Train until the epochs are over or validation no longer improves; keep the best epoch's weights."""
        training = self.recipe.training
        log: list[EpochLog] = []
        best: dict[str, Tensor] = {}
        if state_path is not None and state_path.is_file():
            log, best = self._resume(state_path, fingerprint)
        while len(log) < training.epochs and not self._exhausted(log):
            started = time.perf_counter()
            loss = self._epoch(len(log), progress)
            found = float(self.recall((self.batches.top_k,))[0])
            entry = EpochLog(
                epoch=len(log) + 1, loss=loss, recall=found, seconds=round(time.perf_counter() - started, 2)
            )
            if not log or found > max(old.recall for old in log):
                best = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
            log.append(entry)
            if report is not None:
                report(entry)
            if state_path is not None:
                self._keep(state_path, fingerprint, log, best)
        self.net.load_state_dict(best)
        if progress is not None:
            progress(self.steps * training.epochs, self.steps * training.epochs)
        return log

    def _exhausted(self, log: list[EpochLog]) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        if not log:
            return False
        best = max(log, key=lambda entry: entry.recall)
        return len(log) - best.epoch >= self.recipe.training.patience

    def _epoch(self, epoch: int, progress: Progress | None) -> float:
        training = self.recipe.training
        self.net.train()
        torch.manual_seed(training.seed * 1_000_003 + epoch)  # so that a resumed run draws what it would have drawn
        order = np.random.default_rng((training.seed, epoch)).permutation(self.batches.data.tokens)
        total = 0.0
        for step in range(self.steps):
            tokens = order[step * training.batch : (step + 1) * training.batch]
            inputs = self.batches.inputs(tokens, training.dropout)
            log_odds = self.net(inputs, self.batches.identity(tokens), training.hidden_dropout)
            chosen, weight = self.batches.targets(tokens, training.gate_weighting)
            loss = loss_of(log_odds, chosen, weight, training.loss, self.batches.top_k)
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
            loss.backward()
            for optimiser, scheduler in zip(self.optimisers, self.schedulers, strict=True):
                optimiser.step()
                scheduler.step()
            total += float(loss.detach()) / self.layers
            if not math.isfinite(total):
                raise ForestageError(
                    f"learning_rate: {training.learning_rate:g} makes the training diverge; choose a smaller one"
                )
            if progress is not None:
                progress(epoch * self.steps + step + 1, self.steps * training.epochs)
        return total / self.steps

    @torch.no_grad()
    def recall(self, limits: tuple[int, ...]) -> NDArray[np.float64]:
        """Recall ``[limits]`` on the validation sequences over layers ≥ lookahead, in floating point."""
        self.net.eval()
        data = self.validation.data
        found = np.zeros(len(limits))
        for first in range(0, data.tokens, EVALUATION_TOKENS):
            tokens = np.arange(first, min(first + EVALUATION_TOKENS, data.tokens))
            log_odds = self.net(self.validation.inputs(tokens), self.validation.identity(tokens), 0.0)
            chosen, _ = self.validation.targets(tokens, 0.0)
            best = log_odds.topk(max(limits), 2).indices
            hit = chosen.gather(2, best)[self.lookahead :]
            found += [float(hit[:, :, :limit].sum()) for limit in limits]
        rows = (data.ids[:, self.lookahead :, 0] >= 0).sum()
        return found / max(1, rows * self.validation.top_k)

    @torch.no_grad()
    def weights(self) -> Weights:
        """The network's weights, and how high its hidden units reach on the validation sequences."""
        self.net.eval()
        config = self.recipe.predictor
        tokens = np.arange(min(EVALUATION_TOKENS, self.validation.data.tokens))
        sums = self.net.sums(self.validation.inputs(tokens), self.validation.identity(tokens))
        experts = self.batches.data.experts
        shape = (self.layers, -1, experts, config.hidden)
        tables = [
            table[: config.identity_rows].view(config.identity_rows, self.layers, config.hidden)
            for table in self.net.identity.parameters()
        ]
        none = np.empty((0, 0, self.layers, config.hidden), np.float32)
        identity = torch.stack(tables, 1).numpy() if tables else none
        return Weights(
            rows=self.net.rows.detach().view(shape).numpy(),
            bias=self.net.bias.detach()[:, 0].numpy(),
            identity_rows=identity,
            output=self.net.output.detach().numpy(),
            output_bias=self.net.output_bias.detach()[:, 0].numpy(),
            hidden_high=np.quantile(sums.relu().reshape(self.layers, -1).numpy(), HIDDEN_QUANTILE, axis=1),
        )

    def _keep(self, path: Path, fingerprint: str, log: list[EpochLog], best: dict[str, Tensor]) -> None:
        state = {
            "fingerprint": fingerprint,
            "log": [entry.model_dump() for entry in log],
            "best": best,
            "net": self.net.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedulers": [scheduler.state_dict()["last_epoch"] for scheduler in self.schedulers],
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def _resume(self, path: Path, fingerprint: str) -> tuple[list[EpochLog], dict[str, Tensor]]:
        """The log and best weights of a kept state, which the network and optimisers take over.

        Raises:
            ForestageError: if the state is not readable or belongs to another training.
        """
        try:
            state = torch.load(path, weights_only=True)
            kept = state["fingerprint"]
        except Exception as error:
            raise ForestageError(f"{path}: no readable training state; remove it to begin anew") from error
        if kept != fingerprint:
            raise ForestageError(
                f"{path}: the state of a training with another trace or recipe; remove it to begin anew"
            )
        self.net.load_state_dict(state["net"])
        for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        for scheduler, last in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.last_epoch = last  # the rates themselves are in the optimisers' states
        return [EpochLog(**entry) for entry in state["log"]], state["best"]
