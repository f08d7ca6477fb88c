"""How many experts a batch of concurrent sequences uses, and how its tokens are spread over them.

A batch of B is one token from each of B different sequences: what one decode step processes. Sequences are drawn
without repetition, with chances proportional to their number of tokens (a long sequence is in flight for longer); the
token of each is drawn uniformly from its decode tokens, or from its prefill tokens if the trace has no decode tokens.
The figures are means over batches and layers.

* *distinct experts*, beside two nulls: N (1 − (1 − K/N)^B), what B independent *uniform* choices of K out of N would
  use; and, with each expert's *popularity* kept, Σ 1 − (1 − p)^B over the experts of a layer, where p is the share of
  tokens that chose the expert: what B tokens drawn independently from the whole trace would use.
* *tokens per expert*: among the experts that a batch uses (the *active* ones), the share with one token, the share with
  at most four, and the whole histogram. Published systems differ on this bimodality: see ``docs/traces.md``.

The trace holds single requests, so these batches interleave requests at random; ``traces.batch`` makes a schedule.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from traces.scattered import gather_ids, parts_with
from traces.schema import PhaseName
from traces.statistics.walk import eligible, eligible_shares, phase_of_interest, sequence_groups
from traces.trace import RoutingTrace

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SAMPLES = 200

REDRAWS = 64
"""Draws until an eligible token is found; after that they are listed, which is faster if few tokens are eligible."""

MOST_SAMPLES = 10_000
"""Most batches of a size; the ids of all of them are held in memory at once."""


class BatchSizeStatistics(StrictModel):
    """Figures of batches of one size; K and N are the trace's top_k and experts.

    Attributes:
        batch: number of sequences, one token each.
        distinct_experts: experts used in a layer, mean over batches and layers.
        distinct_experts_std: standard deviation, over batches, of a batch's mean over layers.
        uniform_distinct_experts: N (1 − (1 − K/N)^B).
        popularity_distinct_experts: Σ 1 − (1 − p)^B, mean over layers.
        single_token_share: share of active experts with one token.
        at_most_four_share: share of active experts with one to four tokens.
        tokens_per_expert: shares of active experts with 1, 2, … tokens, up to the largest number that occurred.
    """

    batch: int
    distinct_experts: float
    distinct_experts_std: float
    uniform_distinct_experts: float
    popularity_distinct_experts: float
    single_token_share: float
    at_most_four_share: float
    tokens_per_expert: tuple[float, ...]


class BatchStatistics(StrictModel):
    """Figures by batch size.

    Attributes:
        phase: phase of the tokens drawn.
        sequences: number of sequences with such tokens, which is also the largest batch.
        samples: number of batches drawn of each size.
        seed: seed of the draws.
        by_size: figures by ascending size; sizes above ``sequences`` are left out.
    """

    phase: PhaseName
    sequences: int
    samples: int
    seed: int
    by_size: tuple[BatchSizeStatistics, ...]

    def of_size(self, batch: int) -> BatchSizeStatistics | None:
        """The figures of batches of ``batch``, if computed."""
        return next((figures for figures in self.by_size if figures.batch == batch), None)


def batch_statistics(
    trace: RoutingTrace,
    *,
    sizes: Sequence[int] = SIZES,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> BatchStatistics:
    """Distinct experts and tokens per expert of sampled batches.

    Args:
        trace: any trace; a lazily opened one is checked first.
        sizes: batch sizes, in any order.
        samples: number of batches of each size.
        seed: the batches of a size depend only on the seed and the size.
        progress: called with (sizes done, sizes).

    Raises:
        ForestageError: for a size or count that is not positive, more than ``MOST_SAMPLES``, a negative seed, or an
            invalid trace.
    """
    if samples < 1 or min(sizes, default=1) < 1:
        raise ForestageError("batches: sizes and samples must be 1 or more")
    if samples > MOST_SAMPLES:
        raise ForestageError(f"batches: {samples} samples: give at most {MOST_SAMPLES}")
    if seed < 0:
        raise ForestageError(f"batches: seed {seed}: give 0 or more")
    trace = trace.checked()
    phase = phase_of_interest(trace)
    sampler = _Sampler(trace, phase)
    shares = eligible_shares(trace, phase)
    usable = sorted({size for size in sizes if size <= sampler.sequences})
    by_size = []
    for done, size in enumerate(usable, start=1):
        drawn = sampler.draw(size, samples, np.random.default_rng([seed, size]))
        by_size.append(_measure(trace, drawn, shares))
        if progress is not None:
            progress(done, len(usable))
    return BatchStatistics(phase=phase, sequences=sampler.sequences, samples=samples, seed=seed, by_size=tuple(by_size))


def uniform_distinct_experts(experts: int, top_k: int, batch: int) -> float:
    """N (1 − (1 − K/N)^B): experts that ``batch`` independent uniform choices use."""
    return experts * (1 - (1 - top_k / experts) ** batch)


def popularity_distinct_experts(shares: npt.NDArray[np.float64], batch: int) -> float:
    """Σ 1 − (1 − p)^B, mean over layers: experts that ``batch`` independently drawn tokens use.

    Args:
        shares: f64 ``[layers, experts]``, the share of the tokens that chose each expert.
        batch: number of tokens.
    """
    return float((1 - (1 - shares) ** batch).sum(axis=1).mean())


def distinct_experts(
    ids: npt.NDArray[np.unsignedinteger], offsets: npt.NDArray[np.int64], experts: int
) -> npt.NDArray[np.int32]:
    """Distinct experts of each group of tokens in each layer.

    Args:
        ids: ``[tokens, layers, top_k]``; ids ≥ ``experts`` (unrecorded rows) do not count.
        offsets: i64 ``[groups + 1]``, first token of each group.
        experts: number of experts in a layer.

    Returns:
        i32 ``[groups, layers]``.
    """
    distinct = np.zeros((len(offsets) - 1, ids.shape[1]), np.int32)
    _count_groups(ids, offsets, experts, distinct, np.zeros(int(np.diff(offsets).max(initial=0)) + 1, np.int64))
    return distinct


class _Sampler:
    """Draws batches from the eligible tokens of ``phase``."""

    def __init__(self, trace: RoutingTrace, phase: PhaseName) -> None:
        self._trace, self._phase = trace, phase
        counts = [
            np.add.reduceat(eligible(part, phase).astype(np.int64), part.sequence_offsets[:-1])
            for part in sequence_groups(trace)
        ]
        counts_by_sequence = np.concatenate(counts)
        self._sequences = np.flatnonzero(counts_by_sequence)
        self._counts = counts_by_sequence[self._sequences]
        self.sequences = len(self._sequences)

    def draw(self, batch: int, samples: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """Tokens i64 ``[samples, batch]``; those of a row are from different sequences."""
        chosen = np.empty((samples, batch), np.int64)
        for sample in range(samples):
            # The smallest of exponential clocks with rates ∝ length are successive draws without repetition.
            clocks = generator.standard_exponential(self.sequences) / self._counts
            chosen[sample] = np.argpartition(clocks, batch - 1)[:batch]
        sequences = self._sequences[chosen].ravel()
        return self._draw_tokens(sequences, generator).reshape(samples, batch)

    def _draw_tokens(self, sequences: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """A uniformly drawn eligible token of each of ``sequences``: drawn up to ``REDRAWS`` times, then looked up."""
        starts = self._trace.sequence_offsets[sequences]
        lengths = self._trace.sequence_offsets[sequences + 1] - starts
        tokens = np.empty(len(sequences), np.int64)
        open_ = np.arange(len(sequences))
        for _ in range(REDRAWS):
            drawn = starts[open_] + (generator.random(len(open_)) * lengths[open_]).astype(np.int64)
            tokens[open_] = drawn
            open_ = open_[~self._eligible(drawn)]
            if not len(open_):
                return tokens
        for sequence in np.unique(sequences[open_]):
            part = self._trace.sequence(int(sequence))
            there = int(self._trace.sequence_offsets[sequence]) + np.flatnonzero(eligible(part, self._phase))
            places = open_[sequences[open_] == sequence]
            tokens[places] = generator.choice(there, len(places))
        return tokens

    def _eligible(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        found = np.empty(len(tokens), np.bool_)
        for part, wanted, places in parts_with(self._trace, tokens):
            found[wanted] = eligible(part, self._phase)[places]
        return found


def _measure(
    trace: RoutingTrace, drawn: npt.NDArray[np.int64], popularity: npt.NDArray[np.float64]
) -> BatchSizeStatistics:
    """Figures of the batches ``drawn [samples, batch]``; ``popularity [layers, experts]`` as in ``eligible_shares``."""
    samples, batch = drawn.shape
    ids = gather_ids(trace, drawn.ravel())
    distinct = np.zeros((samples, trace.layers), np.int32)
    histogram = np.zeros(batch + 1, np.int64)
    _count_groups(ids, np.arange(samples + 1) * batch, trace.experts, distinct, histogram)
    shares = histogram[1 : np.flatnonzero(histogram).max() + 1] / histogram.sum()
    return BatchSizeStatistics(
        batch=batch,
        distinct_experts=float(distinct.mean()),
        distinct_experts_std=float(distinct.mean(axis=1).std()),
        uniform_distinct_experts=uniform_distinct_experts(trace.experts, trace.top_k, batch),
        popularity_distinct_experts=popularity_distinct_experts(popularity, batch),
        single_token_share=float(shares[0]),
        at_most_four_share=float(shares[:4].sum()),
        tokens_per_expert=tuple(shares.tolist()),
    )


@njit()
def _count_groups(
    ids: npt.NDArray[np.unsignedinteger],
    offsets: npt.NDArray[np.int64],
    experts: int,
    distinct: npt.NDArray[np.int32],
    histogram: npt.NDArray[np.int64],
) -> None:
    """Fill ``distinct [groups, layers]``; add to ``histogram[n]`` every active expert of a group with n tokens."""
    layers, top_k = ids.shape[1:]
    uses = np.zeros(experts, np.int64)
    for group in range(len(offsets) - 1):
        for layer in range(layers):
            uses[:] = 0
            for token in range(offsets[group], offsets[group + 1]):
                for i in range(top_k):
                    if ids[token, layer, i] < experts:
                        uses[ids[token, layer, i]] += 1
            for expert in range(experts):
                if uses[expert]:
                    distinct[group, layer] += 1
                    histogram[uses[expert]] += 1
