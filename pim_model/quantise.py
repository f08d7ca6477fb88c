"""Symmetric int8, and a SwiGLU expert whose matrix products are int8 times int8 in int32.

The rule, everywhere the same and all in float32: ``scale = max|x| / 127``; ``q = x / scale`` rounded half to even and
clipped to ±127; all zeros where the scale is 0. Weights have a scale per output row, a vector has one scale. −128
never occurs, so the code is symmetric.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.errors import ForestageError
from pim_model import tile

LARGEST = 127
"""Largest magnitude of a quantised value."""

Gemv = Callable[[NDArray[np.int8], NDArray[np.int8]], NDArray[np.int32]]
"""int8 ``[rows, columns]`` times int8 ``[columns]``, exactly, to int32 ``[rows]``: the twin, the hardware, PyTorch."""


@dataclass(frozen=True)
class QuantisedMatrix:
    """``values · scales[:, None]`` approximates the matrix; each weight is off by at most half its row's scale.

    Attributes:
        values: int8 ``[rows, columns]``.
        scales: f32 ``[rows]``.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: ArrayLike) -> "QuantisedMatrix":
        """Quantise ``matrix`` ``[rows, columns]`` by rows.

        Raises:
            ForestageError: it is not a matrix, or holds a value that is not finite.
        """
        return cls(*_quantise(_finite(matrix, "matrix", dimensions=2)))


def quantise_vector(vector: ArrayLike) -> tuple[NDArray[np.int8], np.float32]:
    """The vector ``[columns]`` as int8 ``[columns]``, and its scale.

    Raises:
        ForestageError: it is not a vector, or holds a value that is not finite.
    """
    values, scales = _quantise(_finite(vector, "vector", dimensions=1)[None])
    return values[0], scales[0]


@dataclass(frozen=True)
class QuantisedExpert:
    """``down(SiLU(gate · x) ⊙ (up · x))`` with quantised weights and activations.

    Attributes:
        gate: ``[intermediate, hidden]``.
        up: ``[intermediate, hidden]``.
        down: ``[hidden, intermediate]``.
    """

    gate: QuantisedMatrix
    up: QuantisedMatrix
    down: QuantisedMatrix

    @classmethod
    def of(cls, gate: ArrayLike, up: ArrayLike, down: ArrayLike) -> "QuantisedExpert":
        """Quantise an expert's three matrices, each ``[output, input]``.

        Raises:
            ForestageError: the shapes do not fit together, or a value is not finite.
        """
        expert = cls(QuantisedMatrix.of(gate), QuantisedMatrix.of(up), QuantisedMatrix.of(down))
        gate_shape, up_shape, down_shape = (m.values.shape for m in (expert.gate, expert.up, expert.down))
        if gate_shape != up_shape or down_shape != gate_shape[::-1]:
            raise ForestageError(
                f"expert: gate {list(gate_shape)}, up {list(up_shape)} and down {list(down_shape)} do not fit; give "
                "[intermediate, hidden] twice and [hidden, intermediate]"
            )
        return expert

    def run(self, x: ArrayLike, gemv: Gemv = tile.gemv) -> NDArray[np.float32]:
        """The expert's output, f32 ``[hidden]``, for ``x`` ``[hidden]``; ``gemv`` does the matrix products.

        The sums are scaled to float32; SiLU and the product with ``up`` are computed in float64 and rounded once to
        float32, then quantised as the input of ``down``. So the output depends on ``gemv`` only through its integers.

        Raises:
            ForestageError: ``x`` does not fit or holds a value that is not finite.
        """
        codes, scale = quantise_vector(x)
        gated = _rescale(gemv(self.gate.values, codes), self.gate.scales, scale)
        raised = _rescale(gemv(self.up.values, codes), self.up.scales, scale)
        hidden, hidden_scale = quantise_vector(_swiglu(gated, raised))
        return _rescale(gemv(self.down.values, hidden), self.down.scales, hidden_scale)

    def products(self, x: ArrayLike) -> list[tuple[NDArray[np.int8], NDArray[np.int8]]]:
        """The (matrix, vector) pairs of the three products in ``run``, in order: the hardware's input.

        Raises:
            ForestageError: as ``run``.
        """
        asked: list[tuple[NDArray[np.int8], NDArray[np.int8]]] = []

        def record(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
            asked.append((weights, vector))
            return tile.gemv(weights, vector)

        self.run(x, record)
        return asked


def float_expert(gate: ArrayLike, up: ArrayLike, down: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """The same expert in float64, f64 ``[hidden]``: the reference for the quantisation error."""
    gate, up, down, x = (np.asarray(value, np.float64) for value in (gate, up, down, x))
    return down @ _silu_times(gate @ x, up @ x)


def relative_error(actual: ArrayLike, reference: ArrayLike) -> float:
    """``‖actual − reference‖ / ‖reference‖``, Euclidean."""
    expected = np.asarray(reference, np.float64)
    return float(np.linalg.norm(np.asarray(actual, np.float64) - expected) / np.linalg.norm(expected))


def _quantise(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise each row by itself."""
    scales = np.abs(rows).max(axis=1, initial=0) / np.float32(LARGEST)
    divisors = np.where(scales == 0, np.float32(1), scales)[:, None]
    codes = np.clip(np.rint(rows / divisors), -LARGEST, LARGEST).astype(np.int8)
    # The scale of a row that is not all zeros can underflow to 0; its values become 0 too.
    codes[scales == 0] = 0
    return codes, scales


def _rescale(sums: NDArray[np.int32], scales: NDArray[np.float32], scale: np.float32) -> NDArray[np.float32]:
    """The float32 values that int32 ``[rows]`` sums stand for: each sum times the product of the two scales."""
    return sums.astype(np.float32) * (scales * scale)


def _swiglu(gated: NDArray[np.float32], raised: NDArray[np.float32]) -> NDArray[np.float32]:
    return _silu_times(gated.astype(np.float64), raised.astype(np.float64)).astype(np.float32)


def _silu_times(gated: NDArray[np.float64], raised: NDArray[np.float64]) -> NDArray[np.float64]:
    """``SiLU(gated) ⊙ raised``, SiLU(g) = g / (1 + exp(−g))."""
    with np.errstate(over="ignore"):  # for a very negative g, exp(−g) overflows and the quotient is −0, as intended
        return gated / (1 + np.exp(-gated)) * raised


def _finite(values: ArrayLike, name: str, *, dimensions: int) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    if array.ndim != dimensions or array.size == 0:
        raise ForestageError(
            f"quantise: {name} has shape {list(array.shape)}; give {dimensions} dimension(s), not empty"
        )
    if not np.isfinite(array).all():
        position = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ForestageError(f"quantise: {name} is {array[tuple(position)]} at {position}; give finite values")
    return array
