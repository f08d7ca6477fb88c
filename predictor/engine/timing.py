"""When predictors and transfers answer: what the engine's twin asks of whoever specifies them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from predictor.engine.events import Gate, Token
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import LinkSettings, PrefetchEngineSettings
from staging.transfer.bursts import Descriptor, legalise
from staging.transfer.limits import FULL_SHARE, PAGE_BYTES, TransferLimits, TransferSettings
from staging.transfer.timing import TOLD_AFTER, MemoryTiming, transfer_times


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
    """Cycles of the row networks."""

    def token(self, event: Token, now: int, offered: int) -> Answered:
        """Of a TOKEN that they take in the cycle ``now``, and that was offered from ``offered`` on."""

    def gate(self, event: Gate, now: int, offered: int) -> Answered:
        """Of a GATE."""


class Service(NamedTuple):
    """When a transfer, or what is left of it after a stop, moves.

    Attributes:
        first: its first chunk.
        asked: cycles in which chunks ``first + 1``, … are asked for or not.
        there: cycles from which on the stager can be told that chunks up to ``first``, ``first + 1``, … are there.
    """

    first: int
    asked: tuple[int, ...]
    there: tuple[int, ...]


class LinkTiming(Protocol):
    """Cycles of transfers."""

    def serve(self, now: int, key: int, place: int, first: int) -> Service:
        """Expert ``key`` moves to ``place``, from chunk ``first`` on; ``now`` is the first cycle after the command."""

    def end(self, service: Service, chunks: int) -> None:
        """The latest service asked for chunks up to ``chunks`` − 1, and for no more."""


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

    def token(self, event: Token, now: int, offered: int) -> Answered:
        """See ``PredictorTiming``."""
        prefetches = tuple(self.prefetch * (nth + 1) for nth in range(self.targets))
        return Answered(prefetches, 0, max(self.next, prefetches[-1] + 1))

    def gate(self, event: Gate, now: int, offered: int) -> Answered:
        """See ``PredictorTiming``."""
        return Answered((self.prefetch,), self.values, self.next)


@dataclass(frozen=True)
class SteadyLink:
    """A link that moves a chunk in the same time, and takes a latency once a service.

    Attributes:
        chunks: of a whole transfer.
        chunk_cycles: of each.
        latency: from the command to a chunk's being asked for and coming without delay.
    """

    chunks: int
    chunk_cycles: int
    latency: int

    def serve(self, now: int, key: int, place: int, first: int) -> Service:
        """See ``LinkTiming``."""
        passed = range(1, self.chunks - first + 1)
        return Service(
            first,
            tuple(now + nth * self.chunk_cycles for nth in passed[:-1]),
            tuple(now + self.latency + nth * self.chunk_cycles for nth in passed),
        )

    def end(self, service: Service, chunks: int) -> None:
        """See ``LinkTiming``."""


class DmaLink:
    """The link of ``rtl.prefetch.dma`` between memories that are always ready (``staging.transfer.timing``).

    What the throttle lets a transfer ask for depends on what those before it asked for, so there is a state.

    Args:
        limits, settings: of the engine.
        memory: the two memories.
    """

    def __init__(self, limits: PrefetchEngineLimits, settings: PrefetchEngineSettings, memory: MemoryTiming) -> None:
        keys, places = limits.layers_max * limits.experts_max, max(1, limits.places + limits.spare)
        self._start = max((keys - 1).bit_length(), max(1, (places - 1).bit_length()), 1) + 2
        self._dma = _Dma(limits.link, settings.link, memory)
        self._debt = 0
        self._debt_since = 0
        self._served: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)

    def serve(self, now: int, key: int, place: int, first: int) -> Service:
        """See ``LinkTiming``."""
        of, begins = self._dma.settings, now + self._start
        source = (of.expert_base + key * of.expert_stride) % PAGE_BYTES
        destination = (of.staging_base + place * of.staging_stride) % PAGE_BYTES
        debt = self._debt_at(begins)
        self._served = begins, source, destination, first, debt
        asked, there = _service(self._dma, source, destination, first, debt)
        return Service(first, tuple(begins + at for at in asked[1:]), tuple(begins + at for at in there))

    def end(self, service: Service, chunks: int) -> None:
        """See ``LinkTiming``."""
        if self._dma.settings.share == FULL_SHARE:
            return
        begins, source, destination, first, debt = self._served
        debt, at = _debt_after(self._dma, source, destination, first, debt, chunks - first)
        self._debt, self._debt_since = debt, begins + at

    def _debt_at(self, now: int) -> int:
        """Of the throttle, in 256ths of a beat, in the cycle ``now``."""
        return max(0, self._debt - self._dma.settings.share * (now - self._debt_since))


class _Dma(NamedTuple):
    """What the times of a service depend on."""

    limits: TransferLimits
    settings: LinkSettings
    memory: MemoryTiming


def _chunks(dma: _Dma, source: int, destination: int, first: int) -> list[Descriptor]:
    of = dma.settings
    return [
        Descriptor(source + offset, destination + offset, min(of.chunk_bytes, of.expert_bytes - offset))
        for offset in range(first * of.chunk_bytes, of.expert_bytes, of.chunk_bytes)
    ]


@lru_cache(maxsize=1 << 14)
def _times(
    dma: _Dma, source: int, destination: int, first: int, debt: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    of = dma.settings
    registers = TransferSettings(outstanding=of.outstanding, share=of.share, silence=of.silence)
    chunks = _chunks(dma, source, destination, first)
    times = transfer_times(dma.limits, chunks, dma.memory, registers, debt=debt)
    return times.accepted, tuple(at + TOLD_AFTER for at in times.ended), times.asked


def _service(
    dma: _Dma, source: int, destination: int, first: int, debt: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of each chunk from ``first`` on: when it is asked for, and when the stager can be told that it is there."""
    return _times(dma, source, destination, first, debt)[:2]


def _debt_after(dma: _Dma, source: int, destination: int, first: int, debt: int, chunks: int) -> tuple[int, int]:
    """The throttle's debt when the last burst of so many chunks was asked for, and in which cycle that is so."""
    share, asked = dma.settings.share, iter(_times(dma, source, destination, first, debt)[2])
    now = 0
    for chunk in _chunks(dma, source, destination, first)[:chunks]:
        for burst in legalise(chunk.source, chunk.bytes, dma.limits):
            at = next(asked)  # a burst is counted in the cycle before its handshake
            debt = max(0, debt - share * (at - now)) + FULL_SHARE * burst.beats
            now = at
    return debt, now
