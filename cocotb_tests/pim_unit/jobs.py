"""What the unit is given to compute, and what its twins say of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model.numerics.expert import Expert, Layer, Result, run_expert, run_gemv
from pim_model.numerics.floats import Bits16, Bits32
from pim_model.numerics.image import bank_contents, expert_columns, phase_columns
from pim_model.unit.parameters import LANES, OCTET, UnitParameters
from pim_model.unit.program import Program, expert_program, gemv_program

X_BYTES = 2 * LANES
"""Of a beat of the input stream: 16 BF16 of one token."""

ROWS_OF_BEAT = 2
"""Of a beat of the output stream: FP32 of two neighbouring rows."""

BOTH, FIRST = 0xFF, 0x0F
"""TKEEP of a beat with two rows, and with one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitJob:
    """One program with its weights, its inputs and the arithmetic twin's results.

    Attributes:
        program: What is run.
        contents: Of the banks from the program's base row on, uint8 ``[half, row, column, block, 32]``.
        x: BF16 bits ``[tokens, inputs]``.
        expected: The results.
    """

    program: Program
    contents: NDArray[np.uint8]
    x: Bits16
    expected: Result

    @classmethod
    def of_gemv(cls, parameters: UnitParameters, layer: Layer, x: Bits16, *, base_row: int = 0) -> "UnitJob":
        """A matrix times the BF16 vectors ``x`` ``[tokens, inputs]``.

        Raises:
            ForestageError: the unit cannot do it, or shapes do not fit.
        """
        rows, inputs = layer.matrix.shape
        program = gemv_program(
            parameters,
            rows,
            inputs,
            layer.matrix.format,
            tokens=len(x),
            bias=layer.bias is not None,
            base_row=base_row,
        )
        columns = phase_columns(parameters, program.phases[0], layer)
        return cls(
            program=program,
            contents=bank_contents(parameters, program, [columns]),
            x=x,
            expected=run_gemv(layer, x),
        )

    @classmethod
    def of_expert(cls, parameters: UnitParameters, expert: Expert, x: Bits16, *, base_row: int = 0) -> "UnitJob":
        """An expert for the BF16 vectors ``x`` ``[tokens, hidden]``.

        Raises:
            ForestageError: the unit cannot do it, or shapes do not fit.
        """
        program = expert_program(
            parameters,
            expert.hidden,
            expert.intermediate,
            expert.format,
            expert.kind,
            tokens=len(x),
            gate_up_bias=expert.gate_up.bias is not None,
            down_bias=expert.down.bias is not None,
            base_row=base_row,
        )
        columns = expert_columns(parameters, program, expert)
        return cls(
            program=program,
            contents=bank_contents(parameters, program, columns),
            x=x,
            expected=run_expert(expert, x),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputBeats:
    """Beats of the output stream; arrays ``[beats]``.

    Attributes:
        data: uint64, the even row's FP32 low.
        keep: TKEEP.
        last: TLAST.
    """

    data: NDArray[np.uint64]
    keep: NDArray[np.int64]
    last: NDArray[np.int64]


def input_beats(x: Bits16) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Beats uint8 ``[beats, 32]`` and TLAST of the input stream: chunk by chunk, in it token by token."""
    tokens, inputs = x.shape
    filled = np.pad(x, ((0, 0), (0, -inputs % LANES))).astype("<u2")
    beats = np.ascontiguousarray(filled.reshape(tokens, -1, LANES).transpose(1, 0, 2)).view(np.uint8)
    beats = beats.reshape(-1, X_BYTES)
    last = np.zeros(len(beats), np.uint8)
    last[-1] = 1
    return beats, last


def _output_order(program: Program, blocks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row and token of every beat: tile, block, eight rows, token, pair; of rows that the matrix has."""
    phase = program.phases[-1]
    beats = []
    for tile in phase.tiles:
        for block in range(blocks):
            begin = tile.first_row + block * tile.rows_per_block
            for octet in range(tile.octets):
                first = begin + octet * OCTET
                end = min(first + OCTET, begin + tile.rows_per_block, phase.rows)
                beats += [(row, token) for token in range(program.tokens) for row in range(first, end, ROWS_OF_BEAT)]
    rows, tokens = np.array(beats, np.int64).reshape(-1, 2).T
    return rows, tokens


def output_beats(program: Program, parameters: UnitParameters, bits: Bits32) -> OutputBeats:
    """What the output stream carries of results ``[tokens, rows]``."""
    rows, tokens = _output_order(program, parameters.blocks.blocks)
    has_second = rows + 1 < bits.shape[1]
    low = bits[tokens, rows].astype(np.uint64)
    high = np.where(has_second, bits[tokens, np.minimum(rows + 1, bits.shape[1] - 1)], 0).astype(np.uint64)
    last = np.zeros(len(rows), np.int64)
    last[-1] = 1
    return OutputBeats(data=low | high << np.uint64(32), keep=np.where(has_second, BOTH, FIRST), last=last)


def results_of_beats(program: Program, parameters: UnitParameters, beats: OutputBeats) -> Bits32:
    """Results uint32 ``[tokens, rows]`` out of a whole output.

    Raises:
        ForestageError: other than all beats.
    """
    rows, tokens = _output_order(program, parameters.blocks.blocks)
    if len(beats.data) != len(rows):
        raise ForestageError(f"PIM unit: an output of {len(beats.data)} beats; this program has {len(rows)}")
    bits = np.zeros((program.tokens, program.phases[-1].rows + 1), np.uint32)
    bits[tokens, rows] = (beats.data & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    bits[tokens, rows + 1] = (beats.data >> np.uint64(32)).astype(np.uint32)
    return bits[:, :-1]
