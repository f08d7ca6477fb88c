"""The configuration of a simulation: what it refuses, and how many experts it holds."""

from typing import Any

import pytest

from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"capacity_expert": 3}, "unknown key 'capacity_expert'; the nearest known key is 'capacity_experts'"),
        (
            {"capacity_experts": 3, "capacity_gb": 1.0},
            "give one of capacity_experts, capacity_fraction and capacity_gb",
        ),
        ({"scope": "layers"}, "scope: Input should be 'layer' or 'global'"),
        ({"capacity_fraction": 1.5}, "capacity_fraction: Input should be less than or equal to 1"),
        ({"capacity_fraction": -0.1}, "capacity_fraction: Input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_configuration_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ForestageError, match=f"here: .*{message}"):
        SimulationConfig.parse(values, origin="here")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"capacity_experts": 5}, 5),
        ({"capacity_experts": 900}, 400),
        ({"capacity_experts": 0}, 0),
        ({"capacity_fraction": 0}, 0),
        ({"capacity_fraction": 0.29}, 116),  # 0.29 · 400 is 115.99… in binary
        ({"capacity_fraction": 0.2924}, 116),
        ({"capacity_gb": 0.0014}, 46),
    ],
)
def test_capacity_in_experts(values: dict[str, Any], expected: int) -> None:
    assert SimulationConfig(**values).capacity(layers=4, experts=100, expert_bytes=30_000) == expected


def test_a_share_of_less_than_one_expert_is_refused_and_none_is_not() -> None:
    with pytest.raises(ForestageError, match=r"0\.001 of 400 experts is less than one; give 0\.0025 or more, or 0"):
        SimulationConfig(capacity_fraction=0.001).capacity(layers=4, experts=100, expert_bytes=30_000)


def test_a_configuration_without_a_capacity_holds_no_known_number() -> None:
    with pytest.raises(ForestageError, match="capacity: not given; give capacity_experts, capacity_fraction or"):
        SimulationConfig().capacity(layers=4, experts=100, expert_bytes=30_000)
