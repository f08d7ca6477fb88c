"""The report says in sentences where prediction pays, and from which bandwidths on the host computes."""

import pytest

from study.system.sentences import what_each_brings, where_it_does_not_pay
from tests.study.system.made_comparisons import TIMES, point

LOSING = {**TIMES, "background, learned": 2.5}
FETCHING = {**TIMES, "learned": 1.0}
HALF = "50\u202f%"


def test_the_places_where_prediction_does_not_pay_are_named() -> None:
    by_link = [
        point(TIMES, "background, learned", link=16.0),
        point(TIMES, "background, learned", spread=0.3, link=32.0),
        point(LOSING, "static placement", link=64.0),
        point(LOSING, "static placement", share=0.75, link=64.0),
        point(FETCHING, "learned", link=128.0),
    ]
    by_host = [
        point(FETCHING, "learned", host=60.0),
        point(TIMES, "background, learned", host=300.0),
        point(LOSING, "static placement", host=500.0),
    ]
    said = where_it_does_not_pay(by_link, by_host)
    assert said.startswith("By link, prediction pays at 2 of 5 points of the map")
    assert f"no clear difference at 1 ({HALF} held over 32 GB/s)" in said
    assert f"at 2 ({HALF} held over 64 GB/s; 75\u202f% held over 64 GB/s)" in said
    assert "By host memory, prediction pays at 2 of 3 points of the map, and loses to an unlearned policy at 1" in said
    assert f"({HALF} held beside 500 GB/s)" in said
    assert (
        f"beats letting the host compute it from a link of 128 GB/s on with {HALF} held; nowhere with 75\u202f% held."
        in said
    )
    assert said.endswith("beats fetching it from a host memory of 300 GB/s on, whatever share is held.")


@pytest.mark.parametrize(
    ("by_host", "says"),
    [
        (["background, learned", "background, learned"], "beats fetching it beside every host memory of the map."),
        (["background, learned", "learned"], "beats fetching it beside no host memory of the map."),
    ],
)
def test_a_bandwidth_that_decides_nothing_is_not_named(by_host: list[str], says: str) -> None:
    cells = [point(TIMES, best, host=host) for best, host in zip(by_host, (60.0, 300.0), strict=True)]
    assert where_it_does_not_pay([point(TIMES, "background, learned")], cells).endswith(says)


def test_where_nothing_is_computed_by_the_host_no_bandwidth_is_told() -> None:
    cells = [point(FETCHING, "learned")]
    assert where_it_does_not_pay(cells, cells).endswith("everywhere on both maps.")


def test_without_learned_rows_nothing_is_said_of_prediction() -> None:
    cells = [point({"LRU": 2.0, "static placement": 1.0}, "static placement")]
    assert where_it_does_not_pay(cells, cells).startswith("Without learned predictors the maps show")


def test_what_each_brings_is_told_of_the_rows_that_were_run() -> None:
    said = what_each_brings(point(TIMES, "learned"))
    assert said == (
        "Where a missing expert is fetched, over LRU: both, with background loads where they pay 1.33\u202f×."
    )
