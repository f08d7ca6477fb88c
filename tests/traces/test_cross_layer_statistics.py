"""χ², Cramér's V and mutual information of adjacent layers against hand figures, plain loops and closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.routing import trace_of
from tests.traces.trace_samples import traces
from traces import RoutingTrace
from traces.statistics import cross_layer, cross_layer_statistics
from traces.statistics.chi_square import independence_test, log_survival
from traces.statistics.cross_layer import mutual_information_bits, pair_tables


def exact_survival(statistic: int, freedom: int) -> float:
    """P(X > statistic) for even degrees of freedom: e^(−x/2) Σ (x/2)^k / k!, k < freedom/2 (exact sum)."""
    half = Fraction(statistic, 2)
    term = total = Fraction(1)
    for k in range(1, freedom // 2):
        term *= half / k
        total += term
    return math.log(total) - float(half)


@pytest.mark.parametrize("freedom", [2, 4, 10, 98, 400])
@pytest.mark.parametrize("statistic", [1, 2, 9, 30, 100, 420, 5000])
def test_the_log_p_value_is_that_of_the_closed_form(freedom: int, statistic: int) -> None:
    expected = exact_survival(statistic, freedom)
    assert log_survival(statistic, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("statistic", [0.1, 1.0, 3.84, 20.0, 600.0])
def test_one_degree_of_freedom_is_the_normal_distribution(statistic: float) -> None:
    assert log_survival(statistic, 1) == pytest.approx(math.log(math.erfc(math.sqrt(statistic / 2))), rel=1e-9)


def test_a_p_value_far_below_the_smallest_double() -> None:
    # For 2 degrees of freedom p = e^(−x/2).
    assert log_survival(2e6, 2) == pytest.approx(-1e6)
    assert log_survival(0.0, 5) == 0.0


def test_the_test_by_hand() -> None:
    # 2 × 2 with the third row and column empty: E = 12, 18, 8, 12; every deviation is 3.
    test = independence_test(np.array([[15, 15, 0], [5, 15, 0], [0, 0, 0]]))
    assert test is not None
    assert test.statistic == pytest.approx(9 * (1 / 12 + 1 / 18 + 1 / 8 + 1 / 12))
    assert test.degrees_of_freedom == 1
    assert 10**test.log10_p == pytest.approx(math.erfc(math.sqrt(test.statistic / 2)))
    assert independence_test(np.array([[3, 4]])) is None
    assert independence_test(np.zeros((2, 2), np.int64)) is None


def test_layers_that_determine_each_other() -> None:
    # Top-1: V is 1 and the information is that of four equally likely experts.
    ids = np.array([[[token % 4], [(token + 1) % 4]] for token in range(40)])
    figures = cross_layer_statistics(trace_of(ids, experts=4, layer_map=(3, 5)))
    (pair,) = figures.by_pair
    assert (pair.layer, pair.next_layer, pair.tokens, pair.pairs) == (3, 5, 40, 40)
    assert pair.cramers_v == pytest.approx(1.0)
    assert pair.chi_square == pytest.approx(40 * 3)
    assert pair.degrees_of_freedom == 9
    assert pair.mutual_information_bits == pytest.approx(2.0)
    assert (figures.cramers_v, figures.largest_log10_p) == (pair.cramers_v, pair.log10_p)


def independent_layers(seed: int, tokens: int, experts: int, top_k: int) -> RoutingTrace:
    keys = np.random.default_rng(seed).random((tokens, 2, experts))
    return trace_of(np.argsort(keys, axis=-1)[..., :top_k], experts=experts)


def test_independent_layers_stay_near_their_null() -> None:
    experts, top_k = 16, 4
    statistics = [
        cross_layer_statistics(independent_layers(seed, 4000, experts, top_k)).by_pair[0] for seed in range(20)
    ]
    mean = np.mean([pair.chi_square for pair in statistics if pair.chi_square is not None])
    # Without repetition within a row the statistic's mean is (N − K)², below the (N − 1)² degrees of freedom; its
    # standard deviation here is about 13.6, so that of the mean 3.
    assert mean == pytest.approx((experts - top_k) ** 2, abs=12)
    assert all(pair.log10_p is not None and pair.log10_p > math.log10(0.5) for pair in statistics)
    nulls = np.mean([pair.null_chi_square for pair in statistics if pair.null_chi_square is not None])
    assert nulls == pytest.approx((experts - top_k) ** 2, abs=12)


def test_the_null_keeps_load_and_neighbours_but_not_the_link() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 8, 4000)
    ids = np.stack([first, (first * 3 + 1) % 8], axis=1)[:, :, None]
    (pair,) = cross_layer_statistics(trace_of(ids, experts=8)).by_pair
    assert pair.chi_square == pytest.approx(4000 * 7)
    assert pair.null_chi_square is not None
    assert pair.null_chi_square < 120  # 49 degrees of freedom: the chance is below 1e-7
    assert pair.null_mutual_information_bits < 0.02 < 2.9 < pair.mutual_information_bits


@settings(max_examples=40, deadline=None)
@given(trace=traces(), shift=st.integers(0, 5), chunk=st.sampled_from([1, 3, 100]))
def test_tables_agree_with_plain_loops(trace: RoutingTrace, shift: int, chunk: int) -> None:
    shift %= trace.tokens
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_layer, "CHUNK_TOKENS", chunk)
        tables = pair_tables(trace, shift)
    for first in range(trace.layers - 1):
        expected = np.zeros((trace.experts, trace.experts), np.int64)
        for token in range(trace.tokens):
            for a in trace.expert_ids[token, first].tolist():
                for b in trace.expert_ids[(token + shift) % trace.tokens, first + 1].tolist():
                    if a < trace.experts and b < trace.experts:
                        expected[a, b] += 1
        assert np.array_equal(tables[first], expected)


@settings(max_examples=20, deadline=None)
@given(trace=traces())
def test_any_trace_has_figures(trace: RoutingTrace) -> None:
    figures = cross_layer_statistics(trace)
    assert len(figures.by_pair) == trace.layers - 1
    assert (figures.mutual_information_bits is None) == (trace.layers == 1)
    for pair in figures.by_pair:
        assert pair.mutual_information_bits >= 0
        assert pair.cramers_v is None or 0 <= pair.cramers_v <= 1 + 1e-9
        assert (pair.chi_square is None) == (pair.log10_p is None) == (pair.cramers_v is None)


def test_information_of_an_empty_table_is_nothing() -> None:
    assert mutual_information_bits(np.zeros((3, 3), np.int64)) == 0.0
