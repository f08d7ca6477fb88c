"""Nets by the SRAM that a layer's bank takes: the sizes of ``docs/learned-predictor.md``, as hardware."""

from dataclasses import dataclass
from functools import cache
from importlib import resources

from catalog.toml_text import parse_toml
from predictor.next_layer.recipes import RECIPES, NextLayerConfig
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import table_bytes
from predictor.row_network.limits import HeadLimits, NetLimits, word_lanes
from predictor.row_network.sources import LONGEST, MATCHED, feeding_layers, sources

LAYERS, EXPERTS, TOP_K = 24, 32, 4
"""Of gpt-oss-20b."""

NO_NEXT_USE = HeadLimits(
    hidden=1, questions=1, row_words=2, operations=2, previous=1, decays=1, identities=1, matched=1
)
"""The least that a net has of its second head."""


@dataclass(frozen=True)
class NetConfiguration:
    """A net for one size of the next-layer head.

    Attributes:
        what: in words.
        variant: of the grid ``sizes``.
        lanes: of the net.
        slots: sequences that run together.
    """

    what: str
    variant: str
    lanes: int
    slots: int = 8

    @property
    def predictor(self) -> NextLayerConfig:
        """The next-layer head's configuration."""
        return sized(self.variant)

    @property
    def bank_bytes(self) -> int:
        """SRAM of a layer's bank, as the learned predictor counts it: without the padding of rows to lanes."""
        return table_bytes(self.predictor, layers=LAYERS, experts=EXPERTS, top_k=TOP_K, adapts=True).sram_largest

    @property
    def limits(self) -> NetLimits:
        """What is generated: no larger than the head needs."""
        config = self.predictor
        return NetLimits(
            slots=self.slots,
            layers=LAYERS,
            experts=EXPERTS,
            top_k=TOP_K,
            lanes=self.lanes,
            records=max(2, _records(config)),
            next_layer=head_limits(config, self.lanes),
            next_use=NO_NEXT_USE,
        )


def head_limits(config: NetworkConfig, lanes: int) -> HeadLimits:
    """The least that holds a head of ``config`` for gpt-oss-20b at one distance (``HeadProgram.check_limits``)."""
    every = sources(config)
    words = -(-config.hidden // word_lanes(config.hidden, lanes))
    gated = sum(source.age != MATCHED for source in every)
    # One of each source, the nearest being what is asked for; and what empties the coming token's sums.
    operations = gated + (not config.previous)
    return HeadLimits(
        hidden=config.hidden,
        questions=config.questions,
        row_words=max(2, int((feeding_layers(config, layers=LAYERS) >= 0).sum()) * EXPERTS * words),
        operations=max(2, 1 << (operations - 1).bit_length()),
        previous=max(1, len(config.previous)),
        decays=max(1, len(config.decays)),
        identities=max(1, config.identities),
        matched=max(1, len(every) - gated),
    )


def _records(config: NetworkConfig) -> int:
    """Places in the table of records: those that any source reads, and all before them."""
    read = [source for source in sources(config) if source.age == MATCHED]
    tables = len(config.ngram_tables)
    return max((tables + s.last if s.index == LONGEST else s.index for s in read), default=0) + 1


@cache
def sized(variant: str) -> NextLayerConfig:
    """The configuration of a variant of the grid ``sizes``."""
    text = resources.files("predictor.next_layer").joinpath("grids", "sizes.toml").read_text("utf-8")
    grid = parse_toml(text, "sizes")
    values = grid["variants"][variant]["set"]
    return RECIPES[grid["recipe"]].replaced(values, origin=f"sizes: {variant}").predictor


CONFIGURATIONS: dict[str, NetConfiguration] = {
    "net-1k": NetConfiguration("for at most 1 KiB a layer: 2 hidden units", "hidden-2", 8),
    "net-7k": NetConfiguration("for at most 8 KiB a layer: 24 hidden units", "hidden-24", 8),
    "net-7k-4": NetConfiguration("for at most 8 KiB a layer, of 4 slots", "hidden-24", 8, slots=4),
    "net-57k": NetConfiguration("for the deployed 57 KiB a layer: 128 hidden units", "hidden-128", 128),
    "net-57k-64": NetConfiguration("for the deployed 57 KiB a layer, on half the lanes", "hidden-128", 64),
}
"""Unit → its net. The smallest net has 8 lanes, to which rows of 2 hidden units are padded."""
