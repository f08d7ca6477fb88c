"""Recording a piece of device work once and running it again: as a CUDA graph, or, to test, by calling it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from catalog.errors import ForestageError

WARM_UPS = 3
"""Runs before a capture, in which libraries load kernels and take workspaces; PyTorch's manual advises some."""


@dataclass(frozen=True)
class Captured:
    """A piece of work that can be run again.

    Attributes:
        outputs: the tensors that it writes; their contents are undefined until it has been run.
        replay: run it again on what its input tensors hold now.
    """

    outputs: tuple[torch.Tensor, ...]
    replay: Callable[[], object]


class Capture(Protocol):
    """Makes a `Captured` of a function of no arguments, which reads tensors that stay where they are.

    The function is run several times, so that running it twice must do what running it once does.
    """

    def __call__(self, run: Callable[[], Sequence[torch.Tensor]]) -> Captured:
        """Record ``run``."""
        ...


class CudaCapture:
    """CUDA graphs that share a memory pool: the graphs of one `CudaCapture` must run one after another, on one stream.

    What one graph has written stays until the next of them runs.

    Raises:
        ForestageError: if ``device`` is not a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise ForestageError(f"graphs: {device} has no CUDA graphs; take mode eager, or device cuda")
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Sequence[torch.Tensor]]) -> Captured:
        """Warm up on a side stream, then capture there."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    run()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Only this thread's calls are part of the graph: others may copy or compute on the host meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = tuple(run())
        return Captured(outputs, graph.replay)


class Rerun:
    """Calls the function again: it stands in for `CudaCapture` where there is no GPU, to test what surrounds it.

    Graphs that share a pool may lie on each other's memory: a graph's temporary tensors on the outputs of any that was
    captured later. So a replay here makes the outputs of all later captures unusable (NaN, −1).
    """

    def __init__(self) -> None:
        self._outputs: list[tuple[torch.Tensor, ...]] = []

    def __call__(self, run: Callable[[], Sequence[torch.Tensor]]) -> Captured:
        """Run as often as a capture does."""
        for _ in range(WARM_UPS):
            run()
        with torch.inference_mode(False):
            outputs = tuple(torch.empty_like(output) for output in run())
        self._outputs.append(outputs)
        number = len(self._outputs)

        def replay() -> None:
            computed = run()
            for others in self._outputs[number - 1 :]:
                for output in others:
                    output.fill_(torch.nan if output.is_floating_point() else -1)
            for output, value in zip(outputs, computed, strict=True):
                output.copy_(value)

        return Captured(outputs, replay)
