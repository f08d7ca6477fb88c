"""The tables of the whole system hold what the comparison found."""

from study.system.tables import by_share, every_row
from tests.study.system.made_comparisons import TIMES, point


def test_a_share_has_its_row_with_its_price_and_its_gains() -> None:
    (row,) = by_share([point(TIMES, "background, learned", share=0.125)]).rows
    assert row.cells == (
        "12.5\u202f%",
        "background, learned\nprice 1.5 certain uses",
        "1.6 ms",
        "2.50\u202f×\n2.45 to 2.55",
        "1.25\u202f×\n1.20 to 1.30",
        "1.25\u202f×\n1.20 to 1.30",
        "1 ms",
    )


def test_an_unlearned_winner_has_no_price_and_no_unlearned_rival() -> None:
    (row,) = by_share([point(TIMES, "static placement", spread=None)]).rows
    assert row.cells[1:] == ("static placement", "2 ms", "2.00\u202f×", "–", "–", "1 ms")


def test_each_row_is_put_beside_the_baseline_of_its_family_and_oracles_are_pale() -> None:
    rows = {row.cells[0]: row for row in every_row(point(TIMES, "background, learned")).rows}
    assert {name: row.cells[2] for name, row in rows.items()} == {
        "LRU": "baseline",
        "learned": "1.33\u202f×\n1.28 to 1.38",
        "Belady + perfect prefetch (oracle)": "4.00\u202f×\n3.95 to 4.05",
        "static placement": "baseline",
        "background, learned ←": "1.25\u202f×\n1.20 to 1.30",
    }
    assert [name for name, row in rows.items() if row.pale] == ["Belady + perfect prefetch (oracle)"]
