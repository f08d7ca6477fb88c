"""Chances of several sequences become one."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.row_network.merging import merge_chances, merged_chance, values_of

CHANCES = st.integers(0, 65535)


@settings(deadline=None)
@given(CHANCES, CHANCES)
def test_merging_is_the_nearest_integer_to_the_chance_of_one_of_two(a: int, b: int) -> None:
    """There is no tie, as 65535 is odd."""
    exact = 65535 * (1 - (1 - Fraction(a, 65535)) * (1 - Fraction(b, 65535)))
    assert merged_chance(a, b) == round(exact)


@settings(deadline=None)
@given(CHANCES)
def test_one_sequence_keeps_its_chance(chance: int) -> None:
    assert merged_chance(0, chance) == chance == merged_chance(chance, 0)
    assert merged_chance(65535, chance) == 65535 == merged_chance(chance, 65535)


@settings(deadline=None)
@given(CHANCES, CHANCES, CHANCES)
def test_merging_rises_with_each_chance_and_with_each_sequence(a: int, b: int, c: int) -> None:
    low, high = sorted((b, c))
    assert merged_chance(a, low) <= merged_chance(a, high)
    assert merged_chance(low, a) <= merged_chance(high, a)
    assert max(a, b) <= merged_chance(a, b) == merged_chance(b, a) <= 65535


def test_rows_are_merged_and_their_questions_summed() -> None:
    merged = np.zeros(6, np.uint16)
    merge_chances(merged, np.array([0, 65535, 32768, 1, 2, 3], np.uint16))
    assert merged.tolist() == [0, 65535, 32768, 1, 2, 3]
    merge_chances(merged, np.array([5, 9, 32768, 0, 65535, 1], np.uint16))
    assert merged.tolist() == [5, 65535, 49152, 1, 65535, 4]
    values = np.zeros(3, np.int32)
    values_of(merged, 3, values)
    assert values.tolist() == [6, 131070, 49156]
