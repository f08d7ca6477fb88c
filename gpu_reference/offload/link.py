"""The link: one channel that moves one expert at a time, in chunks, as the stager says.

It has no thread: whoever waits for the device *pumps* it. So that it does not idle between two looks, up to so many
chunks are queued with the copier at once, the last of one expert and the first of the next among them; of what a gate
waits for, all. The stager is therefore told that an expert has arrived (`Stager.arrive`) when its last chunk is
*queued*: from then on nobody can stop it, and work of the device may wait for it. What counts as a hit is another
matter: there an expert is on the device when its last chunk is complete (`Link.is_complete`).

A demand overtakes at a chunk: with each chunk of a transfer that no gate waits for, while a demand waits, the stager is
asked (`Stager.preempt`), so at most the chunks that are queued already pass before it.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpu_reference.offload.copier import Copier
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.places import Places
from gpu_reference.offload.queues import Mark, let_others_run
from gpu_reference.offload.stagers import AnyStager
from gpu_reference.offload.statistics import Statistics
from staging.stager.directory import NO_PLACE

CHUNK_BYTES = 2 << 20
IN_FLIGHT = 2
"""Chunks queued at once."""


@dataclass
class Service:
    """What moves.

    Attributes:
        key: of the expert.
        block: index in `Places`.
        chunks: queued so far.
        for_gate: whether a gate waited when the transfer first started.
    """

    key: int
    block: int
    chunks: int
    for_gate: bool


class Link:
    """See the module's description.

    Args:
        stager: whose ``grant``, ``preempt`` and ``arrive`` are given here.
        copier, host, places: from where, by whom, to where.
        statistics: counted in.
        chunk_bytes: of a chunk; the last may be shorter.
        in_flight: chunks that are queued at once, at most, but for those that a gate waits for.

    Attributes:
        service: what moves, its chunks not all queued.
        paused: what a pause keeps, by key.
        waiting: keys that a gate demanded and that are not queued whole.
        block_of: where the latest transfer of a key went, index in `Places`.
    """

    def __init__(
        self,
        stager: AnyStager,
        copier: Copier,
        host: HostExperts,
        places: Places,
        statistics: Statistics,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._stager = stager
        self._copier = copier
        self._host = host
        self._places = places
        self._statistics = statistics
        self._most = in_flight
        nbytes = host.layout.nbytes
        self._spans = [(first, min(first + chunk_bytes, nbytes)) for first in range(0, nbytes, chunk_bytes)]
        self.service: Service | None = None
        self.paused: dict[int, Service] = {}
        self.waiting: set[int] = set()
        self.block_of: dict[int, int] = {}
        self._in_flight: deque[Mark] = deque()
        self._landing = deque(places.landing)
        self._incomplete: dict[int, tuple[Mark, bool]] = {}  # queued whole: the last mark, and whether a gate waited
        self._nothing_to_grant = False
        self._busy_since_s = 0.0

    # --- what the runtime tells and asks ---

    def heed(self) -> None:
        """The stager has had a command, whichever it was: it may have something for the link now."""
        self._nothing_to_grant = False
        if self.paused:
            for key in self._stager.dropped():
                dropped = self.paused.pop(key, None)
                if dropped is not None:
                    self._abandon(dropped)

    def demand(self, keys: Iterable[int]) -> None:
        """A gate waits for these, which were not resident, from now on."""
        self.waiting.update(keys)

    def is_complete(self, key: int) -> bool:
        """Whether what the stager calls resident is all there; if not, its transfer becomes one for a gate."""
        found = self._incomplete.get(key)
        if found is None:
            return True
        mark, for_gate = found
        if mark.is_reached():
            self._complete(key)
            return True
        if not for_gate:
            self._statistics.counts.late += 1
            self._statistics.asked_in_flight += 1
            self._incomplete[key] = (mark, True)
        return False

    def mark_of(self, key: int) -> Mark | None:
        """What work that reads ``key`` must wait for; ``None``: nothing."""
        found = self._incomplete.get(key)
        return None if found is None else found[0]

    def until_free(self, keys: Sequence[int]) -> tuple[int, float]:
        """Which of ``keys`` moves now (−1: none), and how long until the link can begin with another.

        The time is in transfers of an expert: what is queued, and the rest of what moves if it is one of ``keys``.
        """
        chunks, moving = len(self._in_flight), -1
        if self.service is not None and self.service.key in keys:
            moving = keys.index(self.service.key)
            chunks += len(self._spans) - self.service.chunks
        return moving, chunks / len(self._spans)

    def pump(self) -> None:
        """Queue chunks while there is room and something to move."""
        if self._in_flight:
            self._retire()
        while self._has_room():
            if self.service is None and not self._grant():
                return
            if not self._has_room():
                return
            service = self.service
            assert service is not None, "granted"
            if self.waiting and service.key not in self.waiting and not self._goes_on(service):
                continue
            if not self._queue_chunk(service):
                return
            if service.chunks == len(self._spans):
                self._arrive(service)

    def was_read(self, block: int) -> None:
        """The work that takes what came without a place is launched (and `Places.last_read` says when it is done)."""
        self._landing.append(block)

    # --- the end ---

    def close(self) -> None:
        """Nobody waits any more: what moves or is paused is given up, what is queued comes."""
        if self.service is not None:
            self._abandon(self.service)
            self.service = None
        for service in self.paused.values():
            self._abandon(service)
        self.paused.clear()
        while self._in_flight:
            self._retire()
            let_others_run()
        for key in list(self._incomplete):
            self._complete(key)

    # --- within ---

    def _has_room(self) -> bool:
        """Whether one more chunk may be queued now."""
        if len(self._in_flight) < self._most:
            return True
        # What a gate waits for is never overtaken, as no gate comes before these experts have run: all of it is queued.
        return bool(self.waiting) and (self.service is None or self.service.key in self.waiting)

    def _grant(self) -> bool:
        """The stager starts a transfer, or has none."""
        if self._nothing_to_grant:
            return False
        transfer = self._stager.grant()
        self.heed()
        if transfer is None:
            self._nothing_to_grant = True
            return False
        key, place, demanded = transfer
        service = self.paused.pop(key, None)
        if service is None:
            service = Service(key, place, 0, demanded)
            self._statistics.counts.demands += demanded
        self.service = service
        return True

    def _goes_on(self, service: Service) -> bool:
        """Whether what moves goes on although a demand waits, as the stager says."""
        goes_on = self._stager.goes_on()
        if not goes_on:
            self.service = None
            self.paused[service.key] = service
        self.heed()  # given up at once: then also this one
        return goes_on

    def _queue_chunk(self, service: Service) -> bool:
        """The next chunk of ``service``; false while every landing block is still to be read."""
        after = None
        if service.block == NO_PLACE:
            if not self._landing:
                return False
            service.block = self._landing.popleft()
        if not service.chunks:
            after = self._places.last_read[service.block]
            self._places.last_read[service.block] = None
        first, last = self._spans[service.chunks]
        source, destination = self._host.blocks[service.key], self._places.blocks[service.block]
        if not self._in_flight:
            self._busy_since_s = time.perf_counter()
        self._in_flight.append(self._copier.copy(destination[first:last], source[first:last], after))
        self._statistics.moved_bytes += last - first
        service.chunks += 1
        return True

    def _arrive(self, service: Service) -> None:
        """All chunks are queued."""
        key = service.key
        self.service = None
        waited_for = key in self.waiting
        self.waiting.discard(key)
        if waited_for and not service.for_gate:
            self._statistics.counts.late += 1
        if key in self._incomplete:  # it came, gave way, and came again, all in flight
            self._complete(key)
        self._incomplete[key] = (self._in_flight[-1], service.for_gate or waited_for)
        self.block_of[key] = service.block
        self._stager.arrive()
        self.heed()

    def _retire(self) -> None:
        """Forget the chunks that are complete."""
        while self._in_flight and self._in_flight[0].is_reached():
            self._in_flight.popleft()
            if not self._in_flight:
                self._statistics.link_busy_s += time.perf_counter() - self._busy_since_s
        if self._incomplete:
            for key in [key for key, (mark, _) in self._incomplete.items() if mark.is_reached()]:
                self._complete(key)

    def _complete(self, key: int) -> None:
        _, for_gate = self._incomplete.pop(key)
        if not for_gate:
            self._statistics.counts.ahead += 1

    def _abandon(self, service: Service) -> None:
        if service.chunks:
            self._statistics.counts.abandoned_bytes += self._spans[service.chunks - 1][1]
