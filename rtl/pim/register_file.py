"""The PIM unit's registers: descriptor, control, status and counters."""

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.events import UnitCounter, UnitError
from pim_model.unit.parameters import UnitParameters
from rtl.bus.axi_lite import RegisterBusSignature
from rtl.bus.reading import find_register
from rtl.bus.register_map import COUNTER_BITS, DATA_BITS
from rtl.bus.words import part
from rtl.checks import always, implies
from rtl.pim.address_map import ADDRESS_BITS, REFUSAL_BITS, address_map, descriptor_fields, error_name
from rtl.pim.base_die.planner import descriptor_layout

REFRESH_AT_START_BITS = 24


class RegisterFile(wiring.Component):
    """See ``rtl.pim.address_map`` for the map.

    A write that is refused (bits outside a register's fields, START while busy or dropping, a register that cannot be
    written, a place that does not exist) answers an error and changes nothing but the error bit of a START.

    Members:
        registers: The bus.
        descriptor, refresh_enable: What software has set.
        start, abort: For one clock: software commands it; START only when neither ``busy`` nor ``dropping``.
        busy, dropping: See STATUS.
        done, aborted: For one clock: the program is complete; was ended.
        errors: For one clock each: bits of ``UnitError`` but START.
        refusal: With the error DESCRIPTOR: why.
        refresh_at_start: See REFRESH_AT_START.
        counters, clear_counters: Their values; they become 0.
        interrupt: See CONTROL.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._map, self._descriptor = address_map(parameters), descriptor_fields(parameters)
        super().__init__(
            {
                "registers": In(RegisterBusSignature(ADDRESS_BITS)),
                "descriptor": Out(descriptor_layout(parameters)),
                "refresh_enable": Out(1),
                "start": Out(1),
                "abort": Out(1),
                "busy": In(1),
                "dropping": In(1),
                "done": In(1),
                "aborted": In(1),
                "errors": In(len(UnitError)),
                "refusal": In(REFUSAL_BITS),
                "refresh_at_start": In(REFRESH_AT_START_BITS),
                "counters": In(data.ArrayLayout(unsigned(COUNTER_BITS), len(UnitCounter))),
                "clear_counters": Out(1),
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Sticky status, writes, reads."""
        m = Module()
        interrupt_enable, clear, start_refused = Signal(), Signal(), Signal()
        done, aborted, refusal = Signal(), Signal(), Signal(REFUSAL_BITS)
        errors = Signal(len(UnitError))
        # A START forgets the last program's errors, but neither that of a START nor that of refreshes.
        lasting = Cat(error in (UnitError.START, UnitError.REFRESH) for error in UnitError)
        kept = Signal(len(UnitError))
        with m.If(clear):
            m.d.comb += kept.eq(0)
        with m.Elif(self.start):
            m.d.comb += kept.eq(errors & lasting)
        with m.Else():
            m.d.comb += kept.eq(errors)
        forget = clear | self.start
        m.d.sync += [
            done.eq((done & ~forget) | self.done),
            aborted.eq((aborted & ~forget) | self.aborted),
            errors.eq(kept | self.errors | (start_refused << UnitError.START)),
        ]
        with m.If(self.errors[UnitError.DESCRIPTOR]):
            m.d.sync += refusal.eq(self.refusal)
        with m.Elif(forget):
            m.d.sync += refusal.eq(0)
        m.d.sync += self.interrupt.eq(interrupt_enable & (done | aborted | errors.any()))

        self._write(m, interrupt_enable, clear, start_refused)
        self._read(
            m,
            {
                "busy": self.busy,
                "done": done,
                "aborted": aborted,
                "dropping": self.dropping,
                **{error_name(error): errors[error] for error in UnitError},
                "refusal": refusal,
                "refresh_enable": self.refresh_enable,
                "interrupt_enable": interrupt_enable,
                "refresh_at_start": self.refresh_at_start,
                **{part.name: self.descriptor[part.name] for part in self._descriptor},
            },
        )
        bus = self.registers
        always(m, implies(bus.done, bus.read | bus.write), "registers: an answer to no access")
        occupied = self.busy | self.dropping
        always(m, implies(self.start, ~occupied), "registers: a program begins while another is in work")
        return m

    def _write(self, m: Module, interrupt_enable: Signal, clear: Signal, start_refused: Signal) -> None:
        """A write takes one cycle."""
        bus, value = self.registers, self.registers.write_data
        fits = Signal()
        occupied = self.busy | self.dropping
        with m.If(bus.write):
            m.d.comb += bus.done.eq(1)
            with m.Switch(bus.address):
                for register in self._map.registers:
                    if not register.writable:
                        continue
                    fields = {one.name: part(value, one) for one in register.fields}
                    with m.Case(register.offset):
                        mask = sum(one.mask for one in register.fields)
                        m.d.comb += fits.eq((value & ~mask) == 0)
                        if register.name == "COMMAND":
                            m.d.comb += [
                                start_refused.eq(fits & fields["start"] & occupied),
                                self.start.eq(fits & fields["start"] & ~occupied),
                                self.abort.eq(fits & fields["abort"]),
                                clear.eq(fits & fields["clear_status"]),
                                self.clear_counters.eq(fits & fields["clear_counters"]),
                            ]
                        elif register.name == "CONTROL":
                            with m.If(fits):
                                m.d.sync += self.refresh_enable.eq(fields["refresh_enable"])
                                m.d.sync += interrupt_enable.eq(fields["interrupt_enable"])
                        else:
                            with m.If(fits):
                                m.d.sync += [self.descriptor[name].eq(bits) for name, bits in fields.items()]
            m.d.comb += bus.error.eq(~fits | start_refused)

    def _read(self, m: Module, held: dict[str, Value]) -> None:
        """A read takes two cycles: the word is found and kept, then handed over."""
        bus = self.registers
        found, exists, answering = Signal(DATA_BITS), Signal(), Signal()
        m.d.sync += answering.eq(bus.read & ~answering)
        with m.If(bus.read & ~answering):
            m.d.sync += [found.eq(0), exists.eq(1)]
            find_register(
                m, self._map, bus.address, found, exists, held=lambda _: held,
                counters={counter.name: self.counters[int(counter)] for counter in UnitCounter},
            )  # fmt: skip
        with m.If(bus.read & answering):
            m.d.comb += [bus.done.eq(1), bus.error.eq(~exists), bus.read_data.eq(found)]
