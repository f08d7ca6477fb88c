"""Attention over a cache: of grouped queries, and DeepSeek's latent attention in its absorbed form.

Scores, softmax and sum are plain matrix products, of which PyTorch's are deterministic; a fused kernel would take no
sinks, and which one runs would depend on the mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from catalog.attention import GroupedQueryAttention, LatentAttention
from gpu_reference.decoder.cache import LayerCache
from gpu_reference.decoder.families import Family
from gpu_reference.decoder.step import Step

QUERY_BLOCK = 256
"""Queries of a prefill whose scores are held at once."""

SINK_COLUMNS = 8
"""Columns of scores that a head's sink takes: itself and −∞, so that rows of scores stay aligned."""

Weights = Mapping[str, torch.Tensor]


def padded_sinks(sinks: torch.Tensor) -> torch.Tensor:
    """Logits ``[heads]`` of the sinks → ``[heads, SINK_COLUMNS]``."""
    padding = sinks.new_full((len(sinks), SINK_COLUMNS - 1), -torch.inf)
    return torch.cat((sinks[:, None], padding), dim=1)


def grouped_query_attention(
    shape: GroupedQueryAttention, family: Family, weights: Weights, cache: LayerCache, x: torch.Tensor, step: Step
) -> torch.Tensor:
    """The attention's output ``[n, hidden]`` for ``x [n, hidden]``, already normed."""
    heads, kv_heads, width = shape.query_heads, shape.kv_heads, shape.head_dim
    qkv = functional.linear(x, weights["qkv"], weights.get("qkv_bias"))
    qkv = qkv.unflatten(-1, (-1, width))
    values = qkv[:, heads + kv_heads :]
    rotated = family.rotary.rotate(_normed(family, weights, qkv[:, : heads + kv_heads], heads), step.rotary)
    queries, keys = rotated.split([heads, kv_heads], dim=1)
    queries = (queries * (family.rotary.score_scale * width**-0.5)).unflatten(1, (kv_heads, -1))
    sinks = weights.get("sinks")
    if sinks is not None:
        sinks = sinks.unflatten(0, (kv_heads, -1))
    output = _over_cache(cache, step, queries, keys, values, sinks)
    return functional.linear(output.flatten(1), weights["out"], weights.get("out_bias"))


def latent_attention(
    shape: LatentAttention, family: Family, weights: Weights, cache: LayerCache, x: torch.Tensor, step: Step
) -> torch.Tensor:
    """As ``grouped_query_attention``, where all heads share one key: the latent and the rotated part.

    The matrices that make keys and values from the latent are applied to the queries and to the output instead
    (arXiv 2405.04434, section 2.1.2), in prefill too; so a value is the latent itself, a part of the key.
    """
    if shape.query_rank:
        x_query = _norm(
            functional.linear(x, weights["query_down"]), weights["query_down_norm"], family.inner_norm_epsilon
        )
    else:
        x_query = x
    queries = functional.linear(x_query, weights["query"]).unflatten(-1, (shape.query_heads, -1))
    plain, rotated = queries.split([shape.nope_dim, shape.rope_dim], dim=-1)
    latent, key = functional.linear(x, weights["latent"]).split([shape.kv_rank, shape.rope_dim], dim=-1)
    latent = _norm(latent, weights["latent_norm"], family.inner_norm_epsilon)
    key = family.rotary.rotate(key[:, None], step.rotary)
    absorbed = torch.bmm(plain.transpose(0, 1), weights["key_up"]).transpose(0, 1)
    queries = torch.cat((absorbed, family.rotary.rotate(rotated, step.rotary)), dim=-1)
    scale = family.rotary.score_scale * (shape.nope_dim + shape.rope_dim) ** -0.5
    keys = torch.cat((latent[:, None], key), dim=-1)
    output = _over_cache(cache, step, (queries * scale)[:, None], keys, None, None, value_width=shape.kv_rank)
    values = torch.bmm(output.flatten(1, 2).transpose(0, 1), weights["value_up"]).transpose(0, 1)
    return functional.linear(values.flatten(1), weights["out"])


def _normed(family: Family, weights: Weights, queries_keys: torch.Tensor, heads: int) -> torch.Tensor:
    """The family's norm of queries (the first ``heads``) and keys: ``[n, query heads + key heads, width]``."""
    if family.query_key_norm is None:
        return queries_keys
    parts = []
    for name, part in (("query_norm", queries_keys[:, :heads]), ("key_norm", queries_keys[:, heads:])):
        if family.query_key_norm == "all":
            parts.append(_norm(part.flatten(1), weights[name], family.norm_epsilon).view(part.shape))
        else:
            parts.append(_norm(part, weights[name], family.norm_epsilon))
    return torch.cat(parts, dim=1)


def _norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)


def _over_cache(
    cache: LayerCache,
    step: Step,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor | None,
    sinks: torch.Tensor | None,
    value_width: int | None = None,
) -> torch.Tensor:
    """Keep ``keys`` and ``values [n, kv heads, width]``, and attend with ``queries [n, kv heads, group, width]``.

    Queries are scaled already. ``values`` of ``None`` are the first ``value_width`` elements of the keys. Returns
    ``[n, kv heads, group, value width]``.
    """
    if not step.prefill:
        kept, kept_values, hidden = cache.decode(step, keys, values)
        kept_values = kept[..., :value_width] if values is None else kept_values
        return _attend(queries.unsqueeze(3), kept, kept_values, hidden, sinks).squeeze(3)
    kept, kept_values, first = cache.prefill(step, keys, values)
    kept_values = kept[..., :value_width] if values is None else kept_values
    blocks = []
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        own = step.positions[0] + start  # position of the block's first query
        low, high = max(first, own - cache.capacity + 1), own + len(block)
        query_positions = torch.arange(own, high, device=queries.device)[:, None]
        key_positions = torch.arange(low, high, device=queries.device)
        hidden = (key_positions > query_positions) | (key_positions <= query_positions - cache.capacity)
        seen = slice(low - first, high - first)
        by_head = block.permute(1, 2, 0, 3).unsqueeze(0)
        output = _attend(by_head, kept[None, :, seen], kept_values[None, :, seen], hidden, sinks)
        blocks.append(output.squeeze(0).permute(2, 0, 1, 3))
    return torch.cat(blocks)


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor, sinks: torch.Tensor | None
) -> torch.Tensor:
    """Softmax attention of scaled queries.

    Args:
        queries: ``[b, kv heads, group, q, width]``.
        keys: ``[b, kv heads, t, width]``.
        values: ``[b, kv heads, t, value width]``.
        hidden: true where a query does not see a key; broadcasts to ``[b, kv heads, group, q, t]``.
        sinks: ``[kv heads, group, SINK_COLUMNS]``; they take a share of the softmax and give nothing.

    Returns:
        ``[b, kv heads, group, q, value width]``.
    """
    batch, kv_heads, group, count, _ = queries.shape
    scores = torch.bmm(queries.flatten(2, 3).flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
    scores = scores.view(batch, kv_heads, group, count, -1).masked_fill(hidden, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks[None, :, :, None].expand(batch, -1, -1, count, -1)), dim=-1)
    precision = torch.promote_types(scores.dtype, torch.float32)
    shares = scores.softmax(dim=-1, dtype=precision).to(values.dtype)
    if sinks is not None:
        shares = shares[..., :-SINK_COLUMNS]
    output = torch.bmm(shares.flatten(2, 3).flatten(0, 1), values.flatten(0, 1))
    return output.view(batch, kv_heads, group, count, -1)
