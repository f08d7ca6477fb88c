"""A model's experts, all of them on the device: what offloading is compared with, in time and bit by bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from gpu_reference.experts.group import Group
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.layer_work import LayerWork
from gpu_reference.offload.pinned import PinnedBuffer
from gpu_reference.offload.places import Places
from gpu_reference.offload.queues import ComputeQueue, bring, let_others_run
from gpu_reference.offload.runtime import ForcedRouting
from gpu_reference.offload.statistics import Statistics


class ResidentExperts:
    """The interface of `runtime.OffloadedExperts`, with nothing to decide: a hit is every lookup.

    Args:
        host: all experts, which are copied to a GPU; a CPU computes them where they are.
        queue: of the device.
        group: what computes experts on the device.

    Attributes:
        timed: statistics of the timed steps.
        heard: where a list is put here, each gate's choice is appended to it, token by token.

    Raises:
        ForestageError: if the device's memory does not hold them all, naming how many would fit.
    """

    def __init__(self, host: HostExperts, queue: ComputeQueue, group: Group) -> None:
        self.heard: list[list[int]] | None = None
        self._queue = queue
        self._group = group
        self._experts = host.experts
        on_gpu = queue.device.type == "cuda"
        # A CPU's own memory is the host's, and a kernel gives the same bits wherever a block lies.
        self._blocks = _copied(host, queue.device) if on_gpu else host.blocks
        self._ids = PinnedBuffer(torch.int64, pinned=on_gpu)
        self._is_timed = False
        self.timed = Statistics()

    def begin_step(self, step: int, *, timed: bool) -> None:
        """See `OffloadedExperts`."""
        self._is_timed = timed

    def end_step(self) -> None:
        """Nothing."""

    def pump(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def read(self, ids: torch.Tensor, meanwhile: Callable[[], None] | None = None) -> list[int]:
        """See `OffloadedExperts`."""
        here = self._ids.view(ids.shape)
        self._queue.launch(lambda: bring(here, ids))
        mark = self._queue.mark()
        if meanwhile is not None:
            meanwhile()
        while not mark.is_reached():
            let_others_run()
        return [int(one) for one in here.view(-1).tolist()]

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
        """See `OffloadedExperts.run`; it, too, waits for the gate, since the host must know what to launch."""
        begun_s = time.perf_counter()
        chosen: Sequence[int] = self.read(ids, meanwhile)
        if self._is_timed:
            self.timed.gate_wait_s += time.perf_counter() - begun_s
        if self.heard is not None:
            self.heard.append(list(chosen))
        if forced is not None:
            chosen, ids, weights = forced.chosen, forced.ids, forced.weights
        if not len(chosen):
            return torch.zeros_like(x)
        work = LayerWork(self._queue, self._group, x, ids, weights, chosen)
        needed = list(work.tokens_of)
        work.launch(needed, [self._blocks[layer * self._experts + expert] for expert in needed])
        if self._is_timed:
            self.timed.counts.lookups += len(work.tokens_of)
            self.timed.counts.hits += len(work.tokens_of)
        return work.combine()


def _copied(host: HostExperts, device: torch.device) -> list[torch.Tensor]:
    """All blocks of ``host``, on ``device``."""
    blocks = Places(len(host.blocks), host.layout.nbytes, device).blocks[: len(host.blocks)]
    for block, source in zip(blocks, host.blocks, strict=True):
        block.copy_(source)
    torch.cuda.synchronize(device)
    return blocks
