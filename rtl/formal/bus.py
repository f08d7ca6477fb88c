"""Proofs of the buses."""

from amaranth.hdl import Module, Mux, Signal, Value

from rtl.bus.axi_lite import AxiLiteSlave, Response
from rtl.checks import always, at_most_one, implies
from rtl.formal.environment import axi_lite_master
from rtl.formal.task import Task


def _master(m: Module, slave: AxiLiteSlave) -> None:
    axi_lite_master(m, "bus", slave.bus)


def _transfers(m: Module, slave: AxiLiteSlave) -> None:
    """Every request that is accepted is answered once, with what the registers said; a bad one reaches no register."""
    bus, registers = slave.bus, slave.registers
    wrote, read = bus.awvalid & bus.awready, bus.arvalid & bus.arready
    always(m, (bus.awvalid & bus.awready) == (bus.wvalid & bus.wready), "bus: address and data are not taken together")
    always(m, at_most_one([wrote, read]), "bus: a read and a write are taken at once")

    # What was accepted and is not yet answered.
    writing, reading, bad, done, error = Signal(), Signal(), Signal(), Signal(), Signal()
    address, written = Signal.like(bus.awaddr), Signal.like(bus.wdata)
    found = Signal.like(bus.rdata)
    with m.If(wrote | read):
        m.d.sync += [
            writing.eq(wrote),
            reading.eq(read),
            address.eq(Mux(wrote, bus.awaddr, bus.araddr)),
            written.eq(bus.wdata),
            bad.eq(Mux(wrote, (bus.awaddr[:2] != 0) | ~bus.wstrb.all(), bus.araddr[:2] != 0)),
            done.eq(0),
            found.eq(0),
        ]
    with m.If((bus.bvalid & bus.bready) | (bus.rvalid & bus.rready)):
        m.d.sync += [writing.eq(0), reading.eq(0)]
    accessed = registers.read | registers.write
    with m.If(accessed & registers.done):
        m.d.sync += [done.eq(1), error.eq(registers.error)]
        with m.If(registers.read & ~registers.error):
            m.d.sync += found.eq(registers.read_data)

    always(m, implies(wrote | read, ~writing & ~reading), "bus: a request is taken before the last is answered")
    always(m, (registers.write | bus.bvalid) == writing, "bus: a write in work is none that was asked for, or is lost")
    always(m, (registers.read | bus.rvalid) == reading, "bus: a read in work is none that was asked for, or is lost")
    always(m, implies(accessed, ~bad & ~done), "bus: a bad request, or one for the second time, reaches the registers")
    always(m, implies(accessed, registers.address == address), "bus: another address than was asked for")
    always(m, implies(registers.write, registers.write_data == written), "bus: other data than was given")
    always(m, implies(bus.bvalid | bus.rvalid, bad | done), "bus: answered before it was done")
    pending = (Value.cast(bus.bresp) == Response.SLVERR) & implies(registers.read, (bus.rdata == 0) & (found == 0))
    always(m, implies(accessed, pending), "bus: what has not been accessed already counts as read or written")
    expected = Mux(bad | error, Response.SLVERR, Response.OKAY)
    right = Value.cast(bus.bresp) == expected
    always(m, implies(bus.bvalid, right), "bus: the wrong response to a write")
    right = (Value.cast(bus.rresp) == expected) & (bus.rdata == found)
    always(m, implies(bus.rvalid, right), "bus: the wrong response to a read")


TASKS = (
    Task(
        name="axi-lite-slave",
        what="AXI4-Lite slave: handshakes, one answer a request, its response and data, turns of reads and writes",
        make=lambda: AxiLiteSlave(4),
        assumptions=_master,
        claims=_transfers,
        depth=8,
    ),
)
