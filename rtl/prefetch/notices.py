"""Notices: what the host is told of its experts, and what each slot still waits for."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.notices import NoticeKind
from rtl.checks import always, always_stable, implies
from rtl.prefetch.dma.layouts import moving_layout
from rtl.prefetch.payloads import bits_of, experts_layout, notice_layout, stager_shape
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command, action_layout


class Notices(wiring.Component):
    """Follows the stager's commands and actions.

    ``taken``: the stager takes the command ``kind`` (of ``slot`` and ``layer``, where it is a DEMAND or RELEASE) in
    this cycle; ``idle``: it works on none. A slot's layer waits for the demanded experts that were not resident, until
    each has arrived or is given up.

    Told in order: within DEMAND, HERE or ELSEWHERE of each expert; with ARRIVE, ARRIVED of what moves (``moving``).
    When the stager is idle again, one a cycle: FAILED for each slot that waited for what FAIL gave up, then READY for
    each that waits for nothing any more, both by ascending slot; meanwhile ``open`` is low. It is low too while the
    notices that one command may cause would find no room.

    ``demanded`` and ``demanded_count`` answer ``slot``: what its last DEMAND demanded, in order.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        self._reserve = limits.top_k_max + 1 + 2 * limits.slots_max
        shape = stager_shape(limits)
        super().__init__(
            {
                "taken": In(1),
                "idle": In(1),
                "kind": In(Command),
                "slot": In(bits_of(limits.slots_max)),
                "layer": In(bits_of(limits.layers_max)),
                "actions": In(action_layout(shape)),
                "moving": In(moving_layout(shape)),
                "clear": In(1),
                "open": Out(1),
                "demanded_count": Out(bits_of(limits.top_k_max + 1)),
                "demanded": Out(experts_layout(limits)),
                "waits": Out(1),
                "busy": Out(1),
                "notices": Out(stream.Signature(notice_layout(limits))),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        slots = range(limits.slots_max)
        m.submodules.queue = queue = fifo.SyncFIFO(width=notice_layout(limits).size, depth=2 * self._reserve)
        m.d.comb += [
            self.notices.valid.eq(queue.r_rdy),
            self.notices.payload.as_value().eq(queue.r_data),
            queue.r_en.eq(queue.r_rdy & self.notices.ready),
        ]
        notice = Signal(notice_layout(limits))
        m.d.comb += queue.w_data.eq(notice)

        waiting = Signal(limits.slots_max)
        layers = Array(Signal(bits_of(limits.layers_max), name=f"layer{slot}") for slot in slots)
        lists = Array(Signal(experts_layout(limits), name=f"demanded{slot}") for slot in slots)
        counts = Array(Signal(bits_of(limits.top_k_max + 1), name=f"count{slot}") for slot in slots)
        outstanding = Array(Signal(limits.top_k_max, name=f"outstanding{slot}") for slot in slots)
        m.d.comb += [self.demanded.eq(lists[self.slot]), self.demanded_count.eq(counts[self.slot])]

        slot, kind = Signal.like(self.slot), Signal(Command)
        with m.If(self.taken):
            m.d.sync += [slot.eq(self.slot), kind.eq(self.kind)]

        # What arrives or is given up is looked for in every slot.
        gone = Signal()
        gone_layer, gone_expert = Signal.like(self.moving.layer), Signal.like(self.moving.expert)
        matches = [Signal(limits.top_k_max, name=f"matches{nth}") for nth in slots]
        for nth in slots:
            same_layer = layers[nth] == gone_layer
            m.d.comb += matches[nth].eq(
                Cat(
                    outstanding[nth][place] & same_layer & (lists[nth][place] == gone_expert)
                    for place in range(limits.top_k_max)
                )
            )
            with m.If(gone):
                m.d.sync += outstanding[nth].eq(outstanding[nth] & ~matches[nth])

        failed, failed_layer, failed_expert = (
            Signal(limits.slots_max),
            Signal.like(gone_layer),
            Signal.like(gone_expert),
        )
        ready = Signal(limits.slots_max)
        m.d.comb += ready.eq(Cat(waiting[nth] & ~outstanding[nth].any() for nth in slots))
        pending = Signal()
        m.d.comb += [
            pending.eq(failed.any() | ready.any()),
            self.open.eq(~pending & (queue.w_level <= self._reserve)),
            self.waits.eq(waiting.any()),
            self.busy.eq(waiting.any() | queue.r_rdy),
        ]

        action = self.actions
        with m.If(self.taken):
            self._begin(m, notice, queue.w_en, waiting=waiting, counts=counts, layers=layers, outstanding=outstanding)
            with m.If(self.kind == Command.ARRIVE):
                m.d.comb += [gone.eq(1), gone_layer.eq(self.moving.layer), gone_expert.eq(self.moving.expert)]
                m.d.comb += notice.wanted.eq(Cat(matches).any())
        with m.Elif(action.valid & (kind == Command.DEMAND)):
            self._demand(m, action, notice, queue.w_en, slot=slot, counts=counts, lists=lists, outstanding=outstanding)
        with m.Elif(action.valid & (action.kind == ActionKind.DROP) & (action.why == ActionWhy.FAILED)):
            m.d.comb += [gone.eq(1), gone_layer.eq(action.key.layer), gone_expert.eq(action.key.expert)]
            m.d.sync += [failed_layer.eq(action.key.layer), failed_expert.eq(action.key.expert)]
            m.d.sync += failed.eq(Cat(matches[nth].any() for nth in slots))
        with m.Elif(self.idle & failed.any()):
            m.d.comb += [queue.w_en.eq(1), notice.kind.eq(NoticeKind.FAILED)]
            m.d.comb += [notice.layer.eq(failed_layer), notice.expert.eq(failed_expert)]
            m.d.comb += notice.slot.eq(_lowest(failed))
            m.d.sync += failed.eq(failed & (failed - 1))
        with m.Elif(self.idle & ready.any()):
            lowest = Signal.like(self.slot)
            m.d.comb += [lowest.eq(_lowest(ready)), queue.w_en.eq(1), notice.kind.eq(NoticeKind.READY)]
            m.d.comb += [notice.slot.eq(lowest), notice.layer.eq(layers[lowest])]
            m.d.sync += waiting.bit_select(lowest, 1).eq(0)
        with m.If(self.clear):
            m.d.sync += [waiting.eq(0), failed.eq(0), *(counts[nth].eq(0) for nth in slots)]

        always(m, implies(queue.w_en, queue.w_rdy), "notices: one is lost")
        always(m, implies(self.taken, self.open & self.idle), "notices: a command begins before all is told")
        always(m, implies(action.valid, ~self.taken & ~self.idle), "notices: an action of no command")
        payload = self.notices.payload.as_value()
        always_stable(m, "notices", valid=self.notices.valid, ready=self.notices.ready, payload=payload)
        return m

    def _begin(
        self,
        m: Module,
        notice: data.View,
        told: Signal,
        *,
        waiting: Signal,
        counts: Array,
        layers: Array,
        outstanding: Array,
    ) -> None:
        """What a command changes when it begins."""
        with m.Switch(self.kind):
            with m.Case(Command.DEMAND):
                m.d.sync += [
                    waiting.bit_select(self.slot, 1).eq(1),
                    counts[self.slot].eq(0),
                    layers[self.slot].eq(self.layer),
                    outstanding[self.slot].eq(0),
                ]
            with m.Case(Command.RELEASE):
                m.d.sync += waiting.bit_select(self.slot, 1).eq(0)
            with m.Case(Command.ARRIVE):
                m.d.comb += [
                    told.eq(1),
                    notice.kind.eq(NoticeKind.ARRIVED),
                    notice.layer.eq(self.moving.layer),
                    notice.expert.eq(self.moving.expert),
                    notice.place.eq(self.moving.place),
                ]

    def _demand(
        self,
        m: Module,
        action: data.View,
        notice: data.View,
        told: Signal,
        *,
        slot: Signal,
        counts: Array,
        lists: Array,
        outstanding: Array,
    ) -> None:
        """An expert that the gate chose is here, waited for, or elsewhere."""
        is_here, is_elsewhere, is_waited_for = Signal(), Signal(), Signal()
        m.d.comb += [
            is_here.eq(action.kind == ActionKind.HIT),
            is_elsewhere.eq(action.kind == ActionKind.ELSEWHERE),
            is_waited_for.eq((action.kind == ActionKind.WAIT) | (action.kind == ActionKind.PROMOTE)),
            told.eq(is_here | is_elsewhere),
            notice.kind.eq(Mux(is_here, NoticeKind.HERE, NoticeKind.ELSEWHERE)),
            notice.slot.eq(slot),
            notice.layer.eq(action.key.layer),
            notice.expert.eq(action.key.expert),
            notice.place.eq(Mux(is_here, action.place, 0)),
        ]
        count = counts[slot]
        with m.If(is_here | is_waited_for):
            m.d.sync += [lists[slot][count].eq(action.key.expert), count.eq(count + 1)]
            m.d.sync += outstanding[slot].bit_select(count, 1).eq(is_waited_for)
        always(
            m, implies(is_here | is_waited_for, count < self.limits.top_k_max), "notices: more experts than a gate has"
        )


def _lowest(bits: Signal) -> Value:
    """The index of the lowest bit that is set."""
    index: Value = Const(0, 1)
    for nth in reversed(range(len(bits))):
        index = Mux(bits[nth], nth, index)
    return index
