"""An expert in two Triton kernels that read its block as it lies: weights are decoded inside the product.

The first computes the inner rows and the activation, the second the down matrix; sums are in float32. Each program
owns some output rows of some tokens and walks over the whole input width in one order, so that an output depends on
its block and rows alone, whatever else runs: nothing is added by atomics, and block sizes are fixed rather than tuned
at run time, which would sum in another order in another process.

Up to `PIECES` experts, each with rows of its own, share a launch of the two: a program's second index says which piece
is its own. What the host says of a piece are arguments of the kernel, not memory that would have to be copied.

One token is multiplied element by element; up to 16 tokens together by tensor cores, more in tiles of 16, each of
which reads the weights again. The inner values are rounded once, to x's type, between the kernels. MXFP4's smallest
scale, 2^−127, counts as 0 (it occurs for groups of zeros).

Triton is imported with this module, so import it only where Triton is installed. Parameters in capitals are constants
of a compiled kernel: sizes, and where parts start in the block (bytes, −1: there is none).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl

from gpu_reference.experts.activation import GPT_OSS_ALPHA, GPT_OSS_LIMIT
from gpu_reference.experts.layout import ALIGNMENT, ExpertLayout
from gpu_reference.experts.mxfp4 import groups
from gpu_reference.experts.piece import Piece

PIECES = 8
"""Experts that one launch takes."""

NUMBERS = [f"{kind}{piece}" for kind in "br" for piece in range(PIECES)]
"""Arguments that differ from launch to launch, of which no kernel is compiled for special values."""

ROW_BITS = 20
"""Of a row's index, or a number of rows, among a kernel's arguments."""

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
def _choice(piece, a, b, c, d, e, f, g, h):
    """The ``piece``-th of eight numbers."""
    low = tl.where(piece < 2, tl.where(piece == 0, a, b), tl.where(piece == 2, c, d))
    high = tl.where(piece < 6, tl.where(piece == 4, e, f), tl.where(piece == 6, g, h))
    return tl.where(piece < 4, low, high)


@triton.jit(do_not_specialize=NUMBERS)
def _inner_kernel(base, x, inner, b0: tl.int64, b1: tl.int64, b2: tl.int64, b3: tl.int64, b4: tl.int64, b5: tl.int64,
                  b6: tl.int64, b7: tl.int64, r0: tl.int64, r1: tl.int64, r2: tl.int64, r3: tl.int64, r4: tl.int64,
                  r5: tl.int64, r6: tl.int64, r7: tl.int64, START: tl.constexpr, SCALES: tl.constexpr,
                  BIAS: tl.constexpr, HIDDEN: tl.constexpr, GROUPS: tl.constexpr, INTERMEDIATE: tl.constexpr,
                  MXFP4: tl.constexpr, GPT_OSS: tl.constexpr, ALPHA: tl.constexpr, LIMIT: tl.constexpr,
                  ROW_BITS: tl.constexpr, R: tl.constexpr, T: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """Gate and up rows, and the activation: each piece's of ``inner [rows, INTERMEDIATE]``, of ``x [rows, HIDDEN]``.

    ``b0`` … are how far the pieces' blocks lie from ``base``, in units of 16 bytes (so that the compiler knows loads to
    be aligned); ``r0`` … their rows (`_packed`).
    """
    HALF: tl.constexpr = R // 2
    block = base + _choice(tl.program_id(1), b0, b1, b2, b3, b4, b5, b6, b7) * 16
    packed = _choice(tl.program_id(1), r0, r1, r2, r3, r4, r5, r6, r7)
    x += (packed & ((1 << ROW_BITS) - 1)) * HIDDEN
    inner += ((packed >> ROW_BITS) & ((1 << ROW_BITS) - 1)) * INTERMEDIATE
    count = packed >> (2 * ROW_BITS)
    first = tl.program_id(2) * T
    tokens = tl.arange(0, T)
    tokens_ok = first + tokens < count
    if first < count:
        # Even rows of the tile are gate rows, odd ones the up rows that belong to them.
        tile = tl.arange(0, R)
        number = tl.program_id(0) * HALF + tile // 2
        both = _matrix_rows(
            block, number + (tile % 2) * INTERMEDIATE, number < INTERMEDIATE, x + first * HIDDEN, tokens_ok, START,
            SCALES, BIAS, HIDDEN, GROUPS, MXFP4, R, T, STEP,
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


@triton.jit(do_not_specialize=NUMBERS)
def _down_kernel(base, inner, output, b0: tl.int64, b1: tl.int64, b2: tl.int64, b3: tl.int64, b4: tl.int64,
                 b5: tl.int64, b6: tl.int64, b7: tl.int64, r0: tl.int64, r1: tl.int64, r2: tl.int64, r3: tl.int64,
                 r4: tl.int64, r5: tl.int64, r6: tl.int64, r7: tl.int64, START: tl.constexpr, SCALES: tl.constexpr,
                 BIAS: tl.constexpr, HIDDEN: tl.constexpr, GROUPS: tl.constexpr, INTERMEDIATE: tl.constexpr,
                 MXFP4: tl.constexpr, ROW_BITS: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
                 STEP: tl.constexpr):  # fmt: skip
    """Each piece's rows of ``output [rows, HIDDEN]`` of the same rows of ``inner``; see `_inner_kernel`."""
    block = base + _choice(tl.program_id(1), b0, b1, b2, b3, b4, b5, b6, b7) * 16
    packed = _choice(tl.program_id(1), r0, r1, r2, r3, r4, r5, r6, r7)
    row = (packed >> ROW_BITS) & ((1 << ROW_BITS) - 1)
    inner += row * INTERMEDIATE
    output += row * HIDDEN
    count = packed >> (2 * ROW_BITS)
    first = tl.program_id(2) * T
    tokens = tl.arange(0, T)
    tokens_ok = first + tokens < count
    if first < count:
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
        "ROW_BITS": ROW_BITS,
        "R": ROWS[tile],
        "T": tile,
        "STEP": STEP[tile],
    }
    if matrix == "gate_up":
        values |= {"GPT_OSS": shape.activation == "gpt_oss_swiglu", "ALPHA": GPT_OSS_ALPHA, "LIMIT": GPT_OSS_LIMIT}
    return values


class TritonGroup:
    """Several experts at once; see `gpu_reference.experts.group.Group`.

    The layout's format is bf16 or mxfp4, its activation swiglu or gpt_oss_swiglu. The inner values lie in one buffer,
    which grows to the most rows that a call has; calls follow each other on one stream.
    """

    def __init__(self, layout: ExpertLayout) -> None:
        shape = layout.shape
        self._intermediate = shape.intermediate
        self._inner: torch.Tensor | None = None
        self._inner_constants, self._down_constants = (
            {tile: constants(layout, matrix, tile) for tile in ROWS} for matrix in ("gate_up", "down")
        )
        self._inner_programs = {tile: triton.cdiv(2 * shape.intermediate, rows) for tile, rows in ROWS.items()}
        self._down_programs = {tile: triton.cdiv(shape.hidden, rows) for tile, rows in ROWS.items()}

    def __call__(self, pieces: Sequence[Piece], x: torch.Tensor, output: torch.Tensor) -> None:
        """Launch ``pieces``; x and output are contiguous."""
        inner = self._inner
        if inner is None or len(inner) < len(output) or inner.dtype != x.dtype or inner.device != x.device:
            shape = (len(output), self._intermediate)
            inner = self._inner = torch.empty(shape, dtype=x.dtype, device=x.device)
        for tile in ROWS:
            same = [piece for piece in pieces if (piece.rows == 1) == (tile == 1) and piece.rows]
            for at in range(0, len(same), PIECES):
                self._launch(tile, same[at : at + PIECES], x, inner, output)

    def _launch(
        self, tile: int, pieces: Sequence[Piece], x: torch.Tensor, inner: torch.Tensor, output: torch.Tensor
    ) -> None:
        """One launch of the two kernels, of pieces whose rows go into the same tiles."""
        base = pieces[0].block
        address = base.data_ptr()
        none = (0,) * (PIECES - len(pieces))
        numbers = (
            *((piece.block.data_ptr() - address) // ALIGNMENT for piece in pieces), *none,
            *(_packed(piece) for piece in pieces), *none,
        )  # fmt: skip
        tiles = triton.cdiv(max(piece.rows for piece in pieces), tile)
        programs = self._inner_programs[tile], len(pieces), tiles
        _inner_kernel[programs](base, x, inner, *numbers, **self._inner_constants[tile])
        programs = self._down_programs[tile], len(pieces), tiles
        _down_kernel[programs](base, inner, output, *numbers, **self._down_constants[tile])


def _packed(piece: Piece) -> int:
    """The rows of a piece in one number: first of x, first of the output, and how many."""
    return piece.first | piece.at << ROW_BITS | piece.rows << 2 * ROW_BITS


def triton_kernel(layout: ExpertLayout) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """From a block and contiguous ``x [n, hidden]``, n ≥ 1, f32 or bf16, the output ``[n, hidden]`` in x's type.

    The layout's format is bf16 or mxfp4, its activation swiglu or gpt_oss_swiglu.
    """
    group = TritonGroup(layout)

    def run(block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(x)
        group([Piece(block, 0, len(x), 0)], x, output)
        return output

    return run
