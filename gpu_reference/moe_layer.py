"""A mixture-of-experts layer in plain PyTorch that replays recorded routing: it takes ids and gates as inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from catalog.errors import ForestageError
from gpu_reference.small_moe import CONFIG_FILE, WEIGHTS_FILE
from traces import RoutingTrace


class ReplayMoELayer(nn.Module):
    """The experts of one layer: SwiGLU without bias, weighted by the given gates.

    ``gate_up [experts, 2 · intermediate, hidden]`` holds each expert's gate rows, then its up rows;
    ``down [experts, hidden, intermediate]``.

    Raises:
        ValueError: if the two tensors do not fit each other.
    """

    gate_up: torch.Tensor
    down: torch.Tensor

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        experts, double, hidden = gate_up.shape
        if down.shape != (experts, hidden, double // 2) or double % 2:
            raise ValueError(f"gate_up {tuple(gate_up.shape)} and down {tuple(down.shape)} do not fit")
        self.register_buffer("gate_up", gate_up)
        self.register_buffer("down", down)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Path, layer: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ReplayMoELayer:
        """Load only one layer's experts from a checkpoint folder.

        Raises:
            ForestageError: if the folder has no checkpoint, or the checkpoint does not have the layer.
        """
        return cls(*read_experts(checkpoint, layer)).to(device=device, dtype=dtype)

    @property
    def experts(self) -> int:
        """Number of experts."""
        return self.gate_up.shape[0]

    @property
    def hidden(self) -> int:
        """Width of the layer's input and output."""
        return self.gate_up.shape[2]

    @property
    def intermediate(self) -> int:
        """Inner width of an expert."""
        return self.down.shape[2]

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert's weights in the layer's type."""
        return (self.gate_up[0].numel() + self.down[0].numel()) * self.gate_up.element_size()

    def expert(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Return the unweighted output ``[rows, hidden]`` of expert ``index`` for ``x [rows, hidden]``."""
        gate, up = functional.linear(x, self.gate_up[index]).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * up, self.down[index])

    def forward(self, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the gate-weighted sum of each token's experts.

        Args:
            x: ``[tokens, hidden]``.
            ids: ``[tokens, top_k]``, any integer type.
            weights: ``[tokens, top_k]``, gate weights.

        Returns:
            ``[tokens, hidden]`` in the type of ``x``.

        Raises:
            ValueError: if the shapes do not fit or an id is out of range.
        """
        if ids.shape != weights.shape or ids.shape[0] != x.shape[0] or x.shape[1] != self.hidden:
            raise ValueError(f"x {tuple(x.shape)}, ids {tuple(ids.shape)}, weights {tuple(weights.shape)} do not fit")
        top_k = ids.shape[1]
        flat = ids.reshape(-1).to(torch.int64)
        if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < self.experts:
            raise ValueError(f"an expert id is outside 0 to {self.experts - 1}")
        counts = torch.bincount(flat, minlength=self.experts)
        order = torch.argsort(flat, stable=True)
        result = torch.zeros_like(x)
        gates = weights.reshape(-1).to(x.dtype)
        start = 0
        for expert, count in enumerate(counts.tolist()):
            if count:
                slots = order[start : start + count]
                tokens = slots // top_k
                result.index_add_(0, tokens, self.expert(expert, x[tokens]) * gates[slots, None])
                start += count
        return result

    def replay(self, x: torch.Tensor, trace: RoutingTrace, layer: int) -> torch.Tensor:
        """Return ``forward`` with the routing of recorded layer ``layer`` of ``trace``; ``x [trace.tokens, hidden]``.

        Raises:
            ForestageError: if the trace has no gate weights, no such layer, another number of experts or tokens, or
                rows that were not recorded.
        """
        if trace.experts != self.experts:
            raise ForestageError(f"trace: has {trace.experts} experts a layer, the checkpoint {self.experts}")
        if trace.gate_weights is None:
            raise ForestageError("trace: gate_weights: none recorded; replaying needs them")
        if not 0 <= layer < trace.layers:
            raise ForestageError(f"trace: layer {layer} is outside 0 to {trace.layers - 1}")
        if len(x) != trace.tokens:
            raise ForestageError(f"trace: has {trace.tokens} tokens, {len(x)} inputs were given")
        if not bool(trace.recorded()[:, layer].all()):
            raise ForestageError(f"trace: layer {layer} has tokens whose routing was not recorded; leave them out")
        ids = torch.from_numpy(trace.expert_ids[:, layer].astype("int64")).to(x.device)
        weights = torch.from_numpy(trace.gate_weights[:, layer].astype("float32")).to(x.device)
        return self(x, ids, weights)


@dataclass(frozen=True)
class BlockRecord:
    """One MoE block's ``x`` and ``output`` (``[tokens, hidden]``), ``ids`` and ``weights`` (``[tokens, top_k]``)."""

    x: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    output: torch.Tensor


def checkpoint_layers(checkpoint: Path) -> int:
    """Return the number of layers of a checkpoint folder; all of them are MoE layers.

    Raises:
        ForestageError: if a file is missing or malformed.
    """
    config = checkpoint / CONFIG_FILE
    for path in (checkpoint / WEIGHTS_FILE, config):
        if not path.is_file():
            raise ForestageError(f"{path}: no such file; make it with `python -m gpu_reference.remake`")
    try:
        return int(json.loads(config.read_text(encoding="utf-8"))["num_hidden_layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise ForestageError(
            f"{config}: num_hidden_layers: cannot be read ({error!r}); remake the checkpoint"
        ) from error


def read_experts(checkpoint: Path, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``gate_up`` and ``down`` of one layer of a checkpoint folder, in their stored type.

    Raises:
        ForestageError: if a file is missing or malformed, or has no such layer.
    """
    from safetensors import SafetensorError, safe_open

    layers, weights = checkpoint_layers(checkpoint), checkpoint / WEIGHTS_FILE
    if not 0 <= layer < layers:
        raise ForestageError(f"{weights}: layer {layer} is outside 0 to {layers - 1}")
    prefix = f"model.layers.{layer}.mlp.experts"
    try:
        with safe_open(weights, framework="pt") as file:
            return file.get_tensor(f"{prefix}.gate_up_proj"), file.get_tensor(f"{prefix}.down_proj")
    except (SafetensorError, OSError) as error:
        raise ForestageError(f"{weights}: {prefix}: cannot be read ({error}); remake the checkpoint") from error


def record_block(model: Any, token_ids: torch.Tensor, layer: int) -> BlockRecord:
    """Run ``model`` on ``token_ids [sequences, tokens]``; return inputs, routing and output of ``layer``'s MoE block.

    The routing is what the block's router returned. ``model`` is a `Qwen3MoeForCausalLM`.
    """
    block = model.model.layers[layer].mlp
    seen: dict[str, torch.Tensor] = {}

    def on_router(_: Any, __: Any, output: Any) -> None:
        _, seen["weights"], seen["ids"] = output

    def on_block(_: Any, inputs: Any, output: Any) -> None:
        seen["x"], seen["output"] = (value.reshape(-1, value.shape[-1]) for value in (inputs[0], output))

    handles = [block.gate.register_forward_hook(on_router), block.register_forward_hook(on_block)]
    try:
        with torch.no_grad():
            model(input_ids=token_ids)
    finally:
        for handle in handles:
            handle.remove()
    return BlockRecord(**seen)
