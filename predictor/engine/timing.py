"""When predictors and transfers answer: what the engine's twin asks of whoever specifies them."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from predictor.engine.events import Gate, Token


class Answered(NamedTuple):
    """Cycles of a predictor for one event, from the cycle in which it takes it.

    Attributes:
        prefetches: until each prediction is on offer: at a TOKEN one for each target 0, 1, …; at a GATE one or none.
        values: until the values are on offer.
        next: until it takes the next event, if no answer has to wait.
    """

    prefetches: tuple[int, ...]
    values: int
    next: int


class PredictorTiming(Protocol):
    """Cycles of a predictor."""

    def token(self, event: Token) -> Answered:
        """Of a TOKEN."""

    def gate(self, event: Gate) -> Answered:
        """Of a GATE."""


class LinkTiming(Protocol):
    """Cycles of a service: a transfer, or what is left of it after a pause.

    Attributes:
        chunks: of a whole transfer.
    """

    chunks: int

    def issued(self, first: int, chunk: int) -> int:
        """From the first cycle after the GRANT to the one in which ``chunk`` (> ``first``) is asked for or not, of a
        service that goes on with chunk ``first``."""

    def passed(self, first: int, chunks: int) -> int:
        """From the first cycle after the GRANT to that in which the stager can be told that ``chunks`` are there, all
        or those before a stop."""


@dataclass(frozen=True)
class SteadyPredictor:
    """A predictor that takes the same for each event.

    Attributes:
        prefetch, values, next: as in ``Answered``; of a TOKEN each further target takes ``prefetch`` more.
        targets: predicted at a TOKEN.
    """

    prefetch: int
    values: int
    next: int
    targets: int = 1

    def token(self, event: Token) -> Answered:
        """See ``PredictorTiming``."""
        prefetches = tuple(self.prefetch * (nth + 1) for nth in range(self.targets))
        return Answered(prefetches, 0, max(self.next, prefetches[-1] + 1))

    def gate(self, event: Gate) -> Answered:
        """See ``PredictorTiming``."""
        return Answered((self.prefetch,), self.values, self.next)


@dataclass(frozen=True)
class SteadyLink:
    """A link that moves a chunk in the same time, and takes a latency once a service.

    Attributes:
        chunks: of a whole transfer.
        chunk_cycles: of each.
        latency: from asking for the first chunk to its first byte.
    """

    chunks: int
    chunk_cycles: int
    latency: int

    def issued(self, first: int, chunk: int) -> int:
        """See ``LinkTiming``."""
        return (chunk - first) * self.chunk_cycles

    def passed(self, first: int, chunks: int) -> int:
        """See ``LinkTiming``."""
        return self.latency + (chunks - first) * self.chunk_cycles
