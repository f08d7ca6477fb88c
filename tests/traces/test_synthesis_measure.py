"""The measurement of what a synthetic trace keeps, against plain loops and the public statistics."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace
from traces.statistics import statistics
from traces.statistics.cross_layer import cross_layer_statistics
from traces.synthesis.measure import Figures, Measurement


def measured(trace: RoutingTrace, cuts: list[int]) -> Figures:
    """Figures of ``trace`` counted in parts cut before each token of ``cuts``."""
    edges = sorted({0, *cuts, trace.tokens})
    measurement = Measurement(trace.layers, trace.experts, trace.top_k)
    for start, stop in pairwise(edges):
        measurement.add(trace.token_range(start, stop), continues=start not in trace.sequence_offsets)
    return measurement.figures()


@settings(max_examples=40, deadline=None)
@given(trace=traces(), data=st.data())
def test_parts_give_what_the_whole_gives(trace: RoutingTrace, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, trace.tokens)))
    whole, parts = Measurement.of(trace).figures(), measured(trace, cuts)
    for name in ("load", "temporal_overlap", "sequence_overlap", "domain_overlap", "mutual_information"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), err_msg=name)


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_shared_figures_are_those_of_the_statistics(trace: RoutingTrace) -> None:
    figures = Measurement.of(trace).figures()
    for layer, expected in enumerate(statistics(trace).by_layer):
        for name in ("load_entropy", "hottest_over_mean"):
            wanted = getattr(expected, name)
            if wanted is not None:
                assert getattr(figures, name)[layer] == pytest.approx(wanted, abs=1e-9), name
        overlap = figures.temporal_overlap[layer]
        if expected.over_uniform is None:
            assert math.isnan(overlap)
        else:
            assert overlap == pytest.approx(expected.over_uniform)


def test_mutual_information_is_that_of_the_statistics_less_its_bias() -> None:
    trace = make_trace((400, 300), layers=3, experts=8, top_k=2)
    linked = np.array(trace.expert_ids)
    linked[:, 1] = (linked[:, 0] + 3) % 8
    trace = replace(trace, expert_ids=linked, content="unchecked")
    figures = Measurement.of(trace).figures()
    bias = 7**2 / (2 * 700 * 4 * math.log(2))
    for pair, expected in enumerate(cross_layer_statistics(trace).by_pair):
        plain = expected.mutual_information_bits
        assert figures.mutual_information[pair] == pytest.approx(max(plain - bias, 0) / 2)
    # A layer that repeats the one below: the partner of an expert has ½, the seven others 1/14 each.
    assert figures.mutual_information[0] == pytest.approx((3 - 0.5 - 0.5 * math.log2(14)) / 2, abs=0.02)
    assert figures.mutual_information[1] < 0.01


def plain_pairs(trace: RoutingTrace, same_sequence: bool) -> float:
    """Mean experts shared in layer 0 by pairs of tokens of one sequence, or of one domain's different sequences."""
    of = trace.sequence_index()
    groups: dict[object, list[float]] = {}
    for a in range(trace.tokens):
        for b in range(trace.tokens):
            one = of[a] == of[b]
            if a == b or trace.domains[of[a]] != trace.domains[of[b]] or one != same_sequence:
                continue
            key = of[a] if same_sequence else trace.domains[of[a]]
            shared = len(set(trace.expert_ids[a, 0].tolist()) & set(trace.expert_ids[b, 0].tolist()))
            groups.setdefault(key, []).append(shared)
    weights = {
        key: np.count_nonzero([k == key for k in (of if same_sequence else [trace.domains[i] for i in of])])
        for key in groups
    }
    return float(np.average([np.mean(groups[key]) for key in groups], weights=[weights[key] for key in groups]))


def test_overlaps_of_sequences_and_domains_are_those_of_all_pairs() -> None:
    trace = make_trace((5, 3, 4, 6, 1), layers=2, experts=6, top_k=2)
    figures = Measurement.of(trace).figures()
    uniform = 4 / 6
    assert figures.sequence_overlap[0] * uniform == pytest.approx(plain_pairs(trace, True))
    assert figures.domain_overlap[0] * uniform == pytest.approx(plain_pairs(trace, False))


def test_what_is_not_there_is_nan() -> None:
    single = make_trace((1, 1), domains=("a", "a"))
    figures = Measurement.of(single).figures()
    for name in ("temporal_overlap", "sequence_overlap", "domain_overlap"):
        assert np.isnan(getattr(figures, name)).all(), name
    assert len(Measurement.of(make_trace(layers=1)).figures().mutual_information) == 0


def test_unrecorded_rows_count_for_nothing() -> None:
    trace = make_trace((6, 5), unrecorded=True)
    figures = Measurement.of(trace).figures()
    recorded = trace.recorded().sum(axis=0)
    assert recorded.min() < trace.tokens
    np.testing.assert_allclose(figures.load.sum(axis=1), trace.experts)
    uses = np.array([np.bincount(trace.expert_ids[r, layer].ravel(), minlength=8) for layer, r in
                     enumerate(trace.recorded().T)])  # fmt: skip
    np.testing.assert_allclose(figures.load, uses * 8 / (2 * recorded[:, None]))
