"""Gate-mass recall: shares of a row's weight in whole units, counted as hits are."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from predictor import registry
from predictor.measure.evaluate import evaluate
from predictor.measure.gate_mass import MASS_ONE, mass_units
from predictor.measure.metrics import gate_mass_recall, perfect_gate_mass, recall, tally_predictor
from tests.routing import trace_of
from traces import RoutingTrace

LENGTHS = (5, 7, 9, 4, 6)


def weighed_trace(
    *, seed: int = 0, kind: str = "normalised", unrecorded: float = 0.0, scale: float = 1.0
) -> RoutingTrace:
    """Random routing of 4 layers, 3 of 8 experts, with weights."""
    generator = np.random.default_rng(seed)
    shape = (sum(LENGTHS), 4)
    ids = generator.random((*shape, 8)).argsort(axis=-1)[..., :3]
    ids[generator.random(shape) < unrecorded] = 255
    weights = generator.random((*shape, 3)) + 0.05
    weights = scale * weights / weights.sum(axis=-1, keepdims=True)
    return trace_of(
        ids, experts=8, lengths=LENGTHS, gate_weights=weights.astype(np.float16), gate_weight_kind=kind, ranked=False
    )


@settings(deadline=None)  # the first call compiles
@given(arrays.arrays(np.uint16, (2, 2, 5), elements=st.integers(0, 0x7BFF)))
def test_units_are_whole_shares_that_sum_to_one(bits):
    weights = bits.view(np.float16)
    units = mass_units(weights, np.ones((2, 2), np.bool_))
    for token in range(2):
        for layer in range(2):
            row = [Fraction(float(weight)) for weight in weights[token, layer]]
            if not sum(row):
                assert not units[token, layer].any()
                continue
            assert units[token, layer].sum() == MASS_ONE
            for weight, unit in zip(row, units[token, layer].tolist(), strict=True):
                assert abs(weight / sum(row) * MASS_ONE - unit) < 1


def test_what_is_left_over_goes_to_the_largest_remainders_and_the_earlier_place():
    thirds = mass_units(np.array([[[1, 1, 1]]], np.float16), np.ones((1, 1), np.bool_))
    assert thirds.tolist() == [[[21846, 21845, 21845]]]
    sevenths = mass_units(np.array([[[1, 2, 4]]], np.float16), np.ones((1, 1), np.bool_))
    assert sevenths.tolist() == [[[9362, 18725, 37449]]]  # remainders 2/7, 4/7, 1/7
    assert not mass_units(np.ones((1, 1, 3), np.float16), np.zeros((1, 1), np.bool_)).any()


def plain_gate_mass(scores, trace, limit, threshold, lookahead):
    """Mean over rows of the share of the chosen experts' units that is among the best ``limit``."""
    units = mass_units(trace.gate_weights, trace.recorded())
    found = rows = 0
    for token, layer in np.argwhere(trace.recorded()):
        if layer < lookahead or not units[token, layer].any():
            continue
        row = scores[token, layer]
        order = sorted((e for e in range(len(row)) if row[e] >= threshold), key=lambda e: (-row[e], e))[:limit]
        rows += 1
        found += sum(
            int(unit)
            for expert, unit in zip(trace.expert_ids[token, layer], units[token, layer], strict=True)
            if expert in order
        )
    return found / (rows * MASS_ONE)


@pytest.mark.parametrize("name", ["previous-token", "st-moe"])
@pytest.mark.parametrize("unrecorded", [0.0, 0.3])
def test_the_tally_counts_the_mass_of_what_is_hit(name, unrecorded):
    trace = weighed_trace(unrecorded=unrecorded)
    fitted = registry.fit(name, weighed_trace(seed=1), lookahead=2)
    scores = fitted.score_trace(trace)
    tally = tally_predictor(fitted, trace, (2, 5), chunk_tokens=3)
    values = gate_mass_recall(tally.overall().over(0)).values()
    for column, limit in enumerate((2, 5, None)):
        assert values[column] == plain_gate_mass(scores, trace, limit, fitted.issue_threshold, 2)
    curve = gate_mass_recall(tally.curve.over(0)).values()
    assert curve.tolist() == [plain_gate_mass(scores, trace, m, fitted.issue_threshold, 2) for m in range(1, 9)]
    assert (gate_mass_recall(tally.overall().over(0)).values() != recall(tally.overall().over(0)).values()).any()


def test_raw_softmax_weights_are_normalised_by_what_the_row_chose():
    normalised = evaluate(weighed_trace(), "popularity", issue=(3,), split="all")
    raw = evaluate(weighed_trace(kind="softmax", scale=0.25), "popularity", issue=(3,), split="all")
    assert raw.gate_mass == normalised.gate_mass
    assert raw.intervals.gate_mass == normalised.intervals.gate_mass


def test_the_bound_issues_the_heaviest_and_everything_is_everything():
    trace = weighed_trace()
    weights = trace.gate_weights[:, 1:].astype(np.float64)
    shares = np.sort(weights / weights.sum(axis=-1, keepdims=True), axis=-1)[..., ::-1]
    for limit in (1, 2, 3, 8):
        (bound,) = perfect_gate_mass(trace, (limit,), 1)
        assert bound == pytest.approx(shares[..., :limit].sum(axis=-1).mean(), abs=1e-4)
    result = evaluate(trace, "popularity", issue=(1, 8), split="all")
    assert result.gate_mass["8"] == 1
    assert result.gate_mass["1"] < result.bounds.perfect_gate_mass["1"] < 1
    low, high = result.intervals.gate_mass["1"]
    assert low < result.gate_mass["1"] < high
    assert result.by_layer[0].gate_mass["1"] is not None
    assert result.by_domain["a"].gate_mass == result.gate_mass


def test_popularity_stands_beside_as_the_null():
    result = evaluate(weighed_trace(), "st-moe", issue=(2, 3))
    popularity = evaluate(weighed_trace(), "popularity", issue=(2, 3))
    assert result.bounds.popularity.recall == popularity.recall
    assert result.bounds.popularity.gate_mass == popularity.gate_mass
    assert result.bounds.random == {"2": 0.25, "3": 0.375}


def test_without_weights_there_is_no_gate_mass():
    weighed = weighed_trace()
    bare = trace_of(weighed.expert_ids, experts=8, lengths=LENGTHS)
    result = evaluate(bare, "popularity", issue=(2,), split="all")
    assert (result.gate_mass, result.intervals.gate_mass) == ({"2": None}, {"2": None})
    assert result.bounds.perfect_gate_mass == {"2": None}
    assert not any("gate_mass" in note for note in result.notes)


def test_rows_without_weight_and_weights_of_unknown_kind_are_told():
    trace = weighed_trace(kind="unknown")
    assert any("does not say what its gate weights are" in n for n in evaluate(trace, "popularity", split="all").notes)
    weights = np.array(weighed_trace().gate_weights)
    weights[3, 2] = 0
    part = trace_of(
        trace.expert_ids, experts=8, lengths=LENGTHS, gate_weights=weights, gate_weight_kind="softmax", ranked=False
    )
    result = evaluate(part, "popularity", issue=(8,), split="all")
    assert result.gate_mass["8"] == 1  # the row counts neither as found nor as missed
    assert any("1 rows whose weights are all 0" in note for note in result.notes)
