"""The front end: takes an event, refuses a bad one whole, and says what it asks of the stager and of the predictor."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.engine.events import DOMAIN_BITS, EVENT_ERRORS, NO_ROW, ROW_BITS, EngineError, EventKind
from predictor.engine.limits import PrefetchEngineLimits
from rtl.checks import always, always_within, exactly_one, implies
from rtl.prefetch.payloads import (
    UrgentKind,
    bits_of,
    event_layout,
    known_event_layout,
    urgent_layout,
)


class FrontEnd(wiring.Component):
    """One event at a time: accepted in cycle t, checked in t + 1, told from t + 2 on.

    A gate asks for DEMAND, and with ``last`` in the next cycle for EXPIRE of its deadline; a release for RELEASE. These
    leave in order as ``urgent``. Tokens and gates leave as ``known`` too while ``predicts``. The next event is accepted
    at t + 2, after a gate with ``last`` at t + 3, and only where there is room for all that it may ask.

    ``took``: what was good, in the cycle after acceptance.

    A deadline is ``step · layers + layer``, of which ``step · layers`` is kept and grows with each token that is the
    ``first`` of its step. ``errors`` has the bits of ``EngineError`` in the cycle after acceptance; such an event
    changes nothing. ``forget`` makes every slot begin a sequence anew, ``clear`` the steps too, while nothing is open;
    ``hold`` accepts nothing.

    What of the order of events is checked, slot by slot: a token comes when no gate is open, and unless it starts a
    sequence behind the release of the last layer; a gate is of the next layer; a release is of the open gate.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        self._urgent_depth = self._known_depth = 2 * max(2, limits.slots_max)
        super().__init__(
            {
                "events": In(stream.Signature(event_layout(limits))),
                "urgent": Out(stream.Signature(urgent_layout(limits))),
                "known": Out(stream.Signature(known_event_layout(limits))),
                "layers": In(range(limits.layers_max + 1)),
                "experts": In(range(limits.experts_max + 1)),
                "top_k": In(range(limits.top_k_max + 1)),
                "rows": In(ROW_BITS),
                "domains": In(range((1 << DOMAIN_BITS) + 1)),
                "predicts": In(1),
                "clear": In(1),
                "forget": In(1),
                "hold": In(1),
                "accepted": Out(1),
                "errors": Out(EVENT_ERRORS.bit_length()),
                "took": Out(data.StructLayout({"token": 1, "step": 1, "gate": 1})),
                "busy": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        m.submodules.urgent = urgent = fifo.SyncFIFO(width=urgent_layout(limits).size, depth=self._urgent_depth)
        m.submodules.known = known = fifo.SyncFIFO(width=known_event_layout(limits).size, depth=self._known_depth)
        for queue, port in ((urgent, self.urgent), (known, self.known)):
            m.d.comb += [
                port.valid.eq(queue.r_rdy),
                port.payload.as_value().eq(queue.r_data),
                queue.r_en.eq(queue.r_rdy & port.ready),
            ]

        event = Signal(event_layout(limits))
        begun, open_gates = Signal(limits.slots_max), Signal(limits.slots_max)
        next_layers = Array(
            Signal(range(limits.layers_max + 1), name=f"next_layer{slot}") for slot in range(limits.slots_max)
        )
        step, next_step = Signal(limits.deadline_bits), Signal(limits.deadline_bits)
        stepped, exhausted = Signal(), Signal()
        # The sums are a cycle behind ``step``, which is two cycles old whenever an event is checked.
        last_deadline = Signal(limits.deadline_bits + 2)
        m.d.comb += last_deadline.eq(step + (self.layers << 1))
        m.d.sync += [
            next_step.eq(step + self.layers),
            exhausted.eq(last_deadline >= (1 << limits.deadline_bits)),
        ]

        is_open = open_gates.bit_select(event.slot, 1)
        next_layer = next_layers[event.slot]
        errors = self._errors(
            m,
            event,
            is_open=is_open,
            begun=begun.bit_select(event.slot, 1),
            next_layer=next_layer,
            stepped=stepped,
            exhausted=exhausted,
        )
        kinds = {kind: event.kind == kind.value for kind in EventKind}
        accepts, good, expires = Signal(), Signal(), Signal()
        new_step = Signal(limits.deadline_bits)
        m.d.comb += new_step.eq(Mux(kinds[EventKind.TOKEN] & event.first, next_step, step))
        urgent_payload = Signal(urgent_layout(limits))
        known_payload = Signal(known_event_layout(limits))
        m.d.comb += [
            accepts.eq((urgent.w_level <= self._urgent_depth - 2) & known.w_rdy & ~self.hold),
            urgent.w_data.eq(urgent_payload),
            known.w_data.eq(known_payload),
            known_payload.event.eq(event),
            known_payload.step.eq(new_step),
            urgent_payload.slot.eq(event.slot),
            urgent_payload.layer.eq(event.layer),
            urgent_payload.experts.eq(event.experts),
            urgent_payload.count.eq(Mux(event.known, self.top_k, 0)),
            urgent_payload.deadline.eq(step + event.layer),
            urgent_payload.kind.eq(
                Mux(expires, UrgentKind.EXPIRE, Mux(kinds[EventKind.GATE], UrgentKind.DEMAND, UrgentKind.RELEASE))
            ),
        ]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.events.ready.eq(accepts)
                with m.If(accepts & self.events.valid):
                    m.d.comb += self.accepted.eq(1)
                    m.d.sync += event.eq(self.events.payload)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += [self.errors.eq(errors), good.eq(~errors.any())]
                m.next = "IDLE"
                with m.If(good):
                    m.d.comb += [
                        urgent.w_en.eq(~kinds[EventKind.TOKEN]),
                        known.w_en.eq(~kinds[EventKind.RELEASE] & self.predicts),
                    ]
                    with m.If(kinds[EventKind.GATE] & event.last):
                        m.next = "EXPIRE"
            with m.State("EXPIRE"):
                m.d.comb += [expires.eq(1), urgent.w_en.eq(1)]
                m.next = "IDLE"
        with m.If(good & kinds[EventKind.TOKEN]):
            m.d.sync += [step.eq(new_step), begun.bit_select(event.slot, 1).eq(1), next_layer.eq(0)]
            m.d.sync += stepped.eq(stepped | event.first)
        with m.If(good & kinds[EventKind.GATE]):
            m.d.sync += is_open.eq(1)
        with m.If(good & kinds[EventKind.RELEASE]):
            m.d.sync += [is_open.eq(0), next_layer.eq(next_layer + 1)]
        with m.If(self.forget | self.clear):
            m.d.sync += begun.eq(0)
        with m.If(self.clear):
            m.d.sync += [open_gates.eq(0), step.eq(0), stepped.eq(0)]
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | open_gates.any() | urgent.r_rdy | known.r_rdy)

        m.d.comb += [
            self.took.token.eq(good & kinds[EventKind.TOKEN]),
            self.took.step.eq(good & kinds[EventKind.TOKEN] & event.first),
            self.took.gate.eq(good & kinds[EventKind.GATE]),
        ]

        states = [fsm.ongoing(state) for state in ("IDLE", "CHECK", "EXPIRE")]
        always(m, exactly_one(states), "front end: not in one state")
        always(m, implies(urgent.w_en, urgent.w_rdy), "front end: what is urgent is lost")
        always(m, implies(known.w_en, known.w_rdy), "front end: an event for the predictor is lost")
        always_within(m, known.w_level, 0, self._known_depth, "front end: more events wait than there is room for")
        always_within(m, self.top_k, 0, limits.top_k_max, "front end: top-k beyond what an event carries")
        always(m, implies(self.forget | self.clear, ~self.busy), "front end: forgets while an event is in work")
        return m

    def _errors(
        self,
        m: Module,
        event: data.View,
        *,
        is_open: Value,
        begun: Value,
        next_layer: Value,
        stepped: Value,
        exhausted: Value,
    ) -> Signal:
        """The bits of ``EngineError`` of the event."""
        limits = self.limits
        is_token, is_gate, is_release = (
            event.kind == kind.value for kind in (EventKind.TOKEN, EventKind.GATE, EventKind.RELEASE)
        )
        names = is_gate & event.known
        used = [nth < self.top_k for nth in range(limits.top_k_max)]
        too_large = [used[nth] & (event.experts[nth] >= self.experts) for nth in range(limits.top_k_max)]
        twice = [
            used[later] & (event.experts[earlier] == event.experts[later])
            for later in range(limits.top_k_max)
            for earlier in range(later)
        ]
        token_early = is_open | ~(event.starts_sequence | (begun & (next_layer == self.layers)))
        out_of_order = (
            (is_token & (token_early | ~(event.first | stepped)))
            | (is_gate & (is_open | ~begun | (event.layer != next_layer)))
            | (is_release & (~is_open | (event.layer != next_layer)))
        )
        bad_slot: Value = Const(0, 1)
        if limits.slots_max < 1 << bits_of(limits.slots_max):
            bad_slot = event.slot >= limits.slots_max
        bits: dict[EngineError, Value] = {
            EngineError.SLOT: bad_slot,
            EngineError.KIND: ~(is_token | is_gate | is_release),
            EngineError.LAYER: ~is_token & (event.layer >= self.layers),
            EngineError.EXPERT: names & Cat(too_large).any(),
            EngineError.DUPLICATE: names & Cat(twice).any(),
            EngineError.ROW: is_token & (event.row != NO_ROW) & (event.row >= self.rows),
            EngineError.DOMAIN: is_token & (event.domain >= self.domains),
            EngineError.ORDER: out_of_order & ~bad_slot,
            EngineError.DEADLINE: is_token & event.first & exhausted,
        }
        errors = Signal(EVENT_ERRORS.bit_length())
        m.d.comb += errors.eq(Cat(bits.get(error, 0) for error in EVENT_ERRORS))
        return errors
