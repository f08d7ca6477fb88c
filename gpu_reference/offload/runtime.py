"""A model's experts, of which the device holds some: `staging`'s stager decides which, and this makes it so.

One thread launches all of the device's work and pumps the link whenever it looks or waits. At each gate:

1. the router's ids come to pinned host memory, and the host waits for them (also with forced routing, whose ids replace
   the router's only then);
2. the stager is told what the layer demands, and the link starts;
3. what is on the device is launched, and what the host's processor computes begins;
4. foresight is told, while the device works;
5. what comes is launched as it comes, behind its copy: the device waits for the copy, not the host;
6. the outputs are added up in one fixed order, so they have the same bits under every policy that fetches;
7. the stager is told that the layer has run. A copy into a place waits for the work that reads it (`Places.last_read`).

Of a step that is not timed (a prompt's pass) all is the same, and it is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from catalog.errors import ForestageError
from gpu_reference.experts.group import Group
from gpu_reference.offload.copier import Copier
from gpu_reference.offload.estimates import Estimates
from gpu_reference.offload.foresight import Expected, Foresight
from gpu_reference.offload.host_compute import HostResult, HostWorker
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.layer_work import LayerWork
from gpu_reference.offload.link import CHUNK_BYTES, IN_FLIGHT, Link
from gpu_reference.offload.pinned import PinnedBuffer
from gpu_reference.offload.places import Places
from gpu_reference.offload.queues import ComputeQueue, Mark, bring, let_others_run
from gpu_reference.offload.stagers import AnyStager
from gpu_reference.offload.statistics import Statistics
from predictor.policies import sooner
from predictor.policies.plan import Missing, Plan
from staging.stager.compiled.direct import DirectStager


@dataclass(frozen=True)
class ForcedRouting:
    """Routing that replaces the router's, of one layer of a step.

    Attributes:
        chosen: experts, token by token, on the host.
        ids, weights: i64 and f32 ``[n, k]``, on the device.
    """

    chosen: Sequence[int]
    ids: torch.Tensor
    weights: torch.Tensor


class OffloadedExperts:
    """See the module's description.

    Args:
        plan: the policy, resolved; its values and predictions are not looked at, but ``foresight``.
        host: all experts.
        queue, copier: of the device.
        group: what computes experts on the device.
        foresight: what is known ahead.
        worker: that computes experts on the host; needed unless every missing expert is fetched.
        estimates: of times, by which `Missing.SOONER` chooses.
        make_stager: the form of the stager.
        chunk_bytes, in_flight: see `link.Link`.

    Attributes:
        stager: that decides.
        total: statistics of all steps.
        timed: of the timed ones.

    Raises:
        ForestageError: if the device's memory does not hold the places, naming how many would fit; from ``run``, if the
            estimates do not reach as many tokens as an expert computes.
    """

    def __init__(
        self,
        plan: Plan,
        host: HostExperts,
        queue: ComputeQueue,
        copier: Copier,
        group: Group,
        foresight: Foresight,
        *,
        worker: HostWorker | None = None,
        estimates: Estimates | None = None,
        make_stager: Callable[..., AnyStager] = DirectStager,
        chunk_bytes: int = CHUNK_BYTES,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        assert plan.missing is Missing.FETCH or worker is not None, "somebody must compute what is missing"
        assert plan.missing is not Missing.SOONER or estimates is not None, "by which times?"
        self._estimates = estimates
        self._plan = plan
        self._host = host
        self._experts = host.experts
        self._queue = queue
        self._group = group
        self._foresight = foresight
        self._worker = worker
        self._copier = copier
        self.stager = make_stager(plan.limits, plan.settings)
        self.total = Statistics()
        self.timed = Statistics()
        self._before: Statistics | None = None
        self._places = Places(plan.limits.places + plan.limits.spare, host.layout.nbytes, queue.device)
        self._link = Link(
            self.stager, copier, host, self._places, self.total, chunk_bytes=chunk_bytes, in_flight=in_flight
        )
        on_gpu = queue.device.type == "cuda"
        self._ids = PinnedBuffer(torch.int64, pinned=on_gpu)
        self._beside = PinnedBuffer(torch.int64, pinned=on_gpu)
        self._looked: list[int] = []
        self._inputs: PinnedBuffer | None = None
        self._results: PinnedBuffer | None = None
        self._on_gpu = on_gpu
        self._stalls: list[tuple[Any, Any, bool]] = []
        self._step = -1
        self._is_timed = False
        self._preload()

    def _preload(self) -> None:
        """What the plan holds at the start is copied, uncounted."""
        for key in self._plan.resident.tolist():
            layer, expert = divmod(key, self._experts)
            block = self.stager.preload(layer, expert, fixed=self._plan.fixed)
            self._link.block_of[key] = block
            self._places.blocks[block].copy_(self._host.blocks[key])
        if self._on_gpu:
            torch.cuda.synchronize(self._queue.device)

    # --- steps ---

    def begin_step(self, step: int, *, timed: bool) -> None:
        """A step begins; steps are numbered as the foresight's are."""
        self._step = step
        if timed != self._is_timed:
            self._change(timed=timed)
        begun_s = time.perf_counter()
        expected = self._foresight.begin_step(step)
        if timed:
            self._expect(expected)
        self.total.foresight_s += time.perf_counter() - begun_s
        self._link.pump()

    def end_step(self) -> None:
        """Its last layer is launched."""
        for layer, values in self._foresight.end_step(self._step):
            self.stager.set_values(layer, values)
            self._link.heed()
        self._link.pump()

    def pump(self) -> None:
        """Let the link go on; call it wherever launching takes long."""
        self._link.pump()

    def close(self) -> None:
        """The last step has ended: close the accounts, and check them.

        The copier and the worker are not closed: who made them may use them again.
        """
        self._change(timed=False)
        self._link.close()
        self.total.heed(self.stager.counters)
        self.total.check(self._host.layout.nbytes)
        self.timed.check()

    def _change(self, *, timed: bool) -> None:
        """Timed steps begin or end: what has come between is theirs."""
        self._wait(self._queue.mark())
        self._settle_stalls()
        self.total.heed(self.stager.counters)
        if self._before is not None:
            self.timed.add_since(self._before, self.total)
        self._before = self.total.copy() if timed else None
        self._is_timed = timed

    # --- a layer ---

    def run(
        self,
        layer: int,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        forced: ForcedRouting | None = None,
        meanwhile: Callable[[], None] | None = None,
        beside: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The layer's experts for some tokens.

        Args:
            layer: index among the layers with experts.
            x: ``[n, hidden]`` on the device.
            ids, weights: what the router chose, i64 and f32 ``[n, k]`` on the device.
            forced: what takes its place, once it is known.
            meanwhile: launches what the device may compute until the host has decided.
            beside: i64 on the device, brought to the host with ``ids``, for foresight.

        Returns:
            ``[n, hidden]``, launched.
        """
        chosen: Sequence[int] = self._gate(x, ids, meanwhile, beside)
        if forced is not None:
            chosen, ids, weights = forced.chosen, forced.ids, forced.weights
        if not len(chosen):
            return torch.zeros_like(x)
        work = LayerWork(self._queue, self._group, x, ids, weights, chosen)
        needed = list(work.tokens_of)
        resident, coming, computed = self._demand(layer, needed, work.tokens_of)
        result = self._compute_on_host(work, layer, computed) if computed else None
        read = self._launch(work, layer, resident)
        since = self._queue.stamp() if coming or computed else None
        self._tell(layer, chosen)
        self._await(work, layer, coming, result, computed, since, read)
        moe = work.combine()
        self._release(layer, [*resident, *coming], needed, computed, read)
        return moe

    def read(self, ids: torch.Tensor, meanwhile: Callable[[], None] | None = None) -> list[int]:
        """What ``ids`` (i64, on the device) are, once the device has them; the link goes on."""
        here = self._ids.view(ids.shape)
        self._queue.launch(lambda: bring(here, ids))
        self._wait_for_queue(meanwhile)
        return [int(one) for one in here.view(-1).tolist()]

    def _wait_for_queue(self, meanwhile: Callable[[], None] | None) -> None:
        """Until what is launched is done; ``meanwhile`` launches more."""
        mark = self._queue.mark()
        if meanwhile is not None:
            meanwhile()
        self._wait(mark)
        self._settle_stalls()

    def _gate(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        meanwhile: Callable[[], None] | None,
        beside: torch.Tensor | None,
    ) -> list[int]:
        """The router's choice, and the inputs where the host may compute."""
        if self._plan.missing is not Missing.FETCH:
            if self._inputs is None:
                self._inputs = PinnedBuffer(x.dtype, pinned=self._on_gpu)
            inputs = self._inputs.view(x.shape)
            self._queue.launch(lambda: bring(inputs, x))
        if beside is not None:
            looked = self._beside.view(beside.shape)
            self._queue.launch(lambda: bring(looked, beside))
        begun_s = time.perf_counter()
        chosen = self.read(ids, meanwhile)
        self._looked = [] if beside is None else [int(one) for one in looked.view(-1).tolist()]
        self.total.gate_wait_s += time.perf_counter() - begun_s
        return chosen

    def _wait(self, mark: Mark) -> None:
        """Pump until ``mark`` is reached."""
        self._link.pump()
        while not mark.is_reached():
            let_others_run()
            self._link.pump()

    def _demand(
        self, layer: int, needed: list[int], tokens_of: Mapping[int, int]
    ) -> tuple[list[int], list[int], list[int]]:
        """The stager is told; returns what is on the device, what is to come, and what the host computes."""
        link, counts, first_key = self._link, self.total.counts, layer * self._experts
        computed: list[int] = []
        demanded = needed
        if self._plan.missing is not Missing.FETCH:
            computed = self._left_to_host(layer, needed, tokens_of)
            demanded = [expert for expert in needed if expert not in computed]
        resident: list[int] = []
        coming: list[int] = []
        if demanded:
            were_resident = self.stager.demand(layer, demanded)
            link.heed()
            missing = []
            for expert, was_resident in zip(demanded, were_resident, strict=True):
                key = first_key + expert
                if not was_resident:
                    missing.append(key)
                    coming.append(expert)
                elif link.is_complete(key):
                    resident.append(expert)
                else:
                    coming.append(expert)
            link.demand(missing)
            link.pump()
        if self._is_timed and self._foresight.predicts:
            self.stager.expire(self._deadline(layer))
            link.heed()
        counts.lookups += len(needed)
        counts.hits += len(resident)
        counts.fetched += len(coming)
        counts.computed += len(computed)
        return resident, coming, computed

    def _launch(self, work: LayerWork, layer: int, experts: Sequence[int]) -> list[int]:
        """Compute what is on the device, together; returns the blocks."""
        blocks = [self._link.block_of[layer * self._experts + expert] for expert in experts]
        if experts:
            work.launch(experts, [self._places.blocks[block] for block in blocks])
        return blocks

    def _await(
        self,
        work: LayerWork,
        layer: int,
        coming: list[int],
        result: HostResult | None,
        computed: list[int],
        since: Any,
        read: list[int],
    ) -> None:
        """Launch what comes as it comes, and take the host's result."""
        link, first_key = self._link, layer * self._experts
        left = list(coming)
        link.pump()
        while left or result is not None:
            launched = False
            if arrived := self._arrived([first_key + expert for expert in left]):
                for _, mark in arrived:
                    if mark is not None:
                        self._queue.wait_for(mark)
                since = self._stalled(since, for_host=False)
                experts = [key - first_key for key, _ in arrived]
                blocks = self._launch(work, layer, experts)
                read += blocks
                left = [expert for expert in left if expert not in experts]
                since = self._queue.stamp()
                launched = True
                for block in blocks:
                    if block in self._places.landing:
                        self._places.last_read[block] = self._queue.mark()
                        link.was_read(block)
            if result is not None and result.is_done():
                self._take_result(work, computed)
                since = self._stalled(since, for_host=True)
                result, launched = None, True
            if not launched:
                let_others_run()
            link.pump()

    def _arrived(self, keys: Iterable[int]) -> list[tuple[int, Mark | None]]:
        """Of ``keys``, with the mark of the copy: all that have arrived, or one for which the device may wait."""
        arrived: list[tuple[int, Mark | None]] = []
        awaited: list[tuple[int, Mark | None]] = []
        for key in keys:
            if key in self._link.waiting:
                continue
            mark = self._link.mark_of(key)
            if mark is None or mark.is_reached():
                arrived.append((key, mark))
            elif not awaited and mark.may_be_awaited():
                awaited.append((key, mark))
        return arrived or awaited

    def _stalled(self, since: Any, *, for_host: bool) -> Any:
        """What the device waited for since the stamp ``since`` is there."""
        now = self._queue.stamp()
        self._stalls.append((since, now, for_host))
        return now

    def _settle_stalls(self) -> None:
        """Every stamp so far is reached: add up the times between."""
        for begin, end, for_host in self._stalls:
            took_s = self._queue.seconds(begin, end)
            if for_host:
                self.total.host_wait_s += took_s
            else:
                self.total.stall_s += took_s
        self._stalls.clear()

    def _release(
        self, layer: int, demanded: list[int], needed: list[int], computed: list[int], read: list[int]
    ) -> None:
        """All of the layer's work is launched: its places may be taken, once it is done."""
        if not demanded:
            return
        mark = self._queue.mark()
        for block in read:
            self._places.last_read[block] = mark
        gone = set(computed)
        in_order = [expert for expert in needed if expert not in gone]
        self.stager.release(layer, in_order)
        self._link.heed()
        self._link.pump()

    # --- the host's processor ---

    def _left_to_host(self, layer: int, needed: list[int], tokens_of: Mapping[int, int]) -> list[int]:
        """The missing experts that the host computes: all, or those that it is estimated to end sooner."""
        here = self.stager.are_resident(layer, needed)
        missing = [expert for expert, is_here in zip(needed, here, strict=True) if not is_here]
        of = self._estimates
        if self._plan.missing is Missing.HOST or not missing:
            return missing
        assert of is not None, "estimates are given"
        most = max(tokens_of[expert] for expert in needed)
        if most >= len(of.expert_ps):
            raise ForestageError(
                f"estimates: an expert computes {most} tokens, and times were measured up to {len(of.expert_ps) - 1}; "
                "measure them for as many"
            )
        keys = np.array(missing, np.int64) + layer * self._experts
        moving, free = self._link.until_free(keys.tolist())
        fetched = np.empty(len(missing), np.bool_)
        sooner.fetched(
            np.array([tokens_of[expert] for expert in missing], np.int64),
            self.stager.worth(keys),
            moving,
            round(free * of.transfer_ps),
            sum(int(of.expert_ps[tokens_of[e]]) for e, is_here in zip(needed, here, strict=True) if is_here),
            of.transfer_ps,
            of.expert_ps,
            of.host_work,
            of.host_free_rate,
            of.host_shared_rate,
            1,
            of.host_before_ps,
            of.host_after_ps,
            0,
            fetched,
        )
        return [expert for expert, is_fetched in zip(missing, fetched.tolist(), strict=True) if not is_fetched]

    def _compute_on_host(self, work: LayerWork, layer: int, computed: list[int]) -> HostResult:
        """The worker begins."""
        assert self._worker is not None, "somebody computes"
        assert self._inputs is not None, "the gate brought the inputs"
        inputs = self._inputs.latest
        if self._results is None:
            self._results = PinnedBuffer(inputs.dtype, pinned=self._on_gpu)
        rows_of = [work.rows_of(expert) for expert in computed]
        outputs = self._results.view((sum(map(len, rows_of)), inputs.shape[1]))
        jobs, begin = [], 0
        for expert, rows in zip(computed, rows_of, strict=True):
            output = outputs[begin : begin + len(rows)]
            begin += len(rows)
            jobs.append((self._host.blocks[layer * self._experts + expert], inputs[rows], output))
        self._computing = [output for _, _, output in jobs]
        return self._worker.compute(jobs)

    def _take_result(self, work: LayerWork, computed: list[int]) -> None:
        """Its outputs go to the device."""
        for expert, output in zip(computed, self._computing, strict=True):
            work.launch_result(expert, output)

    # --- what is known ahead ---

    def _deadline(self, layer: int) -> int:
        return self._step * self._host.layers + layer

    def _tell(self, layer: int, chosen: Sequence[int]) -> None:
        """Foresight hears the gate, and the stager what follows from it."""
        begun_s = time.perf_counter()
        values, expected = self._foresight.at_gate(self._step, layer, chosen, self._looked)
        if values is not None:
            self.stager.set_values(layer, values)
            self._link.heed()
        if self._is_timed:
            self._expect(expected)
        self.total.foresight_s += time.perf_counter() - begun_s

    def _expect(self, expected: Iterable[Expected]) -> None:
        for target, experts, chances in expected:
            self.stager.prefetch(target, experts, chances, self._deadline(target))
            self._link.heed()
