"""The block beside one pair of banks."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import ACCUMULATORS, INPUT_REGISTERS, PASSES
from pim_model.unit.program import ColumnKind, WeightFormat
from rtl.checks import always, always_within, implies
from rtl.pim.block.accumulators import PASS_DESTINATION, SCALE_ONE, Accumulators
from rtl.pim.block.dot_product import DotProduct
from rtl.pim.block.layouts import COLUMN_BITS, COLUMN_COMMAND, READOUT_SELECT, REGISTER_LOAD
from rtl.pim.block.operands import PassOperands
from rtl.pipeline import stages

CONSTANTS = 8
"""Registers of constants: indices 0 … 3 row scales, 4 … 7 biases."""

_LOG2_MOST_TOKENS = WeightFormat.BF16.most_tokens.bit_length() - 1
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
                "column": In(COLUMN_COMMAND),
                "column_data": In(COLUMN_BITS),
                "load": In(REGISTER_LOAD),
                "select": In(READOUT_SELECT),
                "readout": Out(COLUMN_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The passes' counter, the registers, and the pipeline."""
        m = Module()
        m.submodules.operands = operands = PassOperands()
        m.submodules.dot_product = dot_product = DotProduct()
        m.submodules.accumulators = accumulators = Accumulators()

        column, column_data = Signal(COLUMN_COMMAND, name="held"), Signal(COLUMN_BITS, reset_less=True)
        pass_number = Signal(range(PASSES))
        with m.If(column.valid):
            m.d.sync += pass_number.eq(pass_number + 1)
            with m.If(pass_number == PASSES - 1):
                m.d.sync += column.valid.eq(0)
        arrives = self.column.valid & (self.column.kind == ColumnKind.MAC)
        with m.If(arrives):
            m.d.sync += [column.eq(self.column), column_data.eq(self.column_data)]

        row, token, used = self._pass(m, column, pass_number)
        register = Signal(range(INPUT_REGISTERS))
        m.d.comb += register.eq(column.register + Mux(column.weight_format == WeightFormat.BF16, pass_number, 0))
        m.d.comb += [
            operands.column.eq(column_data),
            operands.inputs.eq(self._inputs(m, register)),
            operands.weight_format.eq(column.weight_format),
            operands.pass_number.eq(pass_number),
            dot_product.operands.eq(operands.operands),
        ]

        destination = Signal(PASS_DESTINATION)
        # Each token has 32 / tokens accumulators.
        of_token = Array(token << (_ENTRY_BITS - log2) for log2 in range(_LOG2_MOST_TOKENS + 1))[column.log2_tokens]
        entry = row | of_token[:_ENTRY_BITS]
        m.d.comb += [
            destination.valid.eq(column.valid & used),
            Cat(destination.row, destination.line).eq(Cat(entry, column.bank)),
            destination.first.eq(column.first),
            destination.integer.eq(column.weight_format == WeightFormat.INT8),
            destination.scale.eq(
                Mux(column.weight_format == WeightFormat.MXFP4, self._scales(m).word_select(row, 8), SCALE_ONE)
            ),
        ]
        flight = stages(m, "flight", destination, PassOperands.LATENCY + DotProduct.LATENCY, reset_less=False)
        m.d.comb += [
            accumulators.destination.eq(flight[-1]),
            accumulators.fp32.eq(dot_product.fp32),
            accumulators.integer.eq(dot_product.integer),
            accumulators.line.eq(self.select.line),
            accumulators.looked_at.eq(self.select.valid & ~self.select.constants),
            self.readout.eq(Mux(self.select.constants, self._constants(m), accumulators.shown)),
        ]
        self._check_columns(m, column, pass_number)
        self._check_load(m, column, pass_number)
        for destination in flight[:-1]:
            always(
                m,
                implies(accumulators.looked_at & destination.valid, destination.line != self.select.line),
                "block: accumulators are read while a sum is on its way to them",
            )
        return m

    def _pass(self, m: Module, column: data.View, pass_number: Signal) -> tuple[Signal, Signal, Signal]:
        """Row and token of a pass, and whether there is such a token."""
        row, token, used = Signal(_ENTRY_BITS), Signal(range(PASSES)), Signal()
        with m.Switch(column.weight_format):
            with m.Case(WeightFormat.BF16):
                m.d.comb += [row.eq(column.index), token.eq(pass_number)]
            with m.Case(WeightFormat.INT8):
                m.d.comb += [row.eq(Cat(pass_number[0], column.index)), token.eq(pass_number[1])]
            with m.Case(WeightFormat.MXFP4):
                m.d.comb += row.eq(Cat(pass_number, column.index))
        m.d.comb += used.eq((token >> column.log2_tokens) == 0)
        return row, token, used

    def _inputs(self, m: Module, register: Signal) -> Signal:
        """The input registers; contents of ``register``."""
        m.submodules.inputs = inputs = Memory(shape=COLUMN_BITS, depth=INPUT_REGISTERS, init=[])
        write, read = inputs.write_port(), inputs.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.load.register),
            write.data.eq(self.load.data),
            write.en.eq(self.load.valid),
            read.addr.eq(register),
        ]
        return read.data

    def _scales(self, m: Module) -> Signal:
        """The shared exponents, a byte a row."""
        scales = Signal(COLUMN_BITS, reset_less=True)
        with m.If(self.column.valid & (self.column.kind == ColumnKind.SCALES)):
            m.d.sync += scales.eq(self.column_data)
        return scales

    def _constants(self, m: Module) -> Signal:
        """The constants; those that are selected."""
        m.submodules.constants = constants = Memory(shape=COLUMN_BITS, depth=CONSTANTS, init=[])
        write, read = constants.write_port(), constants.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.column.index),
            write.data.eq(self.column_data),
            write.en.eq(self.column.valid & (self.column.kind == ColumnKind.CONSTANTS)),
            read.addr.eq(self.select.line),
        ]
        return read.data

    def _check_columns(self, m: Module, column: data.View, pass_number: Signal) -> None:
        """Check that a column comes when the last one is done with, and that it is one that there can be."""
        given = self.column
        always(
            m,
            implies(given.valid & column.valid, pass_number == PASSES - 1),
            "block: a column comes within four clocks of the one before",
        )
        always_within(m, given.kind, 0, max(ColumnKind), "block: kind of the column given", where=given.valid)
        always_within(
            m,
            given.index,
            0,
            CONSTANTS - 1,
            "block: index of the constants given",
            where=given.valid & (given.kind == ColumnKind.CONSTANTS),
        )
        arrives = given.valid & (given.kind == ColumnKind.MAC)
        always_within(m, given.weight_format, 0, max(WeightFormat), "block: format of the column given", where=arrives)
        for weight_format in WeightFormat:
            where = arrives & (given.weight_format == weight_format)
            most = weight_format.most_tokens.bit_length() - 1
            always_within(m, given.log2_tokens, 0, most, "block: tokens of the column given", where=where)
            for log2 in range(most + 1):
                groups = (ACCUMULATORS >> log2) // weight_format.rows
                where_tokens = where & (given.log2_tokens == log2)
                always_within(m, given.index, 0, groups - 1, "block: rows of the column given", where=where_tokens)

    def _check_load(self, m: Module, column: data.View, pass_number: Signal) -> None:
        """Check that no input register changes before the last pass that reads it."""
        many = column.weight_format == WeightFormat.BF16
        for number in range(1, PASSES):
            reads = (column.register + Mux(many, number, 0))[: len(self.load.register)]
            used = ~many | ((number >> column.log2_tokens) == 0)
            always(
                m,
                implies(
                    self.load.valid & column.valid & (pass_number < number) & used,
                    self.load.register != reads,
                ),
                "block: an input register changes before it was read for the last time",
            )
