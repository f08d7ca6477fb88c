"""An expert on the host's processor: its block is read once, where it lies, and no dequantised matrix is written.

Made for few tokens (decode), where reading the block is what takes the time. Rows of a matrix are divided among
threads; a row is one thread's, from its first element to its last, so the result does not depend on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from catalog.compiled import njit
from gpu_reference.experts.activation import GPT_OSS_ALPHA, GPT_OSS_LIMIT
from gpu_reference.experts.host_products import (
    STEP,
    TILE,
    bf16_at,
    bf16_product,
    bf16_products,
    f32_at,
    int8_product,
    int8_products,
    mxfp4_product,
    mxfp4_products,
)
from gpu_reference.experts.host_vectors import GROUP, quantise
from gpu_reference.experts.layout import ExpertLayout

FORMATS = ("bf16", "int8", "mxfp4")
"""That this kernel decodes; it knows them by their number here."""

ACTIVATIONS = ("swiglu", "gpt_oss_swiglu")
"""That it computes; likewise."""

BF16, INT8, MXFP4 = range(3)

FACTORS = (1.0, 1.0, 2.0**-9)
"""That a vector's scales are multiplied by, for each format: the MXFP4 product's elements are 512 times too large."""

LIMIT = np.float32(GPT_OSS_LIMIT)
"""gpt-oss's clamp."""

_config: Any = numba.config

_lock = Lock()  # of numba's threading layers one allows a single parallel call at a time


@njit(nogil=True)
def _row(format: int, row: int, scales: int, size: int, codes: NDArray[np.int16], code_scales: NDArray[np.float32],
         whole: NDArray[np.float32], sums: NDArray[np.float32]) -> None:  # fmt: skip
    """The products of a row and the tokens, into ``sums [tokens]``.

    Addresses of arrays are taken here, where the caller keeps them: numba frees what is not used by name any more.
    """
    x, x_stride = (whole.ctypes.data, whole.strides[0]) if format == BF16 else (codes.ctypes.data, codes.strides[0])
    x_scales, x_scales_stride = code_scales.ctypes.data, code_scales.strides[0]
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
def _scaled(sum: np.float32, address: int, format: int, factors: int, biases: int, row: int) -> np.float32:
    """The row's sum times its factor (INT8), plus its bias; both are in the block, −1: there are none."""
    if format == INT8:
        sum *= f32_at(address + factors + 4 * row)
    return sum if biases < 0 else sum + bf16_at(address + biases + 2 * row)


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

    sums = np.empty((2 * intermediate, tokens), np.float32)
    inner = np.empty((tokens, intermediate), np.float32)
    start, row_bytes, row_scales, scale_bytes = gate_up
    for token in range(tokens):
        _vectors(format, x[token], codes[token], scales[token], whole[token])
    for index in numba.prange(intermediate):
        row = np.int64(index)
        for number in range(row, row + intermediate + 1, intermediate):
            _row(format, address + start + number * row_bytes, address + row_scales + number * scale_bytes, row_bytes,
                 codes, scales, whole, sums[number])  # fmt: skip
        for token in range(tokens):
            gate = _scaled(sums[row, token], address, format, row_scales, biases[0], row)
            up = _scaled(sums[intermediate + row, token], address, format, row_scales, biases[0], intermediate + row)
            inner[token, row] = _raised(gate, up, gpt_oss)

    outer = np.empty((hidden, tokens), np.float32)
    start_down, row_bytes_down, row_scales_down, scale_bytes_down = down
    for token in range(tokens):
        _vectors(format, inner[token], codes[token], scales[token], whole[token])
    for index in numba.prange(hidden):
        row = np.int64(index)
        _row(format, address + start_down + row * row_bytes_down, address + row_scales_down + row * scale_bytes_down,
             row_bytes_down, codes, scales, whole, outer[row])  # fmt: skip
        for token in range(tokens):
            y[token, row] = _scaled(outer[row, token], address, format, row_scales_down, biases[1], row)


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
            numba.set_num_threads(min(threads, _config.NUMBA_NUM_THREADS))
            _expert(block.numpy(), *constants, rows, output.numpy())
        if torch.get_num_threads() != threads:  # numba's first launch sets OpenMP's number, which is PyTorch's too
            torch.set_num_threads(threads)
        return output.to(x.dtype)

    return run
