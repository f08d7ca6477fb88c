"""What it takes to launch work, and to hear from the device."""

import torch

from gpu_reference.measuring.bench import Bench, Figures, Skipped, WrongResultError
from gpu_reference.measuring.clock import each_time
from gpu_reference.records.micro import MicroKind

LAUNCHES = 100


def launches(bench: Bench) -> Figures:
    """A kernel that adds 1 to one number: as fast as the host launches it, and as fast as the device runs it."""
    number = torch.zeros(1, device=bench.device)

    def launch(_: int) -> None:
        number.add_(1)

    for by_device in (False, True) if bench.on_cuda else (False,):
        yield bench.micro(MicroKind.LAUNCH, launch, queued=LAUNCHES, by_device=by_device)


def graph_replays(bench: Bench) -> Figures:
    """CUDA graphs of such kernels: replayed after each other, and one alone."""
    if not bench.on_cuda:
        raise Skipped("a CPU has no CUDA graphs")
    for kernels in (1, 16, 64):
        number = torch.zeros(1, device=bench.device)
        graph = capture(lambda: [number.add_(1) for _ in range(kernels)])  # noqa: B023 - called at once
        number.zero_()
        graph.replay()
        if number.item() != kernels:
            raise WrongResultError(f"graph of {kernels} kernels: ran {number.item():.0f}")
        for queued in (20, 1):
            yield bench.micro(MicroKind.GRAPH_REPLAY, each_time(graph.replay), queued=queued, kernels=kernels)


def gate_round_trips(bench: Bench) -> Figures:
    """Expert ids from the device into host memory (pinned on a GPU), and the host waits for that copy alone."""
    model = bench.model
    for batch in (1, 4, 16):
        count = batch * model.top_k
        ids = torch.randint(
            model.experts, (count,), generator=bench.generator(bench.device), device=bench.device, dtype=torch.int64
        )
        host = torch.zeros(count, dtype=torch.int64, pin_memory=bench.on_cuda)
        event = torch.cuda.Event() if bench.on_cuda else None

        def ask(_: int, ids: torch.Tensor = ids, host: torch.Tensor = host, event: object = event) -> None:
            host.copy_(ids, non_blocking=True)
            if isinstance(event, torch.cuda.Event):
                event.record()
                event.synchronize()

        ask(0)
        if host.tolist() != ids.tolist():
            raise WrongResultError("gate round trip: the ids that arrived are others")
        yield bench.micro(MicroKind.GATE_ROUND_TRIP, ask, ids=count, error=0.0)


def capture(work: object) -> "torch.cuda.CUDAGraph":
    """``work``, which takes nothing, as a CUDA graph; it is run on a side stream before, as capturing needs."""
    assert callable(work)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph
