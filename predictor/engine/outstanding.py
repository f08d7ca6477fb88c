"""Who waits for which expert, and what the stager's answers tell whoever runs the layers."""

from predictor.engine.commands import Action
from predictor.engine.notices import Notice, NoticeKind
from staging.stager.answers import Kind, Why


class Outstanding:
    """The gates whose layers have not run.

    Args:
        slots: of the running batch.
        experts: of a layer.

    Attributes:
        demanded: by slot, the experts that its gate demanded, in the order of the stager's answers.
        layer: by slot, of its gate.
    """

    def __init__(self, slots: int, experts: int) -> None:
        self._experts = experts
        self.demanded: list[tuple[int, ...]] = [()] * slots
        self.layer = [0] * slots
        self._waits_for: list[set[int]] = [set() for _ in range(slots)]

    @property
    def waits(self) -> bool:
        """Whether somebody waits."""
        return any(self._waits_for)

    def demand(self, slot: int, layer: int, actions: list[Action], places: list[int]) -> list[Notice]:
        """A gate has asked; ``places`` are those of the ``actions``."""
        found, demanded, missing = [], [], self._waits_for[slot]
        for action, place in zip(actions, places, strict=True):
            expert = action.key % self._experts
            if action.kind is Kind.HIT:
                found.append(Notice(NoticeKind.HERE, slot, layer, expert, place))
            elif action.kind in (Kind.WAIT, Kind.PROMOTE):
                missing.add(action.key)
            elif action.kind is Kind.ELSEWHERE:
                found.append(Notice(NoticeKind.ELSEWHERE, slot, layer, expert))
                continue
            else:
                continue
            demanded.append(expert)
        self.demanded[slot], self.layer[slot] = tuple(demanded), layer
        if not missing:
            found.append(Notice(NoticeKind.READY, slot, layer))
        return found

    def arrive(self, key: int, place: int) -> list[Notice]:
        """An expert is here."""
        layer, expert = divmod(key, self._experts)
        wanted = any(key in missing for missing in self._waits_for)
        arrived = Notice(NoticeKind.ARRIVED, 0, layer, expert, place, wanted)
        return [arrived, *self._ready(key, failed=False)]

    def fail(self, key: int, actions: list[Action]) -> list[Notice]:
        """A transfer has failed; those who wait are told where it is given up."""
        given_up = any(of.kind is Kind.DROP and of.key == key and of.why is Why.FAILED for of in actions)
        return self._ready(key, failed=True) if given_up else []

    def release(self, slot: int) -> tuple[int, ...]:
        """The slot's layer has run: what it had demanded."""
        demanded, self.demanded[slot] = self.demanded[slot], ()
        self._waits_for[slot].clear()
        return demanded

    def _ready(self, key: int, *, failed: bool) -> list[Notice]:
        """Nobody waits for ``key`` any more: who is told that it failed, then who is ready."""
        told, ready = [], []
        for slot, missing in enumerate(self._waits_for):
            if key in missing:
                missing.remove(key)
                layer = self.layer[slot]
                if failed:
                    told.append(Notice(NoticeKind.FAILED, slot, layer, key % self._experts))
                if not missing:
                    ready.append(Notice(NoticeKind.READY, slot, layer))
        return told + ready
