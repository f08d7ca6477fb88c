"""The sequencer: a plan becomes commands on both buses, in the clocks of ``pim_model.unit.schedule``."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import LANES, MOST_POSTPONED_REFRESHES, UnitParameters
from pim_model.unit.program import WeightFormat
from rtl.checks import always, implies
from rtl.pim.base_die.column_engine import ColumnEngine
from rtl.pim.base_die.column_walk import ColumnWalk
from rtl.pim.base_die.layouts import (
    INPUTS_BITS,
    ColumnCommand,
    chunk_bits,
    column_layout,
    column_port_layout,
    load_layout,
    plan_layout,
    readback_layout,
    row_port_layout,
)
from rtl.pim.base_die.load_walk import LoadWalk
from rtl.pim.base_die.readback_walk import ReadbackWalk
from rtl.pim.base_die.refresh import Refresh
from rtl.pim.base_die.row_engine import RowEngine
from rtl.pim.base_die.timers import Slots
from rtl.pipeline import delayed


class Sequencer(wiring.Component):
    """Runs a plan: three walks say what is next, two engines when.

    ::

        plan ──▶ ColumnWalk ───▶┐              ┌──▶ column, column_info, load_info, readback_info
                 LoadWalk ─────▶├ ColumnEngine ┤
                 ReadbackWalk ─▶┘   │     ▲
                                    ▼     │ readable
                 Refresh ─────▶ RowEngine ────────▶ row

    Clock 0 of the schedule is the clock after ``started``. Commands are seen a clock after they are decided.

    Members:
        plan: Holds from ``start`` until ``done``.
        start: Held until ``started``: a program is to begin.
        started: It begins, in the next clock.
        cancel: The running program ends: nothing more is read, the banks are closed.
        running: A program runs.
        done: It has nothing left to do, and all banks are closed.
        refresh_enable: Refreshes are issued when due; otherwise postponed.
        refresh_left, refresh_pending, refresh_overdue: See `Refresh`.
        x_chunks: How many chunks of the first phase's inputs are there, all tokens of them.
        x_complete: All are.
        output_room: There is room for what a readback of the last phase brings.
        row, column: The command buses.
        column_info, load_info, readback_info: What the column, LDI or RDA on the column bus is.
        computed: How many inputs of the second phase count as computed, of every token.
        waits_for_inputs, waits_for_output, waits_for_rows: Nothing else keeps the next column, or readback.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "plan": In(plan_layout(parameters)),
                "start": In(1),
                "started": Out(1),
                "cancel": In(1),
                "running": Out(1),
                "done": Out(1),
                "refresh_enable": In(1),
                "refresh_left": Out(range(parameters.timings.refresh_interval)),
                "refresh_pending": Out(range(MOST_POSTPONED_REFRESHES + 2)),
                "refresh_overdue": Out(1),
                "x_chunks": In(chunk_bits(parameters) + 1),
                "x_complete": In(1),
                "output_room": In(1),
                "row": Out(row_port_layout(parameters)),
                "column": Out(column_port_layout(parameters)),
                "column_info": Out(column_layout()),
                "load_info": Out(load_layout(parameters)),
                "readback_info": Out(readback_layout(parameters)),
                "computed": Out(INPUTS_BITS),
                "waits_for_inputs": Out(1),
                "waits_for_output": Out(1),
                "waits_for_rows": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Connect the walks, the engines and the refresh; register the column bus."""
        m = Module()
        parameters = self._parameters
        timings = parameters.timings
        m.submodules.columns = columns = ColumnWalk(parameters)
        m.submodules.loads = loads = LoadWalk(parameters)
        m.submodules.readbacks = readbacks = ReadbackWalk(parameters)
        m.submodules.column_engine = engine = ColumnEngine(parameters)
        m.submodules.row_engine = rows = RowEngine(parameters)
        m.submodules.refresh = refresh = Refresh(parameters)
        m.submodules.slots = slots = Slots(
            row=(timings.row_period, timings.row_phase), column=(timings.column_period, timings.column_phase)
        )
        plan, is_int8 = self.plan, self.plan.format == WeightFormat.INT8
        start = self.started
        stopped = refresh.due | refresh.refreshing
        m.d.comb += [
            start.eq(self.start & slots.first & ~stopped & ~self.running),
            self.done.eq(self.running & ~columns.active & ~readbacks.active & ~rows.any_open & ~refresh.refreshing),
        ]
        with m.If(start):
            m.d.sync += self.running.eq(1)
        with m.If(self.done):
            m.d.sync += self.running.eq(0)
        for walk, step in ((columns, engine.pim), (loads, engine.load), (readbacks, engine.readback)):
            m.d.comb += [
                walk.plan.eq(plan),
                walk.start.eq(start),
                walk.step.eq(step),
                walk.cancel.eq(self.cancel),
            ]
        m.d.comb += [
            refresh.enable.eq(self.refresh_enable),
            refresh.issue.eq(rows.issue_refresh),
            self.refresh_left.eq(refresh.left),
            self.refresh_pending.eq(refresh.pending),
            self.refresh_overdue.eq(refresh.overdue),
            rows.start.eq(start),
            rows.cancel.eq(self.cancel),
            rows.base_row.eq(plan.base_row),
            rows.row_sets.eq(plan.row_sets),
            rows.slot.eq(slots.row),
            rows.due.eq(refresh.due),
            rows.refreshing.eq(refresh.refreshing),
            rows.columns_left.eq(columns.active),
            rows.reading.eq(columns.row_set),
            rows.pim.eq(engine.pim),
            rows.pim_half.eq(columns.row_set[0]),
            rows.read.eq(engine.pim & columns.ends_row_set),
            self.row.eq(rows.command),
            engine.start.eq(start),
            engine.slot.eq(slots.column),
            engine.stopped.eq(stopped | self.cancel),
            engine.column_left.eq(columns.active),
            engine.kind.eq(columns.column.kind),
            engine.begins_tile.eq(columns.begins_tile),
            engine.ends_chunk.eq(columns.ends_chunk),
            engine.ends_tile.eq(columns.ends_tile),
            engine.readable.eq(rows.readable),
            engine.load_left.eq(loads.active),
            engine.load_ends_chunk.eq(loads.ends_chunk),
            engine.loads.eq(Mux(plan.format == WeightFormat.BF16, 1 << plan.log2_slots, 1)),
            engine.readback_left.eq(readbacks.active),
            engine.readback_ends_tile.eq(readbacks.ends_tile),
            self.waits_for_inputs.eq(engine.waits_for_inputs),
            self.waits_for_output.eq(engine.waits_for_output),
            self.waits_for_rows.eq(engine.waits_for_rows),
        ]
        feeds = plan.two_phases & (readbacks.readback.phase == 0)
        m.d.comb += engine.readback_room.eq(feeds | self.output_room)
        self._inputs(m, loads, engine, readbacks, feeds)
        m.d.sync += [
            self.column.valid.eq(engine.pim | engine.load | engine.readback),
            self.column.command.eq(
                Mux(engine.pim, ColumnCommand.PIM, Mux(engine.load, ColumnCommand.LDI, ColumnCommand.RDA))
            ),
            self.column.half.eq(columns.row_set[0]),
            self.column.column.eq(columns.address),
            self.column.block.eq(readbacks.readback.block),
            self.column.register.eq(loads.load.register),
            self.column_info.eq(columns.column),
            self.load_info.eq(loads.load),
            self.readback_info.eq(readbacks.readback),
        ]
        always(
            m,
            implies(~self.running, ~Cat(engine.pim, engine.load, engine.readback).any()),
            "sequencer: a column command without a program",
        )
        always(m, implies(self.start & is_int8, plan.log2_slots <= 1), "sequencer: more tokens than INT8 has room for")
        return m

    def _inputs(self, m: Module, loads: LoadWalk, engine: ColumnEngine, readbacks: ReadbackWalk, feeds: Signal) -> None:
        """Whether the next LDI's inputs are there: received, or computed by the readbacks of gate and up rows."""
        plan, is_int8 = self.plan, self.plan.format == WeightFormat.INT8
        readback = readbacks.readback
        inputs = Mux(engine.readback & feeds & readback.last_token, readback.valid_rows >> 1, 0)
        arrives = delayed(m, "inputs", inputs[:3], self._parameters.timings.readback_to_input - 1, reset_less=False)
        all_computed = Signal()
        m.d.sync += self.computed.eq(self.computed + arrives)
        with m.If(self.started):
            m.d.sync += self.computed.eq(0)
        m.d.comb += all_computed.eq(self.computed == plan.phases[1].inputs)
        log2_lanes = LANES.bit_length() - 1
        x_ready = self.x_complete | (~is_int8 & (loads.load.chunk < self.x_chunks))
        h_ready = all_computed | (~is_int8 & (loads.load.chunk < self.computed[log2_lanes:]))
        m.d.comb += engine.load_ready.eq(Mux(loads.load.phase == 0, x_ready, h_ready))
