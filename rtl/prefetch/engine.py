"""The prefetch engine: the core, its registers and its counters; ``predictor.engine.twin`` specifies it."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from predictor.engine.counters import EngineCounter
from predictor.engine.limits import PrefetchEngineLimits
from rtl.bus.axi4 import Axi4ReadSignature, Axi4Signature, Axi4WriteSignature
from rtl.bus.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.bus.counters import Counters
from rtl.prefetch.address_map import address_bits
from rtl.prefetch.core import BUS_BITS, EngineCore, ObservedSignature
from rtl.prefetch.limits import text_limits
from rtl.prefetch.payloads import event_layout, notice_layout
from rtl.prefetch.register_file import RegisterFile
from rtl.prefetch.tallies import increment_bits


class PrefetchEngine(wiring.Component):
    """See ``EngineCore``, whose streams and memory ports these are; ``control`` reaches the registers."""

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        far_bits = limits.link.address_bits
        super().__init__(
            {
                "events": In(stream.Signature(event_layout(limits))),
                "notices": Out(stream.Signature(notice_layout(limits))),
                "control": In(AxiLiteSignature(address_bits(limits))),
                "far": Out(Axi4ReadSignature(BUS_BITS, far_bits)),
                "staging": Out(Axi4WriteSignature(BUS_BITS, far_bits)),
                "text": Out(Axi4Signature(BUS_BITS, text_limits(limits).address_bits)),
                "interrupt": Out(1),
                "observed": Out(ObservedSignature(limits)),
            }
        )
        self._slave = AxiLiteSlave(address_bits(limits))
        self._registers = RegisterFile(limits)
        self._core = EngineCore(limits)
        self._counters = Counters(EngineCounter, increment_bits(limits))

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        registers, core, counters = self._registers, self._core, self._counters
        m.submodules.slave = self._slave
        m.submodules.registers = registers
        m.submodules.core = core
        m.submodules.counters = counters
        connect(m, flipped(self.control), self._slave.bus)
        connect(m, self._slave.registers, registers.registers)
        connect(m, registers.settings, core.settings)
        connect(m, registers.shares, core.shares)
        connect(m, registers.window, core.window)
        connect(m, registers.host, core.host)
        connect(m, flipped(self.events), core.events)
        connect(m, core.notices, flipped(self.notices))
        connect(m, core.far, flipped(self.far))
        connect(m, core.staging, flipped(self.staging))
        connect(m, core.text, flipped(self.text))
        connect(m, core.observed, flipped(self.observed))
        m.d.comb += [
            registers.busy.eq(core.busy),
            registers.errors.eq(core.errors),
            registers.counters.eq(counters.values),
            core.hold.eq(registers.unclear),
            core.forget.eq(registers.forget),
            core.load.eq(registers.load),
            core.stale.eq(registers.stale),
            registers.load_done.eq(core.load_done),
            registers.load_failed.eq(core.load_failed),
            registers.heads_loaded.eq(core.loaded),
            counters.increments.eq(core.increments),
            counters.clear.eq(registers.clear_counters),
            self.interrupt.eq(registers.interrupt),
        ]
        return m
