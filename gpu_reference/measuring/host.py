"""What the host's processor computes and reads, alone and while copies to the device go on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpu_reference.experts.compute import expert_kernel, fastest_host_kernel
from gpu_reference.measuring.background import COPY_BYTES, BackgroundCopies
from gpu_reference.measuring.bench import Bench, Figures, WrongResultError, figure
from gpu_reference.measuring.clock import each_time
from gpu_reference.measuring.copies import POOL_BYTES, random_bytes
from gpu_reference.measuring.experts import blocks_of, check_kernel, in_turn, inputs, layouts
from gpu_reference.records.machine import usable_cores
from gpu_reference.records.micro import MicroKind
from gpu_reference.records.summary import Summary


def host_experts(bench: Bench) -> Figures:
    """One expert after another on the processor, by format, threads and tokens."""
    for layout in layouts(bench):
        blocks = blocks_of(bench, layout, "cpu")
        name = fastest_host_kernel(layout)  # as the runtime does
        kernel = expert_kernel(layout, "cpu", name)
        for tokens in (1, 4, 16) if bench.is_full else (1,):
            x = inputs(bench, tokens, "cpu")
            error = check_kernel(layout, kernel, name, blocks, x)
            one = in_turn(kernel, blocks, x)
            for threads in thread_counts():
                with computing_threads(threads):
                    seconds = bench.host_clock.by_host(one)
                yield figure(
                    MicroKind.HOST_EXPERT,
                    seconds,
                    clock="host",
                    size=layout.nbytes,
                    error=error,
                    tokens=tokens,
                    format=layout.format,
                    kernel=name,
                    threads=threads,
                )
        del blocks


def host_experts_while_copying(bench: Bench) -> Figures:
    """The same on one token while copies go on; and how long such a copy takes meanwhile."""
    copies = BackgroundCopies(bench)
    for layout in layouts(bench):
        blocks = blocks_of(bench, layout, "cpu")
        name = fastest_host_kernel(layout)  # as the runtime does
        kernel = expert_kernel(layout, "cpu", name)
        x = inputs(bench, 1, "cpu")
        error = check_kernel(layout, kernel, name, blocks, x)
        one = in_turn(kernel, blocks, x)
        for threads in thread_counts():
            with computing_threads(threads), copies:
                seconds = bench.host_clock.by_host(one)
            for what, taken, clock, size in (
                ("expert", seconds, "host", layout.nbytes),
                ("copy", Summary.of(copies.times_s), "device" if bench.on_cuda else "host", COPY_BYTES),
            ):
                yield figure(
                    MicroKind.HOST_EXPERT_WHILE_COPYING,
                    taken,
                    clock=clock,
                    size=size,
                    error=error if what == "expert" else None,
                    what=what,
                    copy_bytes=COPY_BYTES,
                    tokens=1,
                    format=layout.format,
                    kernel=name,
                    threads=threads,
                )
        del blocks


def host_memory(bench: Bench) -> Figures:
    """Host memory read once, as a sum of 64-bit words, by threads, alone and while copies to the device go on."""
    memory = random_bytes(bench, POOL_BYTES[bench.suite], "cpu").view(torch.int64)
    wanted = int(memory.numpy().sum())  # both wrap around
    copies = BackgroundCopies(bench)
    for threads in thread_counts():
        with computing_threads(threads):
            if int(memory.sum()) != wanted:
                raise WrongResultError(f"sum of host memory by {threads} threads: not NumPy's")
            alone = bench.host_clock.by_host(each_time(memory.sum))
            with copies:
                shared = bench.host_clock.by_host(each_time(memory.sum))
        for while_copying, seconds in ((False, alone), (True, shared)):
            yield figure(
                MicroKind.HOST_MEMORY_READ,
                seconds,
                clock="host",
                size=memory.numel() * 8,
                error=0.0,
                read_bytes=memory.numel() * 8,
                threads=threads,
                while_copying=while_copying,
            )


def thread_counts() -> tuple[int, ...]:
    """1, 2, 4, 8, 16 … up to the processors that this process may use, which are the last."""
    cores = usable_cores()
    return tuple(sorted({min(1 << power, cores) for power in range(cores.bit_length() + 1)}))


@contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """PyTorch computes with so many threads in this context."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
