"""How far the choice of one MoE layer tells that of the next.

For each pair of recorded layers that follow each other, the contingency table counts, over all tokens, the pairs
(expert chosen in the first, expert chosen in the second). A token that chose K experts in each gives K² pairs: the
table is *pooled*, and its total is K² times the number of tokens. From it:

* *χ²* of independence (``chi_square``), its degrees of freedom and log₁₀ p. The K² pairs of a token are no independent
  samples. Experts of a row are drawn without repetition, which makes the statistic of independent layers smaller (about
  (N − K)² on average) than the (N − 1)² degrees of freedom that p is computed with: in this respect p errs towards
  "independent". In another it errs towards "dependent": consecutive tokens are alike, so there are fewer independent
  samples than tokens. Hence
* the *null* of every figure: the same figure with the second layer's choices taken from the token half a trace away.
  It keeps load, multiplicity and the likeness of neighbours, and removes the link between the layers.
* *Cramér's V*, √(χ² / (pairs · (min(rows, columns) − 1))), the size of the effect whatever the length of the trace.
  With K > 1 it stays below 1 even for layers that determine each other, for K partners share one row.
* *mutual information* of the pooled pairs in bits, Σ p(a, b) log₂ (p(a, b) / (p(a) p(b))), the plain estimate; its null
  is what the finite length alone pretends.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from catalog.config import StrictModel
from traces.compiled import njit
from traces.statistics.chi_square import independence_test
from traces.trace import CHUNK_TOKENS, RoutingTrace


class LayerPairStatistics(StrictModel):
    """Figures of two layers; those of the test are ``None`` where fewer than two experts of either were used.

    Attributes:
        layer, next_layer: the model's indices.
        tokens: tokens with both layers recorded.
        pairs: of experts, K² a token.
        chi_square, degrees_of_freedom, log10_p: the test of independence on the pooled pairs.
        cramers_v: size of the effect.
        mutual_information_bits: of the pooled pairs.
        null_chi_square, null_mutual_information_bits: with the second layer taken from half a trace away.
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
        by_pair: in the order of the layers.
        cramers_v, mutual_information_bits, null_mutual_information_bits: means.
        largest_log10_p: the weakest rejection of independence.
    """

    by_pair: tuple[LayerPairStatistics, ...]
    cramers_v: float | None
    mutual_information_bits: float | None
    null_mutual_information_bits: float | None
    largest_log10_p: float | None


def cross_layer_statistics(
    trace: RoutingTrace, progress: Callable[[int, int], None] | None = None
) -> CrossLayerStatistics:
    """χ², Cramér's V and mutual information of adjacent layers, beside their nulls.

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


def pair_tables(
    trace: RoutingTrace, shift: int = 0, progress: Callable[[int, int], None] | None = None
) -> npt.NDArray[np.int64]:
    """Pooled pairs of every recorded layer and the next: i64 ``[layers - 1, experts, experts]``, in steady memory.

    The second layer's row is that of the token ``shift`` (0 ≤ shift < tokens) further on, cyclically.
    """
    tables = np.zeros((max(trace.layers - 1, 0), trace.experts, trace.experts), np.int64)
    # Where the shifted walk wraps, the parts are cut, so that both sides are one range of tokens.
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
    """Plain estimate of the mutual information of a table's rows and columns; 0 for an empty one."""
    total = table.sum()
    if not total:
        return 0.0
    joint = table / total
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    some = joint > 0
    # Rounding may leave −1e−17 for independent tables.
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
