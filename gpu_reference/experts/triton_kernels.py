"""An expert in two Triton kernels that read its block as it lies: weights are decoded inside the product.

The first computes the inner rows and the activation, the second the down matrix; sums are in float32. Each program
owns some output rows of some tokens and walks over the whole input width in one order, so that an output depends on
its block and rows alone, whatever else runs: nothing is added by atomics, and block sizes are fixed rather than tuned
at run time, which would sum in another order in another process.

One token is multiplied element by element; up to 16 tokens together by tensor cores, more in tiles of 16, each of
which reads the weights again. The inner values are rounded once, to x's type, between the kernels. MXFP4's smallest
scale, 2^−127, counts as 0 (it occurs for groups of zeros).

Triton is imported with this module, so import it only where Triton is installed. Parameters in capitals are constants
of a compiled kernel: sizes, and where parts start in the block (bytes, −1: there is none).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from gpu_reference.experts.activation import GPT_OSS_ALPHA, GPT_OSS_LIMIT
from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.experts.mxfp4 import groups

TOKENS = 16
"""Tokens that tensor cores take together."""

ROWS = {1: 4, TOKENS: 16}
"""Matrix rows of a program, by the tokens of its tile (tensor cores take at least 16)."""

STEP = {1: 1024, TOKENS: 256}
"""Input elements of a step, likewise: for one token so many that a thread loads 16 bytes of MXFP4 at once."""


@triton.jit
def _element(code):
    """f32 of E2M1 codes in the low 4 bits of u32: their bits, put where float32 has them, stand for 2^−126 times it.

    So the code of ½ becomes a subnormal number, which the product makes normal, exactly.
    """
    bits = ((code << 22) & 0x01C00000) | ((code << 28) & 0x80000000)
    return bits.to(tl.float32, bitcast=True) * 8.507059173023462e37  # 2^126


@triton.jit
def _mxfp4_step(block, rows, rows_ok, first, START: tl.constexpr, SCALES: tl.constexpr, WIDTH: tl.constexpr,
                GROUPS: tl.constexpr, G: tl.constexpr):  # fmt: skip
    """Codes of groups ``first`` to ``first + G``, u32 ``[R, G, 16]`` two a number, and scales, f32 ``[R, G, 1]``."""
    group = first + tl.arange(0, G)
    pair = group[None, :, None] * 16 + tl.arange(0, 16)[None, None, :]
    code = tl.load(
        block + START + rows[:, None, None] * (WIDTH // 2) + pair,
        mask=rows_ok[:, None, None] & (pair < WIDTH // 2),
        other=0,
    )
    scale = tl.load(
        block + SCALES + rows[:, None] * GROUPS + group[None, :],
        mask=rows_ok[:, None] & (group < GROUPS)[None, :],
        other=0,
    )
    power = (scale.to(tl.uint32) << 23).to(tl.float32, bitcast=True)
    return code.to(tl.uint32), power[:, :, None]


@triton.jit
def _mxfp4_row(block, rows, rows_ok, x, START: tl.constexpr, SCALES: tl.constexpr, WIDTH: tl.constexpr,
               GROUPS: tl.constexpr, R: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """f32 ``[R]``: MXFP4 rows times one token."""
    G: tl.constexpr = STEP // 32
    total = tl.zeros((R, G, 16), dtype=tl.float32)
    for first in range(0, GROUPS, G):
        code, power = _mxfp4_step(block, rows, rows_ok, first, START, SCALES, WIDTH, GROUPS, G)
        pair = (first + tl.arange(0, G))[None, :, None] * 16 + tl.arange(0, 16)[None, None, :]
        there = pair < WIDTH // 2
        if x.dtype.element_ty == tl.bfloat16:  # two elements a load; a bf16 is the upper half of a f32
            word = tl.load(x.to(tl.pointer_type(tl.uint32)) + pair, mask=there, other=0)
            even = (word << 16).to(tl.float32, bitcast=True)
            odd = (word & 0xFFFF0000).to(tl.float32, bitcast=True)
        else:
            even = tl.load(x + 2 * pair, mask=there, other=0.0)
            odd = tl.load(x + 2 * pair + 1, mask=there, other=0.0)
        total += (_element(code) * even + _element(code >> 4) * odd) * power
    return tl.sum(tl.sum(total, axis=2), axis=1)


@triton.jit
def _mxfp4_tile(block, rows, rows_ok, x, tokens_ok, START: tl.constexpr, SCALES: tl.constexpr, WIDTH: tl.constexpr,
                GROUPS: tl.constexpr, R: tl.constexpr, T: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """f32 ``[R, T]``: MXFP4 rows times a tile of tokens; even and odd elements are multiplied separately."""
    G: tl.constexpr = STEP // 32
    total = tl.zeros((R, T), dtype=tl.float32)
    for first in range(0, GROUPS, G):
        code, power = _mxfp4_step(block, rows, rows_ok, first, START, SCALES, WIDTH, GROUPS, G)
        even = tl.reshape(_element(code) * power, (R, G * 16)).to(x.dtype.element_ty)
        odd = tl.reshape(_element(code >> 4) * power, (R, G * 16)).to(x.dtype.element_ty)
        pair = first * 16 + tl.arange(0, G * 16)
        there = (pair < WIDTH // 2)[:, None] & tokens_ok[None, :]
        at = tl.arange(0, T)[None, :] * (WIDTH // 2) + pair[:, None]
        if x.dtype.element_ty == tl.bfloat16:
            word = tl.load(x.to(tl.pointer_type(tl.uint32)) + at, mask=there, other=0)
            x_even = word.to(tl.uint16).to(tl.bfloat16, bitcast=True)
            x_odd = (word >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
        else:
            x_even = tl.load(x + 2 * at, mask=there, other=0.0)
            x_odd = tl.load(x + 2 * at + 1, mask=there, other=0.0)
        total = tl.dot(even, x_even, total, input_precision="ieee")
        total = tl.dot(odd, x_odd, total, input_precision="ieee")
    return total


@triton.jit
def _bf16_row(block, rows, rows_ok, x, START: tl.constexpr, WIDTH: tl.constexpr, R: tl.constexpr,
              STEP: tl.constexpr):  # fmt: skip
    """f32 ``[R]``: BF16 rows times one token."""
    weights = (block + START).to(tl.pointer_type(tl.bfloat16))
    total = tl.zeros((R, STEP), dtype=tl.float32)
    for first in range(0, WIDTH, STEP):
        column = first + tl.arange(0, STEP)
        there = column < WIDTH
        weight = tl.load(
            weights + rows[:, None] * WIDTH + column[None, :], mask=rows_ok[:, None] & there[None, :], other=0.0
        )
        total += weight.to(tl.float32) * tl.load(x + column, mask=there, other=0.0).to(tl.float32)[None, :]
    return tl.sum(total, axis=1)


@triton.jit
def _bf16_tile(block, rows, rows_ok, x, tokens_ok, START: tl.constexpr, WIDTH: tl.constexpr, R: tl.constexpr,
               T: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """f32 ``[R, T]``: BF16 rows times a tile of tokens."""
    weights = (block + START).to(tl.pointer_type(tl.bfloat16))
    total = tl.zeros((R, T), dtype=tl.float32)
    for first in range(0, WIDTH, STEP):
        column = first + tl.arange(0, STEP)
        there = column < WIDTH
        weight = tl.load(
            weights + rows[:, None] * WIDTH + column[None, :], mask=rows_ok[:, None] & there[None, :], other=0.0
        )
        inputs = tl.load(
            x + tl.arange(0, T)[None, :] * WIDTH + column[:, None], mask=there[:, None] & tokens_ok[None, :], other=0.0
        )
        total = tl.dot(weight.to(x.dtype.element_ty), inputs, total, input_precision="ieee")
    return total


@triton.jit
def _matrix_rows(block, rows, rows_ok, x, tokens_ok, START: tl.constexpr, SCALES: tl.constexpr, BIAS: tl.constexpr,
                 WIDTH: tl.constexpr, GROUPS: tl.constexpr, MXFP4: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
                 STEP: tl.constexpr):  # fmt: skip
    """f32 ``[R, T]``: ``rows`` of a matrix times the ``T`` tokens from ``x`` on, plus the rows' bias."""
    if T == 1:
        if MXFP4:
            total = _mxfp4_row(block, rows, rows_ok, x, START, SCALES, WIDTH, GROUPS, R, STEP)[:, None]
        else:
            total = _bf16_row(block, rows, rows_ok, x, START, WIDTH, R, STEP)[:, None]
    elif MXFP4:
        total = _mxfp4_tile(block, rows, rows_ok, x, tokens_ok, START, SCALES, WIDTH, GROUPS, R, T, STEP)
    else:
        total = _bf16_tile(block, rows, rows_ok, x, tokens_ok, START, WIDTH, R, T, STEP)
    if BIAS >= 0:
        biases = (block + BIAS).to(tl.pointer_type(tl.bfloat16))
        total += tl.load(biases + rows, mask=rows_ok, other=0.0).to(tl.float32)[:, None]
    return total


@triton.jit
def _inner_kernel(block, x, inner, count, START: tl.constexpr, SCALES: tl.constexpr, BIAS: tl.constexpr,
                  HIDDEN: tl.constexpr, GROUPS: tl.constexpr, INTERMEDIATE: tl.constexpr, MXFP4: tl.constexpr,
                  GPT_OSS: tl.constexpr, ALPHA: tl.constexpr, LIMIT: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
                  STEP: tl.constexpr):  # fmt: skip
    """Gate and up rows, and the activation: ``inner [count, INTERMEDIATE]`` of ``x [count, HIDDEN]``."""
    HALF: tl.constexpr = R // 2
    first = tl.program_id(1) * T
    tokens = tl.arange(0, T)
    tokens_ok = first + tokens < count
    # Even rows of the tile are gate rows, odd ones the up rows that belong to them.
    tile = tl.arange(0, R)
    number = tl.program_id(0) * HALF + tile // 2
    both = _matrix_rows(
        block, number + (tile % 2) * INTERMEDIATE, number < INTERMEDIATE, x + first * HIDDEN, tokens_ok, START, SCALES,
        BIAS, HIDDEN, GROUPS, MXFP4, R, T, STEP,
    )  # fmt: skip
    gate, up = tl.split(tl.permute(tl.reshape(both, (HALF, 2, T)), (0, 2, 1)))
    if GPT_OSS:
        gate = tl.minimum(gate, LIMIT)
        up = tl.minimum(tl.maximum(up, -LIMIT), LIMIT)
        raised = (up + 1.0) * (gate / (1.0 + tl.exp(-ALPHA * gate)))
    else:
        raised = gate / (1.0 + tl.exp(-gate)) * up
    rows = tl.program_id(0) * HALF + tl.arange(0, HALF)
    at = inner + (first + tokens)[None, :] * INTERMEDIATE + rows[:, None]
    tl.store(at, raised.to(inner.dtype.element_ty), mask=(rows < INTERMEDIATE)[:, None] & tokens_ok[None, :])


@triton.jit
def _down_kernel(block, inner, output, count, START: tl.constexpr, SCALES: tl.constexpr, BIAS: tl.constexpr,
                 HIDDEN: tl.constexpr, GROUPS: tl.constexpr, INTERMEDIATE: tl.constexpr, MXFP4: tl.constexpr,
                 R: tl.constexpr, T: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """``output [count, HIDDEN]`` of ``inner [count, INTERMEDIATE]``."""
    first = tl.program_id(1) * T
    tokens = tl.arange(0, T)
    tokens_ok = first + tokens < count
    rows = tl.program_id(0) * R + tl.arange(0, R)
    rows_ok = rows < HIDDEN
    total = _matrix_rows(
        block, rows, rows_ok, inner + first * INTERMEDIATE, tokens_ok, START, SCALES, BIAS, INTERMEDIATE, GROUPS,
        MXFP4, R, T, STEP,
    )  # fmt: skip
    at = output + (first + tokens)[None, :] * HIDDEN + rows[:, None]
    tl.store(at, total.to(output.dtype.element_ty), mask=rows_ok[:, None] & tokens_ok[None, :])


def constants(layout: ExpertLayout, matrix: str, tile: int) -> dict[str, int | float | bool]:
    """The constants of the compiled kernel of ``matrix`` (``gate_up`` or ``down``), for tiles of 1 or 16 tokens."""
    shape, spans = layout.shape, layout.spans
    parts = {"START": matrix, "SCALES": f"{matrix}_scales", "BIAS": f"{matrix}_bias"}
    values: dict[str, int | float | bool] = {
        **{name: spans[part].start if part in spans else -1 for name, part in parts.items()},
        "HIDDEN": shape.hidden,
        "INTERMEDIATE": shape.intermediate,
        "GROUPS": groups(shape.hidden if matrix == "gate_up" else shape.intermediate),
        "MXFP4": layout.format == "mxfp4",
        "R": ROWS[tile],
        "T": tile,
        "STEP": STEP[tile],
    }
    if matrix == "gate_up":
        values |= {"GPT_OSS": shape.activation == "gpt_oss_swiglu", "ALPHA": GPT_OSS_ALPHA, "LIMIT": GPT_OSS_LIMIT}
    return values


def triton_kernel(layout: ExpertLayout) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """From a block and contiguous ``x [n, hidden]``, n ≥ 1, f32 or bf16, the output ``[n, hidden]`` in x's type.

    The layout's format is bf16 or mxfp4, its activation swiglu or gpt_oss_swiglu.
    """
    shape = layout.shape
    inner_constants, down_constants = (
        {tile: constants(layout, matrix, tile) for tile in ROWS} for matrix in ("gate_up", "down")
    )

    def run(block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        count = len(x)
        tile = 1 if count == 1 else TOKENS
        tiles = triton.cdiv(count, tile)
        inner = torch.empty((count, shape.intermediate), dtype=x.dtype, device=x.device)
        output = torch.empty_like(x)
        programs = triton.cdiv(2 * shape.intermediate, ROWS[tile]), tiles
        _inner_kernel[programs](block, x, inner, count, **inner_constants[tile])
        _down_kernel[triton.cdiv(shape.hidden, ROWS[tile]), tiles](block, inner, output, count, **down_constants[tile])
        return output

    return run
