"""What the runtime itself takes of the host for a layer: `OffloadedExperts.run` where experts and copies take no time.

The real runtime runs, with the device's real queue, the ids' way to the host, the stager's decision and the sum of the
outputs; its experts compute nothing, and its copier says at once that all has arrived. Blocks are
small, since nobody reads them, and are moved in as many chunks as the model's.
"""

from collections.abc import Sequence

import numpy as np
import torch

from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.experts.piece import Piece
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.measuring.bench import Bench, Figures, WrongResultError
from gpu_reference.measuring.experts import formats, inputs
from gpu_reference.offload.foresight import ArrayForesight
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.link import CHUNK_BYTES
from gpu_reference.offload.passing import AnyExperts
from gpu_reference.offload.queues import ComputeQueue, Mark, compute_queue
from gpu_reference.offload.resident import ResidentExperts
from gpu_reference.offload.runtime import OffloadedExperts
from gpu_reference.records.micro import MicroKind
from predictor.policies.policy import Eviction, Policy, plan_of

SMALL = ExpertLayout(ExpertShape(hidden=32, intermediate=32, matrices=3, activation="swiglu"), "fp32")

TOKENS = {"quick": (1,), "full": (1, 4, 16)}

RESIDENT, OFFLOADED = "resident", "offloaded"


class ArrivedCopier:
    """A `Copier` of a device on which everything is already.

    Args:
        queue: of the device.
    """

    def __init__(self, queue: ComputeQueue) -> None:
        self._arrived = queue.mark()

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: Mark | None) -> Mark:
        """Nothing is copied; the mark is one that was reached long ago."""
        return self._arrived

    def close(self) -> None:
        """Nothing."""


def layer_overheads(bench: Bench) -> Figures:
    """By runtime, tokens and experts needed: all there; and for one token, with one or all of them missing."""
    model = bench.model
    host = HostExperts(SMALL, model.moe_layers, model.experts, pinned=False)
    queue = compute_queue(torch.device(bench.device))
    for tokens in TOKENS[bench.suite]:
        for needed in sorted({model.top_k, min(model.experts, tokens * model.top_k)}):
            for runtime in (RESIDENT, OFFLOADED):
                yield from _measured(bench, host, queue, runtime, tokens, needed, missing=0)
    for missing in sorted({1, model.top_k}):
        if model.top_k + missing <= model.experts:
            yield from _measured(bench, host, queue, OFFLOADED, 1, model.top_k, missing=missing)


def _measured(
    bench: Bench, host: HostExperts, queue: ComputeQueue, runtime: str, tokens: int, needed: int, *, missing: int
) -> Figures:
    experts: AnyExperts
    if runtime == RESIDENT:
        experts = ResidentExperts(host, queue, _nothing)
    else:
        experts = _offloaded(bench, host, queue, needed, all_there=not missing)
    layer = _Layers(bench, experts, tokens, needed, missing)
    with torch.inference_mode():
        found = bench.micro(
            MicroKind.LAYER_OVERHEAD,
            layer,
            queued=host.layers,
            runtime=runtime,
            tokens=tokens,
            top_k=bench.model.top_k,
            needed=needed,
            missing=missing,
        )
        experts.close()
    if isinstance(experts, OffloadedExperts):
        counts, wanted = experts.total.counts, missing * host.layers * (layer.steps - 1)
        if (counts.lookups, counts.fetched) != (needed * host.layers * layer.steps, wanted):
            raise WrongResultError(f"layer overhead: {counts.fetched} experts were missing instead of {wanted}")
    yield found


class _Layers:
    """Runs the n-th layer of all steps; with each step, the experts needed are ``missing`` others."""

    def __init__(self, bench: Bench, experts: AnyExperts, tokens: int, needed: int, missing: int) -> None:
        model = bench.model
        self._experts, self._layers, self._missing = experts, model.moe_layers, missing
        self.steps = 0
        self._x = inputs(bench, tokens, bench.device)
        self._weights = torch.full((tokens, model.top_k), 1 / model.top_k, device=bench.device)
        first = np.arange(tokens * model.top_k).reshape(tokens, model.top_k) % needed
        shifts = range(model.experts) if missing else range(1)
        self._ids = [torch.from_numpy((first + shift) % model.experts).to(bench.device) for shift in shifts]

    def __call__(self, number: int) -> None:
        layer = number % self._layers
        if layer == 0:
            self._experts.begin_step(self.steps, timed=True)
        ids = self._ids[self.steps * self._missing % len(self._ids)]
        self._experts.run(layer, self._x, ids, self._weights)
        if layer == self._layers - 1:
            self._experts.end_step()
            self.steps += 1


def _nothing(pieces: Sequence[Piece], x: torch.Tensor, output: torch.Tensor) -> None:
    """A group of experts that takes no time; what is in ``output`` does not matter."""


def _offloaded(
    bench: Bench,
    host: HostExperts,
    queue: ComputeQueue,
    needed: int,
    *,
    all_there: bool,
) -> OffloadedExperts:
    """Least recent give way; each layer holds all of its experts, or as many as it needs at once."""
    share = host.experts if all_there else needed
    held = [layer * host.experts + expert for layer in range(host.layers) for expert in range(share)]
    plan = plan_of(
        Policy(eviction=Eviction.LRU),
        layers=host.layers,
        experts=host.experts,
        most_needed=needed,
        places=len(held),
        scope="layer",
        hottest=np.array(held, np.int64),
        values={},
        predictions={},
    )
    chunks = -(-ExpertLayout.of(bench.model, formats(bench)[0]).nbytes // CHUNK_BYTES)
    foresight = ArrayForesight(host.layers, plan.values, plan.predictions)
    chunk_bytes = -(-SMALL.nbytes // chunks)
    return OffloadedExperts(plan, host, queue, ArrivedCopier(queue), _nothing, foresight, chunk_bytes=chunk_bytes)
