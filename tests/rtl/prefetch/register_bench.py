"""A register file of the whole engine on its bus, for the tests of both and of the driver."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from predictor.engine.limits import HeadsLimits, PrefetchEngineLimits
from rtl.bus.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.prefetch.address_map import address_bits, address_map
from rtl.prefetch.limits import table_limits
from rtl.prefetch.register_file import RegisterFile
from rtl.prefetch.tables.memory import TableMemory
from staging.transfer.limits import TransferLimits

# Little that is a power of two; addresses of more than a word.
LIMITS = PrefetchEngineLimits(
    slots_max=3,
    layers_max=6,
    experts_max=16,
    top_k_max=3,
    candidates_max=5,
    domains_max=2,
    places=20,
    spare=9,
    queue_depth=9,
    net=HeadsLimits(lanes=64, prefetched_max=5),
    link=TransferLimits(address_bits=40, outstanding=6),
)
MAP = address_map(LIMITS)


class Registers(wiring.Component):
    """Slave, register file and table memory; the rest of the register file's ports are the bench's."""

    def __init__(self) -> None:
        bits = address_bits(LIMITS)
        super().__init__({"bus": In(AxiLiteSignature(bits)), "interrupt": Out(1), "busy": In(1), "host_ready": In(1)})
        self.file, self._bits = RegisterFile(LIMITS), bits

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(self._bits)
        m.submodules.file = file = self.file
        m.submodules.tables = tables = TableMemory(table_limits(LIMITS))
        wiring.connect(m, wiring.flipped(self.bus), slave.bus)
        wiring.connect(m, slave.registers, file.registers)
        wiring.connect(m, file.window, tables.window)
        m.d.comb += [self.interrupt.eq(file.interrupt), file.busy.eq(self.busy), file.host.ready.eq(self.host_ready)]
        return m
