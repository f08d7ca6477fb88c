"""By how much each of the engine's counters grows: from the stager's commands, actions and answers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.engine.counters import EngineCounter
from predictor.engine.limits import PrefetchEngineLimits
from rtl.checks import always, implies
from rtl.prefetch.payloads import bits_of, stager_shape
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command, action_layout, command_layout, done_layout


def increment_bits(limits: PrefetchEngineLimits) -> dict[EngineCounter, int]:
    """Bits of an increment, for those that grow by more than one."""
    named = stager_shape(limits).named_experts
    return {
        EngineCounter.ISSUED: bits_of(named + 1),
        EngineCounter.BYTES: 32,
        EngineCounter.CANDIDATE_HITS: bits_of(limits.candidates_max + 1),
        EngineCounter.CANDIDATE_MISSES: bits_of(limits.candidates_max + 1),
        EngineCounter.REPLACEMENTS: bits_of(limits.candidates_max + 1),
    }


STAGER_TALLIES = (
    EngineCounter.PREDICTIONS,
    EngineCounter.ISSUED,
    EngineCounter.VALUES,
    EngineCounter.HITS,
    EngineCounter.WAITS,
    EngineCounter.PROMOTED,
    EngineCounter.ELSEWHERE,
    EngineCounter.LOADS_DEMANDED,
    EngineCounter.LOADS_LATE,
    EngineCounter.LOADS_AHEAD,
    EngineCounter.CANCELLED,
    EngineCounter.REFUSED,
    EngineCounter.EVICTED,
    EngineCounter.PAUSED,
    EngineCounter.PASSED,
    EngineCounter.QUEUE_FULL,
    EngineCounter.RETRIED,
    EngineCounter.FAILED,
    EngineCounter.STAGER_CYCLES,
)
"""Those that ``StagerTallies`` knows of."""


class StagerTallies(wiring.Component):
    """Watches the stager.

    Whether a load began for a demand is kept by key while it is paused: of a transfer that goes on, GRANT says only who
    wants it now. A key that was dropped begins anew. ``clear`` forgets all, an entry a cycle, while ``clearing``.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits, self._shape = limits, stager_shape(limits)
        bits = increment_bits(limits)
        super().__init__(
            {
                "command": In(data.StructLayout({"valid": 1, "payload": command_layout(self._shape)})),
                "actions": In(action_layout(self._shape)),
                "done": In(done_layout(self._shape)),
                "moving_demanded": In(1),
                "busy": In(1),
                "clear": In(1),
                "clearing": Out(1),
                "increments": Out(
                    data.StructLayout({counter.name.lower(): bits.get(counter, 1) for counter in STAGER_TALLIES})
                ),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, action, done = self.command.payload, self.actions, self.done
        grow = self.increments
        begins = {kind: self.command.valid & (command.kind == kind) for kind in Command.__members__.values()}
        said = {kind: action.valid & (action.kind == kind) for kind in ActionKind.__members__.values()}
        landing = self.limits.places + self.limits.spare
        failed = action.why == ActionWhy.FAILED
        m.d.comb += [
            grow.predictions.eq(begins[Command.PREFETCH]),
            grow.values.eq(begins[Command.SET_VALUES]),
            grow.hits.eq(said[ActionKind.HIT]),
            grow.waits.eq(said[ActionKind.WAIT]),
            grow.promoted.eq(said[ActionKind.PROMOTE]),
            grow.elsewhere.eq(said[ActionKind.ELSEWHERE]),
            grow.cancelled.eq(said[ActionKind.DROP]),
            grow.refused.eq(said[ActionKind.REFUSE]),
            grow.evicted.eq(said[ActionKind.EVICT]),
            grow.paused.eq(said[ActionKind.PAUSE] & ~failed),
            grow.retried.eq(said[ActionKind.PAUSE] & failed),
            grow.failed.eq(said[ActionKind.DROP] & failed),
            grow.queue_full.eq(action.valid & (action.why == ActionWhy.FULL)),
            grow.passed.eq(done.valid & done.transfer.valid & (done.transfer.place == landing)),
            grow.stager_cycles.eq(self.command.valid | self.busy),
        ]
        with m.If(begins[Command.PREFETCH]):
            m.d.comb += grow.issued.eq(command.count)
        self._loads(m, arrives=begins[Command.ARRIVE], drops=said[ActionKind.DROP], pauses=said[ActionKind.PAUSE])
        return m

    def _loads(self, m: Module, *, arrives: Signal, drops: Signal, pauses: Signal) -> None:
        """Count loads by whom they began for, and whom they arrived for."""
        shape = self._shape
        key_bits = shape.layer_bits + shape.expert_bits
        kept = data.StructLayout({"valid": 1, "for_demand": 1})
        m.submodules.kept = memory = Memory(shape=kept, depth=1 << key_bits, init=[])
        write, read = memory.write_port(), memory.read_port()
        action, transfer, grow = self.actions, self.done.transfer, self.increments
        starts, began, demanded, for_demand = Signal(), Signal(), Signal(), Signal()
        key = Signal(key_bits)
        resumed_for_demand = Signal()
        m.d.comb += [
            starts.eq(self.done.valid & transfer.valid),
            read.addr.eq(transfer.key.as_value()),
            resumed_for_demand.eq(read.data.valid & read.data.for_demand),
            grow.loads_demanded.eq(began & ~read.data.valid & demanded),
            grow.loads_late.eq(arrives & ~for_demand & self.moving_demanded),
            grow.loads_ahead.eq(arrives & ~for_demand & ~self.moving_demanded),
        ]
        m.d.sync += [began.eq(starts), demanded.eq(transfer.demanded), key.eq(transfer.key.as_value())]
        with m.If(began):
            m.d.sync += for_demand.eq(Mux(read.data.valid, resumed_for_demand, demanded))

        # Nothing is said in the cycle after a transfer has begun, as that was the last of its command.
        clearing, next_key = Signal(), Signal(key_bits)
        m.d.comb += self.clearing.eq(clearing)
        with m.If(self.clear):
            m.d.sync += [clearing.eq(1), next_key.eq(0)]
        with m.Elif(clearing):
            m.d.comb += [write.en.eq(1), write.addr.eq(next_key)]
            m.d.sync += [next_key.eq(next_key + 1), clearing.eq(~next_key.all())]
        with m.Elif(began):
            m.d.comb += [write.en.eq(1), write.addr.eq(key)]
        with m.Else():
            m.d.comb += [
                write.en.eq(pauses | drops),
                write.addr.eq(action.key.as_value()),
                write.data.valid.eq(pauses),
                write.data.for_demand.eq(for_demand),
            ]
        always(m, implies(began | clearing, ~action.valid), "tallies: an action that is not heeded")
