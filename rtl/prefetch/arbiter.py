"""The arbiter: which command the stager is told next."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.engine.limits import PrefetchEngineLimits
from rtl.checks import always, implies
from rtl.prefetch.dma.layouts import LinkRequest, link_request_layout
from rtl.prefetch.payloads import (
    HostRequest,
    UrgentKind,
    bits_of,
    experts_layout,
    host_request_layout,
    prediction_layout,
    stager_shape,
    urgent_layout,
    values_layout,
)
from rtl.prefetch.stager.layouts import Command, command_layout, done_layout


class Arbiter(wiring.Component):
    """Offers a command in cycles in which the stager is free and ``open``, of those that wait the first of

    1. what the link says of a transfer: ARRIVE or FAIL, PREEMPT;
    2. what is urgent: DEMAND, EXPIRE, RELEASE, in their order;
    3. a prediction; one of no expert is dropped at once, without a command;
    4. values: taken in the last cycle of the command, as the stager reads them through a port of their own;
    5. what the host says;
    6. the link's GRANT.

    So ``commands.valid`` depends on ``commands.ready``, which depends on nothing but the stager's state.

    RELEASE names what was demanded of ``release_slot``: ``release_count`` of ``release_experts``. ``slot`` is that of a
    DEMAND or RELEASE on offer. ``elsewhere``: what a DEMAND names and is not resident is not demanded.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        shape = stager_shape(limits)
        super().__init__(
            {
                "link": In(stream.Signature(link_request_layout())),
                "urgent": In(stream.Signature(urgent_layout(limits))),
                "predictions": In(stream.Signature(prediction_layout(limits))),
                "values": In(stream.Signature(values_layout(limits))),
                "host": In(stream.Signature(host_request_layout(limits))),
                "open": In(1),
                "elsewhere": In(1),
                "release_slot": Out(bits_of(limits.slots_max)),
                "release_count": In(bits_of(limits.top_k_max + 1)),
                "release_experts": In(experts_layout(limits)),
                "slot": Out(bits_of(limits.slots_max)),
                "commands": Out(stream.Signature(command_layout(shape))),
                "done": In(done_layout(shape)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, urgent, prediction = self.commands.payload, self.urgent.payload, self.predictions.payload
        request, host = self.link.payload.kind, self.host.payload
        grants = Signal()
        offers = Signal()
        m.d.comb += [
            grants.eq(request == LinkRequest.GRANT),
            offers.eq(self.commands.ready & self.open),
            self.slot.eq(urgent.slot),
            self.release_slot.eq(urgent.slot),
            self.predictions.ready.eq(prediction.count == 0),
            self.values.ready.eq(self.done.valid & (self.done.kind == Command.SET_VALUES)),
        ]
        with m.If(offers):
            with m.If(self.link.valid & ~grants):
                m.d.comb += [self.commands.valid.eq(1), self.link.ready.eq(1)]
                with m.Switch(request):
                    with m.Case(LinkRequest.ARRIVE):
                        m.d.comb += command.kind.eq(Command.ARRIVE)
                    with m.Case(LinkRequest.FAIL):
                        m.d.comb += command.kind.eq(Command.FAIL)
                    with m.Default():
                        m.d.comb += command.kind.eq(Command.PREEMPT)
            with m.Elif(self.urgent.valid):
                m.d.comb += [
                    self.commands.valid.eq(1),
                    self.urgent.ready.eq(1),
                    command.layer.eq(urgent.layer),
                    command.deadline.eq(urgent.deadline),
                ]
                with m.Switch(urgent.kind):
                    with m.Case(UrgentKind.DEMAND):
                        m.d.comb += [
                            command.kind.eq(Command.DEMAND),
                            command.count.eq(urgent.count),
                            command.option.eq(self.elsewhere),
                            *self._names(urgent.experts),
                        ]
                    with m.Case(UrgentKind.RELEASE):
                        m.d.comb += [
                            command.kind.eq(Command.RELEASE),
                            command.count.eq(self.release_count),
                            *self._names(self.release_experts),
                        ]
                    with m.Default():
                        m.d.comb += command.kind.eq(Command.EXPIRE)
            with m.Elif(self.predictions.valid & (prediction.count != 0)):
                m.d.comb += [
                    self.commands.valid.eq(1),
                    self.predictions.ready.eq(1),
                    command.kind.eq(Command.PREFETCH),
                    command.layer.eq(prediction.layer),
                    command.count.eq(prediction.count),
                    command.experts.eq(prediction.experts),
                    command.deadline.eq(prediction.deadline),
                    *(told.eq(chance) for told, chance in zip(command.chances, prediction.chances, strict=True)),
                ]
            with m.Elif(self.values.valid):
                m.d.comb += [
                    self.commands.valid.eq(1),
                    command.kind.eq(Command.SET_VALUES),
                    command.layer.eq(self.values.payload.layer),
                ]
            with m.Elif(self.host.valid):
                m.d.comb += [
                    self.commands.valid.eq(1),
                    self.host.ready.eq(1),
                    command.layer.eq(host.layer),
                    command.count.eq(host.kind != HostRequest.CLEAR),
                    command.experts[0].eq(host.expert),
                    command.option.eq(host.kind == HostRequest.FIX),
                ]
                with m.Switch(host.kind):
                    with m.Case(HostRequest.PRELOAD):
                        m.d.comb += command.kind.eq(Command.PRELOAD)
                    with m.Case(HostRequest.CLEAR):
                        m.d.comb += command.kind.eq(Command.CLEAR)
                    with m.Default():
                        m.d.comb += command.kind.eq(Command.FIX)
            with m.Elif(self.link.valid):
                m.d.comb += [self.commands.valid.eq(1), self.link.ready.eq(1), command.kind.eq(Command.GRANT)]
        always(m, implies(self.values.ready, self.values.valid), "arbiter: values were read that nobody told")
        return m

    def _names(self, experts: data.View) -> list[Any]:
        """The first experts of a command are these."""
        return [self.commands.payload.experts[nth].eq(experts[nth]) for nth in range(self.limits.top_k_max)]
