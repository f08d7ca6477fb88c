"""Tiny models with random weights of every supported architecture, and their routing computed plainly."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

EXPERTS, TOP_K, LAYERS = 8, 3, 3

_COMMON: dict[str, Any] = {
    "vocab_size": 320,  # beyond the tokenizer's, as published embeddings are
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": TOP_K,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_DEEPSEEK: dict[str, Any] = {
    "moe_intermediate_size": 16,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}

Configuration = tuple[str, str, dict[str, Any]]
ARCHITECTURES: dict[str, Configuration] = {
    # name → configuration class, model class, settings
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {"num_experts": EXPERTS, "moe_intermediate_size": 16, "head_dim": 16, "norm_topk_prob": True,
         "decoder_sparse_step": 1, "mlp_only_layers": [1]},
    ),
    "qwen3_moe_raw": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {"num_experts": EXPERTS, "moe_intermediate_size": 16, "head_dim": 16, "norm_topk_prob": False,
         "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {"num_local_experts": EXPERTS, "head_dim": 16}),
    "olmoe": ("OlmoeConfig", "OlmoeForCausalLM", {"num_experts": EXPERTS}),
    "gpt_oss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        {"num_local_experts": EXPERTS, "head_dim": 16, "sliding_window": 8},
    ),
    "deepseek_v2": ("DeepseekV2Config", "DeepseekV2ForCausalLM", {**_DEEPSEEK, "routed_scaling_factor": 1.0}),
    "deepseek_v2_groups": (
        "DeepseekV2Config",
        "DeepseekV2ForCausalLM",
        {**_DEEPSEEK, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
         "routed_scaling_factor": 16.0},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        {**_DEEPSEEK, "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5},
    ),
    "deepseek_v3_raw": (
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        {**_DEEPSEEK, "n_group": 2, "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 2.5},
    ),
}  # fmt: skip

KINDS = {
    "qwen3_moe": "normalised",
    "qwen3_moe_raw": "softmax",
    "mixtral": "normalised",
    "olmoe": "softmax",
    "gpt_oss": "normalised",
    "deepseek_v2": "softmax",
    "deepseek_v2_groups": "softmax",
    "deepseek_v3": "normalised",
    "deepseek_v3_raw": "sigmoid",
}
LAYER_MAPS = {"qwen3_moe": (0, 2)} | {name: (1, 2) for name in ARCHITECTURES if name.startswith("deepseek")}


def build(name: str, seed: int = 0, **changes: Any) -> Any:
    """A model whose router weights, biases and corrections are random and large enough to matter."""
    config_class, model_class, settings = ARCHITECTURES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, config_class)(**{**_COMMON, **settings, **changes})
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        for module in routers(model).values():
            module.weight.normal_(std=0.3)
            if hasattr(module, "bias"):
                module.bias.normal_(std=0.3)
            if hasattr(module, "e_score_correction_bias"):
                module.e_score_correction_bias.normal_(std=0.2)
    return model.eval()


def routers(model: Any) -> dict[int, Any]:
    """Model layer → router."""
    found = {}
    for index, layer in enumerate(model.model.layers):
        router = getattr(layer.mlp, "gate", None) or getattr(layer.mlp, "router", None)
        if router is not None:
            found[index] = router
    return found


def save(name: str, tokenizer: Any, folder: Path) -> Any:
    """Write the model and the tokenizer as a Hugging Face folder; returns the model."""
    model = build(name)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def hidden_states(model: Any, tokens: list[int]) -> dict[int, list[list[float]]]:
    """What enters each router in one pass over ``tokens``: model layer → ``[tokens][hidden]``."""
    seen: dict[int, list[list[float]]] = {}
    handles = []
    for layer, router in routers(model).items():

        def keep(_: Any, inputs: Any, layer: int = layer) -> None:
            seen[layer] = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double().tolist()

        handles.append(router.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(input_ids=torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    return seen


def plain_routing(name: str, router: Any, hidden: list[float]) -> dict[int, float]:
    """Expert → weight (before any routed scaling) of one token, in plain Python from the published definitions."""
    settings = ARCHITECTURES[name][2]
    bias = router.bias.tolist() if name == "gpt_oss" else [0.0] * EXPERTS
    logits = [
        sum(w * h for w, h in zip(row, hidden, strict=True)) + b
        for row, b in zip(router.weight.double().tolist(), bias, strict=True)
    ]
    rule: Callable[[list[float], dict[str, Any], Any], dict[int, float]]
    rule = _deepseek_v3 if name.startswith("deepseek_v3") else _gpt_oss if name == "gpt_oss" else _softmax_first
    weights = rule(logits, settings, router)
    if KINDS[name] == "normalised":
        total = sum(weights.values())
        weights = {expert: weight / total for expert, weight in weights.items()}
    return weights


def _best(scores: dict[int, float], count: int) -> list[int]:
    return sorted(scores, key=lambda key: -scores[key])[:count]


def _softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def _softmax_first(logits: list[float], settings: dict[str, Any], router: Any) -> dict[int, float]:
    shares = dict(enumerate(_softmax(logits)))
    groups = settings.get("n_group", 1)
    size = EXPERTS // groups
    heights = {g: max(shares[e] for e in range(g * size, (g + 1) * size)) for g in range(groups)}
    open_groups = _best(heights, settings.get("topk_group", 1))
    return {e: shares[e] for e in _best({e: s for e, s in shares.items() if e // size in open_groups}, TOP_K)}


def _gpt_oss(logits: list[float], settings: dict[str, Any], router: Any) -> dict[int, float]:
    chosen = _best(dict(enumerate(logits)), TOP_K)
    return dict(zip(chosen, _softmax([logits[expert] for expert in chosen]), strict=True))


def _deepseek_v3(logits: list[float], settings: dict[str, Any], router: Any) -> dict[int, float]:
    gates = {expert: 1 / (1 + math.exp(-value)) for expert, value in enumerate(logits)}
    biased = {expert: gates[expert] + b for expert, b in enumerate(router.e_score_correction_bias.tolist())}
    size = EXPERTS // settings["n_group"]
    sums = {g: sum(sorted(biased[e] for e in range(g * size, (g + 1) * size))[-2:]) for g in range(settings["n_group"])}
    open_groups = _best(sums, settings["topk_group"])
    chosen = _best({e: score for e, score in biased.items() if e // size in open_groups}, TOP_K)
    return {expert: gates[expert] for expert in chosen}
