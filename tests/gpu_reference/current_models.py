"""Tiny models with random weights of architectures that people run now, and their routing computed plainly.

Layers alternate where an architecture has several kinds (state-space, convolution, linear or sliding attention), so
that its cache holds more than keys and values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

EXPERTS, LAYERS = 8, 4

_COMMON: dict[str, Any] = {
    "vocab_size": 320,  # beyond the tokenizer's
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "num_experts_per_tok": 2,
    "pad_token_id": None,
    "eos_token_id": 0,
    "num_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "num_local_experts": EXPERTS,
}
_LINEAR: dict[str, Any] = {
    "shared_expert_intermediate_size": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
_GROUPS: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "routed_scaling_factor": 2.5,
}
_LATENT: dict[str, Any] = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}

Routing = tuple[torch.Tensor, torch.Tensor]
"""Ids and recorded weights, ``[tokens, top_k]`` each."""


def _linear(block: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The router's logits in double precision."""
    router = block.gate if hasattr(block, "gate") else block.router
    inner = getattr(router, "wg", getattr(router, "gate", router))
    return hidden @ inner.weight.double().T


def softmax_raw(block: Any, hidden: torch.Tensor) -> Routing:
    best = _linear(block, hidden).softmax(-1).topk(2)
    return best.indices, best.values


def softmax_divided(block: Any, hidden: torch.Tensor) -> Routing:
    ids, weights = softmax_raw(block, hidden)
    return ids, weights / weights.sum(-1, keepdim=True)


def softmax_of_best(block: Any, hidden: torch.Tensor) -> Routing:
    best = _linear(block, hidden).topk(2)
    return best.indices, best.values.softmax(-1)


def _biased(scores: torch.Tensor, bias: torch.Tensor) -> Routing:
    ids = (scores + bias.double()).topk(2).indices
    weights = scores.gather(1, ids)
    return ids, weights / weights.sum(-1, keepdim=True)


def sigmoid_groups(block: Any, hidden: torch.Tensor) -> Routing:
    """DeepSeek-V3's: two groups of four, the better by its two best experts is open."""
    scores = _linear(block, hidden).sigmoid()
    biased = scores + block.gate.e_score_correction_bias.double()
    better = torch.stack([biased[:, :4].topk(2).values.sum(-1), biased[:, 4:].topk(2).values.sum(-1)], 1).argmax(-1)
    closed = (torch.arange(8) // 4)[None] != better[:, None]
    ids = biased.masked_fill(closed, -torch.inf).topk(2).indices
    return ids, scores.gather(1, ids)


def sigmoid_groups_divided(block: Any, hidden: torch.Tensor) -> Routing:
    ids, weights = sigmoid_groups(block, hidden)
    return ids, weights / weights.sum(-1, keepdim=True)


def sigmoid_bias_of_block(block: Any, hidden: torch.Tensor) -> Routing:
    bias = block.expert_bias if hasattr(block, "expert_bias") else block.e_score_correction_bias
    return _biased(_linear(block, hidden).sigmoid(), bias)


def sigmoid_bias_of_router(block: Any, hidden: torch.Tensor) -> Routing:
    return _biased(_linear(block, hidden).sigmoid(), block.gate.e_score_correction_bias)


def ernie(block: Any, hidden: torch.Tensor) -> Routing:
    return _biased(_linear(block, hidden).softmax(-1), block.gate.moe_statics.e_score_correction_bias.squeeze())


def sparsemixer(block: Any, hidden: torch.Tensor) -> Routing:
    """Phi-3.5-MoE's: a softmax over those within 2 % of the largest logit, twice."""
    rows = []
    for logits in _linear(block, hidden).tolist():
        chosen, shares = [], []
        for _ in range(2):
            rest = {expert: value for expert, value in enumerate(logits) if expert not in chosen}
            best = max(rest, key=lambda expert: rest[expert])
            top = rest[best]
            pool = [value for value in rest.values() if (top - value) / max(abs(value), top) <= 0.02]
            shares.append(1 / sum(torch.tensor(value - top).exp().item() for value in pool))
            chosen.append(best)
        rows.append((chosen, shares))
    return torch.tensor([ids for ids, _ in rows]), torch.tensor([shares for _, shares in rows])


def llama4(block: Any, hidden: torch.Tensor) -> Routing:
    best = _linear(block, hidden).topk(1)
    return best.indices, best.values.sigmoid()


def gemma4(block: Any, hidden: torch.Tensor) -> Routing:
    router = block.router
    normed = hidden * (hidden.pow(2).mean(-1, keepdim=True) + router.eps).rsqrt()
    logits = (normed * router.scale.double() * router.scalar_root_size) @ router.proj.weight.double().T
    best = logits.softmax(-1).topk(2)
    return best.indices, best.values / best.values.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Current:
    """One architecture: its configuration, what differs from the common settings, its rule and what a trace says."""

    config: str
    rule: Callable[[Any, torch.Tensor], Routing]
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    layers: tuple[int, ...] = (0, 1, 2, 3)


CURRENT: dict[str, Current] = {
    "qwen2_moe": Current("Qwen2MoeConfig", softmax_raw, "softmax", {"shared_expert_intermediate_size": 16}),
    "qwen3_next": Current("Qwen3NextConfig", softmax_divided, "normalised", _LINEAR | {"norm_topk_prob": True}),
    "qwen3_5_moe_text": Current("Qwen3_5MoeTextConfig", softmax_divided, "normalised", _LINEAR),
    "glm4_moe": Current(
        "Glm4MoeConfig", sigmoid_groups_divided, "normalised", _GROUPS | {"norm_topk_prob": True}, (1, 2, 3)
    ),
    "dots1": Current("Dots1Config", sigmoid_groups, "sigmoid", _GROUPS | {"norm_topk_prob": False}, (1, 2, 3)),
    "minimax_m2": Current("MiniMaxM2Config", sigmoid_bias_of_block, "normalised"),
    "granitemoe": Current("GraniteMoeConfig", softmax_of_best, "normalised"),
    "granitemoehybrid": Current(
        "GraniteMoeHybridConfig",
        softmax_of_best,
        "normalised",
        {"layer_types": ["mamba", "attention"] * 2, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1,
         "mamba_d_state": 8, "mamba_expand": 2, "shared_intermediate_size": 16},
    ),
    "phimoe": Current("PhimoeConfig", sparsemixer, "unknown"),
    "lfm2_moe": Current(
        "Lfm2MoeConfig",
        sigmoid_bias_of_block,
        "normalised",
        {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3,
         "routed_scaling_factor": 1.5},
        (1, 2, 3),
    ),
    "ernie4_5_moe": Current(
        "Ernie4_5_MoeConfig",
        ernie,
        "normalised",
        {"moe_num_experts": EXPERTS, "moe_k": 2, "moe_layer_start_index": 1},
        (1, 2, 3),
    ),
    "hunyuan_v1_moe": Current("HunYuanMoEV1Config", softmax_divided, "normalised", {"moe_topk": 2}),
    "flex_olmo": Current("FlexOlmoConfig", softmax_divided, "normalised", {"norm_topk_prob": True}),
    "llama4_text": Current(
        "Llama4TextConfig",
        llama4,
        "sigmoid",
        {"intermediate_size_mlp": 32, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2},
        (1, 3),
    ),
    "jamba": Current(
        "JambaConfig",
        softmax_raw,
        "softmax",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
         "use_mamba_kernels": False, "mamba_d_state": 4, "mamba_dt_rank": 4},
        (1, 3),
    ),
    "gemma4_text": Current(
        "Gemma4TextConfig",
        gemma4,
        "normalised",
        {"enable_moe_block": True, "top_k_experts": 2, "global_head_dim": 8, "sliding_window": 8,
         "layer_types": ["sliding_attention", "full_attention"] * 2, "hidden_size_per_layer_input": 0,
         "vocab_size_per_layer_input": 320, "num_kv_shared_layers": 0},
    ),
    "glm4_moe_lite": Current(
        "Glm4MoeLiteConfig", sigmoid_groups_divided, "normalised", _GROUPS | _LATENT | {"norm_topk_prob": True},
        (1, 2, 3),
    ),
    "hy_v3": Current("HYV3Config", sigmoid_bias_of_block, "normalised", {"num_shared_experts": 1}, (1, 2, 3)),
    "minimax_m3_text": Current("MiniMaxM3VLTextConfig", sigmoid_bias_of_router, "normalised", {}),
}  # fmt: skip


def build(name: str) -> Any:
    """A model in evaluation mode whose router weights and biases are random and large enough to matter."""
    current = CURRENT[name]
    torch.manual_seed(0)
    config = getattr(transformers, current.config)(**{**_COMMON, **current.settings})
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if isinstance(value, torch.nn.Parameter) and value.dim() >= 2:
                value.normal_(std=0.2)
            if any(part in key for part in ("correction", "expert_bias", "moe_statics")):
                value.normal_(std=0.05 if "moe_statics" in key else 0.3)  # neither idle nor all that counts
            if "per_expert_scale" in key:
                value.uniform_(0.5, 2.0)
    return model.eval()


def save(name: str, tokenizer: Any, folder: Path) -> Any:
    """Write the model and the tokenizer as a Hugging Face folder; returns the model."""
    model = build(name)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def blocks(model: Any) -> dict[int, Any]:
    """Model layer → the module that holds its router and its experts."""
    found = {}
    for index, layer in enumerate(model.model.layers):
        for block in (layer, *layer.children()):
            if hasattr(block, "experts"):
                found[index] = block
    return found


def entering(model: Any, tokens: list[int]) -> dict[int, torch.Tensor]:
    """What enters each router in one pass over ``tokens`` without a cache: layer → f64 ``[tokens, hidden]``."""
    seen: dict[int, torch.Tensor] = {}
    handles = []
    for layer, block in blocks(model).items():
        router = block.gate if hasattr(block, "gate") else block.router

        def keep(_: Any, inputs: Any, layer: int = layer) -> None:
            seen[layer] = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()

        handles.append(router.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(input_ids=torch.tensor([tokens]), use_cache=False)
        for handle in handles:
            handle.remove()
    return seen


def plain_routing(name: str, model: Any, tokens: list[int]) -> dict[int, Routing]:
    """The routing of one pass over ``tokens`` without a cache, from the hidden states that enter each router."""
    with torch.no_grad():
        return {
            layer: CURRENT[name].rule(blocks(model)[layer], hidden) for layer, hidden in entering(model, tokens).items()
        }
