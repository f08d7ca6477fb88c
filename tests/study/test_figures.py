"""Figures: the same data give the same picture, and pictures on one page do not share ids."""

import re

from study.figures.caches import hit_rate_over_capacity
from study.figures.style import to_svg

POINTS = [
    {"policy": policy, "capacity": capacity, "hit_rate": capacity / 10}
    for policy in ("lru", "lfu", "belady")
    for capacity in (2, 4)
]


def test_the_same_data_give_the_same_text() -> None:
    first, second = (to_svg(hit_rate_over_capacity(POINTS, 8), "a") for _ in range(2))
    assert first == second


def test_two_pictures_share_no_ids() -> None:
    first, second = (
        set(re.findall(r'id="([^"]+)"', to_svg(hit_rate_over_capacity(POINTS, 8), identity))) for identity in ("a", "b")
    )
    assert first
    assert not first & second
