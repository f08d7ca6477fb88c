"""Between the engine and the table predictor: its events from the engine's, one prediction from its requests."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.engine.events import EventKind
from predictor.engine.limits import PrefetchEngineLimits
from rtl.checks import always, always_stable, implies
from rtl.prefetch.limits import table_limits
from rtl.prefetch.payloads import CHANCE_BITS, known_event_layout, prediction_layout, stager_shape
from rtl.prefetch.tables.layouts import event_layout, request_layout

CERTAIN = (1 << CHANCE_BITS) - 1


class TablePort(wiring.Component):
    """A token is taken in one cycle: that it starts, and its domain, go with its slot's next gate. So is a gate that is
    not known, of which the tables hear nothing. What a gate requests becomes one prediction, each expert certain, in
    the order of the requests; the next event waits until that is taken.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits, self._tables = limits, table_limits(limits)
        self._named = stager_shape(limits).named_experts
        super().__init__(
            {
                "known": In(stream.Signature(known_event_layout(limits))),
                "events": Out(stream.Signature(event_layout(self._tables))),
                "requests": In(stream.Signature(request_layout(self._tables))),
                "predictions": Out(stream.Signature(prediction_layout(limits))),
                "forget": In(1),
                "busy": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, slots = self.limits, range(self.limits.slots_max)
        event, step = self.known.payload.event, self.known.payload.step
        starts_token, starts_sequence = Signal(limits.slots_max), Signal(limits.slots_max)
        domains = Array(Signal.like(event.domain, name=f"domain{slot}") for slot in slots)
        is_told, accepts = Signal(), Signal()
        prediction = Signal(prediction_layout(limits))
        complete, base = Signal(), Signal(limits.deadline_bits)

        waits = complete | (prediction.count != 0)
        m.d.comb += [
            is_told.eq((event.kind == EventKind.GATE.value) & event.known),
            self.events.valid.eq(self.known.valid & is_told & ~waits),
            self.events.payload.slot.eq(event.slot),
            self.events.payload.layer.eq(event.layer),
            self.events.payload.experts.eq(event.experts),
            self.events.payload.starts_token.eq(starts_token.bit_select(event.slot, 1)),
            self.events.payload.starts_sequence.eq(starts_sequence.bit_select(event.slot, 1)),
            self.events.payload.domain.eq(domains[event.slot]),
            accepts.eq(self.events.valid & self.events.ready),
            self.known.ready.eq(accepts | (self.known.valid & ~is_told & self.events.ready & ~waits)),
            self.busy.eq(waits),
        ]
        with m.If(self.known.ready & (event.kind == EventKind.TOKEN.value)):
            m.d.sync += [starts_token.bit_select(event.slot, 1).eq(1), domains[event.slot].eq(event.domain)]
            with m.If(event.starts_sequence):
                m.d.sync += starts_sequence.bit_select(event.slot, 1).eq(1)
        with m.If(accepts):
            m.d.sync += [starts_token.bit_select(event.slot, 1).eq(0), starts_sequence.bit_select(event.slot, 1).eq(0)]
            m.d.sync += base.eq(step)
        with m.If(self.forget):
            m.d.sync += [starts_token.eq(0), starts_sequence.eq(0)]

        self._gather(m, prediction, complete, base)
        return m

    def _gather(self, m: Module, prediction: data.View, complete: Signal, base: Signal) -> None:
        """The requests of an event one behind the other; whole with the last."""
        request = self.requests.payload
        m.d.comb += [
            self.requests.ready.eq(~complete),
            self.predictions.valid.eq(complete),
            self.predictions.payload.eq(prediction),
        ]
        with m.If(self.requests.valid & self.requests.ready):
            m.d.sync += [
                prediction.layer.eq(request.layer),
                prediction.count.eq(prediction.count + 1),
                prediction.experts[prediction.count].eq(request.expert),
                prediction.chances[prediction.count].eq(CERTAIN),
                prediction.deadline.eq(base + request.layer),
                complete.eq(request.last),
            ]
        with m.If(self.predictions.valid & self.predictions.ready):
            m.d.sync += [complete.eq(0), prediction.count.eq(0)]
        fits = prediction.count < self._named
        always(
            m,
            implies(self.requests.valid & self.requests.ready, fits),
            "table port: more requests than a command names",
        )
        told = self.predictions
        always_stable(m, "predictions", valid=told.valid, ready=told.ready, payload=told.payload.as_value())
