"""Training a row network in PyTorch: all target layers at once, early stopping, resumable."""

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
from torch.nn import functional

from catalog.errors import ForestageError
from catalog.files import atomic_path
from catalog.progress import Progress
from predictor.row_network.config import Recipe, TrainingConfig
from predictor.row_network.file import EpochLog, Provenance, Validation
from predictor.row_network.head import Head
from predictor.row_network.inputs import Examples, frequent_tokens
from predictor.row_network.integers import NetworkTables
from predictor.row_network.network import Network
from predictor.row_network.quantise import (
    Figures,
    Quantised,
    Weights,
    add_figures,
    choose_integers,
    mean_figures,
    twin_figures,
)
from predictor.row_network.twin import RowNetwork
from traces import RoutingTrace
from traces.selection import select_sequences

EVALUATION_TOKENS = 2048
HIDDEN_QUANTILE = 0.9995
ADAM_BETAS = (0.9, 0.98)
WARM_UP = 0.1

Report = Callable[[EpochLog], None]


@dataclass(frozen=True)
class Trained:
    """A trained network, where it comes from, and the floating-point weights that it was quantised from."""

    tables: NetworkTables
    ranked: bool
    provenance: Provenance
    weights: Weights


def train(
    trace: RoutingTrace,
    recipe: Recipe,
    head: Head,
    *,
    trained_on: str | None = None,
    state_path: Path | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Trained:
    """Train on ``trace``, of which ``recipe.training.validation`` is kept aside by sequence, and quantise.

    Args:
        trace: the training part of a trace, which ``requirements.check_trainable`` let pass.
        recipe: what and how.
        head: what is asked.
        trained_on: what ``trace`` is, for a reader.
        state_path: a file that keeps the state after each epoch; training goes on from it where it is there and
            belongs to the same trace and recipe. The caller removes it.
        progress: called with steps done and in all.
        report: called after each epoch.

    Raises:
        ForestageError: if there are too few sequences, the kept state is another's, or the loss grows beyond all
            numbers.
    """
    config = recipe.predictor
    ranked = trace.metadata.ranked if config.ranks is None else config.ranks
    fitted, kept = divide(trace, recipe.training)
    tokens = frequent_tokens(fitted, config.identity_rows) if config.identities else np.empty(0, np.uint32)
    run = _Run(fitted, kept, recipe, head, ranked, tokens)
    log = run.fit(state_path, fingerprint(trace, recipe), progress, report)
    weights = run.weights()
    fixed, used = choose_integers(weights, config, head, tokens, kept, ranked=ranked)

    def figures(of: Quantised) -> Figures:
        network = RowNetwork(of.tables, config, top_k=trace.top_k, ranked=ranked)
        return twin_figures(network, of.steps, head, kept, run.validation)

    nearest = np.full(run.validation.tokens, config.nearest)
    validation = Validation(floating_point=run.figures(nearest), int8=figures(fixed))
    provenance = Provenance(
        model=trace.metadata.model,
        trained_on=trained_on or f"{trace.sequences} sequences",
        synthetic=trace.metadata.synthetic,
        training=recipe.training.model_dump(mode="json"),
        log=tuple(log),
        validation=validation.model_copy(update={"adapting": figures(used) if used is not fixed else {}}),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    )
    return Trained(used.tables, ranked, provenance, weights)


def divide(trace: RoutingTrace, training: TrainingConfig) -> tuple[RoutingTrace, RoutingTrace]:
    """(sequences to train on, sequences to stop, quantise and calibrate by).

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


def fingerprint(trace: RoutingTrace, recipe: Recipe) -> str:
    """Tells whether a kept state belongs to this training."""
    digest = hashlib.sha256()
    for part in trace.chunks():
        for array in (part.expert_ids, part.token_hash, part.gate_weights):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(np.asarray(trace.sequence_offsets).tobytes())
    settings = {
        "head": type(recipe).__module__,
        "recipe": recipe.model_dump(mode="json"),
        "ranked": trace.metadata.ranked,
        "torch": torch.__version__,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def draw_lookaheads(generator: np.random.Generator, tokens: int, recipe: Recipe) -> NDArray[np.int64]:
    """At which lookahead ``[tokens]`` each token is asked, so that one bank learns to serve them all."""
    config = recipe.predictor
    weights = (1.0 + np.arange(config.distances)) ** -recipe.training.nearness
    return config.nearest + generator.choice(config.distances, tokens, p=weights / weights.sum())


def yes_or_no_loss(log_odds: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy: each answer is a yes-or-no question; the sum over all that is asked, weighted."""
    return functional.binary_cross_entropy_with_logits(log_odds, truth, weight=weight, reduction="sum")


class _Run:
    """One training: data, network, optimisers."""

    def __init__(
        self,
        fitted: RoutingTrace,
        kept: RoutingTrace,
        recipe: Recipe,
        head: Head,
        ranked: bool,
        tokens: NDArray[np.uint32],
    ) -> None:
        self.recipe = recipe
        self.head = head
        self.layers = fitted.layers
        config, training = recipe.predictor, recipe.training
        torch.manual_seed(training.seed)
        self.examples = Examples.of(fitted, config, ranked=ranked, identity_tokens=tokens)
        self.validation = Examples.of(kept, config, ranked=ranked, identity_tokens=tokens)
        first = np.arange(min(64, fitted.tokens))
        sample = self._inputs(self.examples, first, np.full(len(first), config.nearest))[0]
        density = float((sample**2).sum(2).mean().clamp(min=1.0))
        self.net = Network(
            config, layers=fitted.layers, inputs=sample.shape[2], experts=fitted.experts, density=density
        )
        identity = list(self.net.identity.parameters())
        dense = [value for name, value in self.net.named_parameters() if not name.startswith("identity")]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, training.learning_rate, betas=ADAM_BETAS, weight_decay=training.weight_decay)
        ]
        rates = [training.learning_rate]
        if identity:
            rates.append(training.learning_rate * training.identity_rate)
            self.optimisers.append(torch.optim.SparseAdam(identity, rates[1], betas=ADAM_BETAS))
        self.steps = -(-fitted.tokens // training.batch)
        self.schedulers = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimiser, rate, total_steps=self.steps * training.epochs + 1, pct_start=WARM_UP, cycle_momentum=False
            )
            for optimiser, rate in zip(self.optimisers, rates, strict=True)
        ]

    @staticmethod
    def _inputs(
        examples: Examples, tokens: NDArray[np.int64], lookaheads: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What ``Network.sums`` takes, of some tokens asked at these lookaheads."""
        inputs = torch.from_numpy(examples.inputs(tokens, lookaheads)).flatten(2)
        distances = torch.from_numpy(examples.distances(lookaheads))
        return inputs, distances, torch.from_numpy(examples.identities(tokens))

    def _labels(self, examples: Examples, tokens: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        truth, weight = self.head.labels(examples, tokens)
        return torch.from_numpy(truth), torch.from_numpy(weight)

    def fit(
        self, state_path: Path | None, mark: str, progress: Progress | None, report: Report | None
    ) -> list[EpochLog]:
        """Train until the epochs are over or validation no longer improves; keep the best epoch's weights."""
        training = self.recipe.training
        log: list[EpochLog] = []
        best: dict[str, Tensor] = {}
        if state_path is not None and state_path.is_file():
            log, best = self._resume(state_path, mark)
        while len(log) < training.epochs and not self._exhausted(log):
            started = time.perf_counter()
            loss = self._epoch(len(log), progress)
            name, found = next(iter(self.figures(self._every_lookahead()).items()))
            if not math.isfinite(found):
                raise self._diverged()
            entry = EpochLog(
                epoch=len(log) + 1,
                loss=loss,
                figure=name,
                validation=found,
                seconds=round(time.perf_counter() - started, 2),
            )
            if not log or found > max(old.validation for old in log):
                best = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
            log.append(entry)
            if report is not None:
                report(entry)
            if state_path is not None:
                self._keep(state_path, mark, log, best)
        self.net.load_state_dict(best)
        if progress is not None:
            progress(self.steps * training.epochs, self.steps * training.epochs)
        return log

    def _exhausted(self, log: list[EpochLog]) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        if not log:
            return False
        best = max(log, key=lambda entry: entry.validation)
        return len(log) - best.epoch >= self.recipe.training.patience

    def _diverged(self) -> ForestageError:
        rate = self.recipe.training.learning_rate
        return ForestageError(f"learning_rate: {rate:g} makes the training diverge; choose a smaller one")

    def _epoch(self, epoch: int, progress: Progress | None) -> float:
        training = self.recipe.training
        self.net.train()
        torch.manual_seed(training.seed * 1_000_003 + epoch)  # so that a resumed run draws what it would have drawn
        generator = np.random.default_rng((training.seed, epoch))
        order = generator.permutation(self.examples.tokens)
        total = 0.0
        for step in range(self.steps):
            tokens = order[step * training.batch : (step + 1) * training.batch]
            lookaheads = draw_lookaheads(generator, len(tokens), self.recipe)
            inputs, distances, identity = self._inputs(self.examples, tokens, lookaheads)
            if training.dropout:
                inputs = functional.dropout(inputs, training.dropout)
            truth, weight = self._labels(self.examples, tokens)
            log_odds = self.net(inputs, distances, identity, training.hidden_dropout).view(truth.shape)
            loss = self.head.loss(log_odds, truth, weight)
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
            loss.backward()
            for optimiser, scheduler in zip(self.optimisers, self.schedulers, strict=True):
                optimiser.step()
                scheduler.step()
            total += float(loss.detach()) / self.layers
            if not math.isfinite(total):
                raise self._diverged()
            if progress is not None:
                progress(epoch * self.steps + step + 1, self.steps * training.epochs)
        return total / self.steps

    def _every_lookahead(self) -> NDArray[np.int64]:
        """Lookaheads for the validation tokens, one after the other."""
        config = self.recipe.predictor
        return config.nearest + np.arange(self.validation.tokens) % config.distances

    @torch.no_grad()
    def figures(self, lookaheads: NDArray[np.int64]) -> Figures:
        """The head's figures on the validation sequences in floating point, each token asked at its lookahead."""
        self.net.eval()
        totals: dict[str, NDArray[np.float64]] = {}
        for first in range(0, self.validation.tokens, EVALUATION_TOKENS):
            tokens = np.arange(first, min(first + EVALUATION_TOKENS, self.validation.tokens))
            truth, weight = self.head.labels(self.validation, tokens)
            log_odds = self.net(*self._inputs(self.validation, tokens, lookaheads[tokens]), 0.0)
            add_figures(totals, self.head.figures(log_odds.view(truth.shape).numpy(), truth, weight))
        return mean_figures(totals)

    @torch.no_grad()
    def weights(self) -> Weights:
        """The network's weights, and how high its hidden units reach on the validation sequences."""
        self.net.eval()
        config = self.recipe.predictor
        tokens = np.arange(min(EVALUATION_TOKENS, self.validation.tokens))
        sums = self.net.sums(*self._inputs(self.validation, tokens, self._every_lookahead()[tokens]))
        shape = (self.layers, -1, self.examples.experts, config.hidden)
        tables = [
            table[: config.identity_rows].view(config.identity_rows, self.layers, config.hidden)
            for table in self.net.identity.parameters()
        ]
        none = np.empty((0, 0, self.layers, config.hidden), np.float32)
        return Weights(
            rows=self.net.rows.detach().view(shape).numpy(),
            bias=self.net.bias.detach().numpy(),
            identity_rows=torch.stack(tables, 1).numpy() if tables else none,
            output=self.net.output.detach().numpy(),
            output_bias=self.net.output_bias.detach()[:, 0].numpy(),
            hidden_high=np.quantile(sums.relu().reshape(self.layers, -1).numpy(), HIDDEN_QUANTILE, axis=1),
        )

    def _keep(self, path: Path, mark: str, log: list[EpochLog], best: dict[str, Tensor]) -> None:
        state = {
            "fingerprint": mark,
            "log": [entry.model_dump() for entry in log],
            "best": best,
            "net": self.net.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedulers": [scheduler.state_dict()["last_epoch"] for scheduler in self.schedulers],
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def _resume(self, path: Path, mark: str) -> tuple[list[EpochLog], dict[str, Tensor]]:
        """The log and best weights of a kept state, which the network and optimisers take over.

        Raises:
            ForestageError: if the state is not readable or belongs to another training.
        """
        try:
            state = torch.load(path, weights_only=True)
            kept = state["fingerprint"]
        except Exception as error:
            raise ForestageError(f"{path}: no readable training state; remove it to begin anew") from error
        if kept != mark:
            raise ForestageError(
                f"{path}: the state of a training with another trace or recipe; remove it to begin anew"
            )
        self.net.load_state_dict(state["net"])
        for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        for scheduler, last in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.last_epoch = last  # the rates themselves are in the optimisers' states
        return [EpochLog(**entry) for entry in state["log"]], state["best"]


def set_threads(threads: int) -> None:
    """Let PyTorch use so many threads in this process."""
    torch.set_num_threads(threads)
