"""Chances: isotonic tables, and measures of calibration, on counts made by hand."""

import numpy as np
import pytest

from predictor.next_layer.labels import NextLayerHead
from predictor.row_network.chances import calibrate, calibration_error, reliability, score_histogram
from predictor.row_network.integers import CHANCE_BINS
from tests.learned_samples import identified_trace, random_predictor


def counts(**bins: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(seen, chosen) i64 ``[1, bins]`` from ``b3=(seen, chosen)``."""
    seen, chosen = np.zeros((2, 1, CHANCE_BINS), np.int64)
    for name, (number, hits) in bins.items():
        seen[0, int(name[1:])], chosen[0, int(name[1:])] = number, hits
    return seen, chosen


def test_rising_rates_are_kept_and_gaps_filled():
    table = calibrate(*counts(b10=(100, 10), b12=(100, 30)))[0] / 65535
    np.testing.assert_allclose(table[[0, 10, 11, 12, 255]], [0.1, 0.1, 0.2, 0.3, 0.3], atol=1e-4)


def test_falling_rates_are_pooled():
    """0.4 of 100 before 0.1 of 200: together 60 of 300."""
    table = calibrate(*counts(b1=(50, 0), b2=(100, 40), b3=(200, 20), b4=(10, 9)))[0] / 65535
    np.testing.assert_allclose(table[1:5], [0, 0.2, 0.2, 0.9], atol=1e-4)
    assert (np.diff(table) >= 0).all()


def test_tables_are_the_isotonic_regression():
    """By its formula: the largest over the starts of the least over the ends of the rate between."""
    generator = np.random.default_rng(3)
    seen = generator.integers(1, 40, (1, CHANCE_BINS))
    chosen = generator.binomial(seen, np.linspace(0.1, 0.5, CHANCE_BINS))
    hits, total = (np.concatenate([[0], np.cumsum(part[0])]) for part in (chosen, seen))

    def rate(start: int, end: int) -> float:
        return (hits[end + 1] - hits[start]) / (total[end + 1] - total[start])

    bins = range(CHANCE_BINS)
    expected = [max(min(rate(start, end) for end in bins[at:]) for start in bins[: at + 1]) for at in bins]
    np.testing.assert_allclose(calibrate(seen, chosen)[0] / 65535, expected, atol=1e-5)


def test_a_layer_never_recorded_takes_the_table_of_all():
    seen, chosen = np.zeros((2, 3, CHANCE_BINS), np.int64)
    seen[0, 4], chosen[0, 4] = 100, 10
    seen[2, 4], chosen[2, 4] = 300, 90
    table = calibrate(seen, chosen) / 65535
    np.testing.assert_allclose(table[:, 4], [0.1, 0.25, 0.3], atol=1e-4)
    assert not calibrate(0 * seen, 0 * chosen).any()
    assert calibration_error(seen[1:2], chosen[1:2], calibrate(seen, chosen)[1:2]) is None


def test_error_and_reliability_by_hand():
    seen, chosen = counts(b0=(300, 0), b1=(100, 60))
    table = np.zeros((1, CHANCE_BINS), np.uint16)
    table[0, 1:] = 65535 // 2
    assert calibration_error(seen, chosen, table) == pytest.approx(0.25 * 0.1, abs=1e-4)
    said, was, number = reliability(seen, chosen, table, bins=4)
    assert number.tolist() == [300, 100, 0, 0]
    np.testing.assert_allclose(was[:2], [0, 0.6])
    np.testing.assert_allclose(said[:2], [0, 0.5], atol=1e-4)
    assert np.isnan(was[2])


@pytest.mark.parametrize("lookahead", [1, 3])
def test_the_histogram_counts_every_recorded_expert(lookahead):
    """Each layer in the table of the lookahead at which it is asked: layer 0 never more than one."""
    predictor = random_predictor(lookahead=lookahead, nearest=1, farthest=3)
    trace = identified_trace(layers=5, experts=9, lengths=(11, 4), unrecorded=0.3)
    seen, chosen = score_histogram(predictor.network, NextLayerHead((3,), 3), trace)
    recorded = trace.recorded().sum(axis=0)
    np.testing.assert_array_equal(seen.sum(axis=(1, 2, 3)), recorded * 9)
    np.testing.assert_array_equal(chosen.sum(axis=(1, 2, 3)), recorded * 3)
    asked = [min(lookahead, layer + 1) for layer in range(5)]
    assert [int(np.flatnonzero(part.sum(axis=(1, 2)))[0]) + 1 for part in seen] == asked
    assert (chosen <= seen).all()
    scores = predictor.score_trace(trace)
    layer_scores = scores[trace.recorded()[:, 2], 2]
    expected = np.bincount(layer_scores.ravel() >> 4, minlength=CHANCE_BINS)
    np.testing.assert_array_equal(expected, seen[2, asked[2] - 1, 0])


def test_a_calibrated_table_has_no_error_on_what_it_was_made_from():
    generator = np.random.default_rng(0)
    seen = np.full((2, CHANCE_BINS), 1000)
    chosen = np.sort(generator.integers(0, 1000, (2, CHANCE_BINS)), axis=1)
    assert calibration_error(seen, chosen, calibrate(seen, chosen)) < 1e-4
