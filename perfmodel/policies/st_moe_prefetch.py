"""A predictor's issue sets are prefetched into the cache, as ST-MoE does (arXiv 2606.15453).

The issue sets may be any predictor's; the policy is named after the published system, whose tables are
`predictor.st_moe`. Routing never changes: a wrong prediction costs only time and bytes.

* When the gate of layer l is known, the prefetch engine works on that event; when it has finished, the issue set of
  layer l + lookahead is sent to the link, best first. Issue sets of layers below the lookahead are sent when the token
  begins, after the engine's cycles for its first event.
* A prefetch takes a place when its transfer starts, and evicts the expert there. Experts that a pending prediction
  names are never evicted for a prefetch, and for a demand only where no other expert can be: in the stager's directory
  all predictions are of one chance, other experts are worth nothing, and moving has no price.
* Demands overtake prefetches at the next chunk. A prefetch that a gate asks for is promoted to a demand. When
  a gate asks for other experts than were predicted, wrong prefetches that still wait are cancelled; a running one goes
  on to its end unless a demand wants the link: then it stops at its next chunk.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.policies.base import System
from perfmodel.policies.lru_cache import LruCache
from perfmodel.tasks import Task, TaskState
from perfmodel.transfers import HOST_LINK, PREFETCH_ENGINE, Fetch, Key, Prediction
from staging.stager.zero_time import ZeroTimeStager


class StMoePrefetch(LruCache):
    """LRU cache with prefetching of issue sets."""

    name = "st_moe_prefetch"
    uses_issue_sets = True
    more_places = 1  # of the prefetch that is on the link

    def __init__(self, system: System) -> None:
        super().__init__(system)
        assert system.issue_sets is not None
        self._issue_sets = system.issue_sets
        # What the device would hold without prefetching.
        self._shadow = ZeroTimeStager.empty(system.layers, system.experts, self._shares, by_recency=True)
        self._unused: dict[Key, int] = {}  # prefetched and not used yet → event for which it was last predicted
        self._event = -1  # event of the latest gate
        self._answered = (0, 0)  # when the prefetch engine last finished, and the link's busy time then

    # --- what the decode calls ---

    def begin_sequence(self) -> None:
        """Cancel what is still on its way: at most a wrong prefetch, since every prediction's gate has come."""
        for fetch in list(self._link.in_flight.values()):
            self.system.event_loop.cancel(fetch.task)
        self.system.event_loop.run()

    def warm(self, layer: int, experts: Sequence[int]) -> None:
        """A prompt's pass through ``layer`` chose ``experts``."""
        self._use([(layer, expert) for expert in experts])
        super().warm(layer, experts)
        self._shadow.access(layer, self._indices(layer, experts))
        for key in [key for key in self._unused if not self._is_resident(key)]:
            self._evicted(key)

    def begin_token(self, token: int) -> None:
        """Predict the layers below the lookahead, for which no gate of this token comes early enough."""
        lookahead = min(self.system.config.lookahead, self.system.layers)
        if (self._issue_sets[token, :lookahead] >= 0).any():
            self._predict(token, 0, range(lookahead))

    def gate(self, token: int, layer: int, needed: Sequence[Key]) -> list[Fetch | None]:
        """Fetch what is not on the device, then predict the layer that is a lookahead away."""
        event = self._event = token * self.system.layers + layer
        self._directory.now = event  # predictions for this gate count no more
        resident = [key for key in needed if self._is_resident(key)]
        self.counts.used_at_target += sum(self._unused.get(key) == event for key in resident)
        self._use(resident)
        kept = self._shadow.access(layer, self._indices(layer, [expert for _, expert in needed])).tolist()
        self.counts.polluted += sum(k and key not in resident for k, key in zip(kept, needed, strict=True))
        self._give_up_wrong(needed, link_is_wanted=len(resident) < len(needed))
        fetches = super().gate(token, layer, needed)
        target = layer + self.system.config.lookahead
        self._predict(token, layer, range(target, min(target + 1, self.system.layers)))
        return fetches

    def finish(self) -> None:
        """Cancel what is still on its way; count as wasted what was never used."""
        self.begin_sequence()
        for key in list(self._unused):
            self._evicted(key)

    def _indices(self, layer: int, experts: Sequence[int]) -> NDArray[np.int32]:
        """The stager's numbers of a layer's experts."""
        return layer * self.system.experts + np.asarray(experts, np.int32)

    # --- predicting ---

    def _predict(self, token: int, layer: int, targets: Iterable[int]) -> None:
        """Have the prefetch engine work on the event of (token, layer), then send the ``targets``' issue sets."""
        event_loop = self.system.event_loop
        asked = (event_loop.now_ps, event_loop.busy_ps(HOST_LINK))

        def issue(task: Task) -> None:
            # The prefetch engine began when it was asked, or when it had answered the request before.
            begin_ps, busy_ps = max(asked, self._answered)
            self._answered = (event_loop.now_ps, event_loop.busy_ps(HOST_LINK))
            idle_ps = self._answered[0] - begin_ps - (self._answered[1] - busy_ps)
            for target in targets:
                self._issue(token, target, idle_ps)

        event_loop.submit("predict", (PREFETCH_ENGINE,), self.system.engine_ps(token, layer), on_finish=issue)

    def _issue(self, token: int, target: int, link_idle_ps: int) -> None:
        """Send the issue set of (token, target) to the link, best first."""
        row = self._issue_sets[token, target, : self.system.config.issue_limit].tolist()
        keys = [(target, expert) for expert in row if expert >= 0]
        if not keys:
            return
        prediction = Prediction(token * self.system.layers + target, link_idle_ps)
        if prediction.event <= self._event:
            self.counts.overdue += 1
            return
        self.counts.predicted += len(keys)
        for key in keys:
            self._directory.set_chance(self._index(key), 1, prediction.event)
        for key in keys:
            if self._is_resident(key):
                if key in self._unused:
                    self._unused[key] = prediction.event
                continue
            fetch = self._link.in_flight.get(key)
            if fetch is None:
                self.counts.issued += 1
                self._link.prefetch(key, prediction)
            elif not fetch.is_wanted:
                self._link.retarget(fetch, prediction.event)

    # --- what becomes of a prefetch ---

    def _give_up_wrong(self, needed: Sequence[Key], *, link_is_wanted: bool) -> None:
        """Cancel prefetches whose gate asked for other experts; a running one only if a demand wants the link."""
        for fetch in list(self._link.in_flight.values()):
            is_wrong = fetch.event <= self._event and fetch.key not in needed
            if is_wrong and (link_is_wanted or fetch.task.state != TaskState.RUNNING):
                self.system.event_loop.cancel(fetch.task)

    def _fetch(self, key: Key, event: int) -> Fetch:
        """Fetch a missing expert for a gate that waits for it; if it is already on its way, promote it."""
        fetch = self._link.in_flight.get(key)
        if fetch is None:
            return super()._fetch(key, event)
        self.counts.late += 1
        self.counts.used_at_target += fetch.event == event
        if not fetch.has_place:
            self._make_room(key)
            fetch.has_place = True
        self._link.promote(fetch, event)
        return fetch

    def _use(self, keys: Sequence[Key]) -> None:
        """Resident experts are used: count those that were prefetched as useful."""
        for key in keys:
            if self._unused.pop(key, None) is not None:
                self.counts.useful += 1
                self._link.bytes.prefetch_useful += self.system.costs.expert_bytes

    def _evicted(self, key: Key) -> None:
        if self._unused.pop(key, None) is not None:
            self.counts.wasted += 1
            self._link.bytes.prefetch_wasted += self.system.costs.expert_bytes

    def _admit(self, fetch: Fetch) -> bool:
        fetch.has_place = self._claim(fetch.key, demanded=False)
        self.counts.refused += not fetch.has_place
        return fetch.has_place

    def _arrived(self, fetch: Fetch) -> None:
        super()._arrived(fetch)
        if not fetch.is_wanted:
            self._unused[fetch.key] = fetch.event

    def _dropped(self, fetch: Fetch) -> None:
        if fetch.has_place:
            self._directory.free(self._index(fetch.key))
        self.counts.dropped += 1
