"""How long fetching and computing take here, measured in a moment at the start: what `Missing.SOONER` chooses by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_reference.experts.compute import Kernel
from gpu_reference.offload.copier import Copier
from gpu_reference.offload.host_compute import HostWorker
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.queues import ComputeQueue, Mark, let_others_run

RUNS = 5
PS_PER_S = 10**12
WORK_PER_BYTE = 10**6
"""`predictor.policies.sooner` counts work in 10⁻⁶ bytes and rates in 10⁶ bytes a second."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimates:
    """The arguments of `predictor.policies.sooner.fetched` that a machine gives.

    Attributes:
        transfer_ps: of one expert over the link.
        expert_ps: i64 ``[tokens + 1]``, on the device, by tokens.
        host_work: of one expert on the host, 10⁻⁶ bytes.
        host_free_rate, host_shared_rate: i64 ``[tokens + 1]``, of the host by tokens, alone and while the link moves;
            10⁶ bytes a second. The latter is no more than an expert of one token got then.
        host_before_ps, host_after_ps: to hand work over, and to bring the result to the device.
    """

    transfer_ps: int
    expert_ps: NDArray[np.int64]
    host_work: int
    host_free_rate: NDArray[np.int64]
    host_shared_rate: NDArray[np.int64]
    host_before_ps: int
    host_after_ps: int


def measured_estimates(
    host: HostExperts,
    queue: ComputeQueue,
    copier: Copier,
    kernel: Kernel,
    worker: HostWorker,
    *,
    most_tokens: int,
    dtype: torch.dtype,
) -> Estimates:
    """Medians of a few runs each, with the model's first experts; between the numbers of tokens tried, straight lines.

    Args:
        host, queue, copier, kernel, worker: those of the run that follows.
        most_tokens: of one expert at once.
        dtype: of its inputs.
    """
    nbytes, hidden = host.layout.nbytes, host.layout.shape.hidden
    room = torch.empty(nbytes, dtype=torch.uint8, device=queue.device)

    def transfer() -> Mark:
        return copier.copy(room, host.blocks[0], None)

    def computed(tokens: int) -> float:
        rows = torch.ones((tokens, hidden), dtype=dtype)
        output = torch.empty_like(rows)
        return _median_s(lambda: _until(worker.compute([(host.blocks[1], rows, output)]).is_done))

    transfer_s = _median_s(lambda: _until(transfer().is_reached))
    handed_s = _median_s(lambda: _until(worker.compute([]).is_done))
    tried = sorted({1, 2, 4, 8, 16, 64, most_tokens} & set(range(1, most_tokens + 1)))
    device_s = [_on_device_s(queue, kernel, room, torch.ones((n, hidden), dtype=dtype)) for n in tried]
    host_s = [max(computed(n) - handed_s, 1e-9) for n in tried]
    result = torch.ones((1, hidden), dtype=dtype, pin_memory=queue.device.type == "cuda")

    def bring() -> None:
        result.to(queue.device, non_blocking=True)
        _until(queue.mark().is_reached)

    numbers = np.arange(most_tokens + 1)
    # An expert of more tokens reads as much as one of one, so that it is no faster.
    free = np.minimum([_rate(nbytes, s) for s in np.interp(numbers, tried, host_s)], _rate(nbytes, host_s[0]))
    return Estimates(
        transfer_ps=round(transfer_s * PS_PER_S),
        expert_ps=np.rint(np.interp(numbers, tried, device_s) * PS_PER_S).astype(np.int64),
        host_work=nbytes * WORK_PER_BYTE,
        host_free_rate=free,
        host_shared_rate=np.minimum(free, _rate(nbytes, _while_copying_s(transfer, lambda: computed(1), handed_s))),
        host_before_ps=round(handed_s * PS_PER_S),
        host_after_ps=round(_median_s(bring) * PS_PER_S),
    )


def _rate(nbytes: int, took_s: float) -> int:
    return max(1, round(nbytes / took_s / 1e6))


def _while_copying_s(transfer: Callable[[], Mark], compute: Callable[[], float], handed_s: float) -> float:
    """Of one expert on the host while the link moves others all the time."""
    marks = [transfer() for _ in range(8 * RUNS)]
    took_s = max(compute() - handed_s, 1e-9)
    _until(marks[-1].is_reached)
    return took_s


def _on_device_s(queue: ComputeQueue, kernel: Kernel, block: torch.Tensor, rows: torch.Tensor) -> float:
    x = rows.to(queue.device)
    took_s = []
    for _ in range(1 + RUNS):
        begin = queue.stamp()
        kernel(block, x)
        end = queue.stamp()
        _until(queue.mark().is_reached)
        took_s.append(queue.seconds(begin, end))
    return statistics.median(took_s[1:])


def _median_s(work: Callable[[], None]) -> float:
    took_s = []
    for _ in range(1 + RUNS):
        begun_s = time.perf_counter()
        work()
        took_s.append(time.perf_counter() - begun_s)
    return statistics.median(took_s[1:])


def _until(is_over: Callable[[], bool]) -> None:
    while not is_over():
        let_others_run()
