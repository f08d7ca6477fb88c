"""Whole models made of a decoder and experts that always lie at hand."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from catalog.model_config import model_of_config
from catalog.models import ModelRecord
from gpu_reference.decoder import Decoder, GraphedDecoder
from gpu_reference.decoder.families import Family
from gpu_reference.decoder.shape import DecoderShape

Experts = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Layer, normed ``[n, hidden]``, ids, weights → the weighted sum of the chosen experts ``[n, hidden]``."""

TINY = ModelRecord.parse(
    {
        "name": "gpt-oss-20b", "source": "test", "evidence": "M", "layers": 4, "experts": 8, "top_k": 2, "hidden": 32,
        "expert_intermediate": 16, "expert_bias": True, "activation": "gpt_oss_swiglu", "vocabulary": 100,
        "expert_weight_format": "bf16", "bits_per_weight": 16,
        "attention": {
            "kind": "hybrid", "pattern": ["sliding", "full"],
            "kinds": {
                "sliding": {"kind": "gqa", "query_heads": 4, "kv_heads": 2, "head_dim": 8, "window": 8},
                "full": {"kind": "gqa", "query_heads": 4, "kv_heads": 2, "head_dim": 8},
            },
        },
    },
    origin="test",
)  # fmt: skip
"""gpt-oss, small: two windowed layers, two others."""

TINY_LATENT = ModelRecord.parse(
    {
        "name": "DeepSeek-V2-Lite", "source": "test", "evidence": "M", "layers": 4, "dense_layers": [0, 2],
        "experts": 8, "shared_experts": 1, "top_k": 2, "hidden": 32, "expert_intermediate": 16, "vocabulary": 100,
        "expert_weight_format": "bf16", "bits_per_weight": 16, "dense_intermediate": 48,
        "attention": {"kind": "mla", "query_heads": 4, "query_rank": 0, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4,
                      "value_dim": 8},
    },
    origin="test",
)  # fmt: skip
"""DeepSeek-V2-Lite, small, with a dense layer between those with experts as well."""


def tiny(model: ModelRecord = TINY, **settings: Any) -> Decoder:
    """A small random decoder."""
    values = {"device": "cpu", "dtype": torch.float32, "slots": 3, "max_context": 40, "seed": 5, **settings}
    return Decoder.random(model, model.layer_map, **values)


def of_transformers(model: Any, family: Family, **settings: Any) -> Decoder:
    """The decoder with the weights of a `transformers` model."""
    record = model_of_config({**model.config.to_dict(), "dtype": "float32"}, "tiny", origin="test")
    shape = DecoderShape.of(record, record.layer_map, family)
    values = {"device": torch.device("cpu"), "dtype": torch.float32, "slots": 2, "max_context": 64, **settings}
    return Decoder.of_state(shape, model.state_dict(), origin="test", **values)


def experts_of(model: Any, layer_map: Iterable[int]) -> Experts:
    """The experts of a `transformers` model."""
    modules = [model.model.layers[index].mlp.experts for index in layer_map]
    return lambda layer, normed, ids, weights: modules[layer](normed, ids, weights)


def scaled(layer: int, normed: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Experts whose output shows which were chosen."""
    return normed * (weights * (ids + 1 + layer)).sum(dim=-1, keepdim=True) / 10


def forward(
    decoder: Decoder | GraphedDecoder,
    tokens: Iterable[int],
    positions: Iterable[int],
    slots: Iterable[int],
    experts: Experts = scaled,
    seen: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Logits ``[n, vocabulary]`` of one call; the ids of each layer's experts are appended to ``seen``."""
    positions, slots = list(positions), list(slots)
    hidden = decoder.embed(torch.tensor(list(tokens)))
    with torch.no_grad():
        for layer in range(decoder.layers):
            gate = decoder.before_gate(layer, hidden, positions, slots)
            ids, weights = decoder.choose(layer, gate.router_logits)
            if seen is not None:
                seen.append(ids.clone())
            moe = experts(layer, gate.normed, ids, weights)
            hidden = decoder.after_experts(layer, gate.residual, moe, decoder.shared(layer, gate.normed))
        return decoder.logits(hidden)
