"""The prefetch engine's registers: settings, status, counters and the window onto the table memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.rows import RowFormat
from rtl.bus.axi_lite import RegisterBusSignature
from rtl.prefetch.address_map import (
    COUNTER_BITS,
    DATA_BITS,
    IDENTITY,
    SETTINGS,
    STATUS_ERROR_SHIFT,
    VERSION,
    Command,
    Control,
    Offset,
    Window,
    capability_word,
    counter_offset,
    limits_word,
    window_word,
)
from rtl.prefetch.tables import WindowSignature


class SettingsSignature(wiring.Signature):
    """The settings' values, and masks of what they put to use (a cycle later)."""

    def __init__(self, limits: EngineLimits) -> None:
        values = {
            setting.name: Out(range(setting.high(limits) + 1), init=setting.reset_value(limits)) for setting in SETTINGS
        }
        masks = {
            "experts_used": Out(limits.experts_max),
            "event_used": Out(limits.top_k_max),
            "slots_used": Out(limits.candidates_max),
        }
        super().__init__({**values, **masks})


class RegisterFile(wiring.Component):
    """See ``rtl.prefetch.address_map`` for the map.

    A write that is refused (a value out of range, a locked setting of an engine that is on or busy, a register that
    cannot be written, a place that does not exist) answers an error and changes nothing; for a setting it also sets the
    sticky configuration error. Reading a counter's low word keeps its high word for the next read of it, so that the
    two belong together.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
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
        m.d.sync += [
            self.settings.experts_used.eq((1 << self.settings.experts) - 1),
            self.settings.event_used.eq((1 << self.settings.top_k) - 1),
            self.settings.slots_used.eq((1 << self.settings.candidates) - 1),
        ]
        errors, clear_errors, refused = Signal(len(EventError) + 1), Signal(), Signal()
        m.d.sync += errors.eq(Mux(clear_errors, 0, errors) | Cat(self.event_errors, refused))
        status = Cat(self.busy, Const(0, STATUS_ERROR_SHIFT - 1), errors)

        in_window = self.registers.address[-1]
        window_exists = self._address_window(m)
        with m.If(self.registers.write & ~in_window):
            m.d.comb += self.registers.done.eq(1)
            self._write_register(m, clear_errors, refused)
        with m.If(self.registers.write & in_window):
            m.d.comb += [
                self.window.write.eq(window_exists),
                self.registers.error.eq(~window_exists),
                self.registers.done.eq(self.window.ready | ~window_exists),
            ]
        self._read(m, in_window, window_exists, status)
        return m

    def _address_window(self, m: Module) -> Value:
        """Point the window at the bus address; returns whether there is such a word."""
        window = Window.of(self.limits)
        offset = self.registers.address[2 : window.base.bit_length() - 1]
        word, row = offset[: window.stride.bit_length() - 3], offset[window.stride.bit_length() - 3 :]
        m.d.comb += [
            self.window.address.eq(row),
            self.window.word.eq(word),
            self.window.write_data.eq(self.registers.write_data),
        ]
        words = RowFormat(self.limits).words
        return (row < self.limits.rows) & (word < words if len(word) else 1)

    def _write_register(self, m: Module, clear_errors: Signal, refused: Signal) -> None:
        value = self.registers.write_data
        with m.Switch(self.registers.address):
            with m.Case(Offset.CONTROL):
                m.d.sync += self.enable.eq(value[Control.ENABLE.bit_length() - 1])
            with m.Case(Offset.COMMAND):
                m.d.comb += [
                    self.clear_counters.eq(value[Command.CLEAR_COUNTERS.bit_length() - 1]),
                    clear_errors.eq(value[Command.CLEAR_ERRORS.bit_length() - 1]),
                ]
            for setting in SETTINGS:
                with m.Case(setting.offset):
                    locked = (self.enable | self.busy) if setting.locked else Const(0)
                    too_small = value == 0 if setting.low else Const(0)
                    m.d.comb += refused.eq(locked | too_small | (value > setting.high(self.limits)))
                    with m.If(~refused):
                        m.d.sync += getattr(self.settings, setting.name).eq(value)
                    m.d.comb += self.registers.error.eq(refused)
            with m.Default():
                m.d.comb += self.registers.error.eq(1)

    def _read(self, m: Module, in_window: Value, window_exists: Value, status: Value) -> None:
        """A read takes two cycles: the word is found and kept, then handed over."""
        found, exists, answering = Signal(DATA_BITS), Signal(), Signal()
        from_window = Signal()
        m.d.sync += answering.eq(0)
        with m.If(self.registers.read & ~answering):
            m.d.sync += [from_window.eq(in_window & window_exists), found.eq(0), exists.eq(1)]
            with m.If(in_window & window_exists):
                m.d.comb += self.window.read.eq(1)
                m.d.sync += answering.eq(self.window.ready)
            with m.Else():
                m.d.sync += answering.eq(1)
                with m.If(in_window):
                    m.d.sync += exists.eq(0)
                with m.Else():
                    self._find_register(m, found, exists, status)
        with m.If(self.registers.read & answering):
            m.d.comb += [
                self.registers.done.eq(1),
                self.registers.error.eq(~exists),
                self.registers.read_data.eq(Mux(from_window, self.window.read_data, found)),
            ]

    def _find_register(self, m: Module, found: Signal, exists: Signal, status: Value) -> None:
        high_word = Signal(COUNTER_BITS - DATA_BITS)
        constants: dict[int, ValueLike] = {
            Offset.IDENTITY: IDENTITY,
            Offset.VERSION: VERSION,
            Offset.LIMITS: limits_word(self.limits),
            Offset.CAPABILITY: capability_word(self.limits),
            Offset.WINDOW: window_word(self.limits),
        }
        signals: dict[int, ValueLike] = {setting.offset: getattr(self.settings, setting.name) for setting in SETTINGS}
        readable = {
            **constants,
            **signals,
            Offset.CONTROL: self.enable,
            Offset.STATUS: status,
        }
        with m.Switch(self.registers.address):
            for offset, content in readable.items():
                with m.Case(offset):
                    m.d.sync += found.eq(content)
            for counter in EngineCounter:
                with m.Case(counter_offset(counter)):
                    value = self.counters[counter.value]
                    m.d.sync += [found.eq(value[:DATA_BITS]), high_word.eq(value[DATA_BITS:])]
                with m.Case(counter_offset(counter) + 4):
                    m.d.sync += found.eq(high_word)
            with m.Default():
                m.d.sync += exists.eq(0)
