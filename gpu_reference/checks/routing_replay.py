"""Replay the routing of any trace with experts of the shipped model's size, and check the result in plain NumPy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.errors import ForestageError
from gpu_reference.checks.error import relative_error
from gpu_reference.devices import check_device
from gpu_reference.moe_layer import ReplayMoELayer, checkpoint_layers
from traces import DECODE, RoutingTrace

RANDOM_SCALE = 0.1
"""Standard deviation of random weights; about that of a trained layer of this size."""


@dataclass(frozen=True, kw_only=True)
class RoutingReplay:
    """The result of `replay_routing`."""

    layer: int
    """Index of the trace's layer."""
    device: str
    tokens: int
    experts: str
    """``checkpoint`` or ``random``: where the weights came from."""
    gates: str
    """``recorded``, or ``equal`` if the trace has no gate weights."""
    relative_error: float
    """Euclidean error of the layer's output against float64 NumPy, divided by the norm of the latter."""
    tokens_per_s: float


def replay_routing(
    trace: RoutingTrace, layer: int, checkpoint: Path, *, tokens: int = 256, seed: int = 0, device: str = "cpu"
) -> RoutingReplay:
    """Replay the first ``tokens`` recorded tokens (decode tokens, if there are any) of layer ``layer`` of ``trace``.

    The experts are those of the checkpoint's layer (modulo its layers) if it has as many as the trace, else random ones
    of the same size; inputs are random. The routing is real, and the check is of the arithmetic.

    Raises:
        ForestageError: if the trace has no such layer or no recorded token there, or checkpoint or device are missing.
    """
    check_device(device)
    if not 0 <= layer < trace.layers:
        raise ForestageError(f"trace: layer {layer} is outside 0 to {trace.layers - 1}")
    chosen = _first_recorded(trace, layer, tokens)
    generator = np.random.default_rng(seed)
    moe, experts = _layer(trace, layer, checkpoint, generator)
    x = generator.standard_normal((len(chosen), moe.hidden)).astype(np.float32)
    ids = trace.expert_ids[chosen, layer].astype(np.int64)
    if trace.gate_weights is None:
        gates, source = np.full(ids.shape, 1 / trace.top_k, np.float32), "equal"
    else:
        gates, source = trace.gate_weights[chosen, layer].astype(np.float32), "recorded"
    moe = moe.to(device)
    arguments = [torch.from_numpy(array).to(device) for array in (x, ids, gates)]
    moe(*arguments)  # warm up
    started = time.perf_counter()
    output = moe(*arguments).cpu()
    elapsed_s = time.perf_counter() - started
    return RoutingReplay(
        layer=layer,
        device=device,
        tokens=len(chosen),
        experts=experts,
        gates=source,
        relative_error=relative_error(output.numpy(), _plain(moe.cpu(), x, ids, gates)),
        tokens_per_s=len(chosen) / elapsed_s,
    )


def _first_recorded(trace: RoutingTrace, layer: int, tokens: int) -> NDArray[np.int64]:
    """The first ``tokens`` tokens whose row of ``layer`` was recorded."""
    recorded = trace.recorded()[:, layer]
    decode = recorded & (trace.phase == DECODE)
    chosen = np.flatnonzero(decode if decode.any() else recorded)[:tokens]
    if not len(chosen):
        raise ForestageError(f"trace: layer {layer} has no recorded token to replay")
    return chosen


def _layer(
    trace: RoutingTrace, layer: int, checkpoint: Path, generator: np.random.Generator
) -> tuple[ReplayMoELayer, str]:
    """The layer to run, in float32, and the source of its weights."""
    first = ReplayMoELayer.from_checkpoint(checkpoint, 0)
    if first.experts != trace.experts:
        shapes = ((trace.experts, *first.gate_up.shape[1:]), (trace.experts, *first.down.shape[1:]))
        random = [generator.normal(0, RANDOM_SCALE, shape).astype(np.float32) for shape in shapes]
        return ReplayMoELayer(*map(torch.from_numpy, random)), "random"
    return ReplayMoELayer.from_checkpoint(checkpoint, layer % checkpoint_layers(checkpoint)), "checkpoint"


def _plain(
    moe: ReplayMoELayer, x: NDArray[np.float32], ids: NDArray[np.int64], gates: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The same sum, token by token and expert by expert, in float64 NumPy."""
    gate_up, down = moe.gate_up.numpy(), moe.down.numpy()
    middle = moe.intermediate
    output = np.zeros(x.shape, np.float64)
    for token, (row, chosen, weights) in enumerate(zip(x, ids, gates, strict=True)):
        for expert, weight in zip(chosen, weights, strict=True):
            output[token] += float(weight) * _float_expert(
                gate_up[expert, :middle], gate_up[expert, middle:], down[expert], row
            )
    return output


def _float_expert(
    gate: NDArray[np.float32], up: NDArray[np.float32], down: NDArray[np.float32], x: NDArray[np.float32]
) -> NDArray[np.float64]:
    """One expert's output f64 ``[hidden]``: ``down(SiLU(gate · x) ⊙ (up · x))``."""
    gated, raised = gate.astype(np.float64) @ x, up.astype(np.float64) @ x
    with np.errstate(over="ignore"):  # of a very negative sum exp is infinite, and the quotient 0, as intended
        return down.astype(np.float64) @ (gated / (1 + np.exp(-gated)) * raised)
