import pytest

from study import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2 s"), (1.0, "1 s"), (0.0125, "12.5 ms"), (1e-3, "1 ms"), (3.4e-6, "3.4 µs"), (1e-6, "1 µs"),
        (5e-8, "50 ns"), (0.0, "0 ns"),
    ],
)  # fmt: skip
def test_seconds_take_a_fitting_unit(value: float, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (999, "999 B"), (1000, "1 kB"), (2500, "2.5 kB"), (1e6, "1 MB"), (13_219_200, "13.2 MB"), (1e9, "1 GB"),
        (13e9, "13 GB"), (1e12, "1 TB"), (2.25e12, "2.25 TB"),
    ],
)  # fmt: skip
def test_sizes_are_decimal(value: float, text: str) -> None:
    assert numbers.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (20_914_757_184, "20.9 billion"), (999_400_000_000, "999 billion"), (1_000_000_000_000, "1\u202f000 billion"),
        (1_026_408_232_448, "1\u202f026 billion"), (500_000_000, "0.5 billion"),
    ],
)  # fmt: skip
def test_weights_are_counted_in_billions(value: int, text: str) -> None:
    assert numbers.billions(value) == text


def test_one_of_a_thing_is_no_plural() -> None:
    assert [numbers.counted(number, "token") for number in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]
    assert numbers.tokens_of(2500, 1) == "2\u202f500 tokens of 1 sequence"


def test_a_figure_has_the_decimals_asked_for() -> None:
    assert (numbers.percent(0.12345), numbers.percent(0.12345, 2)) == ("12.3\u202f%", "12.35\u202f%")
    assert (numbers.fixed(0.12345), numbers.fixed(0.12345, 1)) == ("0.123", "0.1")


def test_absent_figures_are_dashes() -> None:
    assert numbers.percent(None) == "–"
    assert numbers.fixed(None) == "–"


def test_thousands_are_kept_apart() -> None:
    assert numbers.count(1234567) == "1\u202f234\u202f567"


def test_layers_in_words() -> None:
    assert (numbers.layers_text(1), numbers.layers_text(3)) == ("one layer", "3 layers")


def test_a_verdict_counts_what_differs() -> None:
    assert (numbers.verdict(0), numbers.verdict(3)) == ("equal", "3 DIFFERENT")
