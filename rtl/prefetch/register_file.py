"""The prefetch engine's registers: settings, commands, status, errors, interrupts, counters and the tables' window."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.engine.counters import EngineCounter
from predictor.engine.events import EngineError
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import Mode
from rtl.bus.axi_lite import RegisterBusSignature
from rtl.bus.reading import find_register
from rtl.bus.register_map import COUNTER_BITS, DATA_BITS, Field, Register
from rtl.bus.words import part
from rtl.checks import always, always_kept, always_stable, always_within, implies
from rtl.prefetch.address_map import HOST_COMMANDS, Command, Interrupt, address_bits, address_map
from rtl.prefetch.limits import table_limits
from rtl.prefetch.payloads import HostRequest, host_request_layout, stager_shape
from rtl.prefetch.setting_registers import MODE, Setting, settings
from rtl.prefetch.stager.layouts import ShareWriteSignature
from rtl.prefetch.tables.memory import WindowSignature
from rtl.prefetch.tables.window import WindowAccess

_HOST_CODES = {
    Command.PRELOAD: HostRequest.PRELOAD,
    Command.FIX: HostRequest.FIX,
    Command.UNFIX: HostRequest.UNFIX,
    Command.CLEAR: HostRequest.CLEAR,
}


class SettingsSignature(wiring.Signature):
    """Every setting's value, of a wide one whole; what counts whole beats is in beats."""

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        super().__init__(
            {setting.name: Out(setting.width(limits), init=_reset(setting, limits)) for setting in settings(limits)}
        )


class RegisterFile(wiring.Component):
    """See ``rtl.prefetch.address_map`` for the map.

    A write that is refused answers an error and changes nothing; of a setting, a share or a command, CONFIGURATION is
    then set as well. Refused are: a value out of range, bits that are none of a field's, a register that cannot be
    written, a place that does not exist; a locked register, unless the mode is OFF and nothing is busy or waits; MODE
    while anything is busy or waits, and LEARNED while no image is loaded; a command that cannot begin.

    Members:
        registers: The bus.
        settings: What software has set.
        shares: A share is set, while the stager is idle.
        window: Single words of the table memory.
        busy: Something is in work.
        load: For one cycle: the image is to be loaded. ``load_done`` answers, for one cycle; where it comes with
            ``load_failed``, no image is loaded.
        heads_loaded: Every head that is asked has its image.
        stale: For one cycle: a register is written that images hold for.
        host: Commands of the host to the stager. One that names an expert that there is not is refused, and sets
            HOST_COMMAND.
        clear: For one cycle, with the first cycle of such a CLEAR: everything begins anew.
        forget: For one cycle: MODE is written; every slot begins anew.
        unclear: A locked register has been written, or there was a reset, and no CLEAR since: no event may be taken.
        errors: For one cycle each: bits of ``EngineError``.
        counters, clear_counters: Their values; they become 0.
        interrupt: A cause that is enabled is set.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        self._map = address_map(limits)
        self._settings = settings(limits)
        super().__init__(
            {
                "registers": In(RegisterBusSignature(address_bits(limits))),
                "settings": Out(SettingsSignature(limits)),
                "shares": Out(ShareWriteSignature(stager_shape(limits))),
                "window": Out(WindowSignature(table_limits(limits))),
                "busy": In(1),
                "load": Out(1),
                "load_done": In(1),
                "load_failed": In(1),
                "heads_loaded": In(1, init=1),
                "stale": Out(1),
                "host": Out(stream.Signature(host_request_layout(limits))),
                "clear": Out(1),
                "forget": Out(1),
                "unclear": Out(1, init=1),
                "errors": In(len(EngineError)),
                "counters": In(data.ArrayLayout(unsigned(COUNTER_BITS), len(EngineCounter))),
                "clear_counters": Out(1),
                "interrupt": Out(1),
            }
        )
        self._loading, self._loaded = Signal(), Signal()
        self._host_expert = Signal(self._field("HOST_EXPERT", "host_expert").width)
        self._host_layer = Signal(self._field("HOST_EXPERT", "host_layer").width)
        self._error_enable = Signal(len(EngineError), init=self._map.register("ERROR_ENABLE").reset)
        self._interrupt_enable = Signal(len(Interrupt))
        self._error_bits, self._interrupts = Signal(len(EngineError)), Signal(len(Interrupt))
        self._share = Signal(self._field("SHARE", "share").width)
        # What a write does in its cycle.
        self._written = Signal()
        self._refused = Signal()
        self._command = Signal(len(Command))
        self._no_expert = Signal()

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.registers
        window = WindowAccess(m, bus, self.window, table_limits(self.limits))
        with m.If(bus.write & ~window.addressed):
            m.d.comb += [bus.done.eq(1), bus.error.eq(~self._written)]
            self._write_register(m)
        window.write(m)
        self._run_commands(m)
        self._keep_status(m)
        window.read(m, lambda found, exists: self._find_register(m, found, exists))
        self._read_share(m)
        self._check(m)
        return m

    # --- writes ---

    @property
    def _occupied(self) -> Value:
        """Something is in work, or asked for."""
        return self.busy | self._loading | self.host.valid

    def _write_register(self, m: Module) -> None:
        """A write takes one cycle; ``_written`` says whether it took effect."""
        value = self.registers.write_data
        held = self._held_by_software()
        of_image = {setting.name.upper() for setting in self._settings if setting.of_image}
        with m.Switch(self.registers.address):
            for register in self._map.registers:
                if not register.writable:
                    continue
                with m.Case(register.offset):
                    allowed = Signal(name=f"{register.name.lower()}_allowed")
                    locked = (self.settings.mode != Mode.OFF) | self._occupied if register.locked else Const(0)
                    fits = _fits(register, value)
                    m.d.comb += [self._written.eq(allowed & fits), self._refused.eq(~self._written)]
                    if register.name == "COMMAND":
                        m.d.comb += [
                            allowed.eq(self._may_begin(m, value)),
                            self._command.eq(Mux(allowed & fits, value, 0)),
                        ]
                        continue
                    if register.name == MODE.name.upper():
                        asks = value == Mode.LEARNED
                        m.d.comb += allowed.eq(~self._occupied & (~asks | (self._loaded & self.heads_loaded)))
                        m.d.comb += self.forget.eq(self._written)
                    elif register.name == "SHARE":
                        m.d.comb += allowed.eq(~locked)
                        m.d.comb += self.shares.valid.eq(self._written)
                    else:
                        m.d.comb += allowed.eq(~locked)
                    with m.If(self._written):
                        if register.name != "SHARE":
                            m.d.sync += [held[one.name].eq(part(value, one)) for one in register.fields]
                        if register.locked:
                            m.d.sync += self.unclear.eq(1)
                        if register.name in of_image:
                            m.d.comb += self.stale.eq(1)
                            m.d.sync += self._loaded.eq(0)

    def _may_begin(self, m: Module, value: Value) -> Value:
        """Whether the commands of this word can begin; of those of the host and LOAD there may be one."""
        host = [value[command.bit_length() - 1] for command in HOST_COMMANDS]
        load = value[Command.LOAD.bit_length() - 1]
        named = Cat(*(value[command.bit_length() - 1] for command in HOST_COMMANDS & ~Command.CLEAR)).any()
        clears = value[Command.CLEAR.bit_length() - 1]
        asked = Cat(*host, load)
        one = (asked & (asked - 1)) == 0
        exists = (self._host_expert < self.settings.experts) & (self._host_layer < self.settings.layers)
        m.d.comb += self._no_expert.eq(self.registers.write & named & ~exists)
        waits = asked.any() & (self.host.valid | self._loading)
        resting = ~self.busy
        return (
            one
            & ~waits
            & (~named | exists)
            & (~clears | resting)
            & (~load | (resting & (self.settings.mode == Mode.OFF)))
        )

    def _run_commands(self, m: Module) -> None:
        """Hand the host's commands over, and what begins at once."""
        commands = {command: self._command[command.bit_length() - 1] for command in Command}
        host = self.host
        m.d.comb += [
            self.load.eq(commands[Command.LOAD]),
            self.clear.eq(commands[Command.CLEAR]),
            self.clear_counters.eq(commands[Command.CLEAR_COUNTERS]),
            self.shares.layer.eq(self.settings.share_layer),
            self.shares.share.eq(self.registers.write_data),
        ]
        for command, code in _HOST_CODES.items():
            with m.If(commands[command]):
                m.d.sync += [
                    host.valid.eq(1),
                    host.payload.kind.eq(code),
                    host.payload.layer.eq(self._host_layer),
                    host.payload.expert.eq(self._host_expert),
                ]
        with m.If(host.valid & host.ready):
            m.d.sync += host.valid.eq(0)
            with m.If(host.payload.kind == HostRequest.CLEAR):
                m.d.sync += self.unclear.eq(0)
        with m.If(self.clear):
            m.d.sync += self.unclear.eq(1)
        with m.If(self.load):
            m.d.sync += [self._loading.eq(1), self._loaded.eq(0)]
        with m.If(self.load_done):
            m.d.sync += [self._loading.eq(0), self._loaded.eq(~self.load_failed)]

    def _keep_status(self, m: Module) -> None:
        """Sticky errors and interrupts."""
        strobes = Signal(len(EngineError))
        m.d.comb += [
            strobes.eq(self.errors),
            strobes[EngineError.CONFIGURATION.bit_length() - 1].eq(
                self.errors[EngineError.CONFIGURATION.bit_length() - 1] | self._refused
            ),
            strobes[EngineError.HOST_COMMAND.bit_length() - 1].eq(
                self.errors[EngineError.HOST_COMMAND.bit_length() - 1] | self._no_expert
            ),
        ]
        clear_errors = self._command[Command.CLEAR_ERRORS.bit_length() - 1]
        clear_interrupts = self._command[Command.CLEAR_INTERRUPTS.bit_length() - 1]
        causes = {
            Interrupt.ERROR: Const(0),
            Interrupt.LOADED: self.load_done,
            Interrupt.HOST: self.host.valid & self.host.ready,
        }
        shown = Signal(len(Interrupt))
        any_error = (self._error_bits & self._error_enable).any()
        m.d.sync += [
            self._error_bits.eq(Mux(clear_errors, 0, self._error_bits) | strobes),
            self._interrupts.eq(Mux(clear_interrupts, 0, self._interrupts) | Cat(causes[one] for one in Interrupt)),
            self.interrupt.eq((shown & self._interrupt_enable).any()),
        ]
        m.d.comb += shown.eq(self._interrupts | Mux(any_error, Interrupt.ERROR, 0))
        self._shown = shown

    # --- reads ---

    def _read_share(self, m: Module) -> None:
        """SHARE is read from a memory, a cycle after it is asked for."""
        bus = self.registers
        share, from_shares = self._share_memory(m), Signal()
        m.d.sync += from_shares.eq(bus.read & (bus.address == self._map.offset("SHARE")))
        with m.If(from_shares):
            m.d.comb += bus.read_data.eq(share)

    def _share_memory(self, m: Module) -> Value:
        """A copy of the shares, to be read: the one of SHARE_LAYER, a cycle after it is asked for."""
        depth = self.limits.layers_max
        m.submodules.shares = memory = Memory(shape=unsigned(len(self._share)), depth=depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.settings.share_layer),
            write.data.eq(self.registers.write_data),
            write.en.eq(self.shares.valid),
            read.addr.eq(self.settings.share_layer),
            read.en.eq(self.registers.read),
        ]
        return read.data

    def _find_register(self, m: Module, found: Signal, exists: Signal) -> None:
        """Take in what the register at the bus address holds."""
        held: dict[str, Value] = {
            **self._held_by_software(),
            "share": Const(0, len(self._share)),
            "busy": self.busy | self._loading,
            "loading": self._loading,
            "loaded": self._loaded & self.heads_loaded,
            "unclear": self.unclear,
            "host_pending": self.host.valid,
        }
        errors = {str(error.name).lower(): self._error_bits[nth] for nth, error in enumerate(EngineError)}
        causes = {str(cause.name).lower(): self._shown[nth] for nth, cause in enumerate(Interrupt)}
        own = {"ERRORS": errors, "INTERRUPT_STATUS": causes}
        find_register(
            m, self._map, self.registers.address, found, exists,
            held=lambda register: own.get(register.name, held),
            counters={counter.name: self.counters[counter.value] for counter in EngineCounter},
        )  # fmt: skip

    def _held_by_software(self) -> dict[str, Value]:
        """What fields that software writes are kept in, by name; of a wide setting, two parts of one signal."""
        held: dict[str, Value] = {
            "host_expert": self._host_expert,
            "host_layer": self._host_layer,
            "error_enable": self._error_enable,
            "interrupt_enable": self._interrupt_enable,
        }
        for setting in self._settings:
            signal = getattr(self.settings, setting.name)
            room = DATA_BITS - setting.lowest_bit
            held[setting.name] = signal[:room] if setting.wide else signal
            if setting.wide:
                held[f"{setting.name}_high"] = signal[room:]
        return held

    # --- the rest ---

    def _check(self, m: Module) -> None:
        """Settings are in range; those that are locked hold still; the host's commands and answers are in order."""
        bus, host = self.registers, self.host
        for setting in self._settings:
            value = getattr(self.settings, setting.name)
            always_within(m, value, setting.low, setting.high(self.limits), f"registers: {setting.name} out of range")
            if setting.locked:
                running = (self.settings.mode != Mode.OFF) | self._occupied
                always_kept(m, setting.name, value, where=running)
        always(m, implies(bus.done, bus.read | bus.write), "registers: an answer to no access")
        always_stable(m, "host", valid=host.valid, ready=host.ready, payload=host.payload.as_value())
        always(m, implies(self.load, ~self._occupied), "registers: an image is loaded while something is in work")
        always(m, implies(self.load_done, self._loading), "registers: an image is loaded that nobody asked for")
        always(m, implies(self.shares.valid, ~self._occupied), "registers: a share is set while something is in work")

    def _field(self, register: str, name: str) -> Field:
        return self._map.register(register).field(name)


def _reset(setting: Setting, limits: PrefetchEngineLimits) -> int:
    """A setting's value after reset."""
    return setting.high(limits) if setting.reset is None else setting.reset


def _fits(register: Register, value: Value) -> Value:
    """Whether a word may be written: no bits outside the fields, each in its range."""
    outside = ~sum(one.mask for one in register.fields) & (1 << DATA_BITS) - 1
    conditions = [(value & outside) == 0]
    for one in register.fields:
        bits = part(value, one)
        if one.minimum:
            conditions.append(bits >= one.minimum)
        if one.maximum is not None and one.maximum < (1 << one.width) - 1:
            conditions.append(bits <= one.maximum)
    return Cat(*conditions).all()
