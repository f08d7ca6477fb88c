"""Replay a recorded trace against its model: the same text with the recorded routing must give the same output."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from catalog.errors import ForestageError
from gpu_reference.devices import check_device
from gpu_reference.moe_layer import ReplayMoELayer, record_block
from gpu_reference.small_moe import load_model, load_tokenizer
from gpu_reference.trace_tokens import tokens_of
from traces import RoutingTrace
from traces.selection import select_sequences


@dataclass(frozen=True, kw_only=True)
class ReplayCheck:
    """The result of `replay_check`."""

    layer: int
    device: str
    sequences: int
    tokens: int
    same_experts: float
    """Share of tokens for which the model chooses the recorded experts, in the same order."""
    relative_error: float
    """Euclidean error of the replayed layer's output against the model's own, divided by the norm of the latter."""
    tokens_per_s: float
    """Tokens per second of the replayed layer alone."""


@dataclass(frozen=True)
class LayerInputs:
    """A MoE block's input ``x`` and ``output`` ``[tokens, hidden]`` for sequences of a trace, and its ``ids``."""

    x: torch.Tensor
    ids: torch.Tensor
    output: torch.Tensor


def layer_inputs(checkpoint: Path, trace: RoutingTrace, layer: int, *, device: str = "cpu") -> LayerInputs:
    """Run the checkpoint's model on whole sequences of ``trace``; return input, routing and output of a block.

    Raises:
        ForestageError: if the checkpoint is missing, or the trace is not of its tokenizer.
    """
    model, tokens = load_model(checkpoint, device=device), tokens_of(trace, load_tokenizer(checkpoint))
    records = []
    for index in range(trace.sequences):
        part = torch.from_numpy(tokens[trace.sequence_slice(index)]).to(device)
        records.append(record_block(model, part[None], layer))
    return LayerInputs(*(torch.cat([getattr(record, name) for record in records]) for name in ("x", "ids", "output")))


def replay_check(
    checkpoint: Path, trace: RoutingTrace, layer: int, *, sequences: int = 8, device: str = "cpu"
) -> ReplayCheck:
    """Replay the routing of the first ``sequences`` sequences with one layer's experts, and compare with the model.

    Where the model chooses the recorded experts, the error comes from half-precision gates and reordered sums. The
    recording was made with a key-value cache and in a batch of sequences, so near ties may be decided differently.

    Raises:
        ForestageError: if the checkpoint or the device is missing, or the trace is not this checkpoint's.
    """
    check_device(device)
    part = select_sequences(trace, range(min(sequences, trace.sequences)))
    if layer not in trace.metadata.layer_map:
        raise ForestageError(f"trace: layer {layer} of the model was not recorded")
    index = trace.metadata.layer_map.index(layer)
    seen = layer_inputs(checkpoint, part, layer, device=device)
    moe = ReplayMoELayer.from_checkpoint(checkpoint, layer, device=device)
    moe.replay(seen.x, part, index)  # warm up
    started = time.perf_counter()
    output = moe.replay(seen.x, part, index)
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    elapsed_s = time.perf_counter() - started
    recorded = torch.from_numpy(part.expert_ids[:, index].astype("int64"))
    return ReplayCheck(
        layer=layer,
        device=device,
        sequences=part.sequences,
        tokens=part.tokens,
        same_experts=float((seen.ids.cpu() == recorded).all(dim=1).float().mean()),
        relative_error=float(torch.linalg.norm(output - seen.output) / torch.linalg.norm(seen.output)),
        tokens_per_s=part.tokens / elapsed_s,
    )
