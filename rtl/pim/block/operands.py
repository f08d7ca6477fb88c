"""Which two factors each lane multiplies in a pass of a column."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import LANES, PASSES
from pim_model.unit.program import WeightFormat
from rtl.pim.arithmetic.formats import BF16
from rtl.pim.arithmetic.lane import LANE_OPERANDS, bf16_operands, e2m1_as_bf16
from rtl.pim.block.layouts import COLUMN_BITS


class PassOperands(wiring.Component):
    """The lanes' operands of a pass, ``LATENCY`` clocks later.

    A pass of a BF16 column is a token, with the whole column; of an INT8 column token ``pass // 2`` and row
    ``pass % 2``; of an MXFP4 column a row.

    Members:
        column: The column.
        inputs: The input register of the pass.
        weight_format: Of the weights.
        pass_number: Which pass.
        operands: Of every lane.
    """

    LATENCY = 1

    def __init__(self) -> None:
        super().__init__(
            {
                "column": In(COLUMN_BITS),
                "inputs": In(COLUMN_BITS),
                "weight_format": In(WeightFormat),
                "pass_number": In(range(PASSES)),
                "operands": Out(data.ArrayLayout(LANE_OPERANDS, LANES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """A multiplexer and a decoder for each lane."""
        m = Module()
        row_of_two, token = self.pass_number[0], self.pass_number[1]
        int8_weights = self.column.word_select(row_of_two, 8 * LANES)
        int8_inputs = self.inputs.word_select(token, 8 * LANES)
        e2m1_weights = self.column.word_select(self.pass_number, 4 * LANES)
        for lane in range(LANES):
            weight, value = Signal(BF16, name=f"weight{lane}"), Signal(BF16, name=f"input{lane}")
            m.d.comb += [
                weight.eq(
                    Mux(
                        self.weight_format == WeightFormat.MXFP4,
                        e2m1_as_bf16(e2m1_weights.word_select(lane, 4)),
                        self.column.word_select(lane, 16),
                    )
                ),
                value.eq(self.inputs.word_select(lane, 16)),
            ]
            operands = Signal(LANE_OPERANDS, name=f"operands{lane}", reset_less=True)
            m.d.comb += self.operands[lane].eq(operands)
            m.d.sync += [operands[name].eq(field) for name, field in bf16_operands(weight, value).items()]
            with m.If(self.weight_format == WeightFormat.INT8):
                m.d.sync += [
                    operands.a.eq(int8_weights.word_select(lane, 8).as_signed()),
                    operands.b.eq(int8_inputs.word_select(lane, 8).as_signed()),
                ]
        return m
