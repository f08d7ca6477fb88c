"""Measured times between measured points: linear in between, refused outside; and a straight line through copies."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from catalog.errors import ForestageError


@dataclass(frozen=True)
class Curve:
    """Seconds by a whole number.

    Args:
        what: is measured, and by what, for errors: ``expert: tokens``.
        points: (number, seconds), at least one.

    Raises:
        ForestageError: for no point, two of one number, or a negative time.
    """

    what: str
    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.points))
        numbers = [number for number, _ in ordered]
        if not ordered:
            raise ForestageError(f"{self.what}: not measured")
        if len(set(numbers)) != len(numbers):
            raise ForestageError(f"{self.what}: {_twice(numbers)} is measured twice; leave one out")
        if not all(0 <= seconds < float("inf") for _, seconds in ordered):
            raise ForestageError(f"{self.what}: a time is negative or none")
        object.__setattr__(self, "points", ordered)

    def at(self, number: float) -> float:
        """The time for ``number``, s.

        Raises:
            ForestageError: if it lies outside the measured points.
        """
        numbers, seconds = zip(*self.points, strict=True)
        if not numbers[0] <= number <= numbers[-1]:
            raise ForestageError(f"{self.what}: {number:g} is needed, {_listed(numbers)} measured; measure up to there")
        return float(np.interp(number, numbers, seconds))


@dataclass(frozen=True)
class Grid:
    """Seconds by two whole numbers, such as batch and context: between two rows and within each as `Curve`.

    Args:
        what: as of `Curve`, for the first number.
        rows: (number, curve over the second number), at least one.

    Raises:
        ForestageError: as `Curve`.
    """

    what: str
    rows: tuple[tuple[int, Curve], ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.rows, key=lambda row: row[0]))
        numbers = [number for number, _ in ordered]
        if not ordered:
            raise ForestageError(f"{self.what}: not measured")
        if len(set(numbers)) != len(numbers):
            raise ForestageError(f"{self.what}: {_twice(numbers)} is measured twice; leave one out")
        object.__setattr__(self, "rows", ordered)

    def at(self, first: int, second: int) -> float:
        """The time for the two numbers, s.

        Raises:
            ForestageError: if one lies outside the measured points.
        """
        numbers = [number for number, _ in self.rows]
        above = next((i for i, number in enumerate(numbers) if number >= first), None)
        if above is None or first < numbers[0]:
            raise ForestageError(f"{self.what}: {first} is needed, {_listed(numbers)} measured; measure up to there")
        around = self.rows[above : above + 1] if numbers[above] == first else self.rows[above - 1 : above + 1]
        return Curve(self.what, tuple((number, curve.at(second)) for number, curve in around)).at(first)


@dataclass(frozen=True)
class CopyLine:
    """A copy takes ``latency_s`` and its bytes at ``bytes_per_s``."""

    latency_s: float
    bytes_per_s: float

    @classmethod
    def through(cls, what: str, copies: Iterable[tuple[int, float]]) -> Self:
        """The straight line through (bytes, seconds) whose relative errors' squares add up to the least.

        Relative, as sizes span decades and the smallest would count for nothing otherwise. A latency below zero is
        taken as zero, and the line through the origin instead.

        Args:
            what: is copied, for errors.
            copies: of two sizes or more.

        Raises:
            ForestageError: for fewer sizes, or times that do not grow with size.
        """
        points = sorted(copies)
        sizes, times = np.array(points, np.float64).reshape(-1, 2).T
        if len(set(sizes.tolist())) < 2 or (times <= 0).any():
            raise ForestageError(f"{what}: {len(points)} sizes measured; two or more are needed for latency and rate")
        weighted = np.stack([1 / times, sizes / times], axis=1)
        (latency, per_byte), *_ = np.linalg.lstsq(weighted, np.ones(len(times)), rcond=None)
        if latency < 0:
            ratio = sizes / times
            latency, per_byte = 0.0, ratio.sum() / (ratio @ ratio)
        if per_byte <= 0:
            raise ForestageError(f"{what}: times do not grow with size; measure again")
        return cls(float(latency), float(1 / per_byte))

    def at(self, size: float) -> float:
        """Seconds for ``size`` bytes."""
        return self.latency_s + size / self.bytes_per_s


def _twice(numbers: list[int]) -> int:
    return next(number for number in numbers if numbers.count(number) > 1)


def _listed(numbers: Iterable[int]) -> str:
    """``1, 4 and 16 are`` or ``1 is``."""
    texts = [str(number) for number in numbers]
    return f"{texts[0]} is" if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]} are"
