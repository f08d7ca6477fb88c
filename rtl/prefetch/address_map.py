"""The prefetch engine's address map: every register of the register file, for whoever reads or writes one.

The circuit, the drivers, docs/prefetch-engine.md and the exported SystemRDL all read ``address_map``. What the tables
themselves define stays there and is read from there: defaults and codes of settings in
``predictor.st_moe.parameters``, counters and errors with their prose in ``predictor.st_moe.events``. This module needs
no Amaranth.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import (
    AGGREGATION_CODES,
    CONFIDENCE_MAX,
    REPLACEMENT_CODES,
    EngineConfiguration,
    EngineLimits,
)
from predictor.st_moe.rows import RowFormat
from rtl.bus.register_map import (
    DATA_BYTES,
    Access,
    AddressMap,
    Field,
    MemoryWindow,
    Register,
    bit,
    constants,
    counter_registers,
)

IDENTITY = 0x4653_5045  # "FSPE"
VERSION = 1
COUNTERS_OFFSET = 0x80
STATUS_ERROR_SHIFT = 8  # of the bits of ``EventError`` in STATUS
MINIMUM_WINDOW = 0x1000
NAME = "prefetch_engine"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A register that is one number or one choice, a field of ``EngineConfiguration``.

    Attributes:
        name: the field's, and that of the register file's ``settings``.
        offset: its address.
        low, high: smallest (0 or 1) and largest value; any other is refused. ``high`` follows from the engine's limits.
        codes: names of values, where it is a choice.
        locked: writable only while the engine is off and not busy; the others take effect at the next event.
        meaning: a line for the register table.
    """

    name: str
    offset: int
    low: Literal[0, 1] = 0
    high: Callable[[EngineLimits], int]
    codes: dict[str, int] | None = None
    locked: bool = False
    meaning: str

    def register(self, limits: EngineLimits) -> Register:
        """The register of an engine; after reset it holds the configuration's default, or else the largest value."""
        high = self.high(limits)
        configured = EngineConfiguration.model_fields[self.name]
        default = high if configured.is_required() else configured.default
        value = Field(
            name=self.name,
            meaning=self.meaning,
            access=Access.SETTING,
            width=high.bit_length(),
            reset=default if self.codes is None else self.codes[str(default)],
            minimum=self.low,
            maximum=high,
            codes=self.codes or {},
        )
        return Register(name=self.name.upper(), offset=self.offset, fields=(value,), locked=self.locked)


SETTINGS = (
    Setting(
        name="experts", offset=0x20, low=1, high=lambda x: x.experts_max, locked=True, meaning="experts of a layer"
    ),
    Setting(name="layers", offset=0x24, low=1, high=lambda x: x.layers_max, locked=True, meaning="MoE layers"),
    Setting(name="top_k", offset=0x28, low=1, high=lambda x: x.top_k_max, locked=True, meaning="experts of an event"),
    Setting(
        name="candidates",
        offset=0x2C,
        low=1,
        high=lambda x: x.candidates_max,
        locked=True,
        meaning="candidates in use of a table row",
    ),
    Setting(
        name="lookahead",
        offset=0x30,
        low=1,
        high=lambda x: x.layers_max - 1,
        locked=True,
        meaning="layers from the event's layer to the predicted one",
    ),
    Setting(
        name="threshold",
        offset=0x34,
        low=1,
        high=lambda x: (1 << x.score_bits) - 1,
        meaning="smallest score that is requested",
    ),
    Setting(
        name="ht_confidence",
        offset=0x38,
        high=lambda _: CONFIDENCE_MAX,
        meaning="what the history table adds to a score",
    ),
    Setting(
        name="aggregation",
        offset=0x3C,
        high=lambda _: max(AGGREGATION_CODES.values()),
        codes=AGGREGATION_CODES,
        meaning="how the confidences of several rows combine",
    ),
    Setting(
        name="replacement",
        offset=0x40,
        high=lambda _: max(REPLACEMENT_CODES.values()),
        codes=REPLACEMENT_CODES,
        meaning="order in which needed experts replace given-up candidates: the event's (ranked) or reversed",
    ),
    Setting(
        name="replacement_confidence",
        offset=0x44,
        high=lambda _: CONFIDENCE_MAX,
        meaning="confidence of a candidate that has just replaced another",
    ),
    Setting(
        name="issue_limit",
        offset=0x48,
        high=lambda x: x.experts_max,
        meaning="most experts issued for one token and layer",
    ),
)


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
        size = stride << limits.layer_bits + limits.expert_bits
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
        meaning="Prefetch engine: ST-MoE's tables over AXI4-Lite",
        registers=(
            *_fixed_registers(limits),
            *(setting.register(limits) for setting in SETTINGS),
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


def setting_writes(values: dict[str, int]) -> Iterator[tuple[int, int]]:
    """The (offset, value) writes of settings by name, in the order of the map."""
    for setting in SETTINGS:
        if setting.name in values:
            yield setting.offset, values[setting.name]


def configuration_writes(configuration: EngineConfiguration) -> Iterator[tuple[int, int]]:
    """The (offset, value) writes that set a configuration, the engine being off."""
    return setting_writes(configuration.register_values())


def _fixed_registers(limits: EngineLimits) -> tuple[Register, ...]:
    """All registers but settings and counters."""
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
