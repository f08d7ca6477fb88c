"""Which missing experts are fetched where the host may compute them: the split with the earliest estimated end."""

from typing import Any

import numpy as np
import pytest

from predictor.policies.sooner import fetched

HOST_WORK = 1000
STOPPED, SLOW = np.array([0, 0]), np.array([0, 2])
GIVEN: dict[str, Any] = {
    "moving": -1, "link_free_ps": 0, "device_free_ps": 0, "transfer_ps": 100, "expert_ps": np.array([0, 5]),
    "host_work": HOST_WORK, "host_free_rate": np.array([0, 10]),
    "host_shared_rate": np.array([0, 10]), "host_groups": 1,
    "host_before_ps": 0, "host_after_ps": 0, "host_token_ps": 0,
}  # fmt: skip
"""A transfer takes 100 ps and 5 more to run, the host 100 ps an expert, whether the link moves or not."""


def chosen(missing: int, worth: list[int] | None = None, **given: Any) -> list[int]:
    """Places of the fetched."""
    found = np.empty(missing, np.bool_)
    of = {**GIVEN, **given}
    fetched(np.ones(missing, np.int64), np.array(worth or [0] * missing, np.int64), *of.values(), found)
    return np.flatnonzero(found).tolist()


@pytest.mark.parametrize(
    ("missing", "given", "count"),
    [
        (1, {}, 0),  # host 100, fetched 105
        (1, {"host_before_ps": 3, "host_after_ps": 3}, 1),  # host 106, fetched 105
        (1, {"device_free_ps": 200}, 0),  # host ends with the device at 200, fetched would end at 205
        (2, {}, 1),  # none 200; one max(105, 100); both 205
        (3, {}, 1),  # none 300; one max(105, 200) = 200; two max(205, 100) = 205
        (4, {}, 2),  # one 300, two max(205, 200) = 205, three 305
        (2, {"link_free_ps": 99}, 0),  # none 200; one max(204, 100); both 304
        (2, {"host_shared_rate": STOPPED}, 0),  # none 200; one: the host waits 100, then 100: 200; both 205: the fewest
        (2, {"host_free_rate": np.array([0, 5])}, 1),  # none 400; one max(105, 100) at 10
        (2, {"host_free_rate": SLOW, "host_shared_rate": SLOW}, 2),  # 500 an expert; both fetched 205
        (3, {"host_groups": 2}, 1),  # none 200, two after each other; one max(105, 100), the others at once
        (4, {"host_groups": 4}, 0),  # all at once: 100
        (1, {"host_token_ps": 6}, 1),  # in memory 106, fetched 105
    ],
)
def test_the_fewest_with_the_earliest_end_are_fetched(missing: int, given: dict[str, Any], count: int) -> None:
    assert len(chosen(missing, **given)) == count


def test_those_of_most_worth_are_fetched_and_of_equals_the_first() -> None:
    assert chosen(4, [5, 9, 7, 9]) == [1, 3]
    assert chosen(4, [5, 5, 5, 5]) == [0, 1]


def test_what_is_moving_already_is_fetched_first_whatever_it_is_worth() -> None:
    assert chosen(2, [9, 0], moving=1, link_free_ps=50) == [1]  # one: max(55, 100); both: max(155, 0)
    assert chosen(1, [0], moving=0, link_free_ps=94) == [0]  # 99 against 100
    assert chosen(1, [0], moving=0, link_free_ps=95) == []  # 100 against 100
