"""Experts on a device, with what runs beside them, from opening to closing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from catalog.errors import ForestageError
from gpu_reference.experts.compute import expert_kernel, fastest_host_kernel
from gpu_reference.experts.group import expert_group
from gpu_reference.offload.copier import copier_of
from gpu_reference.offload.estimates import Estimates, measured_estimates
from gpu_reference.offload.foresight import ArrayForesight, Foresight
from gpu_reference.offload.host_compute import HostWorker
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.link import CHUNK_BYTES, IN_FLIGHT
from gpu_reference.offload.queues import compute_queue
from gpu_reference.offload.resident import ResidentExperts
from gpu_reference.offload.runtime import OffloadedExperts
from predictor.policies.plan import Missing, Plan


@contextmanager
def offloaded_experts(
    plan: Plan,
    host: HostExperts,
    device: torch.device,
    *,
    foresight: Foresight | None = None,
    kernel: str | None = None,
    host_kernel: str | None = None,
    host_threads: int | None = None,
    link_gb_per_s: float | None = None,
    estimates: Estimates | None = None,
    most_tokens: int = 1,
    dtype: torch.dtype = torch.float32,
    chunk_bytes: int = CHUNK_BYTES,
    in_flight: int = IN_FLIGHT,
) -> Iterator[OffloadedExperts]:
    """Experts of which ``device`` holds some, as ``plan`` says; their accounts are closed and checked at the end.

    Args:
        plan: the policy.
        host: all experts.
        device: where they are computed.
        foresight: what is known ahead; ``None``: the plan's arrays.
        kernel: name of the device's expert kernel.
        host_kernel: name of the host's, for what it computes; ``None``: the fastest.
        host_threads: of the host's computing.
        link_gb_per_s: of a slower link than there is.
        estimates: by which `Missing.SOONER` chooses; ``None``: measured here (`estimates.measured_estimates`).
        most_tokens: that one expert computes at once, at most, and
        dtype: of activations, for that measurement.
        chunk_bytes, in_flight: see `link.Link`.

    Raises:
        ForestageError: if the device's memory does not suffice (it names what would fit), the kernel is unknown, a
            setting is out of range, or the memory is to compute, which no machine's here does.
    """
    if plan.missing.in_memory:
        raise ForestageError(
            f"policy: missing is {plan.missing.value}; no memory here computes: choose fetch, host or sooner"
        )
    copier = copier_of(device, throttle_gb_per_s=link_gb_per_s)
    worker = None
    try:
        if plan.missing is not Missing.FETCH:
            on_host = expert_kernel(host.layout, "cpu", host_kernel or fastest_host_kernel(host.layout))
            worker = HostWorker(on_host, threads=host_threads)
        queue, group = compute_queue(device), expert_group(host.layout, device, kernel)
        if plan.missing is Missing.SOONER and estimates is None:
            assert worker is not None, "made above"
            one = expert_kernel(host.layout, device, kernel)
            estimates = measured_estimates(host, queue, copier, one, worker, most_tokens=most_tokens, dtype=dtype)
        experts = OffloadedExperts(
            plan,
            host,
            queue,
            copier,
            group,
            foresight or ArrayForesight(host.layers, plan.values, plan.predictions),
            worker=worker,
            estimates=estimates,
            chunk_bytes=chunk_bytes,
            in_flight=in_flight,
        )
        yield experts
        experts.close()
    finally:
        copier.close()
        if worker is not None:
            worker.close()


def resident_experts(host: HostExperts, device: torch.device, *, kernel: str | None = None) -> ResidentExperts:
    """All experts on ``device``.

    Raises:
        ForestageError: if its memory does not suffice, or the kernel is unknown.
    """
    return ResidentExperts(host, compute_queue(device), expert_group(host.layout, device, kernel))
