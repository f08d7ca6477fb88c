"""One row of an expert's matrix times the tokens' vectors, on a CPU: the weights are decoded in registers.

Each product is LLVM code in vectors of 256 bits, called from numba's functions as ``product(row, scales, size, x,
x_stride, x_scales, x_scales_stride) -> f32 for each of its tokens``. Arguments are addresses and sizes in bytes: the
row's weights and (MXFP4) its scales' bytes, ``size`` of the row's weights, the tokens' vectors as
`gpu_reference.experts.host_vectors` lays them out, and how far one token's vector (and its scales) lie from the next's.

* MXFP4 and INT8: weights and vectors are integers; a group's sum is an exact integer, and is multiplied by the group's
  scales and added up in float32.
* BF16: weights become float32, exactly, and are multiplied by float32 vectors.

The order of every float32 sum is fixed by this file: along the row, in lanes of 8, and at its end the lanes two by two.
It does not depend on how many tokens are multiplied together, on threads, or on the processor.

A row that fills no whole step ends in a copy of its rest that zeros fill up, so that nothing behind the row is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

STEP = 64
"""Elements that one step multiplies; vectors are padded with zeros to a multiple of it."""

TILE = 4
"""Tokens that share the decoding of a row."""

LANES = 8

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()

DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice what each code of E2M1 stands for (`mxfp4.MAGNITUDES`)."""

HAS_BYTE_SHUFFLE = bool(binding.get_host_cpu_features().get("avx2"))
"""Whether this processor looks up 32 bytes in a table of 16 at once."""


class _Step:
    """What one step of 64 elements needs, for the product of some tokens.

    Attributes:
        weight_bytes: of the row.
        scale_bytes: of the row.
        x_bytes: of a token's vector.
        x_scale_bytes: of a token's scales.
        sums: accumulators a token.
    """

    weight_bytes: int
    scale_bytes = 0
    x_bytes: int
    x_scale_bytes = 8
    sums = 1

    def weights(self, builder: Any, row: Any, scales: Any) -> Any:
        """Load and decode the row's."""
        raise NotImplementedError

    def add(self, builder: Any, weights: Any, x: Any, x_scales: Any, sums: Sequence[Any]) -> list[Any]:
        """The accumulators after this step of one token."""
        raise NotImplementedError


class _Mxfp4(_Step):
    """Two groups of 32, whose sums lie in the lower and the upper four lanes.

    Twice an element times 256 is put into 16 bits without moving bytes: of each 16 bits of codes, the lower byte is
    shifted up and the upper one masked, so vector ``c`` of the tokens' four has the elements ``4 j + c``. The factor
    2^−9 is in the tokens' scales. Largest sum of a lane: 4 · 2 · 12 · 256 · 32767 < 2^30.
    """

    weight_bytes, scale_bytes, x_bytes = STEP // 2, 2, 2 * STEP

    def weights(self, builder: Any, row: Any, scales: Any) -> Any:
        codes = _load(builder, row, 0, I8, 32)
        low = builder.and_(codes, _splat(I8, 32, 15))
        wide = builder.lshr(builder.bitcast(codes, _vector(I16, 16)), _splat(I16, 16, 4))
        high = builder.and_(builder.bitcast(wide, _vector(I8, 32)), _splat(I8, 32, 15))
        parts = []
        for nibbles in (low, high):
            values = builder.bitcast(_doubled(builder, nibbles), _vector(I16, 16))
            parts.append(builder.shl(values, _splat(I16, 16, 8)))
            parts.append(builder.and_(values, _splat(I16, 16, 0xFF00)))
        powers = builder.zext(_load(builder, scales, 0, I8, 2), _vector(I32, 2))
        powers = builder.bitcast(builder.shl(powers, _splat(I32, 2, 23)), _vector(F32, 2))
        # low of lower bytes: 4 j; high of lower bytes: 4 j + 1; low of upper bytes: 4 j + 2; …
        return (parts[0], parts[2], parts[1], parts[3]), powers

    def add(self, builder: Any, weights: Any, x: Any, x_scales: Any, sums: Sequence[Any]) -> list[Any]:
        parts, powers = weights
        whole = _exact(builder, [(part, _load(builder, x, 32 * at, I16, 16)) for at, part in enumerate(parts)])
        both = builder.fmul(powers, _load(builder, x_scales, 0, F32, 2))
        spread = builder.shuffle_vector(both, both, _constant(I32, [0] * 4 + [1] * 4))
        return [_fma(builder, whole, spread, sums[0])]


class _Int8(_Step):
    """Two groups of 32, each with an accumulator of its own. Largest sum of a lane: 2 · 2 · 127 · 32767 < 2^24."""

    weight_bytes, x_bytes, sums = STEP, 2 * STEP, 2

    def weights(self, builder: Any, row: Any, scales: Any) -> Any:
        return [builder.sext(_load(builder, row, 16 * at, I8, 16), _vector(I16, 16)) for at in range(4)]

    def add(self, builder: Any, weights: Any, x: Any, x_scales: Any, sums: Sequence[Any]) -> list[Any]:
        after = []
        for group in range(2):
            pairs = [(weights[at], _load(builder, x, 32 * at, I16, 16)) for at in (2 * group, 2 * group + 1)]
            scale = _load(builder, x_scales, 4 * group, F32, 1)
            spread = builder.shuffle_vector(scale, scale, _splat(I32, LANES, 0))
            after.append(_fma(builder, _exact(builder, pairs), spread, sums[group]))
        return after


class _Bf16(_Step):
    """Eight times 8 elements; accumulator ``a`` takes those from 8 a and from 8 (a + 4) on."""

    weight_bytes, x_bytes, x_scale_bytes, sums = 2 * STEP, 4 * STEP, 0, 4

    def weights(self, builder: Any, row: Any, scales: Any) -> Any:
        parts = []
        for at in range(STEP // LANES):
            bits = builder.zext(_load(builder, row, 2 * LANES * at, I16, LANES), _vector(I32, LANES))
            parts.append(builder.bitcast(builder.shl(bits, _splat(I32, LANES, 16)), _vector(F32, LANES)))
        return parts

    def add(self, builder: Any, weights: Any, x: Any, x_scales: Any, sums: Sequence[Any]) -> list[Any]:
        after = list(sums)
        for at, part in enumerate(weights):
            inputs = _load(builder, x, 4 * LANES * at, F32, LANES)
            after[at % self.sums] = _fma(builder, part, inputs, after[at % self.sums])
        return after


def _product(step: _Step, tokens: int) -> Callable[..., Any]:
    """The product of one row and ``tokens`` vectors, for numba; gives a tuple of as many f32."""

    @intrinsic
    def product(context: Any, row: Any, scales: Any, size: Any, x: Any, x_stride: Any, x_scales: Any,
                x_scales_stride: Any) -> Any:  # fmt: skip
        result = types.UniTuple(types.float32, tokens)

        def generate(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
            return context.make_tuple(builder, result, _sums(builder, step, tokens, *args))

        return result(*[types.int64] * 7), generate

    return product


mxfp4_product = _product(_Mxfp4(), 1)
mxfp4_products = _product(_Mxfp4(), TILE)
int8_product = _product(_Int8(), 1)
int8_products = _product(_Int8(), TILE)
bf16_product = _product(_Bf16(), 1)
bf16_products = _product(_Bf16(), TILE)


def _reader(bits: int) -> Callable[..., Any]:
    """The upper ``bits`` of an f32, which lie at an address, as that f32."""

    @intrinsic
    def read(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
            kind = ir.IntType(bits)
            found = builder.load(builder.inttoptr(args[0], ir.PointerType(kind)), align=1)
            whole = found if bits == 32 else builder.shl(builder.zext(found, I32), I32(32 - bits))
            return builder.bitcast(whole, F32)

        return types.float32(types.int64), generate

    return read


f32_at = _reader(32)
bf16_at = _reader(16)


def _sums(builder: Any, step: _Step, tokens: int, row: Any, scales: Any, size: Any, x: Any, x_stride: Any,
          x_scales: Any, x_scales_stride: Any) -> list[Any]:  # fmt: skip
    """Code of a whole row; the sum of each token."""
    zero = ir.Constant(_vector(F32, LANES), None)
    cells = [cgutils.alloca_once_value(builder, zero) for _ in range(tokens * step.sums)]
    for cell in cells:
        builder.store(zero, cell)

    def one(row: Any, scales: Any, number: Any) -> None:
        weights = step.weights(builder, row, scales)
        for token in range(tokens):
            own = cells[token * step.sums : (token + 1) * step.sums]
            at = _offset(builder, _offset(builder, x, x_stride, token), number, step.x_bytes)
            at_scale = _offset(builder, _offset(builder, x_scales, x_scales_stride, token), number, step.x_scale_bytes)
            after = step.add(builder, weights, at, at_scale, [builder.load(cell) for cell in own])
            for cell, value in zip(own, after, strict=True):
                builder.store(value, cell)

    whole = builder.udiv(size, I64(step.weight_bytes))
    with cgutils.for_range(builder, whole, intp=I64) as loop:
        one(
            _offset(builder, row, loop.index, step.weight_bytes),
            _offset(builder, scales, loop.index, step.scale_bytes),
            loop.index,
        )
    rest = builder.urem(size, I64(step.weight_bytes))
    with builder.if_then(builder.icmp_unsigned("!=", rest, I64(0)), likely=False):
        padded = _padded(builder, _offset(builder, row, whole, step.weight_bytes), rest, step.weight_bytes)
        padded_scales = scales
        if step.scale_bytes:
            each = step.weight_bytes // step.scale_bytes
            there = builder.udiv(builder.add(rest, I64(each - 1)), I64(each))
            padded_scales = _padded(builder, _offset(builder, scales, whole, step.scale_bytes), there, step.scale_bytes)
        one(padded, padded_scales, whole)
    return [
        _total(builder, [builder.load(cell) for cell in cells[token * step.sums : (token + 1) * step.sums]])
        for token in range(tokens)
    ]


def _total(builder: Any, sums: Sequence[Any]) -> Any:
    """Accumulators two by two, then lanes: i and i + 4, i and i + 2, i and i + 1."""
    while len(sums) > 1:
        sums = [builder.fadd(one, other) for one, other in zip(sums[0::2], sums[1::2], strict=True)]
    total, lanes = sums[0], LANES
    while lanes > 1:
        lanes //= 2
        halves = (_constant(I32, range(start, start + lanes)) for start in (0, lanes))
        total = builder.fadd(*(builder.shuffle_vector(total, total, half) for half in halves))
    return builder.extract_element(total, I32(0))


def _exact(builder: Any, pairs: Sequence[tuple[Any, Any]]) -> Any:
    """f32 ``[8]`` of integer sums: products of i16 ``[16]``, neighbours added, and then the vectors."""
    total = None
    for one, other in pairs:
        products = builder.mul(*(builder.sext(side, _vector(I32, 16)) for side in (one, other)))
        even, odd = (
            builder.shuffle_vector(products, products, _constant(I32, range(start, 16, 2))) for start in (0, 1)
        )
        neighbours = builder.add(even, odd)  # LLVM makes one instruction of this (vpmaddwd)
        total = neighbours if total is None else builder.add(total, neighbours)
    return builder.sitofp(total, _vector(F32, LANES))


def _doubled(builder: Any, codes: Any) -> Any:
    """i8 ``[32]``: `DOUBLED` of codes from 0 to 15."""
    kind = _vector(I8, 32)
    if HAS_BYTE_SHUFFLE:
        lookup = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind]), "llvm.x86.avx2.pshuf.b"
        )
        return builder.call(lookup, [_constant(I8, [value % 256 for value in DOUBLED] * 2), codes])
    size = builder.and_(codes, _splat(I8, 32, 7))
    four = _splat(I8, 32, 4)
    over = builder.select(builder.icmp_unsigned(">", size, four), builder.sub(size, four), _splat(I8, 32, 0))
    last = builder.select(builder.icmp_unsigned("==", size, _splat(I8, 32, 7)), _splat(I8, 32, 2), _splat(I8, 32, 0))
    value = builder.add(builder.add(size, over), last)
    return builder.select(builder.icmp_unsigned(">", codes, _splat(I8, 32, 7)), builder.neg(value), value)


def _fma(builder: Any, one: Any, other: Any, total: Any) -> Any:
    """``one · other + total``, rounded once."""
    kind = one.type
    multiply_add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{LANES}f32"
    )
    return builder.call(multiply_add, [one, other, total])


def _padded(builder: Any, source: Any, count: Any, size: int) -> Any:
    """The address of ``size`` bytes: ``count`` from ``source``, then zeros."""
    kind = ir.ArrayType(I8, size)
    room = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, None), room)
    cgutils.raw_memcpy(
        builder, builder.bitcast(room, ir.PointerType(I8)), builder.inttoptr(source, ir.PointerType(I8)), count, 1
    )
    return builder.ptrtoint(room, I64)


def _offset(builder: Any, address: Any, number: Any, size: int) -> Any:
    """``address + number · size``."""
    return address if size == 0 else builder.add(address, builder.mul(number, I64(size)))


def _load(builder: Any, address: Any, offset: int, kind: Any, count: int) -> Any:
    pointer = builder.inttoptr(builder.add(address, I64(offset)), ir.PointerType(_vector(kind, count)))
    return builder.load(pointer, align=1)


def _vector(kind: Any, count: int) -> Any:
    return ir.VectorType(kind, count)


def _constant(kind: Any, values: Any) -> Any:
    elements = [int(value) for value in values]
    return ir.Constant(_vector(kind, len(elements)), elements)


def _splat(kind: Any, count: int, value: int) -> Any:
    return _constant(kind, [value] * count)
