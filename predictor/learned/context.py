"""Which routing feeds a target layer: the sources of its sum, in the order of its tables."""

from dataclasses import dataclass

from predictor.learned.config import LearnedConfig

SAME_TOKEN = 0
DECAYED = -1
TAGGED = -2


@dataclass(frozen=True)
class Source:
    """One table of rows: the experts that some layer chose at some time.

    Attributes:
        age: 0: this token; j ≥ 1: the j-th previous one; ``DECAYED``: a decayed sum over all previous tokens;
            ``TAGGED``: the token that a tagged table names.
        offset: the source layer, relative to the target.
        index: into ``LearnedConfig.decays`` of a decayed source, into ``LearnedConfig.tagged`` of a tagged one,
            else −1.
    """

    age: int
    offset: int
    index: int = -1


def sources(config: LearnedConfig, lookahead: int) -> tuple[Source, ...]:
    """The sources of every target layer; those whose layer the model lacks feed nothing and take no memory."""
    here = [Source(SAME_TOKEN, -lookahead - back) for back in range(config.layers_back)]
    before = [
        Source(age, offset) for age, reach in enumerate(config.previous, start=1) for offset in range(-reach, reach + 1)
    ]
    decayed = [
        Source(DECAYED, offset, index)
        for index in range(len(config.decays))
        for offset in range(-config.decay_reach, config.decay_reach + 1)
    ]
    tagged = [Source(TAGGED, 0, index) for index in range(len(config.tagged))]
    return (*here, *before, *decayed, *tagged)


def rank_shifts(top_k: int, ranked: bool) -> tuple[int, ...]:
    """Left shift of the row of each rank: the first choice counts 4, the last 1, the others 2; unranked ids 1 each."""
    if not ranked or top_k == 1:
        return (0,) * top_k
    return (2, *(1,) * (top_k - 2), 0)
