"""A decoder's weights: random ones, made on the device, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from catalog.attention import LatentAttention
from catalog.errors import ForestageError
from gpu_reference.decoder.attention import padded_sinks
from gpu_reference.decoder.shape import BlockShape, DecoderShape, TensorShape

Tensors = dict[str, torch.Tensor]


def random_tensors(
    shapes: Mapping[str, TensorShape], generator: torch.Generator, *, device: torch.device, dtype: torch.dtype
) -> Tensors:
    """Normal random tensors of the shapes' mean and deviation, on ``device``, in the order of ``shapes``."""
    made = {}
    for name, shape in shapes.items():
        tensor = torch.empty(shape.size, device=device, dtype=shape.dtype or dtype)
        made[name] = (
            tensor.normal_(shape.centre, shape.deviation, generator=generator)
            if shape.deviation
            else tensor.fill_(shape.centre)
        )
    return made


def prepared(tensors: Tensors) -> Tensors:
    """``tensors`` as the computation reads them: sinks padded."""
    return {name: padded_sinks(tensor) if name == "sinks" else tensor for name, tensor in tensors.items()}


def outer_from_state(shape: DecoderShape, state: Mapping[str, torch.Tensor], origin: str) -> Tensors:
    """Embedding, last norm and output matrix from a `transformers` state dictionary.

    Raises:
        ForestageError: if a tensor is missing or has another size; ``origin`` names the file.
    """
    names = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
    found = {name: _get(state, names[name], origin) for name in shape.outer_tensors}
    return _checked(found, shape.outer_tensors, origin, "model")


def block_from_state(shape: DecoderShape, block: BlockShape, state: Mapping[str, torch.Tensor], origin: str) -> Tensors:
    """The tensors of ``block`` from a `transformers` state dictionary (names of transformers 5).

    Raises:
        ForestageError: if a tensor is missing or has another size; ``origin`` names the file.
    """
    prefix = f"model.layers.{block.index}."
    expected = shape.tensors(block)

    def get(name: str) -> torch.Tensor:
        return _get(state, prefix + name, origin)

    found = {
        "attention_norm": get("input_layernorm.weight"),
        "feed_forward_norm": get("post_attention_layernorm.weight"),
        "out": get("self_attn.o_proj.weight"),
    }
    if isinstance(block.attention, LatentAttention):
        found["latent"] = get("self_attn.kv_a_proj_with_mqa.weight")
        found["latent_norm"] = get("self_attn.kv_a_layernorm.weight")
        up = get("self_attn.kv_b_proj.weight").unflatten(0, (block.attention.query_heads, -1))
        found["key_up"] = up[:, : block.attention.nope_dim]
        found["value_up"] = up[:, block.attention.nope_dim :].transpose(1, 2)
        if block.attention.query_rank:
            found["query_down"] = get("self_attn.q_a_proj.weight")
            found["query_down_norm"] = get("self_attn.q_a_layernorm.weight")
            found["query"] = get("self_attn.q_b_proj.weight")
        else:
            found["query"] = get("self_attn.q_proj.weight")
    else:
        for kind in ("weight", "bias") if "qkv_bias" in expected else ("weight",):
            parts = [get(f"self_attn.{name}_proj.{kind}") for name in "qkv"]
            found["qkv" if kind == "weight" else "qkv_bias"] = torch.cat(parts)
    others = {
        "out_bias": "self_attn.o_proj.bias",
        "query_norm": "self_attn.q_norm.weight",
        "key_norm": "self_attn.k_norm.weight",
        "sinks": "self_attn.sinks",
        "router": f"mlp.{'router' if shape.family.name == 'gpt_oss' else 'gate'}.weight",
        "router_bias": "mlp.router.bias",
        "shared_down": "mlp.shared_experts.down_proj.weight",
        "dense_down": "mlp.down_proj.weight",
    }
    found |= {name: get(stored) for name, stored in others.items() if name in expected}
    for name, part in (("shared_gate_up", "mlp.shared_experts"), ("dense_gate_up", "mlp")):
        if name in expected:
            found[name] = torch.cat((get(f"{part}.gate_proj.weight"), get(f"{part}.up_proj.weight")))
    return _checked(found, expected, origin, f"layer {block.index}")


def _get(state: Mapping[str, torch.Tensor], name: str, origin: str) -> torch.Tensor:
    if name not in state:
        raise ForestageError(f"{origin}: {name}: missing; give a whole checkpoint")
    return state[name]


def _checked(found: Tensors, expected: Mapping[str, TensorShape], origin: str, where: str) -> Tensors:
    """``found`` in the order of ``expected``, whose sizes they have."""
    for name, tensor in expected.items():
        if tuple(found[name].shape) != tensor.size:
            raise ForestageError(
                f"{origin}: {where}: {name} is {list(found[name].shape)}, the configuration asks for "
                f"{list(tensor.size)}; give a checkpoint and its own config.json"
            )
    return {name: found[name] for name in expected}
