"""Who predicts: what an event says, and how many cycles later."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from predictor.engine.events import Gate, Token
from predictor.engine.heads import Heads, Prefetch, Values
from predictor.engine.timing import PredictorTiming
from predictor.row_network.integers import CERTAIN
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.tables import StMoeTables, first_request_cycle


class Predicted(NamedTuple):
    """What an event says.

    Attributes:
        answers: with the cycles from the event's being taken to each being on offer, ascending.
        next: cycles to the next event's being taken, if no answer has to wait.
    """

    answers: tuple[tuple[int, Prefetch | Values], ...]
    next: int


class EnginePredictor(Protocol):
    """Of a mode. It takes no event while an answer of the one before waits."""

    def token(self, event: Token, base: int, now: int = 0, offered: int = 0) -> Predicted:
        """A token begins, in a step whose layer 0 has the deadline ``base``; it is taken in the cycle ``now``."""

    def gate(self, event: Gate, base: int, now: int = 0, offered: int = 0) -> Predicted:
        """A gate has chosen; as ``token``."""


class LearnedPredictor:
    """The row networks.

    Args:
        heads: what they say.
        timing: when.
    """

    def __init__(self, heads: Heads, timing: PredictorTiming) -> None:
        self.heads = heads
        self._timing = timing

    def token(self, event: Token, base: int, now: int = 0, offered: int = 0) -> Predicted:
        """See ``EnginePredictor``."""
        cycles = self._timing.token(event, now, offered)
        answers = [(cycles.prefetches[answer.layer], answer) for answer in self.heads.token(event, base)]
        return Predicted(tuple(answers), cycles.next)

    def gate(self, event: Gate, base: int, now: int = 0, offered: int = 0) -> Predicted:
        """See ``EnginePredictor``."""
        cycles = self._timing.gate(event, now, offered)
        answers = [
            (cycles.prefetches[0] if isinstance(answer, Prefetch) else cycles.values, answer)
            for answer in self.heads.gate(event, base)
        ]
        return Predicted(tuple(answers), cycles.next)


class TablesPredictor:
    """ST-MoE's tables: what a gate requests is one prediction, each expert certain, in the order of the requests.

    A token is taken in one cycle, and goes with its slot's next gate; so is a gate that is not known, of which the
    tables hear nothing.

    Args:
        tables: the twin; its experts, layers and lookahead are the engine's.
        observe: told of each event's row updates, where somebody compares them.
    """

    def __init__(self, tables: StMoeTables, observe: Callable[[tuple[object, ...]], None] | None = None) -> None:
        self.tables = tables
        self._observe = observe
        self._tokens: dict[int, Token] = {}  # by slot, that no gate has told of

    def token(self, event: Token, base: int, now: int = 0, offered: int = 0) -> Predicted:
        """See ``EnginePredictor``."""
        before = self._tokens.get(event.slot)
        starts = event.starts_sequence or (before is not None and before.starts_sequence)
        self._tokens[event.slot] = Token(event.slot, starts_sequence=starts, domain=event.domain)
        return Predicted((), 1)

    def gate(self, event: Gate, base: int, now: int = 0, offered: int = 0) -> Predicted:
        """See ``EnginePredictor``."""
        if event.experts is None:
            return Predicted((), 1)
        token = self._tokens.pop(event.slot, None)
        step = self.tables.step(
            RoutingEvent(
                event.layer,
                event.experts,
                starts_token=token is not None,
                starts_sequence=token is not None and token.starts_sequence,
                slot=event.slot,
                domain=0 if token is None else token.domain,
            )
        )
        if self._observe is not None:
            self._observe(step.updates)
        if not step.requests:
            return Predicted((), step.cycles)
        target = step.requests[0].layer
        experts = tuple(request.expert for request in step.requests)
        answer = Prefetch(target, experts, (CERTAIN,) * len(experts), base + target)
        first = first_request_cycle(self.tables.limits, top_k=self.tables.configuration.top_k)
        return Predicted(((first + len(experts), answer),), step.cycles)
