"""Where a text last stood as it does now: by hand, against a plain search, and the keys of the tagged tables."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.learned.kernels import matched_tokens, tagged_key
from predictor.learned.tables import KEY_ROTATION
from predictor.next_use.matches import context_key, find_matches, no_matches
from predictor.next_use.parameters import NextUseParameters
from tests.predictor.next_use.next_use_samples import IDENTITIES

WORDS = st.lists(st.integers(-1, (1 << 32) - 1), min_size=8, max_size=8)


def matches_of(
    identities: list[int], starts: tuple[int, ...] = (0,), chunk: int = 1 << 20, **parameters: object
) -> list[int]:
    """Positions that the tokens match, found chunk by chunk."""
    chosen = NextUseParameters.model_validate(parameters)
    state = no_matches(chosen)
    begins = np.isin(np.arange(len(identities)), starts)
    found = []
    for first in range(0, len(identities), chunk):
        part = slice(first, first + chunk)
        found += find_matches(np.array(identities[part], np.int64), begins[part], chosen, state)[1].tolist()
    return found


@settings(deadline=None)  # the first compiles
@given(words=WORDS, length=st.integers(1, 8))
def test_keys_are_those_of_the_tagged_tables(words: list[int], length: int) -> None:
    latest = np.array(words, np.int64)
    assert context_key(latest, length) == tagged_key(latest, length, KEY_ROTATION)


@settings(deadline=None)
@given(seed=st.integers(0, 1 << 16), length=st.integers(1, 3), entries=st.sampled_from([1, 4, 4096]))
def test_matches_are_those_of_the_tagged_tables(seed: int, length: int, entries: int) -> None:
    generator = np.random.default_rng(seed)
    identities = generator.choice(IDENTITIES, 40).astype(np.int64)
    starts = np.isin(np.arange(40), (0, 17))
    chosen = NextUseParameters(contexts=(length,), context_entries=entries)
    positions, matches = find_matches(identities, starts, chosen, no_matches(chosen))
    assert positions.tolist() == [*range(17), *range(23)]
    rows = np.where(matches < 0, -1, np.arange(40) - positions + matches)
    assert rows.tolist() == matched_tokens(identities, starts, length, KEY_ROTATION, entries).tolist()


def test_the_longest_context_counts() -> None:
    text = [1, 2, 3, 9, 3, 1, 2, 3]
    assert matches_of(text, contexts=(1,)) == [-1, -1, -1, -1, 2, 0, 1, 4]
    assert matches_of(text, contexts=(1, 2)) == [-1, -1, -1, -1, 2, 0, 1, 2]
    assert matches_of(text, contexts=(3,)) == [-1] * 7 + [2]


def test_another_sequence_and_unknown_words_are_not_matched() -> None:
    assert matches_of([1, 2, 1, 2], starts=(0, 2), contexts=(1,)) == [-1] * 4
    assert matches_of([1, -1, 1, -1], contexts=(1,)) == [-1, -1, 0, -1]
    assert matches_of([1, -1, 2, 1, -1, 2], contexts=(2,)) == [-1] * 6


def test_an_entry_holds_the_newest_key_alone() -> None:
    # 1 and 5 share the entry 1 of four.
    assert matches_of([1, 5, 1, 1, 5], contexts=(1,), context_entries=4) == [-1, -1, -1, 2, -1]
    assert matches_of([1, 5, 1, 1, 5], contexts=(1,), context_entries=8) == [-1, -1, 0, 2, 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 16), chunk=st.integers(1, 9))
def test_chunks_join_and_find_what_a_search_finds(seed: int, chunk: int) -> None:
    generator = np.random.default_rng(seed)
    text = generator.integers(0, 4, 50).tolist()
    starts = (0, *sorted(generator.choice(np.arange(1, 50), 2, replace=False).tolist()))
    found = matches_of(text, starts, chunk, contexts=(1, 3), context_entries=1 << 16)  # an entry for each three words
    for token in range(50):
        begin = max(start for start in starts if start <= token)
        before = text[begin : token + 1]
        expected = -1
        for length in (1, 3):
            earlier = [
                p for p in range(length - 1, len(before) - 1) if before[p - length + 1 : p + 1] == before[-length:]
            ]
            expected = earlier[-1] if earlier else expected
        assert found[token] == expected


def test_without_windows_nothing_is_looked_up() -> None:
    assert matches_of([1, 1, 1], follow=()) == [-1] * 3
