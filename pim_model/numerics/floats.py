"""FP32 and BF16 as the PIM expert unit computes with them.

They are IEEE 754's binary32 and its upper half, rounded to nearest, ties to even, but for three rules that keep the
hardware small:

* A subnormal operand is read as the zero of its sign.
* A result is rounded as if the exponent had no lower bound; if that is below the least normal number, 2⁻¹²⁶, it
  becomes the zero of its sign. (So what rounds up to 2⁻¹²⁶ stays: the rule of x86's flush to zero.)
* Every NaN that results is the same one: 0x7FC00000, in BF16 0x7FC0.

FP32 values are ``float32`` arrays, or their bits in ``uint32`` where a function says so; BF16 values are always their
bits, ``uint16``. Every function takes arrays that broadcast and returns a new array.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.compiled import njit

LEAST_NORMAL = 2.0**-126
"""The least positive normal number of FP32, and of BF16."""

NAN = 0x7FC00000
"""The only NaN that the unit makes, in FP32."""

BF16_NAN = 0x7FC0
"""The same in BF16."""

LARGEST_SCALE = 512
"""``scale`` refuses exponents beyond: up to here a float64 holds every result exactly."""

_ROUNDS_TO_ZERO_BELOW = LEAST_NORMAL - 2.0**-151
"""With 24 bits and no lower bound of the exponent, the numbers below this round to less than ``LEAST_NORMAL``: it is
halfway to the number before, and the tie goes to 2⁻¹²⁶, whose significand is even."""

_LEAST_NORMAL_F32 = np.float32(LEAST_NORMAL)
_ZERO_F32 = np.float32(0)

Floats = NDArray[np.float32]
Bits16 = NDArray[np.uint16]
Bits32 = NDArray[np.uint32]


def float_bits(values: ArrayLike) -> Bits32:
    """The bits of ``values``, every NaN as ``NAN``, subnormals as zeros."""
    return _canonical(values).view(np.uint32)


def from_float_bits(bits: ArrayLike) -> Floats:
    """FP32 values from their bits, as the unit reads them: subnormals as zeros, every NaN as ``NAN``."""
    return _canonical(np.array(bits, np.uint32).view(np.float32))


def bf16_from_float(values: ArrayLike) -> Bits16:
    """FP32 rounded to BF16."""
    bits = float_bits(values)
    # A carry out of the fraction raises the exponent, at the end to infinity. NaN's low half is zero: it stays.
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def float_from_bf16(bits: ArrayLike) -> Floats:
    """BF16 as FP32, exactly (subnormals as zeros)."""
    return from_float_bits(np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16))


def float_from_int(values: ArrayLike) -> Floats:
    """INT32 rounded to FP32."""
    return np.asarray(values, np.int32).astype(np.float32)


def add(left: ArrayLike, right: ArrayLike) -> Floats:
    """The sum of two FP32 values.

    A float32 sum below 2⁻¹²⁶ is exact, as both operands are multiples of 2⁻¹⁴⁹; so flushing what IEEE gives is the
    module's rule. x + (−x) is +0.
    """
    with np.errstate(all="ignore"):
        return _canonical(_canonical(left) + _canonical(right))


def multiply(left: ArrayLike, right: ArrayLike) -> Floats:
    """The product of two FP32 values."""
    with np.errstate(all="ignore"):
        return _rounded(_canonical(left).astype(np.float64) * _canonical(right).astype(np.float64))


def scale(values: ArrayLike, exponents: ArrayLike) -> Floats:
    """FP32 values times 2 to the ``exponents``, integers up to ±``LARGEST_SCALE``.

    Raises:
        ValueError: an exponent is beyond.
    """
    powers = np.asarray(exponents)
    if powers.dtype.kind not in "iu" or (np.abs(powers.astype(np.int64)) > LARGEST_SCALE).any():
        raise ValueError(f"scale takes integer exponents up to ±{LARGEST_SCALE}")
    with np.errstate(all="ignore"):
        return _rounded(np.ldexp(_canonical(values).astype(np.float64), powers.astype(np.int32)))


def is_finite_bf16(bits: ArrayLike) -> NDArray[np.bool_]:
    """Whether BF16 values are neither infinite nor NaN."""
    return (np.asarray(bits, np.uint16) & np.uint16(0x7F80)) != np.uint16(0x7F80)


@njit()
def flushed(value: np.float32) -> np.float32:
    """For kernels: a result of IEEE's float32 whose rounding below 2⁻¹²⁶ was exact, by the module's rule.

    That holds for sums, and for products of at most 16 significant bits: one that is below 2⁻¹²⁶ is at most
    2⁻¹²⁶ · (1 − 2⁻¹⁶), which no rounding brings to 2⁻¹²⁶. NaN keeps its bits; whoever ends the kernel makes it ``NAN``.
    """
    if abs(value) < _LEAST_NORMAL_F32:
        return np.float32(math.copysign(_ZERO_F32, value))
    return value


@njit()
def rounded(value: float) -> np.float32:
    """For kernels: an exact float64 rounded to FP32 by the module's rule (NaN as in ``flushed``)."""
    if abs(value) < _ROUNDS_TO_ZERO_BELOW:
        return np.float32(math.copysign(0.0, value))
    return np.float32(value)


def _rounded(exact: NDArray[np.float64]) -> Floats:
    """Exact float64 values, rounded to FP32 by the module's rule."""
    return _canonical(np.where(np.abs(exact) < _ROUNDS_TO_ZERO_BELOW, np.copysign(0.0, exact), exact))


def _canonical(values: ArrayLike) -> Floats:
    """A new float32 array: subnormals as zeros of their sign, every NaN as ``NAN``."""
    floats = np.array(values, np.float32)
    bits = floats.view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    bits[...] = np.where(
        magnitude < np.uint32(0x00800000),
        bits & np.uint32(0x80000000),
        np.where(magnitude > np.uint32(0x7F800000), np.uint32(NAN), bits),
    )
    return floats
