"""The address map of the tables alone: every register of their register file, for whoever reads or writes one.

The circuit, the drivers, docs/prefetch-tables.md and the exported SystemRDL all read ``address_map``. Settings are
``rtl.prefetch.tables.settings``'; counters and errors have their prose in ``predictor.st_moe.events``. This module
needs no Amaranth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.rows import RowFormat
from rtl.bus.register_map import (
    DATA_BYTES,
    Access,
    AddressMap,
    MemoryWindow,
    Register,
    bit,
    constants,
    counter_registers,
)
from rtl.prefetch.tables.settings import SETTINGS

IDENTITY = 0x4653_5045  # "FSPE"
VERSION = 2
SETTINGS_OFFSET = 0x20
COUNTERS_OFFSET = 0x80
STATUS_ERROR_SHIFT = 8  # of the bits of ``EventError`` in STATUS
MINIMUM_WINDOW = 0x1000
NAME = "table_engine"


@dataclass(frozen=True)
class Window:
    """Where the table memory appears: row ``address`` at ``base + address * stride``, its words low first.

    Attributes:
        base: first byte, a power of two.
        stride: bytes from row to row, a power of two.
    """

    base: int
    stride: int

    @classmethod
    def of(cls, limits: EngineLimits) -> "Window":
        """The window of an engine."""
        stride = DATA_BYTES * _power_of_two(RowFormat(limits).words)
        size = stride << RowFormat(limits).address_bits
        return cls(base=max(MINIMUM_WINDOW, size), stride=stride)

    @property
    def address_bits(self) -> int:
        """Bits of the bus address: the highest selects the window."""
        return self.base.bit_length()

    def offset(self, address: int, word: int) -> int:
        """Address on the bus of a row's word."""
        return self.base + address * self.stride + DATA_BYTES * word


@lru_cache(maxsize=64)
def address_map(limits: EngineLimits) -> AddressMap:
    """Everything that the bus of an engine reaches."""
    window, rows = Window.of(limits), RowFormat(limits)
    counters = [
        register
        for counter in EngineCounter
        for register in counter_registers(counter.name.lower(), counter.meaning, counter_offset(counter))
    ]
    return AddressMap(
        name=NAME,
        meaning="The engine of ST-MoE's tables, by itself, over AXI4-Lite",
        registers=(
            *_fixed_registers(limits),
            *_settings(limits),
            constants(
                "SEQUENCES",
                SETTINGS_OFFSET + DATA_BYTES * len(SETTINGS),
                ("slots_max", 0, 8, "most sequences that run at once", limits.slots_max),
                ("domains_max", 8, 8, "most table banks", limits.domains_max),
            ),
            *counters,
        ),
        memory=MemoryWindow(
            name="TABLE",
            meaning="the cross-layer correlation table",
            offset=window.base,
            stride=window.stride,
            rows=limits.rows,
            words=rows.words,
        ),
    )


def counter_offset(counter: EngineCounter) -> int:
    """Address of a counter's low word; the high one follows."""
    return COUNTERS_OFFSET + 2 * DATA_BYTES * counter


def setting_offset(name: str) -> int:
    """Address of the setting of that name.

    Raises:
        KeyError: there is none.
    """
    return {setting.name: SETTINGS_OFFSET + DATA_BYTES * nth for nth, setting in enumerate(SETTINGS)}[name]


def setting_writes(values: dict[str, int]) -> Iterator[tuple[int, int]]:
    """The (offset, value) writes of settings by name, in the order of the map."""
    for setting in SETTINGS:
        if setting.name in values:
            yield setting_offset(setting.name), values[setting.name]


def configuration_writes(configuration: EngineConfiguration) -> Iterator[tuple[int, int]]:
    """The (offset, value) writes that set a configuration, the engine being off."""
    return setting_writes(configuration.register_values())


def _settings(limits: EngineLimits) -> Iterator[Register]:
    for setting in SETTINGS:
        offset = setting_offset(setting.name)
        yield Register(name=setting.name.upper(), offset=offset, fields=(setting.field(limits),), locked=setting.locked)


def _fixed_registers(limits: EngineLimits) -> tuple[Register, ...]:
    """Those that every engine has, but for the numbers in them."""
    window = Window.of(limits)
    status = [bit("busy", 0, "an event is in work", Access.STATE)]
    status += [
        bit(
            f"error_{error.name}".lower(),
            STATUS_ERROR_SHIFT + error.bit_length() - 1,
            f"{error.meaning} (sticky)",
            Access.STATE,
        )
        for error in EventError
    ]
    status += [
        bit(
            "error_configuration",
            STATUS_ERROR_SHIFT + len(EventError),
            "the write of a setting was refused (sticky)",
            Access.STATE,
        )
    ]
    return (
        constants("IDENTITY", 0x00, ("identity", 0, 32, '"FSPE" in ASCII', IDENTITY)),
        constants("VERSION", 0x04, ("version", 0, 32, "version of this map", VERSION)),
        constants(
            "LIMITS",
            0x08,
            ("experts_max", 0, 16, "most experts of a layer", limits.experts_max),
            ("layers_max", 16, 16, "most MoE layers", limits.layers_max),
        ),
        constants(
            "CAPABILITY",
            0x0C,
            ("top_k_max", 0, 8, "most experts of an event", limits.top_k_max),
            ("candidates_max", 8, 8, "candidates of a table row", limits.candidates_max),
            ("row_words", 16, 8, "words of a table row", RowFormat(limits).words),
            ("counters", 24, 8, "number of counters", len(EngineCounter)),
        ),
        constants(
            "WINDOW",
            0x10,
            ("log2_offset", 0, 8, "log2 of the offset of TABLE", window.base.bit_length() - 1),
            ("log2_stride", 8, 8, "log2 of the bytes from row to row", window.stride.bit_length() - 1),
        ),
        Register(
            name="CONTROL",
            offset=0x14,
            fields=(bit("enable", 0, "1 on, 0 off (events are discarded, the history is forgotten)", Access.SETTING),),
        ),
        Register(
            name="COMMAND",
            offset=0x18,
            fields=(
                bit("clear_counters", 0, "all counters become 0", Access.COMMAND),
                bit("clear_errors", 1, "the sticky errors become 0", Access.COMMAND),
            ),
        ),
        Register(name="STATUS", offset=0x1C, fields=tuple(status)),
    )


def _power_of_two(value: int) -> int:
    """The smallest power of two that is at least ``value``."""
    return 1 << (value - 1).bit_length()
