"""Which column comes next: tiles, chunks, groups of rows and constants of a program's phases, by counters."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import ACCUMULATORS, LANES, OCTET, UnitParameters
from pim_model.unit.program import ColumnKind, WeightFormat
from rtl.checks import always, implies
from rtl.pim.base_die.layouts import TILE_ROWS_BITS, address_bits, column_layout, plan_layout, row_set_bits

SETTLING = 3
"""Clocks from a step to the next: its flags are precomputed in registers."""

FIRST_BIAS = ACCUMULATORS // OCTET
"""Index of the first biases among the constants."""


class ColumnWalk(wiring.Component):
    """The columns in the order of ``pim_model.unit.program.Phase.columns``.

    ``start`` goes to the first column of ``plan``, ``step`` to the next, ``cancel`` behind the last. What is said of
    the column holds ``SETTLING`` clocks after either.

    Members:
        active: There is a column.
        column: What the blocks need to know of it.
        address: Its place in its row.
        row_set: Number of its row set; behind the last column, of all there are.
        begins_tile, ends_tile, ends_chunk, ends_row_set: Whether the column does; of a chunk, its last MAC.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "plan": In(plan_layout(parameters)),
                "start": In(1),
                "step": In(1),
                "cancel": In(1),
                "active": Out(1),
                "column": Out(column_layout()),
                "address": Out(address_bits(parameters)),
                "row_set": Out(row_set_bits(parameters)),
                "begins_tile": Out(1),
                "ends_tile": Out(1),
                "ends_chunk": Out(1),
                "ends_row_set": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Nested counters; registers say of each whether it is at its end."""
        m = Module()
        plan, column = self.plan, self.column
        phase_number, tile, chunk = (
            Signal(),
            Signal.like(plan.phases[0].last_tile),
            Signal.like(plan.phases[0].last_chunk),
        )
        phase = plan.phases[phase_number]
        is_mxfp4, is_int8 = plan.format == WeightFormat.MXFP4, plan.format == WeightFormat.INT8
        has_constants = is_int8 | phase.bias

        last_chunk, last_tile, last_phase, last_address = Signal(), Signal(), Signal(), Signal()
        tile_rows = Signal(TILE_ROWS_BITS)
        last_index, last_constants = Signal(), Signal()
        rows_of_column = [Mux(is_mxfp4, 2, Mux(is_int8, 1, 0))]  # binary logarithm
        groups = (tile_rows >> rows_of_column[0])[:TILE_ROWS_BITS]
        octets = ((tile_rows + (OCTET - 1)) >> (OCTET.bit_length() - 1))[: TILE_ROWS_BITS - 2]
        in_constants = column.kind == ColumnKind.CONSTANTS
        m.d.sync += [
            last_chunk.eq(chunk == phase.last_chunk),
            last_tile.eq(tile == phase.last_tile),
            last_phase.eq(phase_number == plan.two_phases),
            last_address.eq(self.address == self._parameters.device.row_bursts - 1),
            tile_rows.eq(Mux(tile == phase.last_tile, phase.last_tile_rows, phase.tile_rows)),
            last_index.eq(Mux(in_constants, column.index[:2] == octets - 1, column.index == groups - 1)),
            last_constants.eq(column.index.bit_select(FIRST_BIAS.bit_length() - 1, 1) | ~phase.bias),
        ]
        is_mac = column.kind == ColumnKind.MAC
        ends_macs = Signal()
        m.d.comb += [
            self.ends_chunk.eq(is_mac & last_index),
            ends_macs.eq(self.ends_chunk & last_chunk),
            self.ends_tile.eq((ends_macs & ~has_constants) | (in_constants & last_index & last_constants)),
            self.ends_row_set.eq(last_address | (self.ends_tile & last_tile)),
            column.first.eq(chunk == 0),
        ]
        first_kind = Mux(is_mxfp4, ColumnKind.SCALES, ColumnKind.MAC)
        with m.If(self.step):
            m.d.sync += [self.address.eq(self.address + 1), self.begins_tile.eq(0), column.index.eq(column.index + 1)]
            with m.If(self.ends_row_set):
                m.d.sync += [self.address.eq(0), self.row_set.eq(self.row_set + 1)]
            with m.If(column.kind == ColumnKind.SCALES):
                m.d.sync += [column.kind.eq(ColumnKind.MAC), column.index.eq(0)]
            with m.If(self.ends_chunk):
                m.d.sync += [
                    chunk.eq(chunk + 1),
                    column.index.eq(0),
                    column.register.eq(column.register + self._loads()),
                ]
                with m.If(chunk[0]):
                    m.d.sync += column.kind.eq(first_kind)
            with m.If(ends_macs):
                m.d.sync += [
                    column.kind.eq(ColumnKind.CONSTANTS),
                    column.index.eq(Mux(is_int8, 0, FIRST_BIAS)),
                ]
            with m.If(in_constants & last_index):
                m.d.sync += column.index.eq(FIRST_BIAS)
            with m.If(self.ends_tile):
                m.d.sync += [
                    chunk.eq(0),
                    column.index.eq(0),
                    column.kind.eq(first_kind),
                    column.bank.eq(~column.bank),
                    self.begins_tile.eq(1),
                    tile.eq(tile + 1),
                ]
                with m.If(last_tile):
                    m.d.sync += [tile.eq(0), phase_number.eq(1), self.active.eq(~last_phase)]
        with m.If(self.start):
            m.d.sync += [
                self.active.eq(1),
                phase_number.eq(0),
                tile.eq(0),
                chunk.eq(0),
                column.kind.eq(first_kind),
                column.index.eq(0),
                column.bank.eq(0),
                column.register.eq(0),
                self.address.eq(0),
                self.row_set.eq(0),
                self.begins_tile.eq(1),
            ]
        with m.If(self.cancel):
            m.d.sync += self.active.eq(0)
        self._check(m)
        return m

    def _loads(self) -> Value:
        """Input registers that a chunk takes."""
        return Mux(self.plan.format == WeightFormat.BF16, 1 << self.plan.log2_slots, 1)

    def _check(self, m: Module) -> None:
        """A step has its flags settled, and something to step from."""
        settling = Signal(range(SETTLING + 1))
        with m.If(self.step | self.start):
            m.d.sync += settling.eq(SETTLING)
        with m.Elif(settling != 0):
            m.d.sync += settling.eq(settling - 1)
        always(m, implies(self.step, settling == 0), "column walk: a step before its flags are settled")
        always(m, implies(self.step, self.active), "column walk: a step behind the last column")


assert LANES == 16, "MXFP4's scales are of two chunks"
