"""The simulation that ties the parts: steps, gates, layers, and the order of things within an instant.

**One instant.** Of what is due, one thing happens at a time, of the first part that has something: the link (an
arrival, or a stop), the host's processor (it begins, or an expert has ended), the prefetch engine (an answer), the
device (a kernel has ended, or the host's result is there). When nothing more is due the link is offered (`Link.offer`);
if that makes something due at once, the instant goes on.

Where the rules leave a choice, these are made:

* A device's event is followed to whatever takes a kernel: the end of a kernel may be the end of its layer, of its step,
  the warm steps after it, and the beginning of the next. So a layer that needs nothing ends in the event of its gate,
  before an answer that is due in the same instant. A kernel of 0 ps is a kernel: it ends in an event of its own.
* The simulation is over with the event that ends the last step: what is due after it in that instant does not happen,
  and the link is not offered again. An arrival in that instant came before.
* Warm steps after the last timed one are part of it: without the host computing, what moves is complete and counts.
* The chunks of a paused transfer that a warm step completes are neither abandoned nor a transfer counted; nothing else
  that moved is left uncounted (`Link.close`).
* A paused transfer that was promoted and goes on is ``late`` when it arrives, as its first grant was none for a gate.
* ``abandoned_bytes`` counts what is dropped in warm steps too; its bytes moved in timed ones.
* A stop that is reached when no demand waits any more leaves the transfer alone, and may be set again.
"""

from collections import deque

import numpy as np

from catalog.progress import Progress
from perfmodel.engine.clock import NEVER, Clock
from perfmodel.engine.device import Device, Kernel
from perfmodel.engine.host import HostProcessor
from perfmodel.engine.link import Link
from perfmodel.engine.prefetch_engine import BEGIN, Answer, PrefetchEngine
from perfmodel.fit import check_fit
from perfmodel.run import Parts, Run
from perfmodel.workload import Durations, Workload
from predictor.policies import sooner
from predictor.policies.counts import Counts
from predictor.policies.plan import Plan
from staging.stager.directory import MOVING, NONE, QUEUED
from staging.stager.twin import Stager


def simulate(workload: Workload, durations: Durations, plan: Plan, *, progress: Progress | None = None) -> Run:
    """Run all steps, one after the other.

    Args:
        workload, durations, plan: see their classes.
        progress: called with (steps done, steps) after each timed step, and at the end.

    Raises:
        ForestageError: if the three do not fit each other.
        ValueError: where the stager is told what its limits do not hold (see its commands).
    """
    check_fit(workload, durations, plan)
    return Simulation(workload, durations, plan, progress).run()


class Layer:
    """What is left to do of the layer whose gate is known.

    Attributes:
        demanded: experts, in gate order.
        ready: kernels of experts that are there, in the order in which they became available.
        coming: key to (tokens, whether it was queued or moving at the gate) of those that are not.
        on_host: whether the host's result is still to come.
    """

    def __init__(self) -> None:
        self.demanded: list[int] = []
        self.ready: deque[Kernel] = deque()
        self.coming: dict[int, tuple[int, bool]] = {}
        self.on_host = False

    @property
    def has_run(self) -> bool:
        """Whether nothing is left but a kernel that may run."""
        return not self.ready and not self.coming and not self.on_host


class Simulation:
    """One run; see the module's description."""

    def __init__(self, workload: Workload, durations: Durations, plan: Plan, progress: Progress | None) -> None:
        self._workload = workload
        self._durations = durations
        self._plan = plan
        self._progress = progress
        self._steps = len(workload.timed)
        self.result = Run(step_ps=np.zeros(self._steps, np.int64), parts=Parts(), counts=Counts())
        self.clock = Clock()
        self.stager = Stager(plan.limits, plan.settings)
        self.link = Link(self.clock, durations, self.stager, self.result.counts)
        self.host = HostProcessor(self.clock, durations)
        self.engine = PrefetchEngine(self.clock)
        self.device = Device(self.clock, self.result.parts)
        self._step = -1
        self._began_ps = 0
        self._layer = 0
        self._running: Layer | None = None  # None: the kernels before the gate run
        self._over = False

    def run(self) -> Run:
        """Run all steps."""
        for key in self._plan.resident.tolist():
            layer, expert = divmod(key, self._workload.model_experts)
            self.stager.preload(layer, [expert])
            self.stager.fix(layer, [expert], fixed=self._plan.fixed)
        self._next_step()
        while True:
            self._instant()
            if self._over:
                break
            self.clock.advance(self._due_ps())
        self._end()
        return self.result

    def _due_ps(self) -> int:
        return min(self.link.due_ps, self.host.due_ps, self.engine.due_ps, self.device.due_ps, self.host.result_ps)

    # --- an instant ---

    def _instant(self) -> None:
        """Everything that happens now."""
        while not self._over:
            if self._happens():
                continue
            self.link.offer()
            self.host.link_moves(self.link.is_moving)
            if self._due_ps() > self.clock.now_ps:
                self._check()
                return

    def _happens(self) -> bool:
        """The first thing that is due happens, if one is."""
        now = self.clock.now_ps
        if self.link.due_ps == now:
            key = self.link.act()
            self.host.link_moves(self.link.is_moving)
            if key != NONE:
                self._arrived(key)
        elif self.host.due_ps == now:
            self.host.act()
        elif self.engine.due_ps == now:
            self._answered(*self.engine.answer())
        elif self.device.due_ps == now:
            self.device.end()
            self._go_on()
        elif self.host.result_ps == now:
            self.host.take_result()
            assert self._running is not None, "a result of no layer"
            self._running.on_host = False
            self._go_on()
        else:
            return False
        return True

    def _check(self) -> None:
        """What holds at the end of every instant."""
        self.link.check()
        layer = self._running
        assert not (self.device.is_idle and layer is None), "the device idles before a gate"
        assert not (self.device.is_idle and layer is not None and layer.ready), "the device idles with work at hand"
        assert not (self.device.is_idle and layer is not None and layer.has_run), "a layer has run and does not end"

    # --- the device: kernels, layers, steps ---

    def _go_on(self) -> None:
        """After a kernel, or the host's result: what the device does next."""
        if not self.device.is_idle:
            return
        layer = self._running
        if layer is None:
            self._gate()
        elif layer.ready:
            self.device.start(layer.ready.popleft())
        elif layer.has_run:
            self._end_layer(layer)

    def _start_layer(self, layer: int) -> None:
        """The kernels before its gate run."""
        self._layer, self._running = layer, None
        at = (self._step, layer)
        self.device.start(
            Kernel(int(self._workload.before_gate_ps[at]), int(self._workload.before_gate_compute_ps[at]))
        )

    def _end_layer(self, layer: Layer) -> None:
        self.device.charge_host()
        if layer.demanded:
            self.link.heed(self.stager.release(self._layer, layer.demanded))
        if self._layer + 1 < self._workload.layers:
            self._start_layer(self._layer + 1)
            return
        self.result.step_ps[self._step] = self.clock.now_ps - self._began_ps
        self._set_values_at_end(self._step)
        if self._progress is not None and self._step + 1 < self._steps:
            self._progress(self._step + 1, self._steps)
        self._next_step()

    def _next_step(self) -> None:
        """The next timed step begins, after the warm ones before it; or there is none."""
        self._step += 1
        while self._step < self._steps and not self._workload.timed[self._step]:
            self._warm(self._step)
            self._step += 1
        if self._step == self._steps:
            self._over = True
            return
        self._began_ps = self.clock.now_ps
        if self._plan.predictions is not None:
            takes_ps = int(self._workload.begin_engine_ps[self._step])
            self.engine.ask(self._step, BEGIN, {Answer.PREDICTIONS: takes_ps})
        self._start_layer(0)

    def _needed(self, step: int, layer: int) -> tuple[list[int], list[int]]:
        """Experts, and how many tokens chose each."""
        at = step * self._workload.layers + layer
        span = slice(int(self._workload.offsets[at]), int(self._workload.offsets[at + 1]))
        return self._workload.experts[span].tolist(), self._workload.tokens_of[span].tolist()

    # --- a gate ---

    def _gate(self) -> None:
        step, at = self._step, self._layer
        needed, tokens = self._needed(step, at)
        tokens_of = dict(zip(needed, tokens, strict=True))
        resident = [e for e, here in zip(needed, self.stager.lookup(at, needed).tolist(), strict=True) if here]
        missing = [e for e in needed if e not in resident]
        fetched = self._fetched(missing, resident, tokens_of)
        computed = [e for e in missing if e not in fetched]
        layer = self._running = Layer()
        layer.demanded = [e for e in needed if e not in computed]
        first_key = at * self._workload.model_experts
        status = self.stager.directory.status
        layer.coming = {
            first_key + e: (tokens_of[e], status[first_key + e] in (QUEUED, MOVING))
            for e in layer.demanded
            if e in fetched
        }
        counts = self.result.counts
        counts.lookups += len(needed)
        counts.hits += len(resident)
        counts.fetched += len(fetched)
        counts.computed += len(computed)

        if layer.demanded:
            self.link.heed(self.stager.demand(at, layer.demanded))
        if self._plan.predictions is not None:
            self.link.heed(self.stager.expire(step * self._workload.layers + at))
        takes_ps = {}
        if self._plan.values is not None and not self._plan.values.at_step_end:
            takes_ps[Answer.VALUES] = int(self._workload.values_engine_ps[step, at])
        if self._plan.predictions is not None:
            takes_ps[Answer.PREDICTIONS] = int(self._workload.prefetch_engine_ps[step, at])
        self.engine.ask(step, at, takes_ps)
        if computed:
            layer.on_host = True
            self.host.compute([(e, tokens_of[e]) for e in computed])
        if self._workload.shared_ps[step] > 0:
            layer.ready.append(Kernel(int(self._workload.shared_ps[step]), int(self._workload.shared_compute_ps[step])))
        layer.ready.extend(self._expert_kernel(tokens_of[e]) for e in resident)
        self._go_on()

    def _fetched(self, missing: list[int], resident: list[int], tokens_of: dict[int, int]) -> list[int]:
        """Which of the missing experts are fetched."""
        if not self._plan.missing.may_compute:
            return missing
        if not self._plan.missing.may_fetch or not missing:
            return []
        first_key = self._layer * self._workload.model_experts
        keys = np.array([first_key + e for e in missing])
        service = self.link.service
        moving = int(np.flatnonzero(keys == service.key)[0]) if service is not None and service.key in keys else -1
        shared_ps = int(self._workload.shared_ps[self._step])
        chosen = np.empty(len(missing), np.bool_)
        of = self._durations
        sooner.fetched(
            np.array([tokens_of[e] for e in missing], np.int64),
            np.asarray(self.stager.directory.worth(keys), np.int64),
            moving,
            self.link.until_free_ps(stoppable=moving < 0),
            shared_ps + sum(int(of.expert_ps[tokens_of[e]]) for e in resident),
            int(of.chunk_ps[-1]),
            of.expert_ps,
            of.host_work,
            of.host_free_rate,
            of.host_shared_rate,
            of.host_groups,
            of.host_before_ps,
            of.host_after_ps,
            of.host_token_ps,
            chosen,
        )
        return [e for e, is_fetched in zip(missing, chosen.tolist(), strict=True) if is_fetched]

    def _expert_kernel(self, tokens: int) -> Kernel:
        return Kernel(int(self._durations.expert_ps[tokens]), int(self._durations.expert_compute_ps[tokens]))

    def _arrived(self, key: int) -> None:
        """An expert is complete; the layer may have waited for it."""
        layer = self._running
        if layer is None or key not in layer.coming:
            return
        tokens, late = layer.coming.pop(key)
        layer.ready.append(self._expert_kernel(tokens))
        if self.device.is_idle:
            self.device.charge_arrival(late=late)
            self._go_on()

    # --- what is known ahead ---

    def _answered(self, step: int, layer: int, answer: Answer) -> None:
        """The prefetch engine has answered an event: the stager is told."""
        values, predictions = self._plan.values, self._plan.predictions
        if answer is Answer.VALUES:
            assert values is not None, "values of no policy"
            self.link.heed(self.stager.set_values(layer, values.rows[step, layer]))
            return
        assert predictions is not None, "predictions of no policy"
        if layer == BEGIN:
            for target in range(min(predictions.distances[-1], self._workload.layers)):
                index = next(i for i, distance in enumerate(predictions.distances) if distance > target)
                self._prefetch(step, target, index)
        else:
            for index, distance in enumerate(predictions.distances):
                if layer + distance < self._workload.layers:
                    self._prefetch(step, layer + distance, index)

    def _prefetch(self, step: int, target: int, index: int) -> None:
        """The stager is told what a layer is expected to choose, by one of the distances."""
        assert self._plan.predictions is not None
        experts = self._plan.predictions.experts[step, target, index]
        told = experts >= 0
        if told.any():
            chances = self._plan.predictions.chances[step, target, index][told]
            deadline = step * self._workload.layers + target
            self.link.heed(self.stager.prefetch(target, experts[told], chances, deadline))

    def _set_values_at_end(self, step: int) -> None:
        values = self._plan.values
        if values is not None and values.at_step_end:
            for layer in range(self._workload.layers):
                self.link.heed(self.stager.set_values(layer, values.rows[step, layer]))

    # --- steps that are not timed, and the end ---

    def _warm(self, step: int) -> None:
        """A step that takes no time."""
        values, on_host = self._plan.values, not self._plan.missing.may_fetch
        if not on_host:
            self.link.arrive_at_once()
            self.host.link_moves(False)
        for layer in range(self._workload.layers):
            needed, _ = self._needed(step, layer)
            if not needed:
                continue
            if values is not None and not values.at_step_end:
                self.link.heed(self.stager.set_values(layer, values.rows[step, layer]))
            if on_host:
                here = self.stager.lookup(layer, needed).tolist()
                needed = [e for e, is_here in zip(needed, here, strict=True) if is_here]
            if not needed:
                continue
            self.link.heed(self.stager.demand(layer, needed))
            while self.stager.queue.holds_demand:
                self.link.move_at_once()
            self.link.heed(self.stager.release(layer, needed))
        self._set_values_at_end(step)

    def _end(self) -> None:
        """Close the accounts, and check what holds of every run."""
        result, counts, now = self.result, self.result.counts, self.clock.now_ps
        self.link.close()
        result.link_busy_ps, result.host_busy_ps = self.link.busy_ps, self.host.busy_ps
        of = self.stager.counters
        counts.useful, counts.wasted = of.useful, of.wasted
        counts.dropped, counts.refused, counts.evicted = of.dropped, of.refused, of.evicted
        parts = result.parts
        total = parts.compute + parts.hbm + parts.demand_wait + parts.late_wait + parts.host_wait
        assert total == now == int(result.step_ps.sum()), "the parts do not sum to the time of the steps"
        assert counts.lookups == counts.hits + counts.fetched + counts.computed, "a lookup is unaccounted for"
        assert counts.fetched == counts.demands + counts.late, (
            "an expert that was waited for did not come by one transfer"
        )
        assert max(result.link_busy_ps, result.host_busy_ps) <= now < NEVER, (
            "a resource worked longer than the run took"
        )
        if self._progress is not None:
            self._progress(self._steps, self._steps)
