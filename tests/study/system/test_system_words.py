"""Rows, gains and prices in words."""

from perfmodel.comparison import Gain
from predictor.policies.policy import Eviction, Policy
from predictor.row_network.integers import CERTAIN
from study.system.words import gain_text, gains_told, in_words, price_text
from tests.study.system.made_comparisons import LEARNED, TIMES, line, point


def test_a_gain_without_interval_is_a_number_alone() -> None:
    assert gain_text(Gain(over="LRU", ratio=1.234, low=None, high=None)) == "1.23\u202f×"
    assert gain_text(None) == "–"


def test_a_row_in_words_names_what_keeps_what_is_missing_and_what_moves() -> None:
    said = in_words(line("background, learned", 1.0))
    assert "whichever ends sooner" in said
    assert "next-use predictor" in said
    assert price_text(LEARNED) == "1.5 certain uses"
    assert said.endswith("worth more by 1.5 certain uses than what gives way")


def test_a_price_of_counters_is_a_share_of_their_range() -> None:
    price = Policy(eviction=Eviction.FREQUENCY, background=True, price=CERTAIN // 16)
    assert price_text(price) == "6.2\u202f% of the counters' range"
    assert price_text(LEARNED.model_copy(update={"price": CERTAIN})) == "1 certain use"


def test_gains_over_what_everyone_knows_and_over_the_fastest_of_the_other_kind_are_told() -> None:
    told = gains_told(point(TIMES, "background, learned"))
    assert told == [
        "2.50\u202f× (2.45 to 2.55) as fast as an LRU cache that fetches what is missing",
        "1.25\u202f× (1.20 to 1.30) as fast as a static placement with the host computing",
    ]
    told = gains_told(point(TIMES, "static placement"))
    assert told[-1] == "0.80\u202f× (0.75 to 0.85) as fast as “background, learned”, the fastest learned policy"
