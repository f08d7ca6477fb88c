"""The prefetch engine's settings: a register (of an address: two) and a signal each.

The settings' values, defaults and rules are those of ``predictor.engine.settings.PrefetchEngineSettings``, of the
tables' ``EngineConfiguration`` (``table_…``) and of the text's ``TextSettings`` (``text_…``); ``rtl.prefetch.driver``
writes one from the other. This module needs no Amaranth.
"""

from collections.abc import Callable
from dataclasses import dataclass

from catalog.config import StrictModel
from predictor.engine.events import ROW_BITS
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import LinkSettings, Missing, Mode, PrefetchEngineSettings
from predictor.row_network.integers import CERTAIN
from predictor.st_moe.parameters import (
    AGGREGATION_CODES,
    CONFIDENCE_MAX,
    REPLACEMENT_CODES,
    EngineConfiguration,
    TablePolicy,
)
from rtl.bus.register_map import DATA_BITS, DATA_BYTES, Access, Field, Register
from rtl.prefetch.limits import named_experts, table_limits, text_limits
from staging.stager.limits import StagerSettings
from staging.transfer.limits import LENGTH_BITS

BEAT_SHIFT = BEAT_BYTES.bit_length() - 1
MOST_TRIES = 15
MOST_SILENCE = (1 << 20) - 1
MOST_LOG2 = 31

Limits = PrefetchEngineLimits


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What software sets.

    Attributes:
        name: of the signal; in upper case of the register.
        high: largest value of an engine's.
        low: smallest; of a wide one 0, as its words are written one by one.
        reset: value after reset; ``None``: the largest.
        codes: names of values, where it is a choice.
        locked: writable only in mode OFF while nothing is busy; a write asks for a COMMAND.clear.
        of_image: what is loaded holds for this value alone.
        wide: it takes two registers, the high word in the second.
        beats: it counts bytes in whole beats: the register's lowest bits are none of its.
        meaning: a line for the register table.
    """

    name: str
    high: Callable[[Limits], int]
    low: int = 0
    reset: int | None = 0
    codes: dict[str, int] | None = None
    locked: bool = True
    of_image: bool = False
    wide: bool = False
    beats: bool = False
    meaning: str

    def __post_init__(self) -> None:
        """Raise ValueError where a word alone could not be refused."""
        if self.wide and self.low:
            raise ValueError(f"{self.name}: a wide setting cannot be kept above 0")

    @property
    def words(self) -> int:
        """Registers that it takes."""
        return 2 if self.wide else 1

    @property
    def lowest_bit(self) -> int:
        """Where it begins in its register."""
        return BEAT_SHIFT if self.beats else 0

    def width(self, limits: Limits) -> int:
        """Bits of the signal."""
        return max(1, self.high(limits).bit_length())

    def registers(self, limits: Limits, offset: int) -> tuple[Register, ...]:
        """Its registers, from ``offset`` on."""
        high, width = self.high(limits), self.width(limits)
        reset = high if self.reset is None else self.reset
        name, room = self.name.upper(), DATA_BITS - self.lowest_bit
        if not self.wide:
            value = Field(
                name=self.name,
                meaning=self.meaning,
                access=Access.SETTING,
                lowest_bit=self.lowest_bit,
                width=width,
                reset=reset,
                minimum=self.low,
                maximum=high,
                codes=self.codes or {},
            )
            return (Register(name=name, offset=offset, fields=(value,), locked=self.locked),)
        low_word = Field(
            name=self.name,
            meaning=f"{self.meaning}: the low word",
            access=Access.SETTING,
            lowest_bit=self.lowest_bit,
            width=min(width, room),
            reset=reset & (1 << room) - 1,
        )
        high_word = Field(
            name=f"{self.name}_high",
            meaning="its high word",
            access=Access.SETTING,
            width=max(1, width - room),
            reset=reset >> room,
            maximum=high >> room,
        )
        return (
            Register(name=name, offset=offset, fields=(low_word,), locked=self.locked),
            Register(name=f"{name}_HIGH", offset=offset + DATA_BYTES, fields=(high_word,), locked=self.locked),
        )


def _shape(name: str, meaning: str, high: Callable[[Limits], int], *, low: int = 1, of_image: bool = True) -> Setting:
    return Setting(name=name, low=low, high=high, reset=None, of_image=of_image, meaning=meaning)


def _flag(name: str, meaning: str, *, reset: bool, locked: bool = True) -> Setting:
    return Setting(name=name, high=lambda _: 1, reset=int(reset), locked=locked, meaning=meaning)


def _scale(name: str, meaning: str) -> Setting:
    return Setting(
        name=f"stager_{name}",
        high=lambda x: (1 << x.scale_bits) - 1,
        reset=_default(StagerSettings, name),
        meaning=meaning,
    )


def _address(name: str, meaning: str, *, beats: bool = True) -> Setting:
    shift = BEAT_SHIFT if beats else 0
    return Setting(
        name=name, high=lambda x: (1 << x.link.address_bits) - 1 >> shift, wide=True, beats=beats, meaning=meaning
    )


def _length(name: str, meaning: str, default: int) -> Setting:
    return Setting(name=name, low=1, high=lambda _: (1 << LENGTH_BITS) - 1, reset=default, meaning=meaning)


def _table(
    name: str, meaning: str, high: Callable[[Limits], int], *, low: int = 0, codes: dict[str, int] | None = None
) -> Setting:
    reset: int | None = None
    if name in TablePolicy.model_fields:
        reset = _default(TablePolicy, name) if codes is None else codes[TablePolicy.model_fields[name].default]
    return Setting(name=f"table_{name}", low=low, high=high, reset=reset, codes=codes, meaning=meaning)


def _text(name: str, meaning: str, high: Callable[[Limits], int], *, low: int = 0, reset: int = 0) -> Setting:
    return Setting(name=f"text_{name}", low=low, high=high, reset=reset, meaning=meaning)


def _default(model: type[StrictModel], name: str) -> int:
    """A field's default in its model."""
    return int(model.model_fields[name].default)


MODE = Setting(
    name="mode",
    high=lambda _: max(Mode),
    codes={mode.name.lower(): int(mode) for mode in Mode},
    locked=False,
    meaning="who predicts; refused while busy, and learned while no image is loaded; each slot then begins anew",
)
SHARE_LAYER = Setting(
    name="share_layer",
    high=lambda x: x.layers_max - 1,
    locked=False,
    meaning="the layer whose share SHARE is; of the group of all layers, layer 0",
)

SHAPE = (
    _shape("layers", "MoE layers", lambda x: x.layers_max, low=2),
    _shape("experts", "experts of a layer", lambda x: x.experts_max, low=2),
    _shape("top_k", "experts of a gate", lambda x: x.top_k_max, of_image=False),
    Setting(name="domains", low=1, high=lambda x: x.domains_max, reset=1, meaning="banks of ST-MoE's tables in use"),
    Setting(
        name="identity_rows",
        high=lambda _: (1 << ROW_BITS) - 1,
        meaning="rows of token identity that there are, 0: none",
    ),
    _flag("next_layer", "1: the next-layer head is asked in mode learned", reset=True),
    _flag("next_use", "1: the next-use head is asked in mode learned", reset=True),
    Setting(
        name="distance",
        low=1,
        high=lambda x: x.layers_max - 1,
        reset=_default(PrefetchEngineSettings, "distance"),
        of_image=True,
        meaning="layers from a known gate to the predicted one",
    ),
    Setting(
        name="prefetched",
        low=1,
        high=lambda x: x.net.prefetched_max,
        reset=None,
        meaning="most experts of a prediction of the next-layer head",
    ),
    Setting(
        name="threshold",
        low=1,
        high=lambda _: CERTAIN,
        reset=_default(PrefetchEngineSettings, "threshold"),
        meaning="smallest chance that it predicts",
    ),
    Setting(
        name="missing",
        high=lambda _: max(Missing),
        codes={choice.name.lower(): int(choice) for choice in Missing},
        meaning="what becomes of a chosen expert that is not resident",
    ),
)
TABLES = (
    _table("candidates", "tables: candidates in use of a row", lambda x: x.candidates_max, low=1),
    _table(
        "threshold",
        "tables: smallest score that is requested",
        lambda x: (1 << table_limits(x).score_bits) - 1,
        low=1,
    ),
    _table("ht_confidence", "tables: what the history adds to a score", lambda _: CONFIDENCE_MAX),
    _table(
        "aggregation",
        "tables: how the confidences of several rows combine",
        lambda _: max(AGGREGATION_CODES.values()),
        codes=AGGREGATION_CODES,
    ),
    _table(
        "replacement",
        "tables: order in which needed experts replace given-up candidates",
        lambda _: max(REPLACEMENT_CODES.values()),
        codes=REPLACEMENT_CODES,
    ),
    _table(
        "replacement_confidence",
        "tables: confidence of a candidate that has just replaced another",
        lambda _: CONFIDENCE_MAX,
    ),
    _table("issue_limit", "tables: most experts requested for one token and layer", named_experts),
)
STAGER = (
    _flag("stager_by_layer", "1: every layer has a share of its own, 0: all have one together", reset=False),
    Setting(name="stager_spare", high=lambda x: x.spare, reset=None, meaning="spare places in use"),
    _scale("value_scale", "time that a unit of a value is worth"),
    _scale("chance_scale", "time that a unit of a chance is worth"),
    _scale("price", "time that moving an expert costs others"),
    Setting(
        name="stager_horizon",
        high=lambda x: (1 << x.deadline_bits) - 1,
        reset=None,
        wide=True,
        meaning="how far beyond the latest gate a prediction's deadline may lie; all ones: as far as it likes",
    ),
    _flag("stager_by_recency", "1: of equal worth the least recently used gives way", reset=True),
    _flag(
        "stager_background", "1: absent experts of most worth are loaded when nothing waits", reset=False, locked=False
    ),
    Setting(
        name="stager_retries",
        high=lambda _: MOST_TRIES,
        reset=_default(StagerSettings, "retries"),
        meaning="failed transfers after which a demand still waits again",
    ),
)
LINK = (
    _length("link_expert_bytes", "bytes of an expert", _default(LinkSettings, "expert_bytes")),
    _length("link_expert_stride", "bytes from expert to expert of far memory", _default(LinkSettings, "expert_stride")),
    _length(
        "link_staging_stride",
        "bytes from place to place of the staging buffer",
        _default(LinkSettings, "staging_stride"),
    ),
    _address("link_expert_base", "where expert 0 of layer 0 lies in far memory", beats=False),
    _address("link_staging_base", "where place 0 of the staging buffer lies", beats=False),
    Setting(
        name="link_chunk_log2",
        low=BEAT_SHIFT,
        high=lambda _: MOST_LOG2,
        reset=_default(LinkSettings, "chunk_bytes").bit_length() - 1,
        meaning="log2 of the bytes at whose multiples a transfer may be stopped",
    ),
    Setting(
        name="link_outstanding",
        low=1,
        high=lambda x: x.link.outstanding,
        reset=None,
        locked=False,
        meaning="read bursts under way, at most",
    ),
    Setting(
        name="link_share",
        low=1,
        high=lambda _: _default(LinkSettings, "share"),
        reset=None,
        locked=False,
        meaning="beats that may be asked for in 256 cycles",
    ),
    Setting(
        name="link_silence",
        low=1,
        high=lambda _: MOST_SILENCE,
        reset=_default(LinkSettings, "silence"),
        meaning="cycles without a beat after which what was asked for is given up",
    ),
)
TEXT = (
    _address("text_base", "memory of the text: where slot 0's lies"),
    _address("text_stride", "memory of the text: from slot to slot"),
    _address("text_identity_base", "rows of token identity: where row 0 lies"),
    _address("text_identity_stride", "rows of token identity: from row to row"),
    _address("image_base", "where the image lies that COMMAND.load reads"),
    _text("tables", "text: n-gram tables", lambda x: text_limits(x).tables_max),
    _text("by_routing", "text: 1: layer 0's choice stands for identity", lambda _: 1),
    _text("log2_entries", "text: log2 of the entries of an n-gram table", lambda _: MOST_LOG2),
    _text("log2_log", "text: log2 of the tokens of the log", lambda _: MOST_LOG2),
    _text("at_match", "text: 1: the token that a table names is read", lambda _: 1),
    _text("window", "text: 1: a window after the longest match is read", lambda _: 1),
    _text("window_first", "text: the window's first token after the match", lambda x: text_limits(x).reach_max),
    _text("window_last", "text: the window's last", lambda x: text_limits(x).reach_max),
    _text("wide_ids", "text: 1: an expert in the log has two bytes", lambda _: 1),
    _text("record_beats", "text: beats of a record of the log", lambda x: text_limits(x).record_beats_max),
    _text("identities", "text: tokens whose identity rows are read", lambda x: text_limits(x).identities_max),
    _text("row_beats", "text: beats of an identity row", lambda x: text_limits(x).row_beats_max, low=1, reset=1),
    _text(
        "word_beats",
        "text: of them, beats of a word for the net",
        lambda x: text_limits(x).lanes // BEAT_BYTES,
        low=1,
        reset=1,
    ),
)


def lengths(limits: Limits) -> tuple[Setting, ...]:
    """Tokens of each n-gram table."""
    return tuple(
        _text(f"length{nth}", f"text: tokens of n-gram table {nth}", lambda x: text_limits(x).ngram_max)
        for nth in range(text_limits(limits).tables_max)
    )


def settings(limits: Limits) -> tuple[Setting, ...]:
    """All settings of an engine."""
    return MODE, *SHAPE, *TABLES, *STAGER, SHARE_LAYER, *LINK, *TEXT, *lengths(limits)


TABLE_NAMES = tuple(EngineConfiguration.model_fields)
"""The table predictor's; ``table_signal`` says which signal each is."""


def table_signal(name: str) -> str:
    """The setting that the table predictor's setting ``name`` is."""
    shared = {"experts": "experts", "layers": "layers", "top_k": "top_k", "domains": "domains", "lookahead": "distance"}
    return shared.get(name, f"table_{name}")
