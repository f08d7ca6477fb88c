"""Intervals by resampling sequences: against a plain loop, against known spread, and at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.measure import bootstrap
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio


def counts(seed: int, sequences: int, columns: int) -> Ratio:
    generator = np.random.default_rng(seed)
    denominator = generator.integers(1, 50, (sequences, columns))
    return Ratio(generator.integers(0, denominator + 1), denominator)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 100), sequences=st.integers(2, 9), resamples=st.integers(1, 40))
def test_an_interval_is_the_percentiles_of_resampled_ratios(seed, sequences, resamples):
    ratio = counts(seed, sequences, 3)
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = []
    for _ in range(resamples):
        picked = [int(generator.integers(sequences)) for _ in range(sequences)]
        drawn.append([sum(ratio.numerator[i][c] for i in picked) / sum(ratio.denominator[i][c] for i in picked)
                      for c in range(3)])  # fmt: skip
    low, high = interval(ratio, Bootstrap(resamples=resamples, seed=seed))
    np.testing.assert_allclose(low, np.percentile(drawn, 2.5, axis=0))
    np.testing.assert_allclose(high, np.percentile(drawn, 97.5, axis=0))


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    ratio = counts(1, 20, 2)
    whole = interval(ratio, Bootstrap(resamples=64))
    monkeypatch.setattr(bootstrap, "_BLOCK_WEIGHTS", 100)
    np.testing.assert_array_equal(interval(ratio, Bootstrap(resamples=64)), whole)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    """Sequences whose own rate varies around one half; percentile intervals over 40 of them are slightly narrow."""
    generator = np.random.default_rng(5)
    held = 0
    for trial in range(300):
        rates = generator.beta(4, 4, 40)
        lengths = generator.integers(20, 80, 40)
        low, high = interval(Ratio(generator.binomial(lengths, rates)[:, None], lengths[:, None]),
                             Bootstrap(resamples=200, seed=trial))  # fmt: skip
        held += bool(low[0] <= 0.5 <= high[0])
    assert 0.90 <= held / 300 <= 0.98


def test_the_unit_is_the_sequence():
    """Longer sequences of the same kind say no more about other sequences."""
    ratio = counts(3, 12, 1)
    longer = Ratio(100 * ratio.numerator, 100 * ratio.denominator)
    np.testing.assert_allclose(interval(longer, Bootstrap()), interval(ratio, Bootstrap()))


def test_shapes_are_kept():
    ratio = Ratio(np.ones((5, 2, 3), np.int64), np.full((5, 2, 3), 4))
    low, high = interval(ratio, Bootstrap(resamples=10))
    assert low.shape == high.shape == (2, 3)
    assert (low == 0.25).all()


def test_no_interval_without_two_sequences_or_resamples():
    for ratio, resamples in ((counts(1, 1, 2), 100), (counts(1, 5, 2), 0)):
        assert np.isnan(interval(ratio, Bootstrap(resamples=resamples))).all()


def test_draws_in_which_a_metric_is_undefined_are_left_out():
    ratio = Ratio(np.array([[3, 0], [0, 0]]), np.array([[4, 0], [0, 0]]))
    low, high = interval(ratio, Bootstrap(resamples=50))
    assert low[0] == high[0] == 0.75
    assert np.isnan((low[1], high[1])).all()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ForestageError, match="resamples"):
        Bootstrap.parse({"resamples": -1}, origin="test")
