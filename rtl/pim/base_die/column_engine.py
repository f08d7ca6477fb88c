"""The column bus: a column where it may, or else inputs, or else a readback."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import INPUT_REGISTERS, MOST_INPUT_REGISTERS_OF_CHUNK, UnitParameters
from pim_model.unit.program import ColumnKind
from pim_model.unit.schedule import FEW_LOADED
from rtl.checks import always, always_within, implies
from rtl.pim.base_die.timers import Timer
from rtl.pipeline import delayed


class ColumnEngine(wiring.Component):
    """At most one command a clock, of three that ask; ``pim_model.unit.schedule`` states the rules.

    What the rules compare with numbers of chunks and tiles is kept as the difference: registers that are free, loaded,
    or usable; tiles that are unread, or complete and unread.

    Members:
        start: Nothing is loaded or unread.
        slot: This clock may have a command.
        stopped: It has none.
        column_left, kind, begins_tile, ends_chunk, ends_tile, readable: Of the next column; whether its row is open.
        load_left, load_ends_chunk, load_ready: Of the next LDI; whether its inputs are there.
        loads: Input registers of a chunk.
        readback_left, readback_ends_tile, readback_room: Of the next RDA; whether there is room for what it fetches.
        pim, load, readback: What is issued in this clock.
        waits_for_inputs, waits_for_output: Why none is, though it could otherwise be.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._timings = parameters.timings
        super().__init__(
            {
                "start": In(1),
                "slot": In(1),
                "stopped": In(1),
                "column_left": In(1),
                "kind": In(ColumnKind),
                "begins_tile": In(1),
                "ends_chunk": In(1),
                "ends_tile": In(1),
                "readable": In(1),
                "load_left": In(1),
                "load_ends_chunk": In(1),
                "load_ready": In(1),
                "loads": In(range(MOST_INPUT_REGISTERS_OF_CHUNK + 1)),
                "readback_left": In(1),
                "readback_ends_tile": In(1),
                "readback_room": In(1),
                "pim": Out(1),
                "load": Out(1),
                "readback": Out(1),
                "waits_for_inputs": Out(1),
                "waits_for_output": Out(1),
                "waits_for_rows": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Who asks, what is in between, who gets it."""
        m = Module()
        clocks = self._timings
        elapsed = {
            name: self._timer(m, name, distance, start)
            for name, distance, start in (
                ("interval", clocks.interval, self.pim),
                ("load_to_load", clocks.load_to_load, self.load),
                ("readback_to_load", clocks.readback_to_load, self.readback),
                ("readback_to_readback", clocks.interval, self.readback),
                ("load_to_readback", clocks.load_to_readback, self.load),
            )
        }
        chunk_ends, tile_ends = self.pim & self.ends_chunk, self.pim & self.ends_tile
        chunk_loaded, tile_read_back = self.load & self.load_ends_chunk, self.readback & self.readback_ends_tile
        released = Mux(chunk_ends, self.loads, 0)

        free = Signal(range(INPUT_REGISTERS + 1))  # registers that an LDI may fill
        loaded = Signal(range(INPUT_REGISTERS + 1))  # registers that columns are to use
        usable = Signal(range(INPUT_REGISTERS + 1))  # chunks that MACs may use
        unread = Signal(2)  # tiles whose columns are read, but not their sums
        complete = Signal(2)  # tiles among them whose sums are
        m.d.sync += [
            free.eq(free - self.load + delayed(m, "released", released, clocks.use_to_load - 1, reset_less=False)),
            loaded.eq(loaded + self.load - released),
            usable.eq(
                usable - chunk_ends + delayed(m, "chunk_loaded", chunk_loaded, clocks.load_to_use - 1, reset_less=False)
            ),
            unread.eq(unread + tile_ends - tile_read_back),
            complete.eq(
                complete
                - tile_read_back
                + delayed(m, "tile_ends", tile_ends, clocks.tile_to_readback - 1, reset_less=False)
            ),
        ]
        with m.If(self.start):
            m.d.sync += [free.eq(INPUT_REGISTERS), loaded.eq(0), usable.eq(0), unread.eq(0), complete.eq(0)]

        is_mac, is_constants = self.kind == ColumnKind.MAC, self.kind == ColumnKind.CONSTANTS
        has_inputs, has_accumulators = ~is_mac | (usable != 0), ~self.begins_tile | (unread <= 1)
        constants_read = ~is_constants | (unread == 0)
        could_pim = self.column_left & elapsed["interval"]
        wants_load = self.load_left & (free != 0) & self.load_ready
        could_readback = self.readback_left & (complete != 0)
        wants_readback = could_readback & self.readback_room
        # Turning the data bus costs clocks, so neither yields to the other at once.
        few = loaded < FEW_LOADED
        may, may_pim, bus = Signal(), Signal(), Signal()
        m.d.comb += [
            may.eq(self.slot & ~self.stopped),
            may_pim.eq(could_pim & self.readable & has_inputs & has_accumulators & constants_read),
            bus.eq(may & ~may_pim),
            self.pim.eq(may & may_pim),
            self.load.eq(
                bus & wants_load & (few | ~wants_readback) & elapsed["load_to_load"] & elapsed["readback_to_load"]
            ),
            self.readback.eq(
                bus
                & wants_readback
                & ~(few & wants_load)
                & elapsed["readback_to_readback"]
                & elapsed["load_to_readback"]
            ),
            self.waits_for_inputs.eq(could_pim & self.readable & ~self.stopped & ~has_inputs),
            self.waits_for_output.eq(could_readback & ~self.readback_room & ~self.stopped),
            self.waits_for_rows.eq(could_pim & ~self.readable),
        ]
        always(m, implies(self.load, free != 0), "column engine: an LDI into a register in use")
        always(m, implies(tile_ends, unread <= 1), "column engine: more unread tiles than accumulator banks")
        always(m, complete <= unread, "column engine: sums complete of a tile that has none")
        always_within(m, free, 0, INPUT_REGISTERS, "column engine: more free registers than there are")
        always_within(m, loaded, 0, INPUT_REGISTERS, "column engine: more loaded registers than there are")
        return m
        return m

    def _timer(self, m: Module, name: str, distance: int, start: Signal) -> Signal:
        m.submodules[name] = timer = Timer(distance)
        m.d.comb += timer.start.eq(start)
        return timer.elapsed
