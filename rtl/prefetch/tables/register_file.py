"""The registers of the tables alone: settings, status, counters and the window onto the table memory."""

from amaranth.hdl import Const, Module, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.axi_lite import RegisterBusSignature
from rtl.bus.reading import find_register
from rtl.bus.register_map import COUNTER_BITS
from rtl.bus.words import part
from rtl.checks import always, always_kept, always_within, implies
from rtl.prefetch.tables.address_map import Window, address_map
from rtl.prefetch.tables.layouts import SettingsSignature
from rtl.prefetch.tables.memory import WindowSignature
from rtl.prefetch.tables.settings import SETTINGS
from rtl.prefetch.tables.window import WindowAccess


class RegisterFile(wiring.Component):
    """See ``rtl.prefetch.tables.address_map`` for the map.

    A write that is refused (a value out of range, a locked setting of an engine that is on or busy, a register that
    cannot be written, a place that does not exist) answers an error and changes nothing; for a setting it also sets the
    sticky configuration error. Reading a counter's low word keeps its high word for the next read of it, so that the
    two belong together.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self._map = address_map(limits)
        super().__init__(
            {
                "registers": In(RegisterBusSignature(Window.of(limits).address_bits)),
                "settings": Out(SettingsSignature(limits)),
                "enable": Out(1),
                "busy": In(1),
                "event_errors": In(len(EventError)),
                "counters": In(data.ArrayLayout(unsigned(COUNTER_BITS), len(EngineCounter))),
                "clear_counters": Out(1),
                "window": Out(WindowSignature(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        clear_errors, refused = Signal(), Signal()
        causes = {f"error_{error.name}".lower(): self.event_errors[nth] for nth, error in enumerate(EventError)}
        causes["error_configuration"] = refused
        status: dict[str, Value] = {"busy": self.busy}
        for name, cause in causes.items():
            status[name] = error = Signal(name=name)
            m.d.sync += error.eq((error & ~clear_errors) | cause)

        window = WindowAccess(m, self.registers, self.window, self.limits)
        with m.If(self.registers.write & ~window.addressed):
            m.d.comb += self.registers.done.eq(1)
            self._write_register(m, clear_errors, refused)
        window.write(m)
        window.read(m, lambda found, exists: self._find_register(m, found, exists, status))
        self._check(m)
        return m

    def _check(self, m: Module) -> None:
        """Settings are in their range; those that are locked hold still while the engine is on or busy."""
        for setting in SETTINGS:
            register, value = self._map.register(setting.name.upper()), getattr(self.settings, setting.name)
            (field,) = register.fields
            most = field.mask if field.maximum is None else field.maximum
            always_within(m, value, field.minimum, most, f"registers: {setting.name} out of range")
            if register.locked:
                always_kept(m, setting.name, value, where=self.enable | self.busy)
        bus = self.registers
        always(m, implies(bus.done, bus.read | bus.write), "registers: an answer to no access")

    def _write_register(self, m: Module, clear_errors: Signal, refused: Signal) -> None:
        value = self.registers.write_data
        control, command = self._map.register("CONTROL"), self._map.register("COMMAND")
        with m.Switch(self.registers.address):
            with m.Case(control.offset):
                m.d.sync += self.enable.eq(part(value, control.field("enable")))
            with m.Case(command.offset):
                m.d.comb += [
                    self.clear_counters.eq(part(value, command.field("clear_counters"))),
                    clear_errors.eq(part(value, command.field("clear_errors"))),
                ]
            for setting in SETTINGS:
                register = self._map.register(setting.name.upper())
                (field,) = register.fields
                with m.Case(register.offset):
                    locked = (self.enable | self.busy) if register.locked else Const(0)
                    too_small = value < field.minimum if field.minimum else Const(0)
                    m.d.comb += refused.eq(locked | too_small | (value > field.maximum))
                    with m.If(~refused):
                        m.d.sync += getattr(self.settings, setting.name).eq(value)
                    m.d.comb += self.registers.error.eq(refused)
            with m.Default():
                m.d.comb += self.registers.error.eq(1)

    def _find_register(self, m: Module, found: Signal, exists: Signal, status: dict[str, Value]) -> None:
        """Take in what the register at the bus address holds."""
        held: dict[str, Value] = {
            **status,
            "enable": self.enable,
            **{setting.name: getattr(self.settings, setting.name) for setting in SETTINGS},
        }
        counters = {counter.name: self.counters[counter.value] for counter in EngineCounter}
        find_register(m, self._map, self.registers.address, found, exists, held=lambda _: held, counters=counters)
