"""A deliberate one-bit fault in the twin, which a comparison must notice."""

from dataclasses import replace
from typing import Literal

from catalog.config import StrictModel
from predictor.st_moe.events import RoutingEvent, StepResult
from predictor.st_moe.tables import StMoeTables


class TwinFault(StrictModel):
    """Which bit is wrong.

    Attributes:
        kind: ``request``: the lowest bit of the first expert an event requests; ``table``: the lowest bit of the first
            confidence of a row, after it was updated.
        event: the first event (from 0) with a request or an update, at or after this one, is the one that goes wrong.
    """

    kind: Literal["request", "table"]
    event: int = 0


class FaultyTwin:
    """A twin that goes wrong once.

    Attributes:
        tables: the twin.
    """

    def __init__(self, tables: StMoeTables, fault: TwinFault | None) -> None:
        self.tables = tables
        self._fault = fault
        self._steps = 0

    def step(self, event: RoutingEvent) -> StepResult:
        """The twin's step, with the fault where it is due."""
        result = self.tables.step(event)
        due = self._fault is not None and self._steps >= self._fault.event
        self._steps += 1
        if due and self._fault is not None:
            if self._fault.kind == "request" and result.requests:
                wrong = replace(result.requests[0], expert=result.requests[0].expert ^ 1)
                self._fault = None
                return replace(result, requests=(wrong, *result.requests[1:]))
            if self._fault.kind == "table" and result.updates:
                self.tables.flip_bit(result.updates[0].address, self.tables.limits.expert_bits)
                self._fault = None
        return result
