"""AXI4-Lite: the signature, and a slave that turns transfers into accesses of a register file."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.bus.register_map import DATA_BITS, DATA_BYTES
from rtl.checks import always, always_stable, at_most_one, exactly_one, implies


class Response(enum.Enum, shape=2):  # type: ignore[call-arg]
    """The responses that AXI4-Lite knows (no exclusive access)."""

    OKAY = 0
    SLVERR = 2
    DECERR = 3


class AxiLiteSignature(wiring.Signature):
    """The channels of a 32-bit AXI4-Lite bus under their canonical names, from the master's side."""

    def __init__(self, address_bits: int) -> None:
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(DATA_BITS),
                "wstrb": Out(DATA_BYTES),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(Response),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(DATA_BITS),
                "rresp": In(Response),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class RegisterBusSignature(wiring.Signature):
    """Accesses of whole words, from the slave's side.

    ``read`` or ``write`` is held, the address with it, until ``done``; in that cycle ``read_data`` and ``error`` hold.
    """

    def __init__(self, address_bits: int) -> None:
        super().__init__(
            {
                "address": Out(address_bits),
                "read": Out(1),
                "write": Out(1),
                "write_data": Out(DATA_BITS),
                "read_data": In(DATA_BITS),
                "done": In(1),
                "error": In(1),
            }
        )


class AxiLiteSlave(wiring.Component):
    """One transfer at a time; where both channels ask, reads and writes take turns.

    A write of less than a whole word, or an address that is not a word's, answers SLVERR and reaches no register.
    """

    def __init__(self, address_bits: int) -> None:
        self.address_bits = address_bits
        super().__init__(
            {"bus": In(AxiLiteSignature(address_bits)), "registers": Out(RegisterBusSignature(address_bits))}
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, registers = self.bus, self.registers
        wrote_last = Signal()
        write_asked = bus.awvalid & bus.wvalid
        response = Signal(Response)
        data = Signal(DATA_BITS)
        m.d.comb += [bus.bresp.eq(response), bus.rresp.eq(response), bus.rdata.eq(data)]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(write_asked & ~(bus.arvalid & wrote_last)):
                    m.d.comb += [bus.awready.eq(1), bus.wready.eq(1)]
                    m.d.sync += [registers.address.eq(bus.awaddr), registers.write_data.eq(bus.wdata)]
                    m.d.sync += [wrote_last.eq(1), response.eq(Response.SLVERR)]
                    m.next = "WRITE"
                    with m.If((bus.awaddr[:2] != 0) | ~bus.wstrb.all()):
                        m.next = "WRITE RESPONSE"
                with m.Elif(bus.arvalid):
                    m.d.comb += bus.arready.eq(1)
                    m.d.sync += [registers.address.eq(bus.araddr), wrote_last.eq(0)]
                    m.d.sync += [response.eq(Response.SLVERR), data.eq(0)]
                    m.next = "READ"
                    with m.If(bus.araddr[:2] != 0):
                        m.next = "READ RESPONSE"
            with m.State("WRITE"):
                m.d.comb += registers.write.eq(1)
                with m.If(registers.done):
                    with m.If(~registers.error):
                        m.d.sync += response.eq(Response.OKAY)
                    m.next = "WRITE RESPONSE"
            with m.State("WRITE RESPONSE"):
                m.d.comb += bus.bvalid.eq(1)
                with m.If(bus.bready):
                    m.next = "IDLE"
            with m.State("READ"):
                m.d.comb += registers.read.eq(1)
                with m.If(registers.done):
                    with m.If(~registers.error):
                        m.d.sync += [response.eq(Response.OKAY), data.eq(registers.read_data)]
                    m.next = "READ RESPONSE"
            with m.State("READ RESPONSE"):
                m.d.comb += bus.rvalid.eq(1)
                with m.If(bus.rready):
                    m.next = "IDLE"
        states = ("IDLE", "WRITE", "WRITE RESPONSE", "READ", "READ RESPONSE")
        always(m, exactly_one([fsm.ongoing(state) for state in states]), "bus: not in one state")
        always_stable(m, "bus_b", valid=bus.bvalid, ready=bus.bready, payload=Value.cast(bus.bresp))
        always_stable(m, "bus_r", valid=bus.rvalid, ready=bus.rready, payload=Cat(bus.rdata, bus.rresp))
        always(m, at_most_one([registers.read, registers.write]), "bus: a register is read and written at once")
        read_waited = Signal()
        m.d.sync += read_waited.eq(bus.arvalid & ~bus.arready & (bus.awready | read_waited))
        always(m, implies(read_waited, wrote_last & ~bus.awready), "bus: a read waits for a second write")
        return m
