"""From trained weights to integers: scales, shifts and rounding, chosen with the integer twin in the loop."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from predictor.row_network.chances import calibrate, score_histogram
from predictor.row_network.config import NetworkConfig
from predictor.row_network.head import Head
from predictor.row_network.inputs import RANK_UNIT, Examples
from predictor.row_network.integers import CERTAIN, CHANCE_BINS, HIDDEN_MAX, SCORE_STEPS, SCORE_ZERO, NetworkTables
from predictor.row_network.sources import feeding_layers
from predictor.row_network.twin import RowNetwork
from traces import RoutingTrace

LARGEST_SHIFT = 3
"""Sources may be this many powers of two coarser than the finest one of their layer."""
CLIPS = (1.0, 0.8, 0.6, 0.45)
"""Shares of the largest weight that 127 may stand for, to choose from."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Weights:
    """Floating-point weights; symbols as ``integers.NetworkTables``.

    Attributes:
        rows: f32 ``[L, S, N, H]``, of ``Examples.inputs``.
        bias: f32 ``[L, D, H]``.
        identity_rows: f32 ``[R, I, L, H]``.
        output: f32 ``[L, H, Q · N]``.
        output_bias: f32 ``[L, Q · N]``.
        hidden_high: f32 ``[L]``: what the hidden units seldom exceed.
    """

    rows: NDArray[np.float32]
    bias: NDArray[np.float32]
    identity_rows: NDArray[np.float32]
    output: NDArray[np.float32]
    output_bias: NDArray[np.float32]
    hidden_high: NDArray[np.float32]


@dataclass(frozen=True)
class Quantised:
    """Integer tables, and what a step of their scores stands for.

    Attributes:
        tables: the integers.
        steps: f64 ``[L]``: steps of the score a unit of log-odds has: ``SCORE_STEPS`` up to the rounding of the layer's
            shift, a factor between ``√½`` and ``√2``. Chances know it from calibration; figures that tell log-odds of
            layers together must be told.
    """

    tables: NetworkTables
    steps: NDArray[np.float64]


def quantise(
    weights: Weights, config: NetworkConfig, identity_tokens: NDArray[np.uint32], *, ranked: bool, clip: float
) -> Quantised:
    """Integer tables of ``weights``; ``clip`` (0 < clip ≤ 1) is the share of the largest weight that 127 stands for.

    Chances are left even (``chances.calibrate`` fills them), and no layer adapts.
    """
    layers = len(weights.rows)
    present = feeding_layers(config, layers=layers) >= 0
    rows = np.where(present[:, :, None, None], weights.rows, 0.0)
    # A rank's shift of 1 stands for a weight of 1 where ids are ranked: rows are halved to fit.
    rows = rows / (RANK_UNIT if ranked else 1.0)
    identity = weights.identity_rows
    high = np.abs(rows).max(axis=(2, 3), initial=0.0) * clip  # [L, S]
    identity_high = np.abs(identity).max(axis=(0, 3), initial=0.0).T * clip  # [L, I]
    largest = np.concatenate([high, identity_high], axis=1).max(axis=1, initial=0.0)
    # A layer that nothing feeds has its bias alone: any unit that resolves it will do.
    scale = np.where(largest > 0, largest, 1.0) / 127 / 2**LARGEST_SHIFT  # [L] of a shift of 0
    shifts = _shifts(high, scale)
    identity_shifts = _shifts(identity_high, scale)
    steps = scale[:, None] * 2.0**shifts
    identity_steps = (scale[:, None] * 2.0**identity_shifts).T[None, :, :, None]
    hidden_shifts = np.maximum(0, np.ceil(np.log2(np.maximum(weights.hidden_high, 1e-6) / (HIDDEN_MAX * scale))))
    hidden_steps = scale * 2.0**hidden_shifts
    output_steps = np.maximum(np.abs(weights.output).max(axis=(1, 2)) * clip, 1e-6) / 127
    units = hidden_steps * output_steps  # log-odds of one unit of a score before its shift
    score_shifts = np.maximum(0, np.round(np.log2(1.0 / (SCORE_STEPS * units)))).astype(np.uint8)
    tables = NetworkTables(
        rows=_round_i8(rows / steps[:, :, None, None]),
        source_shifts=shifts.astype(np.uint8),
        bias=_round_i32(weights.bias / scale[:, None, None]),
        identity_rows=_round_i8(identity / identity_steps) if identity.size else identity.astype(np.int8),
        identity_shifts=identity_shifts.astype(np.uint8),
        identity_tokens=identity_tokens,
        hidden_shifts=hidden_shifts.astype(np.uint8),
        output=_round_i8(weights.output / output_steps[:, None, None]),
        output_bias=_round_i32(weights.output_bias / units[:, None]),
        score_shifts=score_shifts,
        adaptations=np.zeros(layers, np.uint8),
        chances=np.full((layers, config.distances, config.questions, CHANCE_BINS), CERTAIN // 2, np.uint16),
    )
    return Quantised(tables, 1.0 / (units * 2.0**score_shifts))


def choose_integers(
    weights: Weights,
    config: NetworkConfig,
    head: Head,
    identity_tokens: NDArray[np.uint32],
    validation: RoutingTrace,
    *,
    ranked: bool,
) -> tuple[Quantised, Quantised]:
    """(calibrated tables that do not adapt, calibrated tables as they are to be used).

    The clip, then the adaptation, are those with the best first figure of the twin on ``validation``, the mean over the
    lookaheads ``tried`` of those served.
    """
    examples = Examples.of(validation, config, ranked=ranked, identity_tokens=identity_tokens)

    def network(tables: NetworkTables, lookahead: int | None = None) -> RowNetwork:
        return RowNetwork(tables, config, top_k=validation.top_k, ranked=ranked, lookahead=lookahead)

    def found(made: Quantised) -> float:
        served = (network(made.tables, lookahead) for lookahead in tried(config))
        each = [twin_figures(asked, made.steps, head, validation, examples) for asked in served]
        return float(np.mean([next(iter(figures.values())) for figures in each]))

    def calibrated(made: Quantised) -> Quantised:
        every = range(config.nearest, config.farthest + 1)
        counts = [score_histogram(network(made.tables, lookahead), head, validation, examples) for lookahead in every]
        # Lookaheads beyond the layers below a target are one and the same question, asked before layer 0.
        seen, came = (sum(parts[1:], start=parts[0]) for parts in zip(*counts, strict=True))
        return replace(made, tables=replace(made.tables, chances=calibrate(seen, came)))

    clipped = [quantise(weights, config, identity_tokens, ranked=ranked, clip=clip) for clip in CLIPS]
    fixed = calibrated(_best(clipped, found))
    adapting = [_adapting(fixed, shift) for shift in head.adaptations]
    # Calibrated once more, as scores that adapt are spread otherwise.
    return fixed, calibrated(_best(adapting, found)) if len(adapting) > 1 else fixed


def _adapting(made: Quantised, shift: int) -> Quantised:
    adaptations = np.full(made.tables.layers, shift, np.uint8)
    return replace(made, tables=replace(made.tables, adaptations=adaptations))


def _best(candidates: list[Quantised], found: Callable[[Quantised], float]) -> Quantised:
    return candidates[0] if len(candidates) == 1 else max(candidates, key=found)


def tried(config: NetworkConfig) -> tuple[int, ...]:
    """Lookaheads that stand for all that are served: the nearest, the farthest, and one between."""
    middle = (config.nearest + config.farthest) // 2
    return tuple(sorted({config.nearest, middle, config.farthest}))


def twin_figures(
    network: RowNetwork, steps: NDArray[np.float64], head: Head, trace: RoutingTrace, examples: Examples
) -> Figures:
    """The head's figures of the integers on ``trace``, whose tokens are ``examples``; ``steps``: see ``Quantised``."""
    totals: dict[str, NDArray[np.float64]] = {}
    units = (1.0 / steps).astype(np.float32)[:, None, None, None]
    for first, scores in network.score_chunks(trace):
        truth, weight = head.labels(examples, np.arange(first, first + len(scores)))
        shape = (len(scores), network.layers, network.config.questions, network.experts)
        log_odds = (scores - SCORE_ZERO).astype(np.float32).reshape(shape).transpose(1, 0, 2, 3) * units
        add_figures(totals, head.figures(log_odds, truth, weight))
    return mean_figures(totals)


def add_figures(totals: dict[str, NDArray[np.float64]], found: dict[str, tuple[float, float]]) -> None:
    """Sums and counts of one part join those of the others."""
    for name, pair in found.items():
        totals[name] = totals.get(name, np.zeros(2)) + np.array(pair)


def mean_figures(totals: dict[str, NDArray[np.float64]]) -> Figures:
    """Sum over count of each figure; 0 where nothing was counted."""
    return {name: float(total / count) if count else 0.0 for name, (total, count) in totals.items()}


def _shifts(high: NDArray[np.floating], scale: NDArray[np.floating]) -> NDArray[np.int64]:
    """Smallest shifts ``[L, …]`` by which 127 steps reach ``high``."""
    needed = np.ceil(np.log2(np.maximum(high / (127 * scale[:, None]), 1e-9)))
    return np.clip(needed, 0, LARGEST_SHIFT).astype(np.int64)


def _round_i8(values: NDArray[np.floating]) -> NDArray[np.int8]:
    return np.clip(np.round(values), -127, 127).astype(np.int8)


def _round_i32(values: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.clip(np.round(values), -(2**29), 2**29).astype(np.int32)
