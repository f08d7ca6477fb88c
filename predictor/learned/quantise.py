"""From trained weights to integers: scales, shifts and rounding, chosen with the integer twin in the loop."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictor.learned.config import LearnedConfig
from predictor.learned.dataset import RANK_UNIT
from predictor.learned.tables import HIDDEN_MAX, PROBABILITY_BINS, PROBABILITY_ONE, LearnedTables, feeding_layers

LARGEST_SHIFT = 3
"""Sources may be this many powers of two coarser than the finest one of their layer."""
SCORE_STEPS = 96.0
"""Steps of the score a unit of log-odds has, up to the rounding of a shift: the scale spans ± 21."""


@dataclass(frozen=True)
class Weights:
    """Floating-point weights; ``L`` layers, ``S`` sources, ``N`` experts, ``H`` hidden, ``R`` identity rows.

    Attributes:
        rows: f32 ``[L, S, N, H]``, of inputs of ``dataset.prepare``.
        bias: f32 ``[L, H]``.
        identity_rows: f32 ``[R, I, L, H]``.
        output: f32 ``[L, H, N]``.
        output_bias: f32 ``[L, N]``.
        hidden_high: f32 ``[L]``: what the hidden units seldom exceed.
    """

    rows: NDArray[np.float32]
    bias: NDArray[np.float32]
    identity_rows: NDArray[np.float32]
    output: NDArray[np.float32]
    output_bias: NDArray[np.float32]
    hidden_high: NDArray[np.float32]


def quantise(
    weights: Weights,
    config: LearnedConfig,
    identity_tokens: NDArray[np.uint32],
    *,
    lookahead: int,
    ranked: bool,
    clip: float,
) -> LearnedTables:
    """Integer tables of ``weights``; ``clip`` (0 < clip ≤ 1) is the share of the largest weight that 127 stands for.

    Probabilities are left even (``probability.calibrate`` fills them), and no layer adapts.
    """
    layers = len(weights.rows)
    present = feeding_layers(config, layers=layers, lookahead=lookahead) >= 0
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
    return LearnedTables(
        rows=_round_i8(rows / steps[:, :, None, None]),
        source_shifts=shifts.astype(np.uint8),
        bias=_round_i32(weights.bias / scale[:, None]),
        identity_rows=_round_i8(identity / identity_steps) if identity.size else identity.astype(np.int8),
        identity_shifts=identity_shifts.astype(np.uint8),
        identity_tokens=identity_tokens,
        hidden_shifts=hidden_shifts.astype(np.uint8),
        output=_round_i8(weights.output / output_steps[:, None, None]),
        output_bias=_round_i32(weights.output_bias / units[:, None]),
        score_shifts=np.maximum(0, np.round(np.log2(1.0 / (SCORE_STEPS * units)))).astype(np.uint8),
        adaptations=np.zeros(layers, np.uint8),
        probabilities=np.full((layers, PROBABILITY_BINS), PROBABILITY_ONE // 2, np.uint16),
    )


def _shifts(high: NDArray[np.floating], scale: NDArray[np.floating]) -> NDArray[np.int64]:
    """Smallest shifts ``[L, …]`` by which 127 steps reach ``high``."""
    needed = np.ceil(np.log2(np.maximum(high / (127 * scale[:, None]), 1e-9)))
    return np.clip(needed, 0, LARGEST_SHIFT).astype(np.int64)


def _round_i8(values: NDArray[np.floating]) -> NDArray[np.int8]:
    return np.clip(np.round(values), -127, 127).astype(np.int8)


def _round_i32(values: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.clip(np.round(values), -(2**29), 2**29).astype(np.int32)
