"""The activation unit: A(g) = g · σ(α · g) for a BF16 g, by piecewise-linear tables and integer arithmetic.

α is 1 for SwiGLU (A is SiLU) and 1.702 for gpt-oss. The unit is a function of the 65,536 BF16 values; its result is an
FP32 value whose significand has at most 16 bits, so that the product with a BF16 is exact in FP32. The sign of the
result is that of g, and its magnitude:

=====================================  ==========================================
g                                      |A(g)|
=====================================  ==========================================
NaN                                    NaN
zero, subnormal                        0
|g| < 2 ** LOWEST                      |g| / 2, or 0 where that is below 2⁻¹²⁶
2 ** LOWEST ≤ |g| < 2 ** (top + 1)     from the tables
g ≥ 2 ** (top + 1), +∞                 g
g ≤ −2 ** (top + 1), −∞                0
=====================================  ==========================================

**From the tables.** Let m be the 7 bits of g's fraction. For its sign and exponent the *directory* gives ``first`` and
k: the values with this sign and exponent form 2 ** k segments of 2 ** (7 − k) neighbours. The word at
``first`` + (m >> (7 − k)) has the fields ``base`` (16 bits), ``slope`` (13 bits, signed) and ``exponent`` (8 bits), and

    fraction    = (m << k) & 127
    significand = base + ((slope * fraction) >> 3)          (floor; always 16 bits, not negative)
    magnitude   = significand · 2 ** (exponent − 127 − 15)

which is normalised (leading zeros shift out, the exponent falls by as many) and becomes 0 below 2⁻¹²⁶. ``exponent`` is
thus FP32's exponent field of a significand with its highest bit set. Nothing is rounded after the sum.

**The fit** (``_segment``) uses float64 values of A that derive from 40 decimal digits. A segment's unit is that of a
16-bit significand of its greatest value. The slope is that of the line through the first and the last value, rounded;
the base puts the greatest deviations above and below at equal distance, rounded. k is the least for which no value of
the exponent deviates by more than ``TOLERANCE``. Segments of two values are exact but for rounding: where A falls
exponentially, they are needed.
"""

from dataclasses import dataclass
from decimal import Decimal, Overflow, localcontext
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pim_model.numerics.floats import LEAST_NORMAL, NAN, Bits16, Bits32, Floats

LOWEST = -11
"""The least exponent of the tables."""

TOLERANCE = 0.13
"""Greatest deviation that the fit allows, in units in the last place (ulp) of A(g) as a BF16."""

BASE_BITS = 16
SLOPE_BITS = 13
EXPONENT_BITS = 8
FRACTION_BITS = 7
SLOPE_SHIFT = 3
"""A slope is counted in 2 ** (FRACTION_BITS − SLOPE_SHIFT) = 16 units of the significand over a whole segment."""

_BIAS = 127


class Activation(StrEnum):
    """The function of an expert's kind, by its name there."""

    SWIGLU = "swiglu"
    GPT_OSS = "gpt-oss"

    @property
    def alpha(self) -> Decimal:
        """α of A(g) = g · σ(α · g): SiLU's, or ``alpha`` of transformers' ``GptOssExperts``."""
        return {Activation.SWIGLU: Decimal(1), Activation.GPT_OSS: Decimal("1.702")}[self]

    @property
    def top(self) -> int:
        """The greatest exponent of the tables: the least where −A at twice that is below 2⁻¹²⁶."""
        return {Activation.SWIGLU: 6, Activation.GPT_OSS: 5}[self]


@dataclass(frozen=True)
class DirectoryEntry:
    """Where the segments of one sign and exponent are.

    Attributes:
        first: the first one's word.
        log2_segments: k.
    """

    first: int
    log2_segments: int


@dataclass(frozen=True, eq=False)
class ActivationTables:
    """The tables of one function.

    Attributes:
        directory: ``[sign][exponent − LOWEST]``, sign 0 positive, exponents ``LOWEST`` to ``top``.
        base: uint16 ``[words]``.
        slope: int16 ``[words]``.
        exponent: uint8 ``[words]``.
    """

    directory: tuple[tuple[DirectoryEntry, ...], tuple[DirectoryEntry, ...]]
    base: NDArray[np.uint16]
    slope: NDArray[np.int16]
    exponent: NDArray[np.uint8]

    @property
    def top(self) -> int:
        """The greatest exponent of the tables."""
        return LOWEST + len(self.directory[0]) - 1

    @property
    def words(self) -> list[int]:
        """The read-only memory's contents: base in the low bits, then slope (two's complement), then exponent."""
        slope = self.slope.astype(np.int64) & ((1 << SLOPE_BITS) - 1)
        word = (
            self.base.astype(np.int64) | slope << BASE_BITS | self.exponent.astype(np.int64) << BASE_BITS + SLOPE_BITS
        )
        return word.tolist()

    @property
    def bits(self) -> int:
        """Size of the read-only memory, without the directory."""
        return len(self.base) * (BASE_BITS + SLOPE_BITS + EXPONENT_BITS)


@cache
def activation_tables(function: Activation) -> ActivationTables:
    """The tables of ``function``, computed as the module says."""
    directory: tuple[list[DirectoryEntry], list[DirectoryEntry]] = ([], [])
    segments: list[tuple[int, int, int]] = []
    for sign in (0, 1):
        for exponent in range(LOWEST, function.top + 1):
            g = (-1) ** sign * np.ldexp(1 + np.arange(1 << FRACTION_BITS) / (1 << FRACTION_BITS), exponent)
            log2_segments, fitted = _fit(np.abs([exact(function, float(value)) for value in g]))
            directory[sign].append(DirectoryEntry(len(segments), log2_segments))
            segments += fitted
    base, slope, exponents = zip(*segments, strict=True)
    return ActivationTables(
        (tuple(directory[0]), tuple(directory[1])),
        np.array(base, np.uint16),
        np.array(slope, np.int16),
        np.array(exponents, np.uint8),
    )


def activate(function: Activation, g: ArrayLike) -> Floats:
    """A(g), float32, for the BF16 bits ``g``: what the unit gives."""
    return _every_result(function)[np.asarray(g, np.uint16)].view(np.float32)


@cache
def _every_result(function: Activation) -> Bits32:
    bits = evaluate(activation_tables(function), np.arange(2**16, dtype=np.uint16))
    bits.flags.writeable = False
    return bits


def evaluate(tables: ActivationTables, g: Bits16) -> Bits32:
    """The bits of A(g) for BF16 bits ``g``, in the unit's integer arithmetic."""
    given = g.astype(np.int64)
    sign, field, fraction = given >> 15, given >> 7 & 0xFF, given & 0x7F
    exponent = field - _BIAS
    from_tables = (exponent >= LOWEST) & (exponent <= tables.top)
    significand, top_bit = _interpolate(tables, sign, np.clip(exponent, LOWEST, tables.top), fraction)
    identical = (exponent > tables.top) & (sign == 0)
    halved = exponent < LOWEST
    magnitude = np.select(
        [from_tables, halved, identical],
        [_normalised(significand, top_bit), np.where(field > 1, given - 0x80 << 16, 0), given << 16],
        default=0,
    )
    nan = (field == 0xFF) & (fraction != 0)
    return np.where(nan, NAN, sign << 31 | magnitude & 0x7FFFFFFF).astype(np.uint32)


def _interpolate(
    tables: ActivationTables, sign: NDArray[np.int64], exponent: NDArray[np.int64], fraction: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Significands, and the exponent field of their bit 15."""
    entries = [[(entry.first, entry.log2_segments) for entry in side] for side in tables.directory]
    first, log2_segments = np.moveaxis(np.array(entries)[sign, exponent - LOWEST], -1, 0)
    word = first + (fraction >> FRACTION_BITS - log2_segments)
    within = fraction << log2_segments & (1 << FRACTION_BITS) - 1
    change = tables.slope[word].astype(np.int64) * within >> SLOPE_SHIFT
    return tables.base[word] + change, tables.exponent[word].astype(np.int64)


def _normalised(significand: NDArray[np.int64], exponent: NDArray[np.int64]) -> NDArray[np.int64]:
    """FP32 bits of significands of up to 16 bits."""
    length = np.frexp(significand.astype(np.float64))[1]  # the number of bits
    shift = BASE_BITS - length
    field = exponent - shift
    bits = field << 23 | (significand << shift & 0x7FFF) << 8
    return np.where((significand == 0) | (field <= 0), 0, bits)


def exact(function: Activation, g: float) -> float:
    """A(g) in float64, from 40 decimal digits, for a finite ``g``."""
    with localcontext() as context:
        context.prec = 40
        context.traps[Overflow] = False  # exp of a large α · |g| is infinity, and the quotient −0
        value = Decimal(g)
        return float(value / (1 + (-function.alpha * value).exp()))


def ulp_bf16(magnitudes: ArrayLike) -> NDArray[np.float64]:
    """The unit in the last place of the BF16s around each positive magnitude, that of 2⁻¹²⁶ below it."""
    exponent = np.frexp(np.asarray(magnitudes, np.float64))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, 1 - _BIAS) - FRACTION_BITS)


def _fit(values: NDArray[np.float64]) -> tuple[int, list[tuple[int, int, int]]]:
    """The least k within ``TOLERANCE`` for the 128 ``values`` of an exponent, and its segments."""
    for log2_segments in range(FRACTION_BITS + 1):
        fitted = [_segment(part, log2_segments) for part in np.split(values, 1 << log2_segments)]
        if max(deviation for _, deviation in fitted) <= TOLERANCE:
            return log2_segments, [word for word, _ in fitted]
    raise AssertionError("one value a segment is exact to half a unit of 16 bits")


def _segment(values: NDArray[np.float64], log2_segments: int) -> tuple[tuple[int, int, int], float]:
    """The word (base, slope, exponent) of one segment, and its greatest deviation in ulp.

    Values below 2⁻¹²⁶, which the unit flushes, do not count.
    """
    counted = values >= LEAST_NORMAL
    if not counted.any():
        return (0, 0, 0), 0.0
    exponent = int(np.frexp(values.max())[1]) - 1
    targets = np.ldexp(values, BASE_BITS - 1 - exponent)
    within = np.arange(len(values)) << log2_segments
    slope = 0 if len(values) == 1 else round((targets[-1] - targets[0]) / within[-1] * (1 << SLOPE_SHIFT))
    change = slope * within >> SLOPE_SHIFT
    rest = (targets - change)[counted]
    base = min(round((rest.max() + rest.min()) / 2), (1 << BASE_BITS) - 1 - int(change.max()))
    if not (0 <= base < 1 << BASE_BITS and (base + change >= 0).all() and abs(slope) < 1 << SLOPE_BITS - 1):
        return (0, 0, 0), np.inf
    deviation = np.abs(np.ldexp(base + change, exponent - BASE_BITS + 1) - values) / ulp_bf16(values)
    return (base, slope, exponent + _BIAS), float(deviation[counted].max())
