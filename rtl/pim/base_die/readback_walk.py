"""Which RDA comes next: of every tile block by block, eight rows at a time, their constants, then their tokens."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import OCTET, UnitParameters
from pim_model.unit.program import WeightFormat
from rtl.checks import always, implies
from rtl.pim.base_die.column_walk import FIRST_BIAS
from rtl.pim.base_die.layouts import TILE_ROWS_BITS, plan_layout, readback_layout

SETTLING = 3
"""Clocks from a step to the next: its flags are precomputed in registers."""


class ReadbackWalk(wiring.Component):
    """The RDAs in their order.

    ``start`` goes to the first, ``step`` to the next, ``cancel`` behind the last. ``active`` holds at once, what is
    said of the readback ``SETTLING`` clocks after either. A tile's blocks, and their octets, hold neighbouring rows of
    the matrix in order, so that what is left of its rows tells which of a readback's are rows of it.

    Members:
        active: There is one.
        readback: What it fetches.
        ends_tile: It is its tile's last.
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
                "readback": Out(readback_layout(parameters)),
                "ends_tile": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Nested counters."""
        m = Module()
        plan, readback = self.plan, self.readback
        phase = plan.phases[readback.phase]
        is_int8 = plan.format == WeightFormat.INT8
        tile, rows_left = Signal.like(phase.last_tile), Signal.like(phase.rows)
        tile_rows, octet_rows = Signal(TILE_ROWS_BITS), Signal(range(OCTET + 1))
        last_token, last_octet, last_block, last_tile, last_phase = (Signal(name=f"last_{n}") for n in _LEVELS)
        beyond = Signal(TILE_ROWS_BITS)  # rows of the block from this octet on
        blocks = self._parameters.blocks.blocks
        m.d.comb += beyond.eq(tile_rows - OCTET * readback.octet)
        m.d.sync += [
            last_token.eq(readback.token == plan.last_token),
            last_block.eq(readback.block == blocks - 1),
            last_tile.eq(tile == phase.last_tile),
            last_phase.eq(readback.phase == plan.two_phases),
            tile_rows.eq(Mux(tile == phase.last_tile, phase.last_tile_rows, phase.tile_rows)),
            last_octet.eq(beyond <= OCTET),
            octet_rows.eq(Mux(beyond <= OCTET, beyond, OCTET)),
        ]
        fewer = rows_left < octet_rows
        ends_octet = readback.last_token
        m.d.comb += [
            readback.valid_rows.eq(Mux(fewer, rows_left, octet_rows)),
            readback.last_token.eq(~readback.constants & last_token),
            self.ends_tile.eq(ends_octet & last_octet & last_block),
            readback.last.eq(readback.last_token & last_phase & (rows_left != 0) & (rows_left <= octet_rows)),
        ]
        with m.If(self.step):
            with m.If(~readback.constants):
                m.d.sync += readback.token.eq(readback.token + 1)
            with m.Elif(readback.index[2] | ~phase.bias):
                m.d.sync += readback.constants.eq(0)
            with m.Else():
                m.d.sync += readback.index[2].eq(1)
            with m.If(ends_octet):
                m.d.sync += [
                    readback.token.eq(0),
                    readback.octet.eq(readback.octet + 1),
                    readback.constants.eq(is_int8 | phase.bias),
                    readback.index.eq(Mux(is_int8, 0, FIRST_BIAS) + readback.octet + 1),
                    rows_left.eq(Mux(fewer, 0, rows_left - octet_rows)),
                ]
                with m.If(last_octet):
                    m.d.sync += [
                        readback.octet.eq(0),
                        readback.index.eq(Mux(is_int8, 0, FIRST_BIAS)),
                        readback.block.eq(readback.block + 1),
                    ]
            with m.If(self.ends_tile):
                m.d.sync += [readback.block.eq(0), readback.bank.eq(~readback.bank), tile.eq(tile + 1)]
                with m.If(last_tile):
                    m.d.sync += [
                        tile.eq(0),
                        readback.phase.eq(1),
                        rows_left.eq(plan.phases[1].rows),
                        readback.constants.eq(is_int8 | plan.phases[1].bias),
                        self.active.eq(~last_phase),
                    ]
        with m.If(self.start):
            m.d.sync += [
                self.active.eq(1),
                tile.eq(0),
                rows_left.eq(plan.phases[0].rows),
                readback.phase.eq(0),
                readback.block.eq(0),
                readback.constants.eq(is_int8 | plan.phases[0].bias),
                readback.index.eq(Mux(is_int8, 0, FIRST_BIAS)),
                readback.bank.eq(0),
                readback.token.eq(0),
                readback.octet.eq(0),
            ]
        with m.If(self.cancel):
            m.d.sync += self.active.eq(0)
        settling = Signal(range(SETTLING + 1))
        with m.If(self.step | self.start):
            m.d.sync += settling.eq(SETTLING)
        with m.Elif(settling != 0):
            m.d.sync += settling.eq(settling - 1)
        always(m, implies(self.step, settling == 0), "readback walk: a step before its flags are settled")
        always(m, implies(self.step, self.active), "readback walk: a step behind the last readback")
        return m


_LEVELS = ("token", "octet", "block", "tile", "phase")
