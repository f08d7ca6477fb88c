"""What the engine checks of an event, and the stager's commands that it makes of it at once."""

from dataclasses import dataclass

from predictor.engine.commands import CommandKind, Urgent
from predictor.engine.events import NO_ERROR, EngineError, Event, Gate, Release, Token
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import PrefetchEngineSettings


@dataclass
class _Slot:
    """Where a slot stands.

    Attributes:
        next_layer: whose GATE comes next; ``None``: a TOKEN that starts a sequence has to come first.
        is_open: the GATE before it has not been released.
    """

    next_layer: int | None = None
    is_open: bool = False


class FrontEnd:
    """See the module's description.

    Args:
        limits, settings: of the engine.

    Attributes:
        base: the deadline of layer 0 of this step; 0: no step has begun.
        steps: that have begun.
    """

    def __init__(self, limits: PrefetchEngineLimits, settings: PrefetchEngineSettings) -> None:
        self._settings = settings
        self._slots = [_Slot() for _ in range(limits.slots_max)]
        self._last_base = (1 << limits.deadline_bits) - 1 - settings.layers
        self.base = 0
        self.steps = 0

    def accept(self, event: Event) -> tuple[EngineError, list[Urgent]]:
        """An event: why it is rejected, then nothing changes; or what the stager is told at once."""
        error = self._check(event)
        if error:
            return error, []
        slot = self._slots[event.slot]
        if isinstance(event, Token):
            if event.first:
                self.base += self._settings.layers
                self.steps += 1
            slot.next_layer = 0
            return NO_ERROR, []
        slot.is_open = isinstance(event, Gate)
        if isinstance(event, Release):
            slot.next_layer = event.layer + 1
            return NO_ERROR, [Urgent(CommandKind.RELEASE, event.slot, event.layer, (), 0)]
        told = [Urgent(CommandKind.DEMAND, event.slot, event.layer, event.experts or (), 0)]
        if event.last:
            told.append(Urgent(CommandKind.EXPIRE, 0, 0, (), self.base + event.layer))
        return NO_ERROR, told

    def _check(self, event: Event) -> EngineError:
        """All that is wrong with it."""
        settings, error = self._settings, NO_ERROR
        if event.slot >= len(self._slots):
            error |= EngineError.SLOT
        if not isinstance(event, Token) and event.layer >= settings.layers:
            error |= EngineError.LAYER
        if isinstance(event, Gate) and event.experts is not None:
            if max(event.experts) >= settings.experts:
                error |= EngineError.EXPERT
            if len(set(event.experts)) < len(event.experts):
                error |= EngineError.DUPLICATE
        if isinstance(event, Token):
            if event.row is not None and event.row >= settings.identity_rows:
                error |= EngineError.ROW
            if event.domain >= settings.domains:
                error |= EngineError.DOMAIN
            if event.first and self.base > self._last_base - settings.layers:
                error |= EngineError.DEADLINE
        if not error & EngineError.SLOT and not self._comes_next(event):
            error |= EngineError.ORDER
        return error

    def _comes_next(self, event: Event) -> bool:
        slot = self._slots[event.slot]
        if isinstance(event, Token):
            if slot.is_open or not (event.first or self.base):
                return False
            return event.starts_sequence or slot.next_layer == self._settings.layers
        if isinstance(event, Gate):
            return not slot.is_open and slot.next_layer == event.layer
        return slot.is_open and slot.next_layer == event.layer
