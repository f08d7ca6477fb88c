"""What a PIM expert unit runs: formats, the tiles of a matrix, and the order of its columns.

A *column* is what one PIM command reads: 32 bytes in every block. A *phase* is one matrix times the input vectors: an
expert has two, ``gate_up`` with its rows interleaved (gate 0, up 0, gate 1, …), then ``down``; a GEMV has one. Rows go
into *tiles* of as many rows a block as there are accumulators for; inputs into *chunks* of 16. Within a tile all rows
meet one chunk before the next.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model.unit.parameters import ACCUMULATORS, LANES, MAX_ROWS, OCTET, PASSES, UnitParameters


class WeightFormat(IntEnum):
    """How weights lie in memory; the value is the code in a descriptor."""

    BF16 = 0
    INT8 = 1
    MXFP4 = 2

    @property
    def rows(self) -> int:
        """Rows of the matrix of which a column holds 16 weights each."""
        return {WeightFormat.BF16: 1, WeightFormat.INT8: 2, WeightFormat.MXFP4: 4}[self]

    @property
    def most_tokens(self) -> int:
        """Tokens that a block can multiply with a column before the next one comes."""
        return PASSES // self.rows

    @property
    def row_unit(self) -> int:
        """What the rows a block of a tile are a multiple of: whole columns, and gate and up rows together."""
        return math.lcm(2, self.rows)

    @property
    def input_unit(self) -> int:
        """What inputs are filled up to with zeros: whole chunks; of MXFP4, whole blocks of a shared scale."""
        return 2 * LANES if self is WeightFormat.MXFP4 else LANES


class ExpertKind(IntEnum):
    """What happens between the phases; the value is the code in a descriptor."""

    NONE = 0
    """One phase: a GEMV."""
    SWIGLU = 1
    """SiLU(gate) · up."""
    GPT_OSS = 2
    """gate · σ(1.702 · gate) · (up + 1), gate at most 7, up within ±7."""


class ColumnKind(IntEnum):
    """What a column holds."""

    MAC = 0
    """Weights of one chunk."""
    SCALES = 1
    """A shared exponent a row, for two chunks (MXFP4)."""
    CONSTANTS = 2
    """Eight FP32 numbers: row scales (INT8) at indices 0 … 3, biases at 4 … 7."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Rows in work at once.

    Attributes:
        first_row: The matrix's row that block 0 begins with.
        rows_per_block: Of block ``b`` rows ``first_row + b · rows_per_block`` and on; some may be beyond the matrix.
    """

    first_row: int
    rows_per_block: int

    @property
    def octets(self) -> int:
        """Readbacks that a block's rows take."""
        return -(-self.rows_per_block // OCTET)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A phase's columns in the order in which they are read; all arrays ``[columns]``.

    Attributes:
        kind: `ColumnKind`.
        tile: Number of the tile, in the phase.
        chunk: Chunk of a MAC, first chunk of SCALES; of CONSTANTS −1.
        index: Row group of a MAC (rows ``index · format.rows`` …), index of CONSTANTS; of SCALES 0.
    """

    kind: NDArray[np.uint8]
    tile: NDArray[np.int32]
    chunk: NDArray[np.int32]
    index: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One matrix.

    Attributes:
        format: Of its weights.
        rows, inputs: Of the matrix.
        bias: Whether each row has one.
        tiles: In order.
        chunks: Of the inputs, filled up.
        first_row_set: Number of the row set in which its first column lies.
        row_sets: How many it takes.
    """

    format: WeightFormat
    rows: int
    inputs: int
    bias: bool
    tiles: tuple[Tile, ...]
    chunks: int
    first_row_set: int
    row_sets: int

    @property
    def constants_of_octet(self) -> int:
        """Constants columns for each eight rows of a block: row scales, biases."""
        return int(self.format is WeightFormat.INT8) + int(self.bias)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrix's weights, scales included, biases not."""
        return weight_bytes(self.rows, self.inputs, self.format)

    def columns_of_tile(self, tile: Tile) -> int:
        """How many columns it takes."""
        macs = self.chunks * tile.rows_per_block // self.format.rows
        scales = self.chunks // 2 if self.format is WeightFormat.MXFP4 else 0
        return macs + scales + tile.octets * self.constants_of_octet

    def columns(self) -> Columns:
        """All of its columns."""
        parts = [self._tile_columns(number, tile) for number, tile in enumerate(self.tiles)]
        kind, tile, chunk, index = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Columns(kind=kind.astype(np.uint8), tile=tile, chunk=chunk, index=index)

    def _tile_columns(self, number: int, tile: Tile) -> tuple[NDArray[np.int32], ...]:
        """Kind, tile, chunk and index of a tile's columns."""
        groups = np.arange(tile.rows_per_block // self.format.rows)
        rows: list[tuple[int, int, int]] = []
        for chunk in range(self.chunks):
            if self.format is WeightFormat.MXFP4 and chunk % 2 == 0:
                rows.append((ColumnKind.SCALES, chunk, 0))
            rows += [(ColumnKind.MAC, chunk, int(group)) for group in groups]
        if self.format is WeightFormat.INT8:
            rows += [(ColumnKind.CONSTANTS, -1, octet) for octet in range(tile.octets)]
        if self.bias:
            rows += [(ColumnKind.CONSTANTS, -1, ACCUMULATORS // OCTET + octet) for octet in range(tile.octets)]
        kind, chunk, index = np.array(rows, np.int32).T
        return kind, np.full(len(rows), number, np.int32), chunk, index


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a descriptor says.

    Attributes:
        format: Of all weights.
        kind: What happens between the phases.
        tokens: Input vectors.
        phases: One or two.
        base_row: Row of the banks in which row sets 0 and 1 lie.
    """

    format: WeightFormat
    kind: ExpertKind
    tokens: int
    phases: tuple[Phase, ...]
    base_row: int = 0

    @property
    def token_slots(self) -> int:
        """Tokens filled up to a power of two: places that each row has among the accumulators."""
        return token_slots(self.tokens)

    @property
    def loads_of_chunk(self) -> int:
        """Input registers that a chunk takes, and LDIs that fill them."""
        return self.token_slots if self.format is WeightFormat.BF16 else 1

    @property
    def row_sets(self) -> int:
        """How many row sets it takes."""
        return sum(phase.row_sets for phase in self.phases)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, scales included."""
        return sum(phase.weight_bytes for phase in self.phases)


def token_slots(tokens: int) -> int:
    """The power of two that holds ``tokens``."""
    return 1 << (tokens - 1).bit_length()


def weight_bytes(rows: int, inputs: int, weight_format: WeightFormat) -> int:
    """Bytes of a matrix's weights: of INT8 with an FP32 scale a row, of MXFP4 with a byte for each 32 inputs."""
    if weight_format is WeightFormat.BF16:
        return 2 * rows * inputs
    if weight_format is WeightFormat.INT8:
        return rows * inputs + 4 * rows
    return rows * -(-inputs // 2) + rows * -(-inputs // 32)


def gemv_program(
    parameters: UnitParameters,
    rows: int,
    inputs: int,
    weight_format: WeightFormat,
    *,
    tokens: int = 1,
    bias: bool = False,
    base_row: int = 0,
) -> Program:
    """A matrix ``[rows, inputs]`` times ``tokens`` vectors.

    Raises:
        ForestageError: the unit cannot do it.
    """
    _check_tokens(tokens, weight_format)
    phase = _phase(parameters, rows, inputs, weight_format, tokens, bias, first_row_set=0)
    return Program(format=weight_format, kind=ExpertKind.NONE, tokens=tokens, phases=(phase,), base_row=base_row)


def expert_program(
    parameters: UnitParameters,
    hidden: int,
    intermediate: int,
    weight_format: WeightFormat,
    kind: ExpertKind,
    *,
    tokens: int = 1,
    gate_up_bias: bool = False,
    down_bias: bool = False,
    base_row: int = 0,
) -> Program:
    """An expert slice of ``intermediate`` gate and up rows, and as many columns of ``down``, for ``tokens`` vectors.

    Raises:
        ForestageError: the unit cannot do it, or ``kind`` is none of an expert.
    """
    _check_tokens(tokens, weight_format)
    if kind is ExpertKind.NONE:
        raise ForestageError("PIM expert: kind is none; an expert has one: swiglu or gpt-oss")
    first = _phase(parameters, 2 * intermediate, hidden, weight_format, tokens, gate_up_bias, first_row_set=0)
    second = _phase(parameters, hidden, intermediate, weight_format, tokens, down_bias, first_row_set=first.row_sets)
    return Program(format=weight_format, kind=kind, tokens=tokens, phases=(first, second), base_row=base_row)


def _check_tokens(tokens: int, weight_format: WeightFormat) -> None:
    if not 1 <= tokens <= weight_format.most_tokens:
        raise ForestageError(
            f"PIM unit: tokens is {tokens}; with {weight_format.name} weights a read serves 1 to "
            f"{weight_format.most_tokens}; run more in several passes"
        )


def _phase(
    parameters: UnitParameters,
    rows: int,
    inputs: int,
    weight_format: WeightFormat,
    tokens: int,
    bias: bool,
    first_row_set: int,
) -> Phase:
    for name, value in (("rows", rows), ("inputs", inputs)):
        if value < 1:
            raise ForestageError(f"PIM unit: {name} is {value}; give at least 1")
    if rows > MAX_ROWS:
        raise ForestageError(f"PIM unit: {rows} rows; a descriptor holds {MAX_ROWS}: split the matrix")
    if inputs > parameters.max_inputs:
        raise ForestageError(
            f"PIM unit: {inputs} inputs; its buffer holds {parameters.max_inputs}: split the matrix, or generate it "
            "with a larger max_inputs"
        )
    unit = weight_format.row_unit
    of_block = _round_up(-(-rows // parameters.blocks.blocks), unit)
    most = ACCUMULATORS // token_slots(tokens)
    count = -(-of_block // most)
    rows_per_block = _round_up(-(-of_block // count), unit)
    sizes = [rows_per_block] * (of_block // rows_per_block)
    if of_block % rows_per_block:
        sizes.append(of_block % rows_per_block)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) * parameters.blocks.blocks
    tiles = tuple(Tile(first_row=int(start), rows_per_block=size) for start, size in zip(starts, sizes, strict=True))
    draft = Phase(
        format=weight_format,
        rows=rows,
        inputs=inputs,
        bias=bias,
        tiles=tiles,
        chunks=_round_up(inputs, weight_format.input_unit) // LANES,
        first_row_set=first_row_set,
        row_sets=0,
    )
    columns = sum(draft.columns_of_tile(tile) for tile in tiles)
    return Phase(**{**vars(draft), "row_sets": -(-columns // parameters.device.row_bursts)})


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
