"""The prefetch engine's address map: every register of the register file, for whoever reads or writes one.

The circuit, the driver, docs/prefetch-engine-registers.md and the exported SystemRDL all read ``address_map``. Settings
are ``rtl.prefetch.setting_registers``'; counters and errors have their prose in ``predictor.engine``. This module needs
no Amaranth.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from predictor.engine.counters import EngineCounter
from predictor.engine.described import DescribedFlag
from predictor.engine.events import EngineError
from predictor.engine.limits import PrefetchEngineLimits
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
from rtl.prefetch.limits import table_limits
from rtl.prefetch.setting_registers import LINK, MODE, SHAPE, SHARE_LAYER, STAGER, TABLES, TEXT, Setting, lengths
from rtl.prefetch.tables.address_map import Window

IDENTITY = 0x4653_5045  # "FSPE"
VERSION = 3
NAME = "prefetch_engine"
MODE_OFFSET = 0x40
HOST_OFFSET = 0x60
SHAPE_OFFSET = 0x80
TABLES_OFFSET = 0xC0
STAGER_OFFSET = 0x100
LINK_OFFSET = 0x140
TEXT_OFFSET = 0x180
LENGTHS_OFFSET = 0x1F0
COUNTERS_OFFSET = 0x400


class Interrupt(DescribedFlag):
    """Why software is called, one bit each."""

    ERROR = 1, "an error that ERROR_ENABLE names is set"
    LOADED = 2, "COMMAND.load is over, well or not (sticky)"
    HOST = 4, "the last command of the host is done (sticky)"


class Command(DescribedFlag):
    """What happens once where its bit is written as 1; of those up to ``CLEAR`` one at a time."""

    PRELOAD = 1 << 0, "the expert of HOST_EXPERT is at its place: resident without a transfer"
    FIX = 1 << 1, "the expert of HOST_EXPERT never gives way"
    UNFIX = 1 << 2, "it may give way again"
    CLEAR = 1 << 3, "the stager forgets everything, steps count from 1, every slot begins anew; not while busy"
    LOAD = 1 << 4, "the image at IMAGE_BASE is loaded; in mode off, not while busy"
    CLEAR_COUNTERS = 1 << 5, "all counters become 0"
    CLEAR_ERRORS = 1 << 6, "the sticky errors become 0"
    CLEAR_INTERRUPTS = 1 << 7, "the sticky interrupts become 0"


HOST_COMMANDS = Command.PRELOAD | Command.FIX | Command.UNFIX | Command.CLEAR
"""Those that the stager is told."""


@lru_cache(maxsize=16)
def address_map(limits: PrefetchEngineLimits) -> AddressMap:
    """Everything that the bus of an engine reaches."""
    tables = table_limits(limits)
    window = Window.of(tables)
    counters = [
        register
        for counter in EngineCounter
        for register in counter_registers(counter.name.lower(), counter.meaning, counter_offset(counter))
    ]
    return AddressMap(
        name=NAME,
        meaning="Prefetch engine: predictors, stager and transfers of experts, over AXI4-Lite",
        registers=(
            *_constants(limits, window),
            *_control(limits),
            *_in_a_row(SHAPE, SHAPE_OFFSET, limits),
            *_in_a_row(TABLES, TABLES_OFFSET, limits),
            *_in_a_row(STAGER, STAGER_OFFSET, limits),
            *_in_a_row(LINK, LINK_OFFSET, limits),
            *_in_a_row(TEXT, TEXT_OFFSET, limits),
            *_in_a_row(lengths(limits), LENGTHS_OFFSET, limits),
            *counters,
        ),
        memory=MemoryWindow(
            name="TABLE",
            meaning="the cross-layer correlation table of ST-MoE",
            offset=window.base,
            stride=window.stride,
            rows=tables.rows,
            words=RowFormat(tables).words,
        ),
    )


def address_bits(limits: PrefetchEngineLimits) -> int:
    """Bits of the bus address."""
    return Window.of(table_limits(limits)).address_bits


def counter_offset(counter: EngineCounter) -> int:
    """Address of a counter's low word; the high one follows."""
    return COUNTERS_OFFSET + 2 * DATA_BYTES * counter


def _in_a_row(settings: Sequence[Setting], offset: int, limits: PrefetchEngineLimits) -> Iterator[Register]:
    """Registers of settings, one behind the other."""
    for setting in settings:
        yield from setting.registers(limits, offset)
        offset += DATA_BYTES * setting.words


def _flags(kinds: type[DescribedFlag], access: Access, *, sticky: bool = False) -> tuple[Field, ...]:
    note = " (sticky)" if sticky else ""
    return tuple(
        bit(kind.name.lower(), kind.bit_length() - 1, kind.meaning + note, access)  # type: ignore[union-attr]
        for kind in kinds
    )


def _mask(name: str, meaning: str, width: int, *, reset: int) -> Field:
    return Field(name=name, meaning=meaning, access=Access.SETTING, width=width, reset=reset)


def _constants(limits: PrefetchEngineLimits, window: Window) -> tuple[Register, ...]:
    """What the engine says of itself."""
    net, link = limits.net, limits.link
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
            "SEQUENCES",
            0x0C,
            ("slots_max", 0, 8, "most sequences that run at once", limits.slots_max),
            ("top_k_max", 8, 8, "most experts of a gate", limits.top_k_max),
            ("domains_max", 16, 8, "most banks of ST-MoE's tables", limits.domains_max),
            ("candidates_max", 24, 8, "candidates of their rows", limits.candidates_max),
        ),
        constants(
            "NET",
            0x10,
            ("lanes", 0, 16, "lanes of the net", net.lanes),
            ("hidden_max", 16, 16, "widest sums of a head", net.hidden_max),
        ),
        constants(
            "HEADS",
            0x14,
            (
                "questions_max",
                0,
                8,
                "most answers for an expert",
                max(net.next_layer.questions, net.next_use.questions),
            ),
            ("prefetched_max", 8, 8, "most experts of a prediction", net.prefetched_max),
        ),
        constants(
            "PLACES",
            0x18,
            ("places", 0, 16, "experts that the staging buffer holds", limits.places),
            ("spare", 16, 16, "spare places besides", limits.spare),
        ),
        constants(
            "STAGER",
            0x1C,
            ("queue_depth", 0, 16, "transfers that wait", limits.queue_depth),
            ("stager_lanes", 16, 16, "entries of the directory looked at in a cycle", limits.stager_lanes),
        ),
        constants(
            "STAGER_BITS",
            0x20,
            ("value_bits", 0, 8, "bits of a value", limits.value_bits),
            ("scale_bits", 8, 8, "bits of a scale and of the price", limits.scale_bits),
            ("stamp_bits", 16, 8, "bits of the counter of uses", limits.stamp_bits),
            ("deadline_bits", 24, 8, "bits of a deadline", limits.deadline_bits),
        ),
        constants(
            "LINK_LIMITS",
            0x24,
            ("address_bits", 0, 8, "bits of an address", link.address_bits),
            ("outstanding", 8, 12, "most bursts under way", link.outstanding),
            ("burst_beats", 20, 12, "beats of the longest burst", link.burst_beats),
        ),
        constants(
            "WINDOW",
            0x28,
            ("log2_offset", 0, 8, "log2 of the offset of TABLE", window.base.bit_length() - 1),
            ("log2_stride", 8, 8, "log2 of the bytes from row to row", window.stride.bit_length() - 1),
            ("row_words", 16, 8, "words of a row", RowFormat(table_limits(limits)).words),
            ("counters", 24, 8, "number of counters", len(EngineCounter)),
        ),
    )


def _control(limits: PrefetchEngineLimits) -> Iterator[Register]:
    """Mode, commands, status, errors, interrupts; the host's commands and shares."""
    yield from MODE.registers(limits, MODE_OFFSET)
    yield Register(name="COMMAND", offset=MODE_OFFSET + 0x04, fields=_flags(Command, Access.COMMAND))
    yield Register(
        name="STATUS",
        offset=MODE_OFFSET + 0x08,
        fields=(
            bit("busy", 0, "events, predictions, transfers or a load are in work", Access.STATE),
            bit("loading", 1, "the image is being loaded", Access.STATE),
            bit("loaded", 2, "an image is loaded, for these LAYERS, EXPERTS and DISTANCE", Access.STATE),
            bit("unclear", 3, "no event is taken before COMMAND.clear", Access.STATE),
            bit("host_pending", 4, "a command of the host waits for the stager; no other is accepted", Access.STATE),
        ),
    )
    yield Register(name="ERRORS", offset=MODE_OFFSET + 0x0C, fields=_flags(EngineError, Access.STATE, sticky=True))
    errors = _mask("error_enable", "errors that interrupt, as in ERRORS", len(EngineError), reset=_all(EngineError))
    yield Register(name="ERROR_ENABLE", offset=MODE_OFFSET + 0x10, fields=(errors,))
    yield Register(name="INTERRUPT_STATUS", offset=MODE_OFFSET + 0x14, fields=_flags(Interrupt, Access.STATE))
    causes = _mask("interrupt_enable", "what interrupts, as in INTERRUPT_STATUS", len(Interrupt), reset=0)
    yield Register(name="INTERRUPT_ENABLE", offset=MODE_OFFSET + 0x18, fields=(causes,))
    yield Register(
        name="HOST_EXPERT",
        offset=HOST_OFFSET,
        fields=(
            Field(
                name="host_expert",
                width=(limits.experts_max - 1).bit_length(),
                meaning="expert of the next command",
                access=Access.SETTING,
            ),
            Field(
                name="host_layer",
                lowest_bit=16,
                width=(limits.layers_max - 1).bit_length(),
                meaning="its layer",
                access=Access.SETTING,
            ),
        ),
    )
    yield from SHARE_LAYER.registers(limits, HOST_OFFSET + 0x04)
    yield Register(
        name="SHARE",
        offset=HOST_OFFSET + 0x08,
        fields=(
            Field(
                name="share",
                width=max(1, limits.places.bit_length()),
                maximum=limits.places,
                meaning="places that the layer SHARE_LAYER, or the group of all, may keep",
                access=Access.SETTING,
            ),
        ),
        locked=True,
    )


def _all(kinds: type[DescribedFlag]) -> int:
    """All bits set."""
    return (1 << len(kinds)) - 1
