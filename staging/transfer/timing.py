"""When the DMA does what, cycle by cycle, between memories that are always ready: what the circuit is compared with.

``transfer_times`` steps through the circuit's own registers, counts in place of data. A *service* of the link is its
chunks, one after the other, each asked for as soon as the DMA takes it (``ServiceTiming``). What comes later never
delays what came before, so the times of a service that stops are those of the one that does not.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import Field

from catalog.config import StrictModel
from staging.transfer.bursts import Descriptor, legalise
from staging.transfer.limits import FULL_SHARE, PAGE_BYTES, TransferLimits, TransferSettings

REALIGNER_DEPTH = 3
"""Cycles from a step of the realigner to its beat on W."""
TOLD_AFTER = 1
"""Cycles from a chunk's end to that in which the link can tell the stager."""


class MemoryTiming(StrictModel):
    """Two memories that are always ready.

    Attributes:
        latency: cycles from the handshake on AR to the first beat on R.
        interval: cycles from a beat on R to the next.
        answer: cycles from a write burst's last handshake on AW and W to B.
        write_interval: cycles from a beat on W to the next.
    """

    latency: int = Field(default=1, ge=1)
    interval: int = Field(default=1, ge=1)
    answer: int = Field(default=1, ge=1)
    write_interval: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class TransferTimes:
    """Cycles from the first in which a descriptor is offered.

    Attributes:
        accepted, ended: of each descriptor: when it was taken, and when its end was.
        asked: of each read burst: the handshake on AR.
        beats: of each beat on R.
        written: of each beat on W.
    """

    accepted: tuple[int, ...]
    ended: tuple[int, ...]
    asked: tuple[int, ...]
    beats: tuple[int, ...]
    written: tuple[int, ...]


def transfer_times(
    limits: TransferLimits,
    descriptors: Sequence[Descriptor],
    memory: MemoryTiming,
    settings: TransferSettings | None = None,
    *,
    debt: int = 0,
) -> TransferTimes:
    """Step through ``descriptors``, legal ones, each offered until it is taken, to a DMA that has nothing to do.

    ``debt``: of the throttle in the first cycle, in 256ths of a beat; what an earlier transfer has left.

    Raises:
        ValueError: for no descriptors, or an illegal one.
    """
    if not descriptors or not all(descriptor.is_legal(limits) for descriptor in descriptors):
        raise ValueError("transfer_times: no descriptors, or an illegal one")
    return _Stepper(limits, descriptors, memory, settings or TransferSettings(), debt).run()


@dataclass
class _Realigner:
    """Counts of one descriptor."""

    reads: int = 0
    gives: int = 0
    ahead: bool = False


@dataclass
class _Stepper:
    """The registers of the circuit, of which each cycle makes those of the next."""

    limits: TransferLimits
    descriptors: Sequence[Descriptor]
    memory: MemoryTiming
    settings: TransferSettings
    debt: int
    now: int = 0
    offered: int = 0
    sources: deque[int] = field(default_factory=deque)  # beats of the bursts that the legaliser still has
    runs: deque[int] = field(default_factory=deque)  # descriptors whose bursts the other legaliser has not begun
    destinations: deque[tuple[int, bool]] = field(default_factory=deque)
    records: deque[int] = field(default_factory=deque)
    realigner: _Realigner = field(default_factory=_Realigner)
    pipeline: list[bool | None] = field(default_factory=lambda: [None] * (REALIGNER_DEPTH - 1))
    output: bool = False
    open: int = 0  # beats that the write burst still lacks; 0: none is begun
    open_is_last: bool = False
    write_free: int = 0
    level: int = 0  # read bursts under way
    free: int = 0
    landed: int = 0
    under_way: int = 0
    complete: int = 0

    def run(self) -> TransferTimes:
        """All cycles until the last descriptor has ended."""
        limits, memory = self.limits, self.memory
        outstanding = self.settings.outstanding or limits.outstanding
        share = self.settings.share
        self.free = limits.landing_beats
        accepted: list[int] = []
        ended: list[int] = []
        asked: list[int] = []
        beats: list[int] = []
        written: list[int] = []
        coming: deque[tuple[int, bool]] = deque()  # beats on R: when, and whether a burst ends
        answers: deque[tuple[int, bool]] = deque()  # on B: when, and whether a descriptor ends
        last_beat, last_answer = -memory.interval, -1
        while len(ended) < len(self.descriptors):
            now = self.now
            idle = True
            # What this cycle shows; the registers change below, all at once.
            taken = 0
            within = share == FULL_SHARE or self.debt < FULL_SHARE
            if self.sources and self.level < outstanding and self.free >= self.sources[0] and within:
                taken = self.sources[0]
            room = self.level < outstanding and self.free >= limits.burst_beats and within
            begins = not self.sources or (len(self.sources) == 1 and taken > 0)
            ready = begins and room and self.under_way < limits.descriptors
            accepts = ready and self.offered < len(self.descriptors)
            lands = bool(coming) and coming[0][0] == now
            answered = bool(answers) and answers[0][0] == now
            ends = self.complete > 0
            # Writing.
            writes = self.output and self.open > 0 and now >= self.write_free
            completes = writes and self.open == 1
            unanswered = len(answers)
            opens = bool(self.destinations) and (
                (completes and unanswered + 1 < limits.write_outstanding)
                if self.open
                else unanswered < limits.write_outstanding
            )
            # Realigning.
            go = not self.output or writes
            work = self.realigner
            steps = go and work.gives > 0 and (self.landed > 0 or work.reads == 0)
            reads = steps and work.reads > 0
            gives = steps and not work.ahead
            next_record = bool(self.records) and (work.gives == 0 or (gives and work.gives == 1))
            next_run = bool(self.runs) and (not self.destinations or (len(self.destinations) == 1 and opens))

            # The registers of the next cycle.
            if share != FULL_SHARE:
                self.debt = max(0, self.debt - share) + FULL_SHARE * taken
            if taken:
                idle = False
                self.sources.popleft()
                asked.append(now + 1)
                for beat in range(taken):
                    earliest = now + 1 + memory.latency if beat == 0 else 0
                    last_beat = max(earliest, last_beat + memory.interval)
                    coming.append((last_beat, beat == taken - 1))
            burst_over = False
            if lands:
                idle = False
                _, burst_over = coming.popleft()
                beats.append(now)
            self.level += bool(taken) - burst_over
            self.free += reads - taken
            self.landed += lands - reads
            if writes:
                idle = False
                written.append(now)
                self.open -= 1
                self.write_free = now + memory.write_interval
            finished = False
            if answered:
                idle = False
                _, finished = answers.popleft()
            if completes:
                last_answer = max(last_answer + 1, now + memory.answer)
                answers.append((last_answer, self.open_is_last))
            if opens:
                idle = False
                self.open, self.open_is_last = self.destinations.popleft()
            if next_run:
                idle = False
                self.destinations.extend(self._writes(self.runs.popleft()))
            if go:
                idle = idle and all(stage is None for stage in self.pipeline)
                shifted = [gives if steps else None, *self.pipeline]
                self.output = bool(shifted.pop())
                self.pipeline = shifted
            if steps:
                idle = False
                work.reads -= reads
                work.gives -= gives
                work.ahead = False
            if next_record:
                idle = False
                self.realigner = self._record(self.records.popleft())
            if accepts:
                idle = False
                descriptor = self.descriptors[self.offered]
                self.sources.extend(burst.beats for burst in legalise(descriptor.source, descriptor.bytes, limits))
                self.runs.append(self.offered)
                self.records.append(self.offered)
                accepted.append(now)
                self.offered += 1
            if ends:
                idle = False
                ended.append(now)
            self.under_way += accepts - ends
            self.complete += finished - ends
            self.now = now + 1
            if idle and not self.output:
                self._sleep(coming, answers, share)
        return TransferTimes(tuple(accepted), tuple(ended), tuple(asked), tuple(beats), tuple(written))

    def _sleep(self, coming: deque[tuple[int, bool]], answers: deque[tuple[int, bool]], share: int) -> None:
        """Go to the next cycle in which a memory does something, or the throttle lets go."""
        times = [queue[0][0] for queue in (coming, answers) if queue]
        if share != FULL_SHARE:
            times.append(self.now + max(0, (self.debt - FULL_SHARE) // share + 1))
        if not times:
            raise AssertionError("transfer_times: nothing would ever happen again")
        slept = max(0, min(times) - self.now)
        self.now += slept
        self.debt = max(0, self.debt - slept * share)

    def _writes(self, number: int) -> list[tuple[int, bool]]:
        descriptor = self.descriptors[number]
        bursts = legalise(descriptor.destination, descriptor.bytes, self.limits)
        return [(burst.beats, burst is bursts[-1]) for burst in bursts]

    def _record(self, number: int) -> _Realigner:
        descriptor, width = self.descriptors[number], self.limits.data_bytes
        source, destination = descriptor.source % width, descriptor.destination % width
        return _Realigner(
            reads=-(-(source + descriptor.bytes) // width),
            gives=-(-(destination + descriptor.bytes) // width),
            ahead=destination < source,
        )


@dataclass(frozen=True)
class ServiceTiming:
    """The chunks of an expert's transfer; each method counts from the first cycle after the command that starts it.

    Attributes:
        limits, memory, settings: of the DMA; with a share below 256, of a service that finds no debt.
        start: cycles until the first chunk is asked for (``rtl.prefetch.dma.link``: ``product_bits + 2``).
        expert_bytes, chunk_bytes: of an expert, and of its chunks but the last.
    """

    limits: TransferLimits
    memory: MemoryTiming
    settings: TransferSettings
    start: int
    expert_bytes: int
    chunk_bytes: int

    @property
    def chunks(self) -> int:
        """Of a whole transfer."""
        return -(-self.expert_bytes // self.chunk_bytes)

    def issued(self, source: int, destination: int, first: int, chunk: int) -> int:
        """Cycles until ``chunk`` is asked for, or not, of a service from chunk ``first`` on.

        ``source`` and ``destination`` are the expert's addresses.
        """
        return self.start + self._times(source, destination, first).accepted[chunk - first]

    def passed(self, source: int, destination: int, first: int, chunks: int) -> int:
        """Cycles until the stager can be told that ``chunks`` of the expert are there."""
        return self.start + self._times(source, destination, first).ended[chunks - first - 1] + TOLD_AFTER

    def _times(self, source: int, destination: int, first: int) -> TransferTimes:
        # Only the place in a page matters.
        return _service(self, source % PAGE_BYTES, destination % PAGE_BYTES, first)


@lru_cache(maxsize=4096)
def _service(timing: ServiceTiming, source: int, destination: int, first: int) -> TransferTimes:
    parts = []
    for offset in range(first * timing.chunk_bytes, timing.expert_bytes, timing.chunk_bytes):
        length = min(timing.chunk_bytes, timing.expert_bytes - offset)
        parts.append(Descriptor(source + offset, destination + offset, length))
    return transfer_times(timing.limits, parts, timing.memory, timing.settings)
