import pytest

from study import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0, "2 s"), (0.0125, "12.5 ms"), (3.4e-6, "3.4 µs"), (5e-8, "50 ns"), (0.0, "0 ns")],
)
def test_seconds_take_a_fitting_unit(value: float, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(999, "999 B"), (13_219_200, "13.2 MB"), (2e12, "2 TB")])
def test_sizes_are_decimal(value: float, text: str) -> None:
    assert numbers.size(value) == text


def test_absent_figures_are_dashes() -> None:
    assert numbers.percent(None) == "–"
    assert numbers.fixed(None) == "–"


def test_thousands_are_kept_apart() -> None:
    assert numbers.count(1234567) == "1\u202f234\u202f567"


def test_layers_in_words() -> None:
    assert (numbers.layers_text(1), numbers.layers_text(3)) == ("one layer", "3 layers")


def test_a_verdict_counts_what_differs() -> None:
    assert (numbers.verdict(0), numbers.verdict(3)) == ("equal", "3 DIFFERENT")
