"""How long experts take: over the link, on the device, and on the host's processor, as integers.

* A transfer takes its bytes over the link's bandwidth, rounded up, and the latency once, in its first chunk. Where link
  and processor share the host memory, the link moves no faster than that memory can be read.
* The host's processor reads an expert once for all tokens that chose it, at the memory's usable bandwidth less what the
  link takes while it moves (floored to 10⁶ bytes a second), or as fast as its arithmetic keeps up.
* Before and after, the activations (BF16, one vector of the model's width a token of the largest timed step) cross the
  link, with the host's latency. Assumption: they do not compete with transfers of experts.
"""

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.costs import BF16_BYTES, CostModel
from perfmodel.host import computing_host, host_of
from perfmodel.units import PS_PER_S, PS_PER_US
from perfmodel.workload import Durations
from predictor.policies.plan import Missing

RATE = 10**6
"""Bytes a second in one unit of a rate; with times in 10⁻¹² s, work is in 10⁻⁶ bytes."""
MOST_CHUNKS = 2**22
"""Of one transfer: an expert of 17 GB in pages."""
LARGEST_EXPERT = 10**12
"""Bytes; larger ones are beyond what the host's work counts in 64 bits."""
LONGEST_PS = 10**16
"""Longest single duration (2.8 hours); nine hundred add up in 64 bits. `perfmodel.workload_of` checks whole runs."""


def durations(
    costs: CostModel,
    config: SimulationConfig,
    *,
    most_tokens: int,
    largest_step: int,
    missing: Missing = Missing.FETCH,
    catalog: Catalog | None = None,
) -> Durations:
    """What an expert of ``costs`` takes under ``config``.

    Args:
        costs: of the model on the machine; its link's bandwidth is the one used.
        config: latency and chunks of transfers, and the host.
        most_tokens: of one step that choose one expert, at most.
        largest_step: tokens of the largest timed step.
        missing: what becomes of missing experts. Only if the host may compute them must it be known; what it would take
            is 0 where it is not.
        catalog: of host memories; the shipped one and the user's by default.

    Raises:
        ForestageError: if the host is to compute and its memory or arithmetic is not known, or too slow for
            ``most_tokens`` tokens; if an expert exceeds `LARGEST_EXPERT`, its chunks `MOST_CHUNKS` or a duration
            `LONGEST_PS`.
    """
    if most_tokens < 1 or largest_step < 1:
        raise ValueError(f"most_tokens ({most_tokens}) and largest_step ({largest_step}) are at least 1")
    check_expert(costs)
    host = host_of(config, costs.machine, catalog)
    link = costs.link_bytes_per_s
    if host is not None and config.shared_host_memory:
        link = min(link, host.bytes_per_s)
    free_rate, shared_rate = np.zeros((2, most_tokens + 1), np.int64)
    activations_ps = 0
    if missing is not Missing.FETCH:
        host, _ = computing_host(host, costs.machine)
    if host is not None and host.flops_per_s is not None:
        operations = costs.model.expert_flops
        most_rate = [
            costs.expert_bytes * host.flops_per_s // (tokens * operations * RATE)
            for tokens in range(1, most_tokens + 1)
        ]
        left = host.bytes_per_s - link if config.shared_host_memory else host.bytes_per_s
        free_rate[1:] = [min(rate, host.bytes_per_s // RATE) for rate in most_rate]
        shared_rate[1:] = [min(rate, left // RATE) for rate in most_rate]
        if missing is not Missing.FETCH and most_rate[-1] == 0:
            raise ForestageError(
                f"simulation: host_tflops: less than 1 MB/s of an expert for {most_tokens} tokens; give more"
            )
        activation_bytes = largest_step * costs.model.hidden * BF16_BYTES
        activations_ps = host.latency_ps + transfer_ps(activation_bytes, link)
    expert_ps, compute_ps = device_times(costs, most_tokens)
    return Durations(
        expert_bytes=costs.expert_bytes,
        chunk_bytes=config.chunk_bytes,
        chunk_ps=transfer_chunks(costs.expert_bytes, link, config),
        expert_ps=expert_ps,
        expert_compute_ps=compute_ps,
        host_work=costs.expert_bytes * RATE,
        host_free_rate=free_rate,
        host_shared_rate=shared_rate,
        host_groups=1,
        host_before_ps=activations_ps,
        host_after_ps=activations_ps,
        host_token_ps=0,
    )


def check_expert(costs: CostModel) -> None:
    """Refuse an expert that the simulation cannot count.

    Raises:
        ForestageError: if it has more than `LARGEST_EXPERT` bytes.
    """
    if costs.expert_bytes > LARGEST_EXPERT:
        raise ForestageError(
            f"model {costs.model.name}: an expert has {costs.expert_bytes} bytes; the simulation takes up to 10¹²"
        )


def device_times(costs: CostModel, most_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An expert's kernel on the device, and its operations alone: i64 ``[most_tokens + 1]``, ps.

    Raises:
        ForestageError: if one exceeds `LONGEST_PS`.
    """
    kernels = [costs.expert(tokens) for tokens in range(1, most_tokens + 1)]
    return (
        times_array("expert", [0, *(kernel.duration_ps for kernel in kernels)]),
        times_array("expert", [0, *(kernel.compute_ps for kernel in kernels)]),
    )


def transfer_chunks(expert_bytes: int, bytes_per_s: int, config: SimulationConfig) -> NDArray[np.int64]:
    """When so many chunks of a transfer have passed since it began.

    Raises:
        ForestageError: if its chunks exceed `MOST_CHUNKS`, or it takes longer than `LONGEST_PS`.
    """
    latency_ps = round(config.transfer_latency_us * PS_PER_US)
    times_array("transfer", [latency_ps + transfer_ps(expert_bytes, bytes_per_s)])
    if expert_bytes > MOST_CHUNKS * config.chunk_bytes:
        raise ForestageError(
            f"simulation: chunk_bytes: an expert of {expert_bytes} bytes has more than {MOST_CHUNKS} chunks; give more"
        )
    ends = [*range(config.chunk_bytes, expert_bytes, config.chunk_bytes), expert_bytes]
    return times_array("transfer", [0, *(latency_ps + transfer_ps(end, bytes_per_s) for end in ends)])


def transfer_ps(size: int, bytes_per_s: int) -> int:
    """Of ``size`` bytes, rounded up."""
    return -(-size * PS_PER_S // bytes_per_s)


def times_array(what: str, times_ps: list[int]) -> NDArray[np.int64]:
    """Durations as an i64 array.

    Raises:
        ForestageError: naming ``what`` takes longer than `LONGEST_PS`.
    """
    if max(times_ps, default=0) > LONGEST_PS:
        seconds = max(times_ps) / PS_PER_S
        raise ForestageError(f"simulation: one {what} takes {seconds:.3g} s; give a faster machine or a smaller model")
    return np.array(times_ps, np.int64)
