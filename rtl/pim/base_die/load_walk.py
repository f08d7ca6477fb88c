"""Which LDI comes next: inputs of every chunk of every tile, token by token (BF16)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import WeightFormat
from rtl.checks import always, implies
from rtl.pim.base_die.layouts import load_layout, plan_layout


class LoadWalk(wiring.Component):
    """The LDIs in their order.

    ``start`` goes to the first, ``step`` to the next, ``cancel`` behind the last. A step may come one clock after
    ``start``, two after another (its flags are in registers); ``load`` and ``active`` hold at once.

    Members:
        active: There is one.
        load: What it brings.
        ends_chunk: It is its chunk's last.
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
                "load": Out(load_layout(parameters)),
                "ends_chunk": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Nested counters."""
        m = Module()
        plan, load = self.plan, self.load
        phase = plan.phases[load.phase]
        tile = Signal.like(phase.last_tile)
        last_token, last_chunk, last_tile, last_phase = Signal(), Signal(), Signal(), Signal()
        slots = Mux(plan.format == WeightFormat.BF16, (1 << plan.log2_slots) - 1, 0)
        m.d.sync += [
            last_token.eq(load.token == slots),
            last_chunk.eq(load.chunk == phase.last_chunk),
            last_tile.eq(tile == phase.last_tile),
            last_phase.eq(load.phase == plan.two_phases),
        ]
        m.d.comb += self.ends_chunk.eq(last_token)
        with m.If(self.step):
            m.d.sync += [load.register.eq(load.register + 1), load.token.eq(load.token + 1)]
            with m.If(last_token):
                m.d.sync += [load.token.eq(0), load.chunk.eq(load.chunk + 1)]
                with m.If(last_chunk):
                    m.d.sync += [load.chunk.eq(0), tile.eq(tile + 1)]
                    with m.If(last_tile):
                        m.d.sync += [tile.eq(0), load.phase.eq(1), self.active.eq(~last_phase)]
        with m.If(self.start):
            m.d.sync += [load.eq(0), tile.eq(0), self.active.eq(1)]
            # The first step may come in the next clock.
            m.d.sync += [
                last_token.eq(slots == 0),
                last_chunk.eq(plan.phases[0].last_chunk == 0),
                last_tile.eq(plan.phases[0].last_tile == 0),
                last_phase.eq(~plan.two_phases),
            ]
        with m.If(self.cancel):
            m.d.sync += self.active.eq(0)
        settling = Signal()
        m.d.sync += settling.eq(self.step)
        always(m, implies(self.step, ~settling), "load walk: a step before its flags are settled")
        always(m, implies(self.step, self.active), "load walk: a step behind the last LDI")
        return m
