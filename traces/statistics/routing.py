"""Temporal overlap and expert load, by layer, overall and by domain.

Definitions:

* *temporal overlap* of a layer: the mean, over pairs of consecutive tokens of a sequence (positions one apart, both
  recorded), of the number of experts that both chose. Three *nulls* show how much of it does not come from the tokens'
  order; the last two are exact expectations over all shuffles of the layer's recorded rows, not random shuffles:

  * ``uniform_overlap``: K²/N, what two independent *uniform* choices share.
  * ``popularity_overlap``: the rows shuffled over all tokens, which keeps each expert's load n_e. Two different rows of
    T share Σ n_e (n_e − 1) / (T (T − 1)).
  * ``sequence_overlap``: the rows shuffled within each sequence, which keeps the experts that each text uses and
    destroys only their order: Σ c_e (c_e − 1) / (n (n − 1)) for a sequence's n rows with loads c_e; the mean over
    sequences is weighted by their pairs, as it is for the measured figure.

  ``over_uniform``, ``over_popularity`` and ``over_sequence`` are the overlap divided by each null.
* *load* of an expert: how often it was chosen. ``load_entropy`` is the entropy of a layer's loads divided by log N: 1
  if all experts are used equally. ``hottest_over_mean`` is the largest load divided by the mean load. Each has a null:
  its value if as many tokens chose independently and uniformly (``expert_load_nulls``).

Overall and domain figures are means over layers; a layer without a pair or a recorded row is left out. Overall ratios
are ratios of these means (not means of the layers' ratios, in which layers that share little would weigh as much as
others). A domain's nulls are computed from its own tokens.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from catalog.config import StrictModel
from catalog.progress import Progress
from traces.statistics.expert_load_nulls import uniform_hottest_over_mean, uniform_load_entropy
from traces.statistics.walk import sequence_groups
from traces.trace import RoutingTrace


class RoutingStatistics(StrictModel):
    """Figures of one layer, or means over layers; ``None`` if there is nothing to count.

    Attributes:
        temporal_overlap: experts shared by consecutive tokens.
        popularity_overlap, sequence_overlap: its nulls, with tokens shuffled over all and within each sequence.
        over_uniform, over_popularity, over_sequence: the overlap divided by K²/N and by these nulls; ``None`` also if
            the null is 0.
        load_entropy: from 0 (one expert takes all) to 1 (all equal).
        hottest_over_mean: largest load divided by the mean.
        uniform_load_entropy, uniform_hottest_over_mean: their nulls, for as many independent uniform choices.
    """

    temporal_overlap: float | None
    popularity_overlap: float | None
    sequence_overlap: float | None
    over_uniform: float | None
    over_popularity: float | None
    over_sequence: float | None
    load_entropy: float | None
    hottest_over_mean: float | None
    uniform_load_entropy: float | None
    uniform_hottest_over_mean: float | None


class DomainStatistics(RoutingStatistics):
    """Figures of one domain's sequences."""

    sequences: int
    tokens: int


class TraceStatistics(StrictModel):
    """Statistics of a trace.

    Attributes:
        model: the metadata's.
        synthetic: the metadata's.
        sequences, tokens, layers, experts, top_k: the trace's shape.
        uniform_overlap: K²/N, the overlap of independent uniform choices.
        overall: means over layers.
        by_layer: each layer's figures, in the trace's order.
        by_domain: each domain's figures, in order of first appearance.
    """

    model: str
    synthetic: bool
    sequences: int
    tokens: int
    layers: int
    experts: int
    top_k: int
    uniform_overlap: float
    overall: RoutingStatistics
    by_layer: tuple[RoutingStatistics, ...]
    by_domain: dict[str, DomainStatistics]


@dataclass(frozen=True, eq=False)
class _Counts:
    """Raw counts of some sequences.

    Attributes:
        load: i64 ``[layers, experts]``.
        shared, pairs: i64 ``[layers]``: experts shared by pairs of consecutive tokens, and the number of these pairs.
        within: f64 ``[layers]``, the expectation of ``shared`` if the rows of each sequence were shuffled.
    """

    load: npt.NDArray[np.int64]
    shared: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]
    within: npt.NDArray[np.float64]

    @classmethod
    def zeros(cls, layers: int, experts: int) -> "_Counts":
        load = np.zeros((layers, experts), np.int64)
        return cls(load, np.zeros(layers, np.int64), np.zeros(layers, np.int64), np.zeros(layers))

    def add(self, other: "_Counts") -> None:
        self.load[:] += other.load
        self.shared[:] += other.shared
        self.pairs[:] += other.pairs
        self.within[:] += other.within


def statistics(trace: RoutingTrace, progress: Progress | None = None) -> TraceStatistics:
    """Statistics of ``trace``, in one pass by domain; memory does not depend on the number of tokens.

    Args:
        trace: any trace; a lazily opened one is checked first.
        progress: called with (domains done, domains) after each domain.

    Raises:
        ForestageError: if a lazily opened trace turns out invalid.
    """
    trace = trace.checked()
    members: dict[str, list[int]] = {}
    for index, domain in enumerate(trace.domains):
        members.setdefault(domain, []).append(index)
    total = _Counts.zeros(trace.layers, trace.experts)
    by_domain = {}
    for done, (domain, sequences) in enumerate(members.items(), start=1):
        counts = _count(trace, sequences)
        total.add(counts)
        lengths = np.diff(trace.sequence_offsets)[sequences]
        mean = _mean(_by_layer(counts, trace.top_k), trace)
        by_domain[domain] = DomainStatistics(**mean.model_dump(), sequences=len(sequences), tokens=int(lengths.sum()))
        if progress is not None:
            progress(done, len(members))
    by_layer = _by_layer(total, trace.top_k)
    return TraceStatistics(
        model=trace.metadata.model,
        synthetic=trace.metadata.synthetic,
        sequences=trace.sequences,
        tokens=trace.tokens,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        uniform_overlap=trace.top_k**2 / trace.experts,
        overall=_mean(by_layer, trace),
        by_layer=by_layer,
        by_domain=by_domain,
    )


def _count(trace: RoutingTrace, sequences: list[int]) -> _Counts:
    """Counts of the given sequences (ascending)."""
    counts = _Counts.zeros(trace.layers, trace.experts)
    for part in sequence_groups(trace, sequences):
        offsets = part.sequence_offsets
        _accumulate(part.expert_ids, part.position, offsets, counts.load, counts.shared, counts.pairs, counts.within)
    return counts


@njit()
def _accumulate(
    ids: npt.NDArray[np.unsignedinteger],
    position: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    load: npt.NDArray[np.int64],
    shared: npt.NDArray[np.int64],
    pairs: npt.NDArray[np.int64],
    within: npt.NDArray[np.float64],
) -> None:
    """Add the sequences between ``offsets`` to the counts; an id ≥ experts marks an unrecorded row."""
    _, layers, top_k = ids.shape
    experts = load.shape[1]
    # Of one sequence: its loads c, Σ c (c − 1), its recorded rows and its pairs.
    own = np.zeros((layers, experts), np.int64)
    repeats, rows, own_pairs = np.zeros(layers, np.int64), np.zeros(layers, np.int64), np.zeros(layers, np.int64)
    for sequence in range(len(offsets) - 1):
        own[:] = 0
        repeats[:] = 0
        rows[:] = 0
        own_pairs[:] = 0
        for token in range(offsets[sequence], offsets[sequence + 1]):
            follows = token > offsets[sequence] and position[token] == position[token - 1] + 1
            for layer in range(layers):
                if ids[token, layer, 0] >= experts:
                    continue
                rows[layer] += 1
                for i in range(top_k):
                    expert = ids[token, layer, i]
                    repeats[layer] += 2 * own[layer, expert]
                    own[layer, expert] += 1
                if not follows or ids[token - 1, layer, 0] >= experts:
                    continue
                own_pairs[layer] += 1
                for i in range(top_k):
                    for j in range(top_k):
                        if ids[token, layer, i] == ids[token - 1, layer, j]:
                            shared[layer] += 1
        load += own
        pairs += own_pairs
        for layer in range(layers):
            if own_pairs[layer]:
                within[layer] += own_pairs[layer] * (repeats[layer] / (rows[layer] * (rows[layer] - 1)))


def _by_layer(counts: _Counts, top_k: int) -> tuple[RoutingStatistics, ...]:
    """The figures of each layer."""
    layers, experts = counts.load.shape
    figures = []
    for layer in range(layers):
        load, pairs = counts.load[layer], int(counts.pairs[layer])
        uses = int(load.sum())
        rows = uses // top_k
        overlap = counts.shared[layer] / pairs if pairs else None
        popularity = float(np.sum(load * (load - 1.0))) / (rows * (rows - 1.0)) if pairs else None
        sequence = float(counts.within[layer]) / pairs if pairs else None
        share = load[load > 0] / max(uses, 1)
        # With a single expert, log N is 0.
        entropy = -float(np.sum(share * np.log(share))) / np.log(experts) if uses and experts > 1 else None
        figures.append(
            RoutingStatistics(
                temporal_overlap=overlap,
                popularity_overlap=popularity,
                sequence_overlap=sequence,
                over_uniform=_over(overlap, top_k**2 / experts),
                over_popularity=_over(overlap, popularity),
                over_sequence=_over(overlap, sequence),
                load_entropy=entropy,
                hottest_over_mean=float(load.max()) * experts / uses if uses else None,
                uniform_load_entropy=uniform_load_entropy(rows, experts, top_k),
                uniform_hottest_over_mean=uniform_hottest_over_mean(rows, experts, top_k),
            )
        )
    return tuple(figures)


def _over(overlap: float | None, null: float | None) -> float | None:
    """The ratio; ``None`` if either is missing or the null is 0."""
    return overlap / null if overlap is not None and null else None


def _mean(layers: tuple[RoutingStatistics, ...], trace: RoutingTrace) -> RoutingStatistics:
    """Means over the layers that have the figure, and the ratios of the means."""
    means: dict[str, float | None] = {}
    for name in RoutingStatistics.model_fields:
        values = [value for layer in layers if (value := getattr(layer, name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    overlap = means["temporal_overlap"]
    means["over_uniform"] = _over(overlap, trace.top_k**2 / trace.experts)
    means["over_popularity"] = _over(overlap, means["popularity_overlap"])
    means["over_sequence"] = _over(overlap, means["sequence_overlap"])
    return RoutingStatistics.model_validate(means)
