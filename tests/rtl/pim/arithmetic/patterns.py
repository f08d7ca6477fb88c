"""Bit patterns that arithmetic goes wrong at."""

import numpy as np
from numpy.typing import NDArray

FP32_CORNERS = np.array(
    [
        0x00000000,  # zero
        0x00000001,  # subnormal: the least, the greatest
        0x007FFFFF,
        0x00800000,  # normal: the least, its neighbour, twice as much
        0x00800001,
        0x01000000,
        0x00FFFFFF,
        0x33800000,  # 2⁻²⁴, half a unit in the last place of 1, and its neighbours
        0x337FFFFF,
        0x33800001,
        0x34000000,  # 2⁻²³
        0x3F7FFFFF,  # 1 and its neighbours
        0x3F800000,
        0x3F800001,
        0x3FFFFFFF,
        0x4B7FFFFF,  # 2²⁴ and its neighbours
        0x4B800000,
        0x4B800001,
        0x73800000,  # 2¹⁰⁴: half a unit in the last place of the greatest, and its neighbours
        0x737FFFFF,
        0x73000000,
        0x7F7FFFFF,  # the greatest, its neighbour, half as much
        0x7F7FFFFE,
        0x7EFFFFFF,
        0x7F800000,  # infinity
        0x7F800001,  # NaN: signalling, quiet, with payload
        0x7FC00000,
        0x7FFFFFFF,
    ],
    np.uint32,
)
FP32_CORNERS = np.concatenate([FP32_CORNERS, FP32_CORNERS | np.uint32(1 << 31)])

BF16_CORNERS = np.array(
    [0, 1, 0x7F, 0x80, 0x81, 0xFF, 0x3F7F, 0x3F80, 0x3F81, 0x3FFF, 0x7F7F, 0x7F00, 0x7F80, 0x7F81, 0x7FC0, 0x7FFF],
    np.uint16,
)
BF16_CORNERS = np.concatenate([BF16_CORNERS, BF16_CORNERS | np.uint16(1 << 15)])


def pairs(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Every one of ``a`` with every one of ``b``."""
    return np.repeat(a, len(b)), np.tile(b, len(a))


def fp32_pairs(count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """All pairs of corners, then ``count`` random ones of four kinds in turn.

    Any patterns; exponents at most 26 apart; exponents at most 1 apart and signs that differ; fractions of few bits.
    """
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 1 << 32, (2, count), dtype=np.uint32)
    kind = np.arange(count) % 4
    apart = np.where(kind == 2, generator.integers(-1, 2, count), generator.integers(-26, 27, count))
    near = np.clip(((a >> 23) & 0xFF).astype(np.int64) + apart, 0, 255).astype(np.uint32) << np.uint32(23)
    close = (near | (b & np.uint32(0x807FFFFF))).astype(np.uint32)
    close = np.where(kind == 2, (close & np.uint32(0x7FFFFFFF)) | (~a & np.uint32(1 << 31)), close)
    close = np.where((kind == 2) & (b % 3 == 0), a ^ np.uint32(1 << 31) ^ (b >> np.uint32(29)), close)
    few = np.uint32(0xFFF00000)
    first = np.where(kind == 3, a & few, a)
    second = np.select([kind == 0, kind == 3], [b, close & few], close)
    corners_a, corners_b = pairs(FP32_CORNERS, FP32_CORNERS)
    return (
        np.concatenate([corners_a, first.astype(np.uint32)]),
        np.concatenate([corners_b, second.astype(np.uint32)]),
    )
