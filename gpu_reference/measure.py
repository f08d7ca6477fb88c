"""Measure what the system model assumes: copies to the device, and an expert's time for several batch sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from catalog.models import ModelRecord
from catalog.progress import Progress
from gpu_reference.devices import check_device
from gpu_reference.moe_layer import ReplayMoELayer
from gpu_reference.records import Figure, MeasurementRecord, now, these_versions, this_machine

TOKENS = (1, 4, 16, 64)
"""Batch sizes at which an expert is timed."""

RUNS = 15
WARM_RUNS = 3


def measure_expert(
    model: ModelRecord, *, command: str, device: str = "cpu", seed: int = 0, progress: Progress | None = None
) -> MeasurementRecord:
    """Time one expert of ``model``'s shape in BF16 with random weights: its copy to ``device``, and its products there.

    On a GPU the copy comes from pinned host memory; on a CPU it is a copy within memory, which reads and writes each
    byte.

    Raises:
        ForestageError: if the machine does not have the device.
    """
    check_device(device)
    generator = torch.Generator().manual_seed(seed)
    hidden, intermediate = model.hidden, model.expert_intermediate
    gate_up = torch.randn(1, 2 * intermediate, hidden, generator=generator).mul_(0.02).to(torch.bfloat16)
    down = torch.randn(1, hidden, intermediate, generator=generator).mul_(0.02).to(torch.bfloat16)
    on_gpu = torch.device(device).type == "cuda"
    host = [tensor.pin_memory() if on_gpu else tensor for tensor in (gate_up, down)]
    there = [torch.empty_like(tensor, device=device) for tensor in host]
    layer = ReplayMoELayer(*there)

    def copy() -> None:
        for source, destination in zip(host, there, strict=True):
            destination.copy_(source, non_blocking=on_gpu)

    figures = [_timed("expert_copy_s", copy, on_gpu)]
    for number, tokens in enumerate(TOKENS, start=1):
        x = torch.randn(tokens, hidden, generator=generator).to(torch.bfloat16).to(device)
        figures.append(_timed(f"expert_{tokens}_tokens_s", partial(layer.expert, 0, x), on_gpu))
        if progress is not None:
            progress(number, len(TOKENS))
    return MeasurementRecord(
        command=command,
        date=now(),
        machine=this_machine(),
        versions=these_versions(),
        subject={"model": model.name, "expert_bytes": layer.expert_bytes, "weights": "bf16, random", "device": device},
        figures=tuple(figures),
    )


def _timed(name: str, work: Callable[[], object], on_gpu: bool) -> Figure:
    """Minimum, median and maximum duration of ``work`` over ``RUNS`` runs, after ``WARM_RUNS``."""
    times = []
    for run in range(WARM_RUNS + RUNS):
        if on_gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        if run >= WARM_RUNS:
            times.append(time.perf_counter() - started)
    return Figure(name=name, minimum=min(times), median=statistics.median(times), maximum=max(times), runs=RUNS)
