"""Where weights lie: a phase's columns in the order in which they are read, and the contents of the banks.

A column holds, in each block, 32 bytes (`pim_model.unit.program` has the order of columns), numbers little-endian:

* MAC, BF16: 16 weights of one row. INT8: 16 weights of a row, then 16 of the next. MXFP4: 8 bytes for each of four
  rows; the low half of a byte is the input before the one in its high half.
* SCALES: byte j is the E8M0 scale of the block's row j of the tile for this chunk and the next.
* CONSTANTS: row scales or biases of eight of the block's rows, FP32.

What is beyond the matrix is zero. Column k of a phase lies in row set ``first_row_set`` + k // row_bursts, at column
k % row_bursts; row set s lies in half s % 2 (bank 0 or 1 of every block), in the banks' row ``base_row`` + s // 2.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model.numerics.expert import Expert, Layer
from pim_model.numerics.formats import SHARED, Bf16Matrix, Int8Matrix, Mxfp4Matrix, WeightMatrix
from pim_model.unit.parameters import ACCUMULATORS, COLUMN_BYTES, LANES, OCTET, UnitParameters
from pim_model.unit.program import ColumnKind, Columns, Phase, Program, Tile, WeightFormat

Bytes = NDArray[np.uint8]

_BIASES = ACCUMULATORS // OCTET
"""The first index of CONSTANTS with biases; the row scales' is 0."""

_ELEMENTS: dict[WeightFormat, np.dtype] = {
    WeightFormat.BF16: np.dtype("<u2"),
    WeightFormat.INT8: np.dtype(np.int8),
    WeightFormat.MXFP4: np.dtype("u1"),
}
"""A weight before it is packed; of MXFP4 a code."""


def phase_columns(parameters: UnitParameters, phase: Phase, layer: Layer) -> Bytes:
    """The columns of a phase, uint8 ``[columns, blocks, 32]``.

    Raises:
        ForestageError: ``layer`` is not what ``phase`` was made for.
    """
    matrix = layer.matrix
    if (matrix.format, matrix.shape, layer.bias is not None) != (phase.format, (phase.rows, phase.inputs), phase.bias):
        raise ForestageError(
            f"PIM image: {_said(matrix.format, matrix.shape, layer.bias is not None)} in a phase of "
            f"{_said(phase.format, (phase.rows, phase.inputs), phase.bias)}; give the same"
        )
    weights = _weights(matrix)
    filled = np.pad(weights, ((0, 0), (0, phase.chunks * LANES - phase.inputs)))
    order, blocks = phase.columns(), parameters.blocks.blocks
    columns = np.zeros((len(order.kind), blocks, COLUMN_BYTES), np.uint8)
    for tile, chosen in _tiles(phase, order):
        rows = _rows_of_tile(tile, blocks)
        where = _Places(order, chosen)
        columns[where.macs] = _packed(phase.format, _taken(filled, rows))[where.mac_index]
        if isinstance(matrix, Mxfp4Matrix):
            columns[where.scales, :, : tile.rows_per_block] = np.moveaxis(_taken(matrix.scales, rows), -1, 0)
        columns[where.constants] = _constants(layer, rows)[where.constant_index]
    return columns


def layer_of_columns(parameters: UnitParameters, phase: Phase, columns: Bytes) -> Layer:
    """The inverse of ``phase_columns``: the matrix and bias that the columns hold."""
    order, blocks = phase.columns(), parameters.blocks.blocks
    weights = np.zeros((phase.rows, phase.chunks * LANES), _ELEMENTS[phase.format])
    shared = np.zeros((phase.rows, phase.chunks * LANES // SHARED), np.uint8)
    constants = np.zeros((2, phase.rows), np.float32)
    for tile, chosen in _tiles(phase, order):
        rows = _rows_of_tile(tile, blocks)
        within = rows < phase.rows
        where = _Places(order, chosen)
        groups = tile.rows_per_block // phase.format.rows
        packed = np.zeros((phase.chunks, groups, blocks, COLUMN_BYTES), np.uint8)
        packed[where.mac_index] = columns[where.macs]
        weights[rows[within]] = _unpacked(phase.format, packed)[within]
        if phase.format is WeightFormat.MXFP4:
            shared[rows[within]] = np.moveaxis(columns[where.scales, :, : tile.rows_per_block], 0, -1)[within]
        numbers = np.zeros((2 * _BIASES, blocks, COLUMN_BYTES), np.uint8)
        numbers[where.constant_index] = columns[where.constants]
        values = np.ascontiguousarray(np.moveaxis(numbers.reshape(2, _BIASES, blocks, COLUMN_BYTES), 2, 1)).view("<f4")
        constants[:, rows[within]] = values.reshape(2, blocks, ACCUMULATORS)[:, :, : tile.rows_per_block][:, within]
    weights = weights[:, : phase.inputs]
    matrix: WeightMatrix
    if phase.format is WeightFormat.BF16:
        matrix = Bf16Matrix(weights.astype(np.uint16))
    elif phase.format is WeightFormat.INT8:
        matrix = Int8Matrix(weights, constants[0])
    else:
        matrix = Mxfp4Matrix(weights, shared[:, : -(-phase.inputs // SHARED)])
    return Layer(matrix, constants[1] if phase.bias else None)


def expert_columns(parameters: UnitParameters, program: Program, expert: Expert) -> tuple[Bytes, Bytes]:
    """The columns of both phases of an expert.

    Raises:
        ForestageError: the expert is not what ``program`` was made for.
    """
    if len(program.phases) != 2 or program.kind is not expert.kind:
        raise ForestageError(
            f"PIM image: an expert of kind {expert.kind.name}, a program for {program.kind.name}; give the same"
        )
    first, second = program.phases
    return phase_columns(parameters, first, expert.gate_up), phase_columns(parameters, second, expert.down)


def bank_contents(parameters: UnitParameters, program: Program, columns: Sequence[Bytes]) -> Bytes:
    """The banks' contents from ``base_row`` on, uint8 ``[half, row, column, block, 32]``, zeros where nothing lies.

    Args:
        parameters: The unit's.
        program: Which phases there are.
        columns: Of each phase.
    """
    rows = -(-program.row_sets // 2)
    banks = np.zeros((2, rows, parameters.device.row_bursts, parameters.blocks.blocks, COLUMN_BYTES), np.uint8)
    for phase, contents in zip(program.phases, columns, strict=True):
        banks[_place(parameters, phase, len(contents))] = contents
    return banks


def columns_of_banks(parameters: UnitParameters, program: Program, banks: Bytes) -> list[Bytes]:
    """The inverse of ``bank_contents``: the columns of each phase."""
    return [banks[_place(parameters, phase, len(phase.columns().kind))] for phase in program.phases]


class _Places:
    """Which of a tile's columns hold what, as indices.

    Attributes:
        macs, scales, constants: Columns of each kind, numbered in the phase.
        mac_index: Chunk and row group of each MAC.
        constant_index: Index of each CONSTANTS.
    """

    def __init__(self, order: Columns, chosen: NDArray[np.intp]) -> None:
        kind = order.kind[chosen]
        self.macs = chosen[kind == ColumnKind.MAC]
        self.scales = chosen[kind == ColumnKind.SCALES]  # in the order of the chunks
        self.constants = chosen[kind == ColumnKind.CONSTANTS]
        self.mac_index = order.chunk[self.macs], order.index[self.macs]
        self.constant_index = order.index[self.constants]


def _said(weight_format: WeightFormat, shape: tuple[int, int], bias: bool) -> str:
    return f"{weight_format.name} {shape[0]}×{shape[1]} {'with' if bias else 'without'} bias"


def _tiles(phase: Phase, order: Columns) -> list[tuple[Tile, NDArray[np.intp]]]:
    """Each tile, and the numbers of its columns."""
    return [(tile, np.flatnonzero(order.tile == number)) for number, tile in enumerate(phase.tiles)]


def _rows_of_tile(tile: Tile, blocks: int) -> NDArray[np.intp]:
    """The matrix's rows, ``[blocks, rows of a block]``; some may be beyond it."""
    return tile.first_row + np.arange(blocks * tile.rows_per_block).reshape(blocks, -1)


def _taken(array: NDArray, rows: NDArray[np.intp]) -> NDArray:
    """``array[rows]``, zeros for rows beyond."""
    taken = array[np.minimum(rows, len(array) - 1)]
    taken[rows >= len(array)] = 0
    return taken


def _weights(matrix: WeightMatrix) -> NDArray:
    """The weights ``[rows, inputs]`` before packing."""
    if isinstance(matrix, Bf16Matrix):
        return matrix.weights.astype("<u2")
    if isinstance(matrix, Int8Matrix | Mxfp4Matrix):
        return matrix.codes
    raise TypeError(f"no format has {type(matrix).__name__}")


def _packed(weight_format: WeightFormat, weights: NDArray) -> Bytes:
    """``[blocks, rows, inputs]`` as MAC columns ``[chunks, row groups, blocks, 32]``."""
    blocks, rows, inputs = weights.shape
    unit = weight_format.rows
    columns = weights.reshape(blocks, rows // unit, unit, inputs // LANES, LANES).transpose(3, 1, 0, 2, 4)
    if weight_format is WeightFormat.MXFP4:
        columns = columns[..., 0::2] | columns[..., 1::2] << 4
    return np.ascontiguousarray(columns).view(np.uint8).reshape(*columns.shape[:3], COLUMN_BYTES)


def _unpacked(weight_format: WeightFormat, columns: Bytes) -> NDArray:
    """The inverse of ``_packed``."""
    chunks, groups, blocks, _ = columns.shape
    unit = weight_format.rows
    if weight_format is WeightFormat.MXFP4:
        columns = np.stack([columns & 0xF, columns >> 4], axis=-1)
    weights = np.ascontiguousarray(columns).view(_ELEMENTS[weight_format])
    weights = weights.reshape(chunks, groups, blocks, unit, LANES).transpose(2, 1, 3, 0, 4)
    return weights.reshape(blocks, groups * unit, chunks * LANES)


def _constants(layer: Layer, rows: NDArray[np.intp]) -> Bytes:
    """All CONSTANTS columns that a tile could have, ``[index, blocks, 32]``."""
    blocks, of_block = rows.shape
    numbers = np.zeros((2, blocks, ACCUMULATORS), np.dtype("<f4"))
    if isinstance(layer.matrix, Int8Matrix):
        numbers[0, :, :of_block] = _taken(layer.matrix.scales, rows)
    if layer.bias is not None:
        numbers[1, :, :of_block] = _taken(layer.bias, rows)
    octets = np.moveaxis(numbers.reshape(2, blocks, _BIASES, OCTET), 2, 1)
    return np.ascontiguousarray(octets).view(np.uint8).reshape(2 * _BIASES, blocks, COLUMN_BYTES)


def _place(parameters: UnitParameters, phase: Phase, columns: int) -> tuple[NDArray[np.intp], ...]:
    """Half, row and column of each of a phase's columns."""
    row_set, column = np.divmod(np.arange(columns), parameters.device.row_bursts)
    row_set += phase.first_row_set
    return row_set % 2, row_set // 2, column
