import pytest

from catalog.errors import ForestageError
from perfmodel.measured import CopyLine, Curve, Grid


def test_between_measured_points_times_are_linear() -> None:
    curve = Curve("expert: tokens", ((16, 50.0), (1, 20.0), (4, 26.0)))
    assert [curve.at(number) for number in (1, 2, 4, 10, 16)] == [20, 22, 26, 38, 50]


@pytest.mark.parametrize("number", [0, 17])
def test_nothing_is_guessed_beyond_measured_points(number: int) -> None:
    curve = Curve("expert: tokens", ((1, 20.0), (4, 26.0), (16, 50.0)))
    with pytest.raises(ForestageError, match=rf"expert: tokens: {number} is needed, 1, 4 and 16 are measured"):
        curve.at(number)


def test_points_that_contradict_are_refused() -> None:
    with pytest.raises(ForestageError, match="gate: 4 is measured twice"):
        Curve("gate", ((4, 1.0), (1, 1.0), (4, 2.0)))
    with pytest.raises(ForestageError, match="gate: not measured"):
        Curve("gate", ())
    with pytest.raises(ForestageError, match="gate: a time is negative or none"):
        Curve("gate", ((1, float("nan")),))


def test_a_grid_is_linear_in_both_numbers() -> None:
    grid = Grid(
        "fixed: batch",
        ((4, Curve("fixed: context", ((256, 40.0), (512, 60.0)))), (1, Curve("", ((256, 10.0), (512, 12.0))))),
    )
    assert grid.at(1, 256) == 10
    assert grid.at(4, 384) == 50
    assert grid.at(2, 512) == 12 + 48 / 3
    for first, second, match in ((5, 256, "fixed: batch: 5 is needed, 1 and 4 are measured"), (0, 256, "0 is needed")):
        with pytest.raises(ForestageError, match=match):
            grid.at(first, second)
    with pytest.raises(ForestageError, match="fixed: context: 600 is needed, 256 and 512 are measured"):
        grid.at(4, 600)


def test_a_row_that_is_not_needed_need_not_reach_as_far() -> None:
    grid = Grid("fixed: batch", ((1, Curve("one", ((256, 10.0),))), (4, Curve("four", ((256, 40.0), (512, 60.0))))))
    assert grid.at(4, 512) == 60


def test_a_line_through_copies_gives_latency_and_rate() -> None:
    line = CopyLine.through("copy", [(size, 5e-6 + size / 20e9) for size in (1 << 26, 1 << 16, 1 << 21)])
    assert line.latency_s == pytest.approx(5e-6)
    assert line.bytes_per_s == pytest.approx(20e9)
    assert line.at(1 << 20) == pytest.approx(5e-6 + (1 << 20) / 20e9)


def test_small_copies_count_as_much_as_large_ones() -> None:
    """The largest is 1 % off: its time exceeds all others together, and the smallest is still met within 2 %."""
    points = [(size, 5e-6 + size / 20e9) for size in (1 << 16, 1 << 18, 1 << 20, 1 << 22)]
    line = CopyLine.through("copy", [*points, (1 << 30, 1.01 * (5e-6 + (1 << 30) / 20e9))])
    for size, taken in points:
        assert line.at(size) == pytest.approx(taken, rel=0.02)


def test_no_copy_takes_less_than_nothing() -> None:
    line = CopyLine.through("copy", [(1000, 1e-6), (2000, 2.5e-6), (4000, 5.5e-6)])
    assert line.latency_s == 0
    assert line.at(2000) == pytest.approx(2.4e-6, rel=0.1)


def test_copies_without_a_line_are_refused() -> None:
    with pytest.raises(ForestageError, match="copy: 1 sizes measured; two or more"):
        CopyLine.through("copy", [(1000, 1e-6)])
    with pytest.raises(ForestageError, match="copy: times do not grow with size"):
        CopyLine.through("copy", [(1000, 2e-6), (2000, 1e-6)])
