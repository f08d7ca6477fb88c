"""An expert's time on the device, by format, kernel and tokens; and the sum of experts' outputs."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_reference.experts.compute import Kernel, expert_kernel, kernels, reference_output
from gpu_reference.experts.grouped import grouped_output
from gpu_reference.experts.layout import ExpertLayout, Format
from gpu_reference.measuring.bench import Bench, Figures, Skipped, checked, figure
from gpu_reference.measuring.clock import Work, each_time
from gpu_reference.measuring.launches import capture
from gpu_reference.offload.blocks import aligned_blocks
from gpu_reference.offload.layer_work import add_up
from gpu_reference.records.micro import MicroKind

MIB = 1 << 20

CACHED_BYTES = {"cuda": 128 * MIB, "cpu": 96 * MIB}
"""So many bytes of experts are gone through, that no cache holds an expert until it is computed again: more than twice
the 50 MiB of an H100's second-level cache, or a processor's third level of 32 MiB."""

LEAST_EXPERTS = 8
REPLAYS = 4

TOKENS = {"quick": (1, 4), "full": (1, 2, 4, 8, 16, 32, 64)}

SMALL_PART = 8
"""Small experts have this part of the inner width, in steps of `WIDTH`."""
WIDTH = 32

MOST_ERROR = {"fp32": 1e-5, "bf16": 3e-2, "mxfp4": 3e-2, "int8": 3e-2}
"""Relative error of an expert's output in x's type against float64: of BF16 activations, some 2^−8 each."""
INTEGER_ERROR = 6e-2
"""Where the activations are INT8 as well."""


def formats(bench: Bench) -> tuple[Format, ...]:
    """The formats measured: MXFP4 and BF16, and the model's own where it is another."""
    own = ExpertLayout.of(bench.model).format if bench.model.expert_weight_format in ("fp32", "int8") else "mxfp4"
    return (own, "bf16") if own != "mxfp4" or bench.model.expert_intermediate % 2 == 0 else ("bf16",)


def small_layout(bench: Bench) -> ExpertLayout:
    """Of the experts of the regime in which the link keeps up: in the first of `formats`, but with less inside."""
    inner = max(1, bench.model.expert_intermediate // SMALL_PART // WIDTH) * WIDTH
    return ExpertLayout.of(bench.model, formats(bench)[0], intermediate=min(inner, bench.model.expert_intermediate))


def layouts(bench: Bench) -> tuple[ExpertLayout, ...]:
    """The experts measured: of each format, and in the full suite small ones too."""
    found = [ExpertLayout.of(bench.model, form) for form in formats(bench)]
    if bench.is_full:
        found.append(small_layout(bench))
    return tuple(dict.fromkeys(found))


def blocks_of(bench: Bench, layout: ExpertLayout, device: str) -> torch.Tensor:
    """Random experts u8 ``[count, nbytes]``, more than a cache holds; they lie as in a decode run, so that no kernel
    copies one first."""
    count = max(LEAST_EXPERTS, -(-CACHED_BYTES[torch.device(device).type] // layout.nbytes))
    blocks = aligned_blocks(count, layout.nbytes, torch.device(device))
    return blocks.copy_(layout.random(count, seed=bench.seed, device=device))


def inputs(bench: Bench, tokens: int, device: str) -> torch.Tensor:
    """Random x ``[tokens, hidden]`` of unit variance: BF16, as experts read it."""
    generator = bench.generator(device)
    return torch.randn(tokens, bench.model.hidden, generator=generator, device=device).to(torch.bfloat16)


def references(layout: ExpertLayout, blocks: torch.Tensor, x: torch.Tensor) -> tuple[NDArray[np.float64], ...]:
    """What the first and the last of ``blocks`` give for ``x``, in float64; a fraction of a second each."""
    return tuple(reference_output(layout, block, x) for block in (blocks[0], blocks[-1]))


def check_kernel(
    layout: ExpertLayout,
    kernel: Kernel,
    name: str,
    blocks: torch.Tensor,
    x: torch.Tensor,
    exact: Sequence[NDArray[np.float64]] | None = None,
) -> float:
    """The relative error of ``kernel`` on the first and the last of ``blocks``, the larger one.

    Args:
        layout, name: of the kernel.
        kernel: to be checked.
        blocks: experts.
        x: its rows.
        exact: `references` of rows of which x is the beginning; ``None``: computed here.

    Raises:
        WrongResultError: if it is too large.
    """
    most = INTEGER_ERROR if name == "pim" else MOST_ERROR[layout.format]
    exact = references(layout, blocks, x) if exact is None else exact
    return max(
        checked(f"expert in {layout.format}, kernel {name}", kernel(block, x), wanted[: len(x)], most)
        for block, wanted in zip((blocks[0], blocks[-1]), exact, strict=True)
    )


def in_turn(kernel: Kernel, blocks: torch.Tensor, x: torch.Tensor) -> Work:
    """One piece: another one of ``blocks`` each time, so that no cache holds it."""

    def one(piece: int) -> None:
        kernel(blocks[piece % len(blocks)], x)

    return one


def device_experts(bench: Bench) -> Figures:
    """One expert after another, by format, kernel and tokens; eager, and as a CUDA graph where that can be captured."""
    for layout in layouts(bench):
        blocks = blocks_of(bench, layout, bench.device)
        every = inputs(bench, max(TOKENS[bench.suite]), bench.device)
        exact = references(layout, blocks, every)
        for name in kernels(layout, bench.device):
            kernel = expert_kernel(layout, bench.device, name)
            for tokens in TOKENS[bench.suite]:
                x = every[:tokens]
                error = check_kernel(layout, kernel, name, blocks, x, exact)
                queued = LEAST_EXPERTS if bench.on_cuda else 1

                one = in_turn(kernel, blocks, x)
                ways = [("eager", queued, False)]
                ways += [("eager", 1, False), ("eager", queued, True)] if bench.on_cuda else []
                for launched, pieces, by_device in ways:
                    yield bench.micro(
                        MicroKind.EXPERT,
                        one,
                        queued=pieces,
                        by_device=by_device,
                        size=layout.nbytes,
                        error=error,
                        tokens=tokens,
                        format=layout.format,
                        kernel=name,
                        launched=launched,
                    )
        del blocks


def graphed_experts(bench: Bench) -> Figures:
    """The same, eight experts as one CUDA graph."""
    if not bench.on_cuda:
        raise Skipped("a CPU has no CUDA graphs")
    for form in formats(bench):
        layout = ExpertLayout.of(bench.model, form)
        blocks = blocks_of(bench, layout, bench.device)
        every = inputs(bench, 16, bench.device)
        exact = references(layout, blocks, every)
        for name in kernels(layout, bench.device):
            kernel = expert_kernel(layout, bench.device, name)
            for tokens in (1, 4, 16):
                x = every[:tokens]
                error = check_kernel(layout, kernel, name, blocks, x, exact)
                graph = capture(_all_of(kernel, blocks[:LEAST_EXPERTS], x))
                seconds = bench.clock.by_host(each_time(graph.replay), queued=REPLAYS)
                yield figure(
                    MicroKind.EXPERT,
                    seconds.over(LEAST_EXPERTS),
                    clock="host",
                    queued=REPLAYS * LEAST_EXPERTS,
                    size=layout.nbytes,
                    error=error,
                    tokens=tokens,
                    format=form,
                    kernel=name,
                    launched="graph",
                )
                del graph
        del blocks


def grouped_experts(bench: Bench) -> Figures:
    """Several experts by one grouped product for each matrix, dequantised and laid side by side before."""
    if not bench.on_cuda and not bench.is_full:
        raise Skipped("on a CPU it takes long; the full suite measures it")
    for form in formats(bench) if bench.is_full else formats(bench)[:1]:
        layout = ExpertLayout.of(bench.model, form)
        blocks = blocks_of(bench, layout, bench.device)
        for experts in sorted({bench.model.top_k, LEAST_EXPERTS}):
            for tokens in (1, 4, 16) if bench.is_full else (1,):
                x = inputs(bench, experts * tokens, bench.device)
                counts = (tokens,) * experts
                found = grouped_output(layout, blocks[:experts], x, counts)
                error = max(
                    checked(
                        f"grouped experts in {form}",
                        found[n * tokens : (n + 1) * tokens],
                        reference_output(layout, blocks[n], x[n * tokens : (n + 1) * tokens]),
                        MOST_ERROR[form],
                    )
                    for n in (0, experts - 1)
                )
                yield bench.micro(
                    MicroKind.GROUPED_EXPERTS,
                    _groups_in_turn(layout, blocks, x, counts),
                    queued=4 if bench.on_cuda else 1,
                    size=layout.nbytes * experts,
                    error=error,
                    experts=experts,
                    tokens=tokens,
                    format=form,
                    kernel="grouped_mm",
                    launched="eager",
                )
        del blocks


def combined(bench: Bench) -> Figures:
    """Each token's outputs of its experts, weighted and added up in gate order, in float32, as the runtime does."""
    model = bench.model
    for tokens in (1, 4, 16):
        generator = bench.generator(bench.device)
        ids = np.arange(tokens * model.top_k) % model.experts
        rows = torch.randn(len(ids), model.hidden, generator=generator, device=bench.device).to(torch.bfloat16)
        weights = torch.rand(tokens, model.top_k, generator=generator, device=bench.device)
        order = np.argsort(ids, kind="stable")
        uses = np.empty((len(ids), model.hidden))
        uses[order] = rows.double().cpu().numpy()
        exact = np.einsum("tk,tkh->th", weights.double().cpu().numpy(), uses.reshape(tokens, model.top_k, -1))
        placed = None if tokens == 1 else torch.from_numpy(order).to(bench.device)
        total = torch.empty(tokens, model.hidden, dtype=torch.bfloat16, device=bench.device)
        work = partial(add_up, rows, placed, weights, total)
        work()
        error = checked("combine", total, exact, MOST_ERROR["bf16"])
        yield bench.micro(
            MicroKind.COMBINE,
            each_time(work),
            queued=20,
            error=error,
            experts=model.top_k,
            tokens=tokens,
            launched="eager",
        )


def _groups_in_turn(layout: ExpertLayout, blocks: torch.Tensor, x: torch.Tensor, counts: tuple[int, ...]) -> Work:
    groups = len(blocks) // len(counts)

    def one(piece: int) -> None:
        first = piece % groups * len(counts)
        grouped_output(layout, blocks[first : first + len(counts)], x, counts)

    return one


def _all_of(kernel: Kernel, blocks: torch.Tensor, x: torch.Tensor) -> Callable[[], object]:
    return lambda: [kernel(block, x) for block in blocks]
