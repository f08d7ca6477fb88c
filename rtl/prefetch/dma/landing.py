"""The landing buffer: beats of the source, in order, in room that was reserved before they were asked for."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, always_within, implies
from staging.transfer.limits import TransferLimits


class Landing(wiring.Component):
    """A circular memory of ``landing_beats`` beats.

    ``reserve`` takes room for so many beats (0: none; at most ``free``); ``coming`` of them have not landed.
    ``write`` lands one of them with ``data``; ``skip`` gives up so many of them, which then count as landed with data
    of no account. ``take`` (while ``landed``) reads the oldest beat, and gives its room back: ``taken`` holds it from
    the next cycle on, until the next ``take``. A beat has ``landed`` in the cycle after its ``write``.
    """

    def __init__(self, limits: TransferLimits) -> None:
        self.limits = limits
        beats = range(limits.burst_beats + 1)
        super().__init__(
            {
                "reserve": In(beats),
                "free": Out(range(limits.landing_beats + 1)),
                "coming": Out(range(limits.landing_beats + 1)),
                "write": In(1),
                "data": In(8 * limits.data_bytes),
                "skip": In(beats),
                "landed": Out(1),
                "take": In(1),
                "taken": Out(8 * limits.data_bytes),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.limits.landing_beats
        m.submodules.memory = memory = Memory(shape=unsigned(8 * self.limits.data_bytes), depth=depth, init=())
        write_port, read_port = memory.write_port(), memory.read_port()
        free = Signal(range(depth + 1), init=depth)
        coming, landed = Signal(range(depth + 1)), Signal(range(depth + 1))
        write_at, read_at = Signal(range(depth)), Signal(range(depth))
        lands = Signal(range(self.limits.burst_beats + 2))
        m.d.comb += [
            lands.eq(self.skip + self.write),
            self.free.eq(free),
            self.coming.eq(coming),
            self.landed.eq(landed != 0),
            write_port.addr.eq(write_at),
            write_port.data.eq(self.data),
            write_port.en.eq(self.write),
            read_port.addr.eq(read_at),
            read_port.en.eq(self.take),
            self.taken.eq(read_port.data),
        ]
        m.d.sync += [
            free.eq(free - self.reserve + self.take),
            coming.eq(coming + self.reserve - lands),
            landed.eq(landed + lands - self.take),
            write_at.eq(write_at + lands),  # the depth is a power of two
            read_at.eq(read_at + self.take),
        ]
        always(m, self.reserve <= free, "landing: more room is reserved than is free")
        always(m, lands <= coming, "landing: a beat lands for which no room was reserved")
        always(m, implies(self.take, landed != 0), "landing: a beat is taken that has not landed")
        always(m, free + coming + landed == depth, "landing: room is lost, or there twice")
        for name, count in {"free": free, "reserved": coming, "landed": landed}.items():
            always_within(m, count, 0, depth, f"landing: {name}: more than there are, or fewer than none")
        behind = Mux(read_at <= write_at, write_at - read_at, depth - read_at + write_at)
        always(m, (landed == behind) | ((landed == depth) & (behind == 0)), "landing: beats are lost, or there twice")
        return m
