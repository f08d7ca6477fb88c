"""The table predictor with registers of its own, as a top; its specification is ``predictor.st_moe.tables``."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.events import EngineCounter
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.bus.counters import Counters
from rtl.prefetch.tables.address_map import Window
from rtl.prefetch.tables.layouts import RowWriteSignature, event_layout, increment_bits, request_layout
from rtl.prefetch.tables.predictor import TablePredictor
from rtl.prefetch.tables.register_file import RegisterFile


class TableEngine(wiring.Component):
    """See ``TablePredictor``, whose streams and ``table_writes`` these are; ``control`` reaches everything else."""

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "events": In(stream.Signature(event_layout(limits))),
                "requests": Out(stream.Signature(request_layout(limits))),
                "control": In(AxiLiteSignature(Window.of(limits).address_bits)),
                "table_writes": Out(RowWriteSignature(limits)),
            }
        )
        self._slave = AxiLiteSlave(Window.of(limits).address_bits)
        self._registers = RegisterFile(limits)
        self._predictor = TablePredictor(limits)
        self._counters = Counters(
            EngineCounter, {counter: increment_bits(limits, counter) for counter in EngineCounter}
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        registers, predictor = self._registers, self._predictor
        m.submodules.slave = self._slave
        m.submodules.registers = registers
        m.submodules.predictor = predictor
        m.submodules.counters = self._counters
        wiring.connect(m, wiring.flipped(self.control), self._slave.bus)
        wiring.connect(m, self._slave.registers, registers.registers)
        wiring.connect(m, registers.settings, predictor.settings)
        wiring.connect(m, registers.window, predictor.window)
        wiring.connect(m, wiring.flipped(self.events), predictor.events)
        wiring.connect(m, predictor.requests, wiring.flipped(self.requests))
        wiring.connect(m, predictor.table_writes, wiring.flipped(self.table_writes))
        m.d.comb += [
            predictor.enable.eq(registers.enable),
            registers.busy.eq(predictor.busy),
            registers.event_errors.eq(predictor.event_errors),
            self._counters.clear.eq(registers.clear_counters),
            self._counters.increments.eq(predictor.increments),
            registers.counters.eq(self._counters.values),
        ]
        return m
