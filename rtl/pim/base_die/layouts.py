"""What the parts of the base die say to each other, and the unit to its memory."""

from amaranth.lib import data, enum
from amaranth.utils import ceil_log2

from pim_model.unit.parameters import ACCUMULATORS, INPUT_REGISTERS, LANES, MAX_ROWS, OCTET, UnitParameters
from pim_model.unit.program import ColumnKind, ExpertKind, WeightFormat

MOST_TOKENS = WeightFormat.BF16.most_tokens
INPUTS_BITS = 15
"""Of a number of inputs, at most 16,384."""


class RowCommand(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What is on the row bus."""

    ACT = 0
    PREH = 1
    PREAB = 2
    REFAB = 3


class ColumnCommand(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What is on the column bus."""

    PIM = 0
    LDI = 1
    RDA = 2


def chunk_bits(parameters: UnitParameters) -> int:
    """Of a chunk's number."""
    return ceil_log2(parameters.max_inputs // LANES)


def block_bits(parameters: UnitParameters) -> int:
    """Of a block's number."""
    return ceil_log2(parameters.blocks.blocks)


def row_bits(parameters: UnitParameters) -> int:
    """Of a bank's row."""
    return ceil_log2(parameters.bank_rows)


def row_set_bits(parameters: UnitParameters) -> int:
    """Of a row set's number, which may be one beyond the last."""
    return row_bits(parameters) + 2


def address_bits(parameters: UnitParameters) -> int:
    """Of a column's place in its row."""
    return ceil_log2(parameters.device.row_bursts)


TILE_BITS = MAX_ROWS.bit_length() - 1
"""Of a tile's number; a tile has at least two rows."""

TILE_ROWS_BITS = ACCUMULATORS.bit_length()


def row_port_layout(parameters: UnitParameters) -> data.StructLayout:
    """The row bus.

    Members: ``valid``; ``command``; ``half`` of ACT and PREH; ``block`` whose bank an ACT opens; its ``row``.
    """
    return data.StructLayout(
        {"valid": 1, "command": RowCommand, "half": 1, "block": block_bits(parameters), "row": row_bits(parameters)}
    )


def column_port_layout(parameters: UnitParameters) -> data.StructLayout:
    """The column bus.

    Members: ``valid``; ``command``; ``half`` and ``column`` (place in the row) of a PIM; ``block`` of an RDA;
    ``register`` of an LDI.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "command": ColumnCommand,
            "half": 1,
            "column": address_bits(parameters),
            "block": block_bits(parameters),
            "register": ceil_log2(INPUT_REGISTERS),
        }
    )


def phase_layout(parameters: UnitParameters) -> data.StructLayout:
    """A matrix, as the walks need it.

    Members:
        rows: Of the matrix.
        inputs: Of the matrix.
        bias: Whether each row has one.
        last_chunk: Number of the last chunk.
        last_tile: Number of the last tile.
        tile_rows: Rows a block of every tile but the last.
        last_tile_rows: Rows a block of the last one.
    """
    return data.StructLayout(
        {
            "rows": MAX_ROWS.bit_length(),
            "inputs": INPUTS_BITS,
            "bias": 1,
            "last_chunk": chunk_bits(parameters),
            "last_tile": TILE_BITS,
            "tile_rows": TILE_ROWS_BITS,
            "last_tile_rows": TILE_ROWS_BITS,
        }
    )


def plan_layout(parameters: UnitParameters) -> data.StructLayout:
    """A program, as the sequencer needs it.

    Members:
        format: Of the weights.
        kind: What happens between the phases.
        last_token: Number of the last input vector.
        log2_slots: Binary logarithm of the tokens that the accumulators have room for.
        base_row: Row of the banks in which row sets 0 and 1 lie.
        row_sets: How many there are.
        two_phases: Whether it is an expert.
        phases: One or two matrices.
    """
    return data.StructLayout(
        {
            "format": WeightFormat,
            "kind": ExpertKind,
            "last_token": ceil_log2(MOST_TOKENS),
            "log2_slots": 2,
            "base_row": row_bits(parameters),
            "row_sets": row_set_bits(parameters),
            "two_phases": 1,
            "phases": data.ArrayLayout(phase_layout(parameters), 2),
        }
    )


def column_layout() -> data.StructLayout:
    """What the blocks need to know of a column.

    Members: ``kind``; ``first``: it is of its tile's first chunk; ``index``: of a MAC its group of rows, of CONSTANTS
    where they go; ``bank``: accumulator bank; ``register``: first input register of the MAC's chunk.
    """
    return data.StructLayout(
        {
            "kind": ColumnKind,
            "first": 1,
            "index": ceil_log2(ACCUMULATORS),
            "bank": 1,
            "register": ceil_log2(INPUT_REGISTERS),
        }
    )


def load_layout(parameters: UnitParameters) -> data.StructLayout:
    """What an LDI brings.

    Members: ``phase`` whose inputs; ``chunk``; ``token`` (INT8: 0, as all are in one); ``register``: where it goes.
    """
    return data.StructLayout(
        {
            "phase": 1,
            "chunk": chunk_bits(parameters),
            "token": ceil_log2(MOST_TOKENS),
            "register": ceil_log2(INPUT_REGISTERS),
        }
    )


def readback_layout(parameters: UnitParameters) -> data.StructLayout:
    """What an RDA fetches.

    Members:
        phase: Whose rows.
        block: Where they are.
        constants, index: Constants (INT8: 0 … 3 row scales, 4 … 7 biases) rather than accumulators.
        bank, token, octet: Accumulator bank; token; eight rows of the block.
        valid_rows: How many of the eight are rows of the matrix.
        last_token: The octet's last readback.
        last: It has the last row of the program's last matrix, for the last token.
    """
    return data.StructLayout(
        {
            "phase": 1,
            "block": block_bits(parameters),
            "constants": 1,
            "index": ceil_log2(2 * ACCUMULATORS // OCTET),
            "bank": 1,
            "token": ceil_log2(MOST_TOKENS),
            "octet": ceil_log2(ACCUMULATORS // OCTET),
            "valid_rows": OCTET.bit_length(),
            "last_token": 1,
            "last": 1,
        }
    )
