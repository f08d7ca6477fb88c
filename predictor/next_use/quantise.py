"""A trained layer's floating-point weights as the integers of ``predictor.next_use.tables``."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictor.next_use.sources import SourceArrays
from predictor.next_use.tables import MAX_GAIN, SCORE_UNITS

MAX_ACTIVATION = 255
ACTIVATION_PERCENTILE = 99.9
"""Of the activations above 0; what is larger is cut at 255. Higher ones cost resolution, lower ones cut more."""

MAX_OUTPUT_SHIFT = 30


@dataclass(frozen=True)
class FloatLayer:
    """One target layer in floating point: logits = output · relu(bias + Σ rows) + output_bias.

    Attributes:
        rows: ``[sources, experts, hidden]``, for features as in ``predictor.next_use.features``.
        bias: ``[hidden]``.
        output: ``[horizons · experts, hidden]``.
        output_bias: ``[horizons · experts]``.
    """

    rows: NDArray[np.float64]
    bias: NDArray[np.float64]
    output: NDArray[np.float64]
    output_bias: NDArray[np.float64]


def quantise_layer(
    layer: FloatLayer, sources: SourceArrays, features: NDArray[np.float16]
) -> dict[str, NDArray[np.integer]]:
    """One layer's arrays, without the leading axis.

    Rows share one unit, the largest of the routing itself being 127; each group of averages has its own power of two of
    it. The output's unit is chosen so that a score comes out in ``1 / SCORE_UNITS``.

    Args:
        layer: the weights.
        sources: of the target.
        features: f16 ``[tokens, sources · experts]``, a sample that sets the range of the activations.
    """
    direct = sources.group < 0
    unit = _largest(layer.rows[direct]) / 127
    rows = np.zeros(layer.rows.shape, np.int8)
    rows[direct] = _round(layer.rows[direct] / unit)
    gain = np.zeros(len(sources.shifts), np.int8)
    for group in range(len(sources.shifts)):
        members = sources.group == group
        needed = math.ceil(math.log2(_largest(layer.rows[members]) / (127 * unit)))
        gain[group] = min(MAX_GAIN, max(-16, needed))
        rows[members] = _round(layer.rows[members] / (unit * 2.0 ** gain[group]))

    weights = layer.rows.reshape(-1, layer.rows.shape[-1]).astype(np.float32)
    sums = np.maximum(features.astype(np.float32) @ weights + layer.bias.astype(np.float32), 0) / unit
    top = float(np.percentile(sums[sums > 0], ACTIVATION_PERCENTILE)) if (sums > 0).any() else 1.0
    activation_shift = max(0, math.ceil(math.log2(max(top, 1.0) / MAX_ACTIVATION)))

    activation_unit = unit * 2.0**activation_shift
    scaled = layer.output * (activation_unit * SCORE_UNITS)
    output_shift = min(MAX_OUTPUT_SHIFT, max(0, math.floor(math.log2(127 / _largest(scaled)))))
    # Half a unit, so that rounding down becomes rounding to nearest.
    half = (1 << output_shift) >> 1
    return {
        "rows": rows,
        # The activation's rounding is made one to nearest in the same way.
        "bias": np.round(layer.bias / unit + ((1 << activation_shift) >> 1)).astype(np.int32),
        "gain": gain,
        "activation_shift": np.array(activation_shift, np.int8),
        "output": _round(scaled * 2.0**output_shift),
        "output_bias": np.round(layer.output_bias * SCORE_UNITS * 2.0**output_shift + half).astype(np.int32),
        "output_shift": np.array(output_shift, np.int8),
    }


def _largest(array: NDArray[np.float64]) -> float:
    """The largest magnitude, never quite 0."""
    return max(float(np.abs(array).max(initial=0)), 1e-9)


def _round(array: NDArray[np.float64]) -> NDArray[np.int8]:
    return np.clip(np.round(array), -127, 127).astype(np.int8)
