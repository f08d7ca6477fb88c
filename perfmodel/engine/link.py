"""The link: one channel that moves one expert at a time, in chunks, as the stager says.

A transfer that starts with ``k0`` chunks at hand passes chunk ``k`` after ``chunk_ps[k] − chunk_ps[k0]``. It is stopped
at a chunk alone, and there the stager is asked (`Stager.preempt`). What is paused keeps its chunks and its kind
until the stager drops it.
"""

from dataclasses import dataclass

from perfmodel.engine.clock import NEVER, Clock
from perfmodel.workload import Durations
from predictor.policies.counts import Counts
from staging.stager.answers import Kind, Step
from staging.stager.directory import MOVING, NO_PLACE, NONE, QUEUED
from staging.stager.twin import Stager


@dataclass
class Service:
    """What moves.

    Attributes:
        key: of the expert.
        since_ps: when it started, or went on after a pause.
        first: chunks that were there then.
        for_gate: whether a gate waited when the transfer first started.
        stop: the chunk at which the stager is to be asked; ``None`` where it is not.
    """

    key: int
    since_ps: int
    first: int
    for_gate: bool
    stop: int | None = None


@dataclass(frozen=True)
class Paused:
    """What a paused transfer keeps: its chunks, and its kind."""

    chunks: int
    for_gate: bool


class Link:
    """The channel; it gives the stager's commands ``grant``, ``preempt`` and ``arrive``.

    Attributes:
        service: what moves now.
        paused: by key.
        busy_ps: time in which something moved, services that have ended.
        moved_bytes: in these services.
        warmed_bytes: of ``moved_bytes``: of paused transfers that a warm step completed in no time.
    """

    def __init__(self, clock: Clock, durations: Durations, stager: Stager, counts: Counts) -> None:
        self._clock = clock
        self._stager = stager
        self._counts = counts
        self._chunk_ps: list[int] = durations.chunk_ps.tolist()
        self._expert_bytes = durations.expert_bytes
        self._chunk_bytes = durations.chunk_bytes
        self.service: Service | None = None
        self.paused: dict[int, Paused] = {}
        self.busy_ps = 0
        self.moved_bytes = 0
        self.warmed_bytes = 0

    @property
    def is_moving(self) -> bool:
        """Whether something moves (or is in its latency)."""
        return self.service is not None

    @property
    def due_ps(self) -> int:
        """When what moves stops or arrives."""
        if self.service is None:
            return NEVER
        return self._passes_ps(self.service, self._last if self.service.stop is None else self.service.stop)

    def act(self) -> int:
        """What moves arrives, and its key is returned; or it is at its stop, and ``NONE`` is."""
        assert self.service is not None, "nothing moves"
        if self.service.stop is None:
            return self._arrive()
        self._ask_at_stop(self.service, self.service.stop)
        return NONE

    def offer(self) -> None:
        """Nothing more is due: an idle link takes what the stager grants; what moves is to stop if a demand waits."""
        if self.service is None:
            self._grant()
        service = self.service
        if service is None or service.stop is not None or service.key in self._stager.queue.demanded:
            return
        if self._stager.queue.holds_demand:
            service.stop = self.next_stop(service)

    def next_stop(self, service: Service) -> int | None:
        """The first chunk from now on at which what moves can be stopped; ``None`` where none is left."""
        stops = range(service.first, self._last)
        return next((k for k in stops if self._passes_ps(service, k) >= self._clock.now_ps), None)

    def until_free_ps(self, *, stoppable: bool) -> int:
        """Time from now until it could start something else: at the next stop if ``stoppable``, or its end."""
        if self.service is None:
            return 0
        stop = self.next_stop(self.service) if stoppable else None
        return self._passes_ps(self.service, self._last if stop is None else stop) - self._clock.now_ps

    def heed(self, step: Step) -> None:
        """What a command of the stager did, whichever it was: the chunks of what it dropped are lost."""
        for action in step.actions:
            if action.kind is Kind.DROP and action.key in self.paused:
                self._abandon(self.paused.pop(action.key).chunks)

    # --- steps that are not timed ---

    def arrive_at_once(self) -> None:
        """A step begins that takes no time: what moves is complete."""
        if self.service is not None:
            self._arrive()

    def move_at_once(self) -> None:
        """In a step that takes no time: the first demand that waits is granted and arrives, uncounted."""
        assert self.service is None, "the link is taken"
        step = self._stager.grant()
        self.heed(step)
        assert step.transfer is not None, "a demand is always granted"
        paused = self.paused.pop(step.transfer.key, None)
        if paused is not None:
            self.warmed_bytes += paused.chunks * self._chunk_bytes
        self.heed(self._stager.arrive(0))

    # --- the end ---

    def close(self) -> None:
        """The last step has ended: whole chunks of what moves are lost, and those of what is paused."""
        service = self.service
        if service is not None:
            # What would arrive now has arrived.
            passed = max(
                k for k in range(service.first, self._last) if self._passes_ps(service, k) <= self._clock.now_ps
            )
            self._end_service(passed * self._chunk_bytes)
            self._abandon(passed)
        for key in list(self.paused):
            self._abandon(self.paused.pop(key).chunks)
        whole = self._counts.demands + self._counts.late + self._counts.ahead
        counted = whole * self._expert_bytes + self._counts.abandoned_bytes + self.warmed_bytes
        assert self.moved_bytes == counted, f"{self.moved_bytes} bytes moved, {counted} accounted for"

    def check(self) -> None:
        """The stager's directory and the link agree about what is moving, and about what is paused."""
        key = NONE if self.service is None else self.service.key
        assert self._stager.moving == [key], f"the link moves {key}, the stager thinks {self._stager.moving}"
        assert key == NONE or self._stager.directory.status[key] == MOVING, f"{key} moves, and its status is another"
        for waits in self.paused:
            assert self._stager.directory.status[waits] == QUEUED, f"{waits} is paused, and its status is another"
            assert self._stager.directory.place[waits] != NO_PLACE, f"{waits} is paused, and has no place"

    # --- within ---

    @property
    def _last(self) -> int:
        return len(self._chunk_ps) - 1

    def _passes_ps(self, service: Service, chunk: int) -> int:
        return service.since_ps + self._chunk_ps[chunk] - self._chunk_ps[service.first]

    def _grant(self) -> None:
        step = self._stager.grant()
        self.heed(step)
        if step.transfer is None:
            return
        key, demanded = step.transfer.key, step.transfer.demanded
        paused = self.paused.pop(key, None)
        if paused is None:
            paused = Paused(0, demanded)
            self._counts.demands += demanded
        self.service = Service(key, self._clock.now_ps, paused.chunks, paused.for_gate)

    def _ask_at_stop(self, service: Service, chunk: int) -> None:
        step = self._stager.preempt(0)
        kinds = {action.kind for action in step.actions if action.key == service.key}
        service.stop = None
        if not kinds:
            self.heed(step)
            return
        self._end_service(chunk * self._chunk_bytes)
        self.paused[service.key] = Paused(chunk, service.for_gate)
        self.heed(step)  # given up at once: then also this one

    def _arrive(self) -> int:
        service = self.service
        assert service is not None, "nothing moves"
        if not service.for_gate:
            if service.key in self._stager.queue.demanded:
                self._counts.late += 1
            else:
                self._counts.ahead += 1
        self._end_service(self._expert_bytes)
        self.heed(self._stager.arrive(0))
        return service.key

    def _end_service(self, there_bytes: int) -> None:
        """Nothing moves any more; so many bytes of it are there, chunks of earlier services included."""
        assert self.service is not None, "nothing moves"
        self.busy_ps += self._clock.now_ps - self.service.since_ps
        self.moved_bytes += there_bytes - self.service.first * self._chunk_bytes
        self.service = None

    def _abandon(self, chunks: int) -> None:
        self._counts.abandoned_bytes += chunks * self._chunk_bytes
