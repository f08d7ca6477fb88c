"""What the base die says to a block. Every block of the unit gets the same at the same time."""

from amaranth.lib import data

from pim_model.unit.parameters import INPUT_REGISTERS
from pim_model.unit.program import ColumnKind, WeightFormat

COLUMN_BITS = 256
"""Of a column, an input register, a readout."""

COLUMN_COMMAND = data.StructLayout(
    {
        "valid": 1,
        "kind": ColumnKind,
        "weight_format": WeightFormat,
        "log2_tokens": 2,
        "first": 1,
        "index": 5,
        "bank": 1,
        "register": range(INPUT_REGISTERS),
    }
)
"""What the column is that arrives in this clock.

Members:
    valid: Whether one does. A block takes four clocks for a column.
    kind: MAC, SCALES or CONSTANTS.
    weight_format: Of the weights.
    log2_tokens: Binary logarithm of the tokens that the accumulators have room for: 0 to 2 with BF16, 0 or 1 with
        INT8, 0 with MXFP4.
    first: The MAC's sums begin at +0: it is of the tile's first chunk.
    index: Of a MAC, its group of rows, ``index · weight_format.rows`` and those after it. Of CONSTANTS, where they go.
    bank: Accumulator bank of a MAC.
    register: First input register of a MAC's chunk.
"""

REGISTER_LOAD = data.StructLayout(
    {
        "valid": 1,
        "register": range(INPUT_REGISTERS),
        "data": COLUMN_BITS,
    }
)
"""An input register's new contents; a column that arrives in the same clock meets them already.

Members:
    valid: Whether there are any.
    register: Which register.
    data: Inputs of a chunk, that of lane 0 lowest. BF16 and MXFP4: 16 BF16 of one token; INT8: 16 codes of
        token 0, 16 of token 1.
"""

READOUT_SELECT = data.StructLayout(
    {
        "valid": 1,
        "constants": 1,
        "line": 3,
    }
)
"""What a block shows on ``readout`` in this clock.

Members:
    valid: Whether it is looked at (only checks of its time read this).
    constants: Constants rather than accumulators.
    line: Index of the constants; or of eight accumulators of neighbouring rows, of which token ``t`` has
        4 / tokens in each accumulator bank: ``bank · 4 + t · (4 >> log2_tokens) + octet``.
"""
