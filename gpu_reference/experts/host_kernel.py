"""An expert on the host's processor: its block is read once, where it lies, and no dequantised matrix is written.

Made for few tokens (decode), where reading the block is what takes the time. Rows of a matrix are divided among
threads; a row is one thread's, from its first element to its last, so the result does not depend on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from gpu_reference.experts.activation import GPT_OSS_ALPHA, GPT_OSS_LIMIT
from gpu_reference.experts.host_products import (
    STEP,
    TILE,
    bf16_product,
    bf16_products,
    int8_product,
    int8_products,
    mxfp4_product,
    mxfp4_products,
)
from gpu_reference.experts.host_vectors import GROUP, quantise
from gpu_reference.experts.layout import ExpertLayout
from traces.compiled import njit

FORMATS = ("bf16", "int8", "mxfp4")
"""That this kernel decodes; it knows them by their number here."""

ACTIVATIONS = ("swiglu", "gpt_oss_swiglu")
"""That it computes; likewise."""

BF16, INT8, MXFP4 = range(3)

FACTORS = (1.0, 1.0, 2.0**-9)
"""That a vector's scales are multiplied by, for each format: the MXFP4 product's elements are 512 times too large."""

LIMIT = np.float32(GPT_OSS_LIMIT)
"""gpt-oss's clamp."""

_lock = Lock()  # of numba's threading layers one allows a single parallel call at a time


@njit(nogil=True)
def _row(format: int, row: int, scales: int, size: int, x: int, x_stride: int, x_scales: int, x_scales_stride: int,
         sums: NDArray[np.float32]) -> None:  # fmt: skip
    """The products of a row and the tokens, into ``sums [tokens]``."""
    token, tokens = 0, len(sums)
    while token + TILE <= tokens:
        at, at_scale = x + token * x_stride, x_scales + token * x_scales_stride
        if format == MXFP4:
            some = mxfp4_products(row, scales, size, at, x_stride, at_scale, x_scales_stride)
        elif format == INT8:
            some = int8_products(row, scales, size, at, x_stride, at_scale, x_scales_stride)
        else:
            some = bf16_products(row, scales, size, at, x_stride, at_scale, x_scales_stride)
        for number in range(TILE):
            sums[token + number] = some[number]
        token += TILE
    while token < tokens:
        at, at_scale = x + token * x_stride, x_scales + token * x_scales_stride
        if format == MXFP4:
            sums[token] = mxfp4_product(row, scales, size, at, x_stride, at_scale, x_scales_stride)[0]
        elif format == INT8:
            sums[token] = int8_product(row, scales, size, at, x_stride, at_scale, x_scales_stride)[0]
        else:
            sums[token] = bf16_product(row, scales, size, at, x_stride, at_scale, x_scales_stride)[0]
        token += 1

@njit(nogil=True)
def _vectors(
    format: int, x: NDArray[np.float32], codes: NDArray[np.int16], scales: NDArray[np.float32],
    whole: NDArray[np.float32],
) -> None:  # fmt: skip
    """One token's vector as the format's product takes it: ``codes`` and ``scales``, or ``whole``."""
    if format == BF16:
        whole[: len(x)] = x
        whole[len(x) :] = 0
    else:
        quantise(x, FACTORS[format], format == MXFP4, codes, scales)


@njit(nogil=True)
def _rows(block: int, format: int, matrix: tuple[int, ...], first: int, stride: int, count: int,
          codes: NDArray[np.int16], scales: NDArray[np.float32], whole: NDArray[np.float32],
          sums: NDArray[np.float32]) -> None:  # fmt: skip
    """Rows ``first``, ``first + stride``, … of a matrix times the tokens, into ``sums [rows, tokens]``."""
    start, row_bytes, scales_start, scale_bytes = matrix
    x, x_stride = codes.ctypes.data, codes.strides[0]
    if format == BF16:
        x, x_stride = whole.ctypes.data, whole.strides[0]
    for number in range(first, first + stride * count, stride):
        _row(
            format, block + start + number * row_bytes, block + scales_start + number * scale_bytes, row_bytes, x,
            x_stride, scales.ctypes.data, scales.strides[0], sums[number],
        )  # fmt: skip


@njit(nogil=True)
def _factors(block: NDArray[np.uint8], format: int, start: int, rows: int) -> NDArray[np.float32]:
    """What each row's sum is multiplied by, ``[rows]``."""
    if format == INT8:
        return block[start : start + 4 * rows].view(np.float32).copy()
    return np.ones(rows, np.float32)


@njit(nogil=True)
def _biases(block: NDArray[np.uint8], start: int, rows: int) -> NDArray[np.float32]:
    """A matrix's, ``[rows]``; 0 where there is none."""
    if start < 0:
        return np.zeros(rows, np.float32)
    bits = block[start : start + 2 * rows].view(np.uint16)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@njit(nogil=True)
def _raised(gate: np.float32, up: np.float32, gpt_oss: bool) -> np.float32:
    """`gpu_reference.experts.activation.activate`: the exponential in float64, rounded once."""
    if gpt_oss:
        gate = min(gate, LIMIT) if gate == gate else gate
        up = max(min(up, LIMIT), -LIMIT) if up == up else up
        return np.float32((up + 1.0) * (gate / (1.0 + math.exp(-GPT_OSS_ALPHA * gate))))
    return np.float32(gate / (1.0 + math.exp(-np.float64(gate))) * up)


@njit(parallel=True, nogil=True)
def _expert(
    block: NDArray[np.uint8],
    format: int,
    gpt_oss: bool,
    gate_up: tuple[int, ...],
    down: tuple[int, ...],
    biases: tuple[int, int],
    intermediate: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> None:
    """The output ``y [tokens, hidden]`` for ``x``.

    Args:
        gate_up, down: where the first row starts in the block, bytes of a row, and the same of its scales.
        biases: where they start; −1: there are none.
    """
    tokens, hidden = x.shape
    address = np.int64(block.ctypes.data)
    wide = -(-max(hidden, intermediate) // STEP) * STEP
    codes = np.empty((tokens, wide), np.int16)
    scales = np.empty((tokens, wide // GROUP), np.float32)
    whole = np.empty((tokens, wide if format == BF16 else 0), np.float32)
    factors = _factors(block, format, gate_up[2], 2 * intermediate)
    bias = _biases(block, biases[0], 2 * intermediate)
    sums = np.empty((2 * intermediate, tokens), np.float32)
    inner = np.empty((tokens, intermediate), np.float32)
    for token in range(tokens):
        _vectors(format, x[token], codes[token], scales[token], whole[token])
    for row in numba.prange(intermediate):
        _rows(address, format, gate_up, row, intermediate, 2, codes, scales, whole, sums)
        for token in range(tokens):
            gate = sums[row, token] * factors[row] + bias[row]
            up = sums[intermediate + row, token] * factors[intermediate + row] + bias[intermediate + row]
            inner[token, row] = _raised(gate, up, gpt_oss)
    factors = _factors(block, format, down[2], hidden)
    bias = _biases(block, biases[1], hidden)
    outer = np.empty((hidden, tokens), np.float32)
    for token in range(tokens):
        _vectors(format, inner[token], codes[token], scales[token], whole[token])
    for row in numba.prange(hidden):
        _rows(address, format, down, row, 1, 1, codes, scales, whole, outer)
        for token in range(tokens):
            y[token, row] = outer[row, token] * factors[row] + bias[row]


def can_compute(layout: ExpertLayout) -> bool:
    """Whether this kernel is for such experts."""
    return layout.format in FORMATS and layout.shape.activation in ACTIVATIONS


def host_kernel(layout: ExpertLayout) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """From a block and ``x [n, hidden]``, n ≥ 1, f32 or bf16 on the CPU, the output ``[n, hidden]`` in x's type.

    It uses as many threads as PyTorch would (``torch.set_num_threads``). Calls of several threads follow each other.
    The first call of a process compiles, or loads what is compiled.
    """
    shape, spans = layout.shape, layout.spans
    matrices = []
    for name in ("gate_up", "down"):
        part, scales = spans[name], spans.get(f"{name}_scales")
        start, row_bytes = (0, 0) if scales is None else (scales.start, (scales.end - scales.start) // scales.shape[0])
        matrices.append((part.start, (part.end - part.start) // part.shape[0], start, row_bytes))
    biases = tuple(spans[name].start if name in spans else -1 for name in ("gate_up_bias", "down_bias"))
    constants = (
        FORMATS.index(layout.format), shape.activation == "gpt_oss_swiglu", *matrices, biases, shape.intermediate
    )  # fmt: skip

    def run(block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        rows = x.detach().to(torch.float32).contiguous().numpy()
        output = torch.empty(x.shape, dtype=torch.float32)
        threads = torch.get_num_threads()
        with _lock:
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            _expert(block.numpy(), *constants, rows, output.numpy())
        if torch.get_num_threads() != threads:  # numba's first launch sets OpenMP's number, which is PyTorch's too
            torch.set_num_threads(threads)
        return output.to(x.dtype)

    return run
