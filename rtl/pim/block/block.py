"""The block beside one pair of banks."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import ACCUMULATORS, INPUT_REGISTERS, PASSES
from pim_model.unit.program import ColumnKind, WeightFormat
from rtl.checks import always, implies
from rtl.pim.block.accumulators import SCALE_ONE, Accumulators, PassDestination
from rtl.pim.block.dot_product import DotProduct
from rtl.pim.block.layouts import COLUMN_BITS, ColumnCommand, ReadoutSelect, RegisterLoad
from rtl.pim.block.operands import PassOperands

CONSTANTS = 8
"""Registers of constants: indices 0 … 3 row scales, 4 … 7 biases."""

_ENTRY_BITS = (ACCUMULATORS - 1).bit_length()


class BankBlock(wiring.Component):
    """Input registers, sixteen lanes, accumulators and constants beside one pair of banks.

    ::

        column ──▶ column register ──▶ PassOperands ──▶ DotProduct ──▶ Accumulators ──▶ readout
          │                                ▲                            ▲    ▲             ▲
          ├──▶ scales ─────────────────────│── a pass's destination ────┘────┘             │
          └──▶ constants ──────────────────│───────────────────────────────────────────────┘
        load ────▶ input registers ────────┘

    A MAC column takes four passes, one a clock, in the clocks after the one in which it arrives; another column may
    arrive in the last of them. ``LATENCY`` clocks after a pass, its accumulator shows its sum.

    Members:
        column: What arrives in this clock.
        column_data: Its 32 bytes.
        load: What enters an input register in this clock.
        select: What to show in this clock.
        readout: Eight accumulators, or eight constants, that of the first row lowest.
    """

    LATENCY = PassOperands.LATENCY + DotProduct.LATENCY + Accumulators.LATENCY

    def __init__(self) -> None:
        super().__init__(
            {
                "column": In(ColumnCommand),
                "column_data": In(COLUMN_BITS),
                "load": In(RegisterLoad),
                "select": In(ReadoutSelect),
                "readout": Out(COLUMN_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The passes' counter, the registers, and the pipeline."""
        m = Module()
        m.submodules.operands = operands = PassOperands()
        m.submodules.dot_product = dot_product = DotProduct()
        m.submodules.accumulators = accumulators = Accumulators()

        column, column_data = Signal(ColumnCommand, name="held"), Signal(COLUMN_BITS, reset_less=True)
        pass_number = Signal(range(PASSES))
        with m.If(column.valid):
            m.d.sync += pass_number.eq(pass_number + 1)
            with m.If(pass_number == PASSES - 1):
                m.d.sync += column.valid.eq(0)
        arrives = self.column.valid & (self.column.kind == ColumnKind.MAC)
        with m.If(arrives):
            m.d.sync += [column.eq(self.column), column_data.eq(self.column_data)]

        row, token, used = self._place(m, column, pass_number)
        register = Signal(range(INPUT_REGISTERS))
        m.d.comb += register.eq(column.register + Mux(column.format == WeightFormat.BF16, pass_number, 0))
        m.d.comb += [
            operands.column.eq(column_data),
            operands.inputs.eq(self._inputs(m, register)),
            operands.format.eq(column.format),
            operands.pass_number.eq(pass_number),
            dot_product.operands.eq(operands.operands),
        ]

        destination = Signal(PassDestination)
        entry = row | (token << (_ENTRY_BITS - column.log2_tokens))
        m.d.comb += [
            destination.valid.eq(column.valid & used),
            Cat(destination.row, destination.line).eq(Cat(entry[:_ENTRY_BITS], column.bank)),
            destination.first.eq(column.first),
            destination.integer.eq(column.format == WeightFormat.INT8),
            destination.scale.eq(
                Mux(column.format == WeightFormat.MXFP4, self._scales(m).word_select(row, 8), SCALE_ONE)
            ),
        ]
        flight = self._delayed(m, destination)
        m.d.comb += [
            accumulators.destination.eq(flight[-1]),
            accumulators.fp32.eq(dot_product.fp32),
            accumulators.integer.eq(dot_product.integer),
            accumulators.line.eq(self.select.line),
            self.readout.eq(Mux(self.select.constants, self._constants(m), accumulators.shown)),
        ]
        self._check_columns(m, column, pass_number, token, row)
        self._check_registers(m, column, pass_number)
        return m
