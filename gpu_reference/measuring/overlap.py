"""How much of a copy's time computing hides: experts computed and experts copied, each alone and both at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from gpu_reference.experts.compute import expert_kernel, kernels
from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.measuring.bench import Bench, Figures, check_same
from gpu_reference.measuring.experts import blocks_of, check_kernel, formats, inputs
from gpu_reference.records.micro import MicroKind

MOST_EXPERTS = 64
"""Computed in one run: their launches must fit the device's queue."""
MOST_COPIES = 16


def overlaps(bench: Bench) -> Figures:
    """Copies from the host alone, experts on the device alone, and both, for each format."""
    for form in formats(bench) if bench.is_full else formats(bench)[:1]:
        layout = ExpertLayout.of(bench.model, form)
        name = "triton" if "triton" in kernels(layout, bench.device) else "torch"
        yield from _overlap(bench, layout, name)


def _overlap(bench: Bench, layout: ExpertLayout, name: str) -> Figures:
    kernel = expert_kernel(layout, bench.device, name)
    blocks, x = blocks_of(bench, layout, bench.device), inputs(bench, 1, bench.device)
    error = check_kernel(layout, kernel, name, blocks, x)
    host = blocks.cpu()
    host = host.pin_memory() if bench.on_cuda else host
    there = torch.zeros_like(blocks)
    copier = ThreadPoolExecutor(1)
    side = torch.cuda.Stream() if bench.on_cuda else None

    def copy(count: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        if side is None:
            copied = copier.submit(_copy_in_memory, there, host, count)
            meanwhile()
            copied.result()
            return
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for n in range(count):
                there[n % len(there)].copy_(host[n % len(host)], non_blocking=True)
        meanwhile()
        main.wait_stream(side)

    def compute(count: int) -> None:
        for n in range(count):
            kernel(blocks[n % len(blocks)], x)

    try:
        copy(len(there))
        bench.clock.synchronise()
        check_same("copies beside the computing", there, host)
        one_copy, one_expert = (
            bench.clock.by_host(lambda _: copy(4)).median / 4,
            bench.clock.by_host(lambda _: compute(4)).median / 4,
        )
        # About as long one as the other, and neither shorter than a few pieces.
        experts = max(2, min(MOST_EXPERTS, round(4 * one_copy / one_expert)))
        copied = max(1, min(MOST_COPIES, round(experts * one_expert / one_copy)))
        for what, work in (
            ("copy", lambda _: copy(copied)),
            ("compute", lambda _: compute(experts)),
            ("both", lambda _: copy(copied, lambda: compute(experts))),
        ):
            yield bench.micro(
                MicroKind.OVERLAP,
                work,
                by_device=True,
                error=error,
                what=what,
                copy_bytes=copied * layout.nbytes,
                experts=experts,
                format=layout.format,
                kernel=name,
            )
    finally:
        copier.shutdown()


def _copy_in_memory(there: torch.Tensor, source: torch.Tensor, count: int) -> None:
    for n in range(count):  # one thread, and it lets other Python threads run
        np.copyto(there[n % len(there)].numpy(), source[n % len(source)].numpy())
