"""Which steps are decoded for what, and how many."""

from dataclasses import replace
from enum import Enum

import numpy as np

from gpu_reference.measuring.bench import Bench, Suite
from gpu_reference.measuring.points import Point
from gpu_reference.records.decode import TracePart
from predictor.policies.material import Material, part_of_steps
from predictor.policies.parts import Part, part_of


class Purpose(Enum):
    """What steps are decoded for."""

    TEST = "test"
    HOST_TEST = "test of rows that compute on the host"
    TUNING = "tuning"
    HOST_TUNING = "tuning of rows that compute on the host"


WARM: dict[Suite, dict[Purpose, int]] = {
    "quick": {Purpose.TEST: 2, Purpose.HOST_TEST: 1, Purpose.TUNING: 1, Purpose.HOST_TUNING: 1},
    "full": {Purpose.TEST: 8, Purpose.HOST_TEST: 4, Purpose.TUNING: 8, Purpose.HOST_TUNING: 1},
}
"""Steps before those that are timed."""

QUICK = {Purpose.TEST: 8, Purpose.HOST_TEST: 3, Purpose.TUNING: 3, Purpose.HOST_TUNING: 1}
TUNING_TOKENS = {Purpose.TUNING: 48, Purpose.HOST_TUNING: 6}
LEAST_STEPS = 20
"""Timed steps of a batch in the full suite, and of a row that takes long."""

MOST_ROW_S: dict[Suite, float] = {"quick": 5.0, "full": 20.0}
"""Of a row that would take longer, fewer steps are timed."""


def timed_steps(suite: Suite, purpose: Purpose, point: Point) -> int:
    """Timed at ``point``, where they do not take long."""
    if suite == "quick":
        return QUICK[purpose]
    if purpose in TUNING_TOKENS:
        return max(6, TUNING_TOKENS[purpose] // point.batch)
    return max(LEAST_STEPS, point.tokens // point.batch)


def fitting_steps(suite: Suite, steps: int, step_s: float) -> int:
    """``steps``, halved until they take no more than `MOST_ROW_S` at ``step_s`` each, or there are too few to halve."""
    least = LEAST_STEPS if suite == "full" else 2
    while steps * step_s > MOST_ROW_S[suite] and steps // 2 >= least:
        steps //= 2
    return steps


class Parts:
    """The steps that are decoded for each purpose, with what is known ahead of them; those before are not timed."""

    def __init__(self, bench: Bench, material: Material, point: Point) -> None:
        self._bench, self._material, self._point = bench, material, point
        self._made: dict[tuple[Purpose, int], tuple[Part, TracePart]] = {}

    def of(self, purpose: Purpose, timed: int | None = None) -> tuple[Part, TracePart]:
        """``timed`` steps (as `timed_steps`, where that is not said) and those before; made when first asked for.

        Raises:
            ForestageError: if the trace has fewer steps.
        """
        suite, batch = self._bench.suite, self._point.batch
        count = timed_steps(suite, purpose, self._point) if timed is None else timed
        if (purpose, count) not in self._made:
            tuning = purpose in (Purpose.TUNING, Purpose.HOST_TUNING)
            source = self._material.tuning if tuning else self._material.test
            warm = WARM[suite][purpose]
            cut, steps = part_of_steps(source, batch=batch, steps=warm + count)
            flags = steps.timed.copy()
            flags[np.flatnonzero(flags)[:warm]] = False
            part = part_of(cut, replace(steps, timed=flags), self._material.predictors)
            record = TracePart(
                sequences=tuple(range(source.sequences)),
                batch=batch,
                warm_steps=warm,
                steps=count,
                tokens=part.timed_tokens,
            )
            self._made[purpose, count] = part, record
        return self._made[purpose, count]
