"""Which routing feeds a target layer: the sources of its sum, in the order of its tables."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.row_network.config import NetworkConfig

SAME_TOKEN = 0
DECAYED = -1
MATCHED = -2
LONGEST = -1
"""The match of the longest n-gram, in place of a table's."""


@dataclass(frozen=True)
class Source:
    """One table of rows: the experts that some layer chose at some time.

    Attributes:
        age: 0: this token; j ≥ 1: the j-th previous one; ``DECAYED``: a decayed sum over all previous tokens;
            ``MATCHED``: tokens of the log, from the one on that an n-gram table names.
        offset: the source layer, relative to the target.
        index: into ``NetworkConfig.decays`` of a decayed source; into ``ngram_tables`` (or ``LONGEST``) of a matched
            one; else 0.
        first, last: of a matched source, tokens after the one named; else 0.
    """

    age: int
    offset: int
    index: int = 0
    first: int = 0
    last: int = 0


def sources(config: NetworkConfig) -> tuple[Source, ...]:
    """The sources of every target layer; those whose layer the model lacks feed nothing and take no memory."""
    here = [Source(SAME_TOKEN, -config.nearest - back) for back in range(config.layers_back)]
    before = [
        Source(age, offset)
        for age, (below, above) in enumerate(config.previous, start=1)
        for offset in range(-below, above + 1)
    ]
    decayed = [
        Source(DECAYED, offset, index)
        for index, (_, reach) in enumerate(config.decays)
        for offset in range(-reach, reach + 1)
    ]
    matched = []
    if config.ngram_tables:
        if config.at_match:
            matched += [Source(MATCHED, 0, index) for index in range(len(config.ngram_tables))]
        matched += [Source(MATCHED, 0, LONGEST, first, last) for first, last in config.continuation_windows]
    return (*here, *before, *decayed, *matched)


class SourceArrays(NamedTuple):
    """The fields of all sources, each i64 ``[sources]``."""

    ages: NDArray[np.int64]
    offsets: NDArray[np.int64]
    indices: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]


def source_arrays(config: NetworkConfig) -> SourceArrays:
    """The sources as arrays, for compiled code."""
    every = [(s.age, s.offset, s.index, s.first, s.last) for s in sources(config)]
    return SourceArrays(*np.array(every, np.int64).reshape(-1, 5).T.copy())


def log_window(config: NetworkConfig) -> tuple[int, int]:
    """First and last token after a match that any source reads from the log; ``(0, −1)`` where none does."""
    read = [(source.first, source.last) for source in sources(config) if source.age == MATCHED]
    return (min(first for first, _ in read), max(last for _, last in read)) if read else (0, -1)


def rank_shifts(top_k: int, ranked: bool) -> tuple[int, ...]:
    """Left shift of the row of each rank: the first choice counts 4, the last 1, the others 2; unranked ids 1 each."""
    if not ranked or top_k == 1:
        return (0,) * top_k
    return (2, *(1,) * (top_k - 2), 0)


def feeding_layers(config: NetworkConfig, *, layers: int) -> NDArray[np.int64]:
    """i64 ``[L, S]``: the layer that feeds each source of each target, −1 where the model has no such layer."""
    layer = np.arange(layers)[:, None] + np.array([source.offset for source in sources(config)], np.int64)
    return np.where((layer >= 0) & (layer < layers), layer, -1)
