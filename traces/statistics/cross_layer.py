"""How much the choice of one MoE layer tells about the choice of the next.

For each pair of consecutive recorded layers, the contingency table counts, over all tokens, the pairs
(expert chosen in the first, expert chosen in the second). A token that chose K experts in each gives K² pairs: the
table is *pooled*, and its total is K² times the number of tokens. From it:

* *χ²* of independence (``chi_square``), its degrees of freedom and log₁₀ p. The K² pairs of a token are not independent
  samples. Experts of a row are drawn without repetition, so the statistic of independent layers is smaller (about
  (N − K)² on average) than the (N − 1)² degrees of freedom used for p: this makes p err towards "independent".
  Consecutive tokens are alike, so there are fewer independent samples than tokens: this makes p err towards
  "dependent". Hence
* the *null* of every figure: the same figure with the second layer's choices taken from the token half a trace away.
  It keeps the loads, the K² pairs per token and the likeness of neighbours, and removes the link between the layers.
* *Cramér's V*, √(χ² / (pairs · (min(rows, columns) − 1))), the size of the effect, which does not depend on the trace's
  length. With K > 1 it stays below 1 even for layers that determine each other, because each expert has K partners.
* *mutual information* of the pooled pairs in bits, Σ p(a, b) log₂ (p(a, b) / (p(a) p(b))), the plug-in estimate; its
  null is what the finite length of the trace alone would give.
"""

import math

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from catalog.config import StrictModel
from catalog.progress import Progress
from traces.statistics.chi_square import independence_test
from traces.trace import CHUNK_TOKENS, RoutingTrace


class LayerPairStatistics(StrictModel):
    """Figures of two layers; those of the test are ``None`` if fewer than two experts of either layer were used.

    Attributes:
        layer, next_layer: the model's indices.
        tokens: tokens with both layers recorded.
        pairs: number of expert pairs, K² per token.
        chi_square, degrees_of_freedom, log10_p: the test of independence on the pooled pairs.
        cramers_v: size of the effect.
        mutual_information_bits: mutual information of the pooled pairs.
        null_chi_square, null_mutual_information_bits: the nulls, with the second layer taken from half a trace away.
    """

    layer: int
    next_layer: int
    tokens: int
    pairs: int
    chi_square: float | None
    degrees_of_freedom: int | None
    log10_p: float | None
    cramers_v: float | None
    mutual_information_bits: float
    null_chi_square: float | None
    null_mutual_information_bits: float


class CrossLayerStatistics(StrictModel):
    """Figures of every pair, and means over the pairs that have them (``None`` for a trace of one layer).

    Attributes:
        by_pair: figures of each pair, in the order of the layers.
        cramers_v, mutual_information_bits, null_mutual_information_bits: means.
        largest_log10_p: largest over the pairs: the weakest rejection of independence.
    """

    by_pair: tuple[LayerPairStatistics, ...]
    cramers_v: float | None
    mutual_information_bits: float | None
    null_mutual_information_bits: float | None
    largest_log10_p: float | None


def cross_layer_statistics(trace: RoutingTrace, progress: Progress | None = None) -> CrossLayerStatistics:
    """χ², Cramér's V and mutual information of adjacent layers, with their nulls.

    Args:
        trace: any trace; a lazily opened one is checked first.
        progress: called with (tokens done, tokens).

    Raises:
        ForestageError: if a lazily opened trace turns out invalid.
    """
    trace = trace.checked()
    tables, nulls = pair_tables(trace, progress=progress), pair_tables(trace, shift=trace.tokens // 2)
    figures = [_pair(trace, first, tables[first], nulls[first]) for first in range(trace.layers - 1)]
    by_pair = tuple(figures)
    p_values = [pair.log10_p for pair in by_pair if pair.log10_p is not None]
    return CrossLayerStatistics(
        by_pair=by_pair,
        cramers_v=_mean([pair.cramers_v for pair in by_pair]),
        mutual_information_bits=_mean([pair.mutual_information_bits for pair in by_pair]),
        null_mutual_information_bits=_mean([pair.null_mutual_information_bits for pair in by_pair]),
        largest_log10_p=max(p_values, default=None),
    )


def pair_tables(trace: RoutingTrace, shift: int = 0, progress: Progress | None = None) -> npt.NDArray[np.int64]:
    """Pooled pairs of every recorded layer and the next: i64 ``[layers - 1, experts, experts]``, in constant memory.

    The second layer's row is taken from the token ``shift`` tokens later, cyclically (0 ≤ shift < tokens).
    """
    tables = np.zeros((max(trace.layers - 1, 0), trace.experts, trace.experts), np.int64)
    # Parts are cut where the shifted walk wraps, so that both sides are one range of tokens.
    for first, stop in ((0, trace.tokens - shift), (trace.tokens - shift, trace.tokens)):
        for start in range(first, stop, CHUNK_TOKENS):
            end = min(start + CHUNK_TOKENS, stop)
            moved = shift if first == 0 else shift - trace.tokens
            ids = trace.token_range(start, end).expert_ids
            _count_pairs(ids, trace.token_range(start + moved, end + moved).expert_ids, tables)
            if progress is not None:
                progress(end, trace.tokens)
    return tables


def mutual_information_bits(table: npt.NDArray[np.int64]) -> float:
    """Plug-in estimate of the mutual information between a table's rows and columns, in bits; 0 for an empty table."""
    total = table.sum()
    if not total:
        return 0.0
    joint = table / total
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    some = joint > 0
    # For independent tables, rounding may leave −1e−17.
    return max(float(np.sum(joint[some] * np.log2(joint[some] / independent[some]))), 0.0)


def _pair(
    trace: RoutingTrace, first: int, table: npt.NDArray[np.int64], null: npt.NDArray[np.int64]
) -> LayerPairStatistics:
    pairs = int(table.sum())
    test, null_test = independence_test(table), independence_test(null)
    cramers_v = None
    if test is not None:
        least = min(np.count_nonzero(table.sum(axis=1)), np.count_nonzero(table.sum(axis=0)))
        cramers_v = math.sqrt(test.statistic / (pairs * (least - 1)))
    return LayerPairStatistics(
        layer=trace.metadata.layer_map[first],
        next_layer=trace.metadata.layer_map[first + 1],
        tokens=pairs // trace.top_k**2,
        pairs=pairs,
        chi_square=None if test is None else test.statistic,
        degrees_of_freedom=None if test is None else test.degrees_of_freedom,
        log10_p=None if test is None else test.log10_p,
        cramers_v=cramers_v,
        mutual_information_bits=mutual_information_bits(table),
        null_chi_square=None if null_test is None else null_test.statistic,
        null_mutual_information_bits=mutual_information_bits(null),
    )


def _mean(values: list[float | None] | list[float]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


@njit()
def _count_pairs(
    ids: npt.NDArray[np.unsignedinteger], other: npt.NDArray[np.unsignedinteger], tables: npt.NDArray[np.int64]
) -> None:
    """Add the pairs (layer l of ``ids``, layer l + 1 of ``other``) to ``tables[l]``; an id ≥ experts is unrecorded."""
    tokens, layers, top_k = ids.shape
    experts = tables.shape[1]
    for token in range(tokens):
        for layer in range(layers - 1):
            if ids[token, layer, 0] >= experts or other[token, layer + 1, 0] >= experts:
                continue
            for i in range(top_k):
                for j in range(top_k):
                    tables[layer, ids[token, layer, i], other[token, layer + 1, j]] += 1
