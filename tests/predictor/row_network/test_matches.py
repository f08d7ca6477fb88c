"""Where a text last stood as it does now: by hand, and against a plain search."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.row_network.kernels import UNKNOWN, look_up, named_tokens


def named(
    identities: list[int], starts: tuple[int, ...] = (0,), *, lengths: tuple[int, ...], entries: int = 4096
) -> list[list[int]]:
    """What each table names, and then what the longest n-gram names."""
    begins = np.isin(np.arange(len(identities)), starts)
    return named_tokens(np.array(identities, np.int64), begins, np.array(lengths), entries).tolist()


def test_the_longest_ngram_counts() -> None:
    text = [1, 2, 3, 9, 3, 1, 2, 3]
    one, longest = named(text, lengths=(1,))
    assert one == longest == [-1, -1, -1, -1, 2, 0, 1, 4]
    one, two, longest = named(text, lengths=(1, 2))
    assert (one, two) == ([-1, -1, -1, -1, 2, 0, 1, 4], [-1] * 6 + [1, 2])
    assert longest == [-1, -1, -1, -1, 2, 0, 1, 2]
    assert named(text, lengths=(3,))[1] == [-1] * 7 + [2]


def test_another_sequence_and_unknown_words_are_not_matched() -> None:
    assert named([1, 2, 1, 2], (0, 2), lengths=(1,))[1] == [-1] * 4
    assert named([1, -1, 1, -1], lengths=(1,))[1] == [-1, -1, 0, -1]
    assert named([1, -1, 2, 1, -1, 2], lengths=(2,))[1] == [-1] * 6


def test_an_entry_holds_the_newest_key_alone() -> None:
    # 1 and 5 share the entry 1 of four.
    assert named([1, 5, 1, 1, 5], lengths=(1,), entries=4)[1] == [-1, -1, -1, 2, -1]
    assert named([1, 5, 1, 1, 5], lengths=(1,), entries=8)[1] == [-1, -1, 0, 2, 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 16))
def test_what_is_named_is_what_a_search_finds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    text = generator.integers(0, 4, 50).tolist()
    starts = (0, *sorted(generator.choice(np.arange(1, 50), 2, replace=False).tolist()))
    found = named(text, starts, lengths=(1, 3), entries=1 << 16)[2]  # an entry for each three words
    for token in range(50):
        begin = max(start for start in starts if start <= token)
        before = text[begin : token + 1]
        expected = -1
        for length in (1, 3):
            earlier = [
                p for p in range(length - 1, len(before) - 1) if before[p - length + 1 : p + 1] == before[-length:]
            ]
            expected = begin + earlier[-1] if earlier else expected
        assert found[token] == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 16), length=st.integers(1, 8))
def test_a_key_is_its_bits_rotated(seed: int, length: int) -> None:
    """Identities of 32 bits, the largest among them: an entry by the low bits of the key written out."""
    words = np.random.default_rng(seed).choice([1, 5, 9, 2, (1 << 32) - 3], length).astype(np.int64)
    keys, places = np.full((1, 1 << 10), UNKNOWN), np.zeros((1, 1 << 10), np.int64)
    tokens, found = np.full(length, UNKNOWN), np.empty(2, np.int64)
    for position, word in enumerate(words.tolist()):
        look_up(np.array([length]), tokens, keys, places, word, position, found)
    bits = "0" * 32
    for word in words.tolist():
        bits = f"{int(bits[7:] + bits[:7], 2) ^ word:032b}"
    (written,) = np.flatnonzero(keys[0] >= 0)
    assert (written, keys[0, written], places[0, written]) == (int(bits, 2) % 1024, int(bits, 2), length - 1)
