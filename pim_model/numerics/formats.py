"""Weights in the unit's three formats, made from float values or taken as they are, and INT8 inputs.

* BF16: float32 rounded to nearest, ties to even; subnormals become zero (`floats`).
* INT8: one FP32 scale a row, the row's greatest magnitude / 127 in float32; a code is weight / scale in float32,
  rounded to nearest, ties to even, within ±127. A row whose scale would be subnormal is all zeros.
* MXFP4 (OCP Microscaling Formats, version 1.0): 32 neighbouring inputs of a row share a power of two, E8M0; each weight
  is E2M1. By that standard's rule (section 6.3) the power is that of the block's greatest magnitude, less 2, the
  exponent of E2M1's greatest; a weight over the power is rounded to nearest, ties to even, and beyond ±6 becomes ±6.
  The power of a block of zeros is the least, 2⁻¹²⁷.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.errors import ForestageError
from pim_model.numerics.floats import (
    LEAST_NORMAL,
    Bits16,
    Floats,
    bf16_from_float,
    float_from_bf16,
    from_float_bits,
    is_finite_bf16,
)
from pim_model.unit.program import WeightFormat

LARGEST_INT8 = 127

SHARED = 32
"""Neighbouring inputs of a row that share an exponent in MXFP4."""

E8M0_BIAS = 127

E8M0_NAN = 255

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The value of each code."""

_E2M1_LARGEST_EXPONENT = 2

_E2M1_HALFWAY = (E2M1[:7].astype(np.float64) + E2M1[1:8]) / 2


class WeightMatrix(ABC):
    """A matrix ``[rows, inputs]`` in one of the formats."""

    format: WeightFormat

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows, inputs."""

    @abstractmethod
    def values(self) -> NDArray[np.float64]:
        """What the weights stand for, f64 ``[rows, inputs]``, exactly."""

    @abstractmethod
    def take_rows(self, rows: NDArray[np.integer]) -> Self:
        """The rows of these numbers, in their order."""

    @abstractmethod
    def take_inputs(self, start: int, stop: int) -> Self:
        """The columns from ``start`` to ``stop``.

        Raises:
            ForestageError: ``start`` is inside a group of inputs that share an exponent.
        """

    @abstractmethod
    def above(self, below: Self) -> Self:
        """This matrix and, under it, ``below``."""


@dataclass(frozen=True, eq=False)
class Bf16Matrix(WeightMatrix):
    """BF16 weights.

    Attributes:
        weights: BF16 bits ``[rows, inputs]``.
    """

    weights: Bits16
    format = WeightFormat.BF16

    def __post_init__(self) -> None:
        _check(self.weights, "BF16 weights", np.uint16, 2)

    @classmethod
    def of(cls, matrix: ArrayLike) -> "Bf16Matrix":
        """Round ``matrix`` ``[rows, inputs]``.

        Raises:
            ForestageError: it is not a matrix, or a value is not finite or becomes infinite.
        """
        weights = bf16_from_float(_finite_matrix(matrix))
        if not is_finite_bf16(weights).all():
            raise ForestageError("BF16 weights: a value is beyond the greatest BF16; scale the matrix")
        return cls(weights)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, inputs."""
        return self.weights.shape

    def values(self) -> NDArray[np.float64]:
        """What the weights stand for."""
        return float_from_bf16(self.weights).astype(np.float64)

    def take_rows(self, rows: NDArray[np.integer]) -> "Bf16Matrix":
        """The rows of these numbers."""
        return Bf16Matrix(self.weights[rows])

    def take_inputs(self, start: int, stop: int) -> "Bf16Matrix":
        """The columns from ``start`` to ``stop``."""
        return Bf16Matrix(self.weights[:, start:stop])

    def above(self, below: "Bf16Matrix") -> "Bf16Matrix":
        """This matrix and, under it, ``below``."""
        return Bf16Matrix(np.concatenate([self.weights, below.weights]))


@dataclass(frozen=True, eq=False)
class Int8Matrix(WeightMatrix):
    """INT8 weights with a scale a row.

    Attributes:
        codes: int8 ``[rows, inputs]``.
        scales: float32 ``[rows]``.
    """

    codes: NDArray[np.int8]
    scales: Floats
    format = WeightFormat.INT8

    def __post_init__(self) -> None:
        _check(self.codes, "INT8 codes", np.int8, 2)
        _check(self.scales, "INT8 scales", np.float32, 1)
        if len(self.scales) != len(self.codes):
            raise ForestageError(f"INT8 weights: {len(self.scales)} scales for {len(self.codes)} rows; give one a row")

    @classmethod
    def of(cls, matrix: ArrayLike) -> "Int8Matrix":
        """Quantise ``matrix`` ``[rows, inputs]`` by rows.

        Raises:
            ForestageError: it is not a matrix, or a value is not finite.
        """
        floats = _finite_matrix(matrix)
        scales = np.abs(floats).max(axis=1) / np.float32(LARGEST_INT8)
        scales[scales < np.float32(LEAST_NORMAL)] = 0
        divisors = np.where(scales == 0, np.float32(np.inf), scales)[:, None]
        codes = np.clip(np.rint(floats / divisors), -LARGEST_INT8, LARGEST_INT8).astype(np.int8)
        return cls(codes, scales)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, inputs."""
        return self.codes.shape

    def values(self) -> NDArray[np.float64]:
        """What the weights stand for."""
        return self.codes * from_float_bits(self.scales.view(np.uint32)).astype(np.float64)[:, None]

    def take_rows(self, rows: NDArray[np.integer]) -> "Int8Matrix":
        """The rows of these numbers."""
        return Int8Matrix(self.codes[rows], self.scales[rows])

    def take_inputs(self, start: int, stop: int) -> "Int8Matrix":
        """The columns from ``start`` to ``stop``; each row keeps its scale."""
        return Int8Matrix(self.codes[:, start:stop], self.scales)

    def above(self, below: "Int8Matrix") -> "Int8Matrix":
        """This matrix and, under it, ``below``."""
        return Int8Matrix(np.concatenate([self.codes, below.codes]), np.concatenate([self.scales, below.scales]))


@dataclass(frozen=True, eq=False)
class Mxfp4Matrix(WeightMatrix):
    """MXFP4 weights.

    Attributes:
        codes: E2M1, uint8 ``[rows, inputs]``, 0 to 15.
        scales: E8M0, uint8 ``[rows, ceil(inputs / 32)]``; 255 is NaN.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.uint8]
    format = WeightFormat.MXFP4

    def __post_init__(self) -> None:
        _check(self.codes, "MXFP4 codes", np.uint8, 2)
        _check(self.scales, "MXFP4 scales", np.uint8, 2)
        rows, inputs = self.codes.shape
        if self.scales.shape != (rows, -(-inputs // SHARED)):
            raise ForestageError(
                f"MXFP4 weights: scales of shape {list(self.scales.shape)} for {rows} rows of {inputs} inputs; give "
                f"one for each {SHARED} inputs of a row"
            )
        if self.codes.max() > 15:
            raise ForestageError(f"MXFP4 weights: a code is {self.codes.max()}; E2M1 has 0 to 15")

    @classmethod
    def of(cls, matrix: ArrayLike) -> "Mxfp4Matrix":
        """Quantise ``matrix`` ``[rows, inputs]``.

        Raises:
            ForestageError: it is not a matrix, or a value is not finite.
        """
        floats = _finite_matrix(matrix).astype(np.float64)
        rows, inputs = floats.shape
        padded = np.pad(floats, ((0, 0), (0, -inputs % SHARED))).reshape(rows, -1, SHARED)
        greatest = np.abs(padded).max(axis=2)
        exponents = np.frexp(greatest)[1] - 1 - _E2M1_LARGEST_EXPONENT
        exponents = np.where(greatest == 0, -E8M0_BIAS, np.maximum(exponents, -E8M0_BIAS))
        codes = e2m1_from_float(np.ldexp(padded, -exponents[..., None]))
        return cls(codes.reshape(rows, -1)[:, :inputs].copy(), (exponents + E8M0_BIAS).astype(np.uint8))

    @classmethod
    def from_blocks(cls, blocks: ArrayLike, scales: ArrayLike) -> "Mxfp4Matrix":
        """The weights of a checkpoint as gpt-oss's.

        Args:
            blocks: uint8 ``[rows, groups, 16]``; a byte holds two neighbouring inputs, the first in its low half.
            scales: uint8 ``[rows, groups]``.

        Raises:
            ForestageError: another shape or type.
        """
        packed, shared = np.asarray(blocks), np.asarray(scales)
        _check(packed, "MXFP4 blocks", np.uint8, 3)
        if packed.shape[2] != SHARED // 2:
            raise ForestageError(f"MXFP4 blocks: {packed.shape[2]} bytes a block; give {SHARED // 2}")
        codes = np.stack([packed & 0xF, packed >> 4], axis=-1)
        return cls(codes.reshape(len(packed), -1), shared)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, inputs."""
        return self.codes.shape

    def values(self) -> NDArray[np.float64]:
        """What the weights stand for."""
        spread = np.repeat(e8m0_values(self.scales), SHARED, axis=1)[:, : self.shape[1]]
        return E2M1.astype(np.float64)[self.codes] * spread

    def take_rows(self, rows: NDArray[np.integer]) -> "Mxfp4Matrix":
        """The rows of these numbers."""
        return Mxfp4Matrix(self.codes[rows], self.scales[rows])

    def take_inputs(self, start: int, stop: int) -> "Mxfp4Matrix":
        """The columns from ``start``, a multiple of 32, to ``stop``."""
        if start % SHARED:
            raise ForestageError(
                f"MXFP4 weights: columns from {start}; inputs share exponents by {SHARED}s: start at a multiple"
            )
        return Mxfp4Matrix(self.codes[:, start:stop], self.scales[:, start // SHARED : -(-stop // SHARED)])

    def above(self, below: "Mxfp4Matrix") -> "Mxfp4Matrix":
        """This matrix and, under it, ``below``."""
        return Mxfp4Matrix(np.concatenate([self.codes, below.codes]), np.concatenate([self.scales, below.scales]))


MATRICES: dict[WeightFormat, type[Bf16Matrix] | type[Int8Matrix] | type[Mxfp4Matrix]] = {
    WeightFormat.BF16: Bf16Matrix,
    WeightFormat.INT8: Int8Matrix,
    WeightFormat.MXFP4: Mxfp4Matrix,
}
"""The matrix of each format; each has ``of``."""


@dataclass(frozen=True, eq=False)
class Int8Inputs:
    """Input vectors as INT8 codes times a power of two a token.

    Attributes:
        codes: int8 ``[tokens, inputs]``.
        exponents: int32 ``[tokens]``: an input is code · 2 ** exponent.
        nonfinite: Whether an input was NaN or infinite; its code is 0.
    """

    codes: NDArray[np.int8]
    exponents: NDArray[np.int32]
    nonfinite: bool

    @classmethod
    def of(cls, x: ArrayLike) -> "Int8Inputs":
        """From BF16 bits ``[tokens, inputs]``.

        A token's exponent is E − 6, where E is the greatest exponent among its finite inputs that are not zero; the
        codes are rounded to nearest, ties to even, within ±127. A token without such inputs has exponent 0.
        """
        bits = np.asarray(x, np.uint16)
        finite = is_finite_bf16(bits)
        values = np.where(finite, float_from_bf16(bits), np.float32(0)).astype(np.float64)
        greatest = np.abs(values).max(axis=1)
        exponents = np.where(greatest == 0, 0, np.frexp(greatest)[1] - 1 - 6).astype(np.int32)
        codes = np.clip(np.rint(np.ldexp(values, -exponents[:, None])), -LARGEST_INT8, LARGEST_INT8)
        return cls(codes.astype(np.int8), exponents, not finite.all())


def e2m1_from_float(values: ArrayLike) -> NDArray[np.uint8]:
    """Codes of finite values, rounded to nearest, ties to even, within ±6; −0 keeps its sign."""
    given = np.asarray(values, np.float64)
    magnitude = np.abs(given)
    code = np.searchsorted(_E2M1_HALFWAY, magnitude, side="left")  # of a tie, the lower neighbour
    tie = magnitude == _E2M1_HALFWAY[np.minimum(code, 6)]
    code += tie & (code % 2 == 1)
    return (code + 8 * np.signbit(given)).astype(np.uint8)


def e8m0_values(codes: ArrayLike) -> NDArray[np.float64]:
    """2 ** (code − 127), and NaN for 255."""
    given = np.asarray(codes, np.uint8)
    return np.where(given == E8M0_NAN, np.nan, np.ldexp(1.0, given.astype(np.int32) - E8M0_BIAS))


def _check(array: NDArray, name: str, dtype: type, dimensions: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != dimensions or array.size == 0:
        raise ForestageError(
            f"{name}: {getattr(array, 'dtype', type(array).__name__)} of shape {list(np.shape(array))}; give "
            f"{np.dtype(dtype).name} of {dimensions} dimension(s), not empty"
        )


def _finite_matrix(matrix: ArrayLike) -> Floats:
    with np.errstate(over="ignore"):
        floats = np.asarray(matrix, np.float32)
    _check(floats, "weights", np.float32, 2)
    if not np.isfinite(floats).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(floats))[0])
        raise ForestageError(f"weights: {floats[row, column]} at row {row}, column {column}; give finite values")
    return floats
