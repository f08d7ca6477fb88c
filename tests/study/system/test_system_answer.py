"""What is concluded from a comparison: what to build, against which rival, and whether prediction pays."""

import pytest

from predictor.policies.rows import FETCH, HOST
from study.system.answer import Verdict, advice, overtakes
from study.system.machine import host_memory_of, link_of
from tests.study.system.made_comparisons import TIMES, point


def test_the_rival_of_a_learned_row_is_the_fastest_unlearned_one_and_no_oracle() -> None:
    found = advice(point(TIMES, "background, learned"))
    assert found.rival is not None
    assert (found.best.name, found.rival.name) == ("background, learned", "static placement")
    assert found.verdict is Verdict.PAYS


@pytest.mark.parametrize(
    ("times", "recommended", "spread", "verdict"),
    [
        (TIMES, "background, learned", 0.3, Verdict.UNCLEAR),
        (TIMES, "background, learned", None, Verdict.UNCLEAR),
        (TIMES, "learned", 0.05, Verdict.DOES_NOT),  # tuning chose it, and it was slower on the test tokens
        ({**TIMES, "background, learned": 2.5}, "static placement", 0.05, Verdict.DOES_NOT),
        ({"LRU": 2.0, "static placement": 1.0}, "static placement", 0.05, None),
    ],
)
def test_prediction_pays_only_where_its_whole_interval_says_so(
    times: dict[str, float], recommended: str, spread: float | None, verdict: Verdict | None
) -> None:
    assert advice(point(times, recommended, spread=spread)).verdict is verdict


def test_fetching_must_win_on_all_faster_links_too() -> None:
    fetches, computes = {**TIMES, "learned": 1.0}, TIMES
    cells = [
        point(fetches, "learned", link=16.0),
        point(computes, "background, learned", link=32.0),
        point(fetches, "learned", link=64.0),
    ]
    assert overtakes(cells, FETCH, link_of) == 64.0
    assert overtakes(cells[:2], FETCH, link_of) is None


def test_the_host_must_win_beside_all_faster_memories_too() -> None:
    fetches, computes = {**TIMES, "learned": 1.0}, TIMES
    cells = [
        point(computes, "background, learned", host=500.0),
        point(fetches, "learned", host=60.0),
        point(computes, "static placement", host=300.0),
    ]
    assert overtakes(cells, HOST, host_memory_of) == 300.0
    assert overtakes(cells[1:2], HOST, host_memory_of) is None
