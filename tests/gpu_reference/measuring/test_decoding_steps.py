"""How many steps are decoded: enough to compare rows, and not for too long; and what comes first."""

import pytest

from gpu_reference.measuring.points import FEWEST_ROWS, FIRST_ROWS, POINTS, SHOWN
from gpu_reference.measuring.sections import sections_of
from gpu_reference.measuring.steps import LEAST_STEPS, Purpose, fitting_steps, timed_steps


def test_rows_that_are_compared_have_160_tokens_or_more() -> None:
    for point in POINTS:
        for purpose in (Purpose.TEST, Purpose.HOST_TEST):
            assert timed_steps("full", purpose, point) * point.batch >= 160
    assert [timed_steps("full", Purpose.TEST, point) for point in SHOWN] == [256, 256, 160, 160, 160]


@pytest.mark.parametrize(
    ("step_s", "steps"), [(0.001, 160), (0.125, 160), (0.126, 80), (0.3, 40), (1.0, LEAST_STEPS), (60.0, LEAST_STEPS)]
)
def test_steps_are_halved_until_a_row_ends_in_time(step_s: float, steps: int) -> None:
    assert fitting_steps("full", 160, step_s) == steps


def test_what_is_to_be_shown_comes_before_the_rest() -> None:
    names = [plan.name for plan in sections_of(None)]
    decoded = [name for name in names if name.startswith("decode")]
    assert decoded[:5] == [
        "decode: real sizes, share 0.25, batch 1",
        "decode: real sizes, share 0.5, batch 1",
        "decode: real sizes in bf16, share 0.25, batch 1",
        "decode: real sizes in bf16, share 0.5, batch 1",
        "decode: small experts, share 0.25, batch 1",
    ]
    assert names.index("layer overhead") < names.index(decoded[0])
    assert names.index(decoded[4]) < names.index("overlap") < names.index(decoded[5])
    assert all(name.endswith(": further rows") for name in names[-len(POINTS) :])


def test_experts_in_another_format_have_the_fewest_rows_first() -> None:
    assert [row for row in FIRST_ROWS if SHOWN[2].is_first(row)] == list(FEWEST_ROWS)
    assert all(SHOWN[0].is_first(row) for row in FIRST_ROWS)
    assert not SHOWN[0].is_first("learned eviction")
