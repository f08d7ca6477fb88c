"""The prefetch engine's address map; the register file, drivers and docs/prefetch-engine.md take it from here.

Byte offsets; all registers are 32-bit words. This module needs no Amaranth.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Literal

from predictor.st_moe.events import EngineCounter
from predictor.st_moe.parameters import CONFIDENCE_MAX, EngineConfiguration, EngineLimits
from predictor.st_moe.rows import RowFormat

IDENTITY = 0x4653_5045  # "FSPE"
VERSION = 1
DATA_BITS = 32
COUNTER_BITS = 48
MINIMUM_WINDOW = 0x1000


class Offset(IntEnum):
    """Registers that are not settings, by name."""

    IDENTITY = 0x00
    VERSION = 0x04
    LIMITS = 0x08
    CAPABILITY = 0x0C
    WINDOW = 0x10
    CONTROL = 0x14
    COMMAND = 0x18
    STATUS = 0x1C
    COUNTERS = 0x80


class Control(IntFlag):
    """Bits of CONTROL."""

    ENABLE = 1


class Command(IntFlag):
    """Bits of COMMAND; what is written as 1 happens once."""

    CLEAR_COUNTERS = 1
    CLEAR_ERRORS = 2


class Status(IntFlag):
    """Bits of STATUS; all but BUSY are sticky. Bits 8 to 10 are those of ``EventError``."""

    BUSY = 1
    ERROR_LAYER = 1 << 8
    ERROR_EXPERT = 1 << 9
    ERROR_DUPLICATE = 1 << 10
    ERROR_CONFIGURATION = 1 << 11


STATUS_ERROR_SHIFT = 8


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A register that holds a value of a range.

    Attributes:
        name: field of the register file's ``settings``.
        offset: its address.
        low, high: smallest (0 or 1) and largest value; any other is refused. ``high`` follows from the engine's limits.
        reset: value after reset; ``None``: ``high``.
        locked: writable only while the engine is off and not busy; the others take effect at the next event.
        meaning: a line for the register table.
    """

    name: str
    offset: int
    low: Literal[0, 1] = 0
    high: Callable[[EngineLimits], int]
    reset: int | None = None
    locked: bool = False
    meaning: str

    def reset_value(self, limits: EngineLimits) -> int:
        """Value after reset."""
        return self.high(limits) if self.reset is None else self.reset


AGGREGATIONS = {"max": 0, "sum": 1}
REPLACEMENTS = {"none": 0, "ranked": 1, "reversed": 2}

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
        meaning="slots in use of a table row",
    ),
    Setting(
        name="lookahead",
        offset=0x30,
        low=1,
        high=lambda x: x.layers_max - 1,
        reset=1,
        locked=True,
        meaning="layers from the event's to the predicted one",
    ),
    Setting(
        name="threshold",
        offset=0x34,
        low=1,
        high=lambda x: (1 << x.score_bits) - 1,
        reset=2,
        meaning="smallest score that is requested",
    ),
    Setting(
        name="ht_confidence",
        offset=0x38,
        high=lambda _: CONFIDENCE_MAX,
        reset=1,
        meaning="what the history table adds to a score",
    ),
    Setting(
        name="aggregation", offset=0x3C, high=lambda _: 1, reset=0, meaning="of several rows' confidences: 0 max, 1 sum"
    ),
    Setting(
        name="replacement",
        offset=0x40,
        high=lambda _: 2,
        reset=1,
        meaning="of given-up candidates: 0 none, 1 in the event's order, 2 in reverse",
    ),
    Setting(
        name="replacement_confidence",
        offset=0x44,
        high=lambda _: CONFIDENCE_MAX,
        reset=2,
        meaning="of a candidate that replaced another",
    ),
    Setting(name="issue_limit", offset=0x48, high=lambda x: x.experts_max, meaning="most requests of an event"),
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
        stride = 4 * _power_of_two(RowFormat(limits).words)
        size = stride << limits.layer_bits + limits.expert_bits
        return cls(base=max(MINIMUM_WINDOW, size), stride=stride)

    @property
    def address_bits(self) -> int:
        """Bits of the bus address: the highest selects the window."""
        return self.base.bit_length()

    def offset(self, address: int, word: int) -> int:
        """Address on the bus of a row's word."""
        return self.base + address * self.stride + 4 * word


def counter_offset(counter: EngineCounter) -> int:
    """Address of a counter's low word; the high one follows."""
    return Offset.COUNTERS + 8 * counter


def limits_word(limits: EngineLimits) -> int:
    """What LIMITS reads."""
    return limits.experts_max | limits.layers_max << 16


def capability_word(limits: EngineLimits) -> int:
    """What CAPABILITY reads."""
    return limits.top_k_max | limits.candidates_max << 8 | RowFormat(limits).words << 16 | len(EngineCounter) << 24


def window_word(limits: EngineLimits) -> int:
    """What WINDOW reads."""
    window = Window.of(limits)
    return (window.base.bit_length() - 1) | (window.stride.bit_length() - 1) << 8


def configuration_writes(configuration: EngineConfiguration) -> Iterator[tuple[int, int]]:
    """The (offset, value) writes that set a configuration, the engine being off."""
    values = configuration.model_dump()
    values["aggregation"] = AGGREGATIONS[configuration.aggregation]
    values["replacement"] = REPLACEMENTS[configuration.replacement]
    for setting in SETTINGS:
        yield setting.offset, values[setting.name]


def register_table(limits: EngineLimits) -> str:
    """The map of an engine as a Markdown table."""
    window = Window.of(limits)
    rows = [
        (Offset.IDENTITY, "IDENTITY", "R", f'`{IDENTITY:#x}`, "FSPE"'),
        (Offset.VERSION, "VERSION", "R", f"{VERSION}"),
        (Offset.LIMITS, "LIMITS", "R", "15:0 experts_max, 31:16 layers_max"),
        (
            Offset.CAPABILITY,
            "CAPABILITY",
            "R",
            "7:0 top_k_max, 15:8 candidates_max, 23:16 words of a row, 31:24 counters",
        ),
        (Offset.WINDOW, "WINDOW", "R", "7:0 log2 of the table window's offset, 15:8 log2 of a row's stride, in bytes"),
        (Offset.CONTROL, "CONTROL", "RW", "0 enable: 0 off (events are discarded, the history is forgotten), 1 tables"),
        (Offset.COMMAND, "COMMAND", "W", "0 clear the counters, 1 clear the errors"),
        (
            Offset.STATUS,
            "STATUS",
            "R",
            "0 busy; sticky errors: 8 layer, 9 expert, 10 duplicate expert, 11 refused configuration write",
        ),
        *(
            (
                setting.offset,
                setting.name.upper(),
                "RW, when off" if setting.locked else "RW",
                f"{setting.meaning}; {setting.low}…{setting.high(limits)}, reset {setting.reset_value(limits)}",
            )
            for setting in SETTINGS
        ),
        *((counter_offset(counter), counter.name, "R", f"counter: {_COUNTED[counter]}") for counter in EngineCounter),
        (window.base, "TABLE", "RW", f"{limits.rows} rows, {window.stride} bytes apart"),
    ]
    lines = ["| offset | register | access | content |", "|---|---|---|---|"]
    lines += [f"| `{offset:#06x}` | `{name}` | {access} | {content} |" for offset, name, access, content in rows]
    return "\n".join(lines)


_COUNTED = {
    EngineCounter.EVENTS: "events accepted while on, rejected ones included",
    EngineCounter.REJECTED: "of these, rejected",
    EngineCounter.DISCARDED: "events accepted while off",
    EngineCounter.PREDICTIONS: "events that predicted a target layer",
    EngineCounter.REQUESTS: "requests handed over",
    EngineCounter.CANDIDATE_HITS: "verified candidates that were needed",
    EngineCounter.CANDIDATE_MISSES: "verified candidates that were not",
    EngineCounter.UPDATES: "table rows written back",
    EngineCounter.REPLACEMENTS: "candidates replaced",
    EngineCounter.BUSY_CYCLES: "cycles in which no event could be accepted",
    EngineCounter.STALL_CYCLES: "cycles in which a request waited for its consumer",
}


def _power_of_two(value: int) -> int:
    """The smallest power of two that is at least ``value``."""
    return 1 << (value - 1).bit_length()
