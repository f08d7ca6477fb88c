"""The figures that a synthetic trace keeps of its source, measured on either in one pass with constant memory.

Per layer, with N experts of which a token chooses K:

* *temporal overlap*, *load entropy*, *hottest over mean*: as ``traces.statistics`` defines them.
* *sequence overlap*: the mean number of experts that two different tokens of one sequence share, at any distance; the
  mean over sequences is weighted by their tokens.
* *domain overlap*: the same for two tokens of different sequences of one domain, weighted by the domains' tokens. Only
  the first ``MEASURED_DOMAINS`` domains count; none, if the trace has a single domain.
* *mutual information* of a layer and the next: that of ``traces.statistics.cross_layer`` minus what the finite number
  of pairs alone adds to the plug-in estimate, (N − 1)² / (2 · pairs · ln 2) bits (G. Miller, "Note on the bias of
  information estimates", 1955).

Overlaps are in units of K²/N, what independent uniform choices share; mutual information is in units of log₂(N/K), its
value if a layer's choice determined the next layer's. These ratios are what is transferred to other shapes.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from traces.statistics.cross_layer import mutual_information_bits, pair_tables
from traces.trace import RoutingTrace

MEASURED_DOMAINS = 256

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures by layer; NaN if the trace has nothing to measure (sequences of one token, a single domain).

    Attributes:
        load: ``[layers, experts]``, times chosen divided by the layer's mean: 1 if all are used equally.
        temporal_overlap, sequence_overlap, domain_overlap: ``[layers]``, in units of K²/N.
        mutual_information: ``[layers - 1]``, of a layer and the next, in units of log₂(N/K).
    """

    load: Floats
    temporal_overlap: Floats
    sequence_overlap: Floats
    domain_overlap: Floats
    mutual_information: Floats

    @property
    def load_entropy(self) -> Floats:
        """``[layers]``: entropy of the load divided by log N; 0 for a layer without a recorded row."""
        total = self.load.sum(axis=1, keepdims=True)
        share = np.divide(self.load, total, out=np.zeros_like(self.load), where=total > 0)
        terms = np.where(share > 0, share * np.log(np.maximum(share, 1e-300)), 0.0)
        return -terms.sum(axis=1) / math.log(self.load.shape[1])

    @property
    def hottest_over_mean(self) -> Floats:
        """``[layers]``: the largest load divided by the mean."""
        return self.load.max(axis=1)

    @property
    def load_overlap(self) -> Floats:
        """``[layers]``: experts that two tokens drawn independently by these loads share, in units of K²/N."""
        return np.mean(self.load**2, axis=1)


class Measurement:
    """Counts of a trace, whose parts are added one after the other.

    Attributes:
        tables: pooled pairs of adjacent layers, i64 ``[layers - 1, experts, experts]``.
    """

    def __init__(self, layers: int, experts: int, top_k: int) -> None:
        self.top_k = top_k
        self.tables: Counts = np.zeros((max(layers - 1, 0), experts, experts), np.int64)
        self._load: Counts = np.zeros((layers, experts), np.int64)
        self._shared: Counts = np.zeros(layers, np.int64)
        self._pairs: Counts = np.zeros(layers, np.int64)
        self._domains: dict[str, int] = {}
        self._domain_load: Counts = np.zeros((0, layers, experts), np.int64)
        self._domain_tokens: Counts = np.zeros((0, layers), np.int64)
        # Over the sequences of each domain: Σ load², Σ tokens².
        self._domain_self: Counts = np.zeros((0, layers), np.int64)
        self._domain_square: Counts = np.zeros((0, layers), np.int64)
        self._within: Floats = np.zeros(layers)
        self._within_tokens: Counts = np.zeros(layers, np.int64)
        # The sequence in which the parts so far ended.
        self._open_load: Counts = np.zeros((layers, experts), np.int64)
        self._open_tokens: Counts = np.zeros(layers, np.int64)
        self._open_domain = -1
        self._last_ids: Counts = np.full((layers, top_k), experts, np.int64)
        self._last_position = -2

    @classmethod
    def of(cls, trace: RoutingTrace) -> "Measurement":
        """The measurement of all of ``trace``."""
        measurement = cls(trace.layers, trace.experts, trace.top_k)
        begun = 0
        for part in trace.checked().chunks():
            measurement.add(part, continues=begun not in trace.sequence_offsets)
            begun += part.tokens
        return measurement

    def add(self, part: RoutingTrace, *, continues: bool = False) -> None:
        """Count ``part``; ``continues``: its first sequence continues the last one counted."""
        self.tables += pair_tables(part)
        for index, domain in enumerate(part.domains):
            tokens = part.sequence_slice(index)
            if index or not continues:
                self._finish_sequence()
                self._open_domain = self._domain_index(domain)
            self._last_position = _count(
                part.expert_ids[tokens],
                part.position[tokens],
                self._last_position,
                self._last_ids,
                self._open_load,
                self._open_tokens,
                self._shared,
                self._pairs,
            )

    def figures(self) -> Figures:
        """The figures of everything counted."""
        self._finish_sequence()
        experts = self._load.shape[1]
        uniform = self.top_k**2 / experts
        uses = self._load.sum(axis=1, keepdims=True)
        return Figures(
            load=self._load * experts / np.maximum(uses, 1),
            temporal_overlap=_ratio(self._shared, self._pairs) / uniform,
            sequence_overlap=_ratio(self._within, self._within_tokens) / uniform,
            domain_overlap=self._domain_overlap() / uniform,
            mutual_information=np.array([self._information(table) for table in self.tables]),
        )

    def _information(self, table: Counts) -> float:
        """Mutual information of a table in units of log₂(N/K), minus the bias of a finite count."""
        pairs, experts = int(table.sum()), len(table)
        if not pairs or experts == self.top_k:
            return math.nan
        bias = (experts - 1) ** 2 / (2 * pairs * math.log(2))
        return max(mutual_information_bits(table) - bias, 0.0) / math.log2(experts / self.top_k)

    def _domain_index(self, domain: str) -> int:
        """The domain's index in the counts, or −1 if it is not measured."""
        if domain not in self._domains and len(self._domains) < MEASURED_DOMAINS:
            self._domains[domain] = len(self._domains)
            layers, experts = self._load.shape
            self._domain_load = np.concatenate([self._domain_load, np.zeros((1, layers, experts), np.int64)])
            for name in ("_domain_tokens", "_domain_self", "_domain_square"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros((1, layers), np.int64)]))
        return self._domains.get(domain, -1)

    def _finish_sequence(self) -> None:
        """Move the open sequence's counts to the totals."""
        tokens, load = self._open_tokens, self._open_load
        self._load += load
        self_shared = (load * load).sum(axis=1)
        several = tokens > 1
        pairs = np.maximum(tokens * (tokens - 1), 1)
        self._within += np.where(several, tokens * (self_shared - tokens * self.top_k) / pairs, 0.0)
        self._within_tokens += np.where(several, tokens, 0)
        if self._open_domain >= 0:
            self._domain_load[self._open_domain] += load
            self._domain_tokens[self._open_domain] += tokens
            self._domain_self[self._open_domain] += self_shared
            self._domain_square[self._open_domain] += tokens * tokens
        load[:] = 0
        tokens[:] = 0
        self._open_domain = -1
        self._last_ids[:] = self._load.shape[1]
        self._last_position = -2

    def _domain_overlap(self) -> Floats:
        """Experts shared by tokens of different sequences of a domain, ``[layers]``."""
        if len(self._domains) < 2:
            return np.full(len(self._load), np.nan)
        tokens = self._domain_tokens
        pairs = tokens * tokens - self._domain_square
        shared = (self._domain_load.astype(np.float64) ** 2).sum(axis=2) - self._domain_self
        weights = np.where(pairs > 0, tokens, 0)
        return _ratio((weights * shared / np.maximum(pairs, 1)).sum(axis=0), weights.sum(axis=0))


def _ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Floats:
    """The quotient; NaN if the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


@njit()
def _count(
    ids: npt.NDArray[np.unsignedinteger],
    position: npt.NDArray[np.int32],
    last_position: int,
    last_ids: Counts,
    load: Counts,
    counted: Counts,
    shared: Counts,
    pairs: Counts,
) -> int:
    """Count tokens of one sequence; ``last_ids [layers, top_k]`` is the token before. Returns the last position.

    An id ≥ experts marks an unrecorded row.
    """
    tokens, layers, top_k = ids.shape
    experts = load.shape[1]
    for token in range(tokens):
        follows = position[token] == last_position + 1
        last_position = position[token]
        for layer in range(layers):
            recorded = ids[token, layer, 0] < experts
            if recorded:
                counted[layer] += 1
                for i in range(top_k):
                    load[layer, ids[token, layer, i]] += 1
                if follows and last_ids[layer, 0] < experts:
                    pairs[layer] += 1
                    for i in range(top_k):
                        for j in range(top_k):
                            if ids[token, layer, i] == last_ids[layer, j]:
                                shared[layer] += 1
            for i in range(top_k):
                last_ids[layer, i] = ids[token, layer, i] if recorded else experts
    return last_position
