"""The shape of a decoder: which layers it has, and the tensors of each, before any memory is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from catalog.attention import GroupedQueryAttention, LatentAttention
from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.decoder.families import Family, family_of

Attention = GroupedQueryAttention | LatentAttention


@dataclass(frozen=True)
class TensorShape:
    """One tensor of weights.

    Attributes:
        size: its dimensions.
        deviation: standard deviation of random weights around ``centre``.
        centre: mean of random weights.
        dtype: ``None``: the decoder's.
    """

    size: tuple[int, ...]
    deviation: float = 0.0
    centre: float = 0.0
    dtype: torch.dtype | None = None

    def nbytes(self, dtype: torch.dtype) -> int:
        """Bytes in a decoder of type ``dtype``."""
        return math.prod(self.size) * (self.dtype or dtype).itemsize


@dataclass(frozen=True)
class BlockShape:
    """One transformer layer of the model, routed experts excepted.

    Attributes:
        index: the model's index of the layer.
        attention: its attention.
        dense: it has a plain feed-forward part and no experts.
    """

    index: int
    attention: Attention
    dense: bool

    @property
    def window(self) -> int | None:
        """How many of the latest tokens the layer attends to; ``None``: all."""
        return self.attention.window if isinstance(self.attention, GroupedQueryAttention) else None

    @property
    def key_heads(self) -> int:
        """Heads of the cache; latent attention keeps one row for all heads."""
        return self.attention.kv_heads if isinstance(self.attention, GroupedQueryAttention) else 1

    @property
    def cache_widths(self) -> tuple[int, int]:
        """Width of a key and of a value in the cache; a value width of 0: values are a part of the keys."""
        if isinstance(self.attention, GroupedQueryAttention):
            return self.attention.head_dim, self.attention.head_dim
        return self.attention.kv_rank + self.attention.rope_dim, 0

    @property
    def rotary_width(self) -> int:
        """Width of what is rotated."""
        attention = self.attention
        return attention.head_dim if isinstance(attention, GroupedQueryAttention) else attention.rope_dim


@dataclass(frozen=True)
class DecoderShape:
    """What a decoder consists of.

    Attributes:
        model: the model's record.
        family: how its fixed parts compute.
        blocks: the transformer layers, in order.
        moe: for each layer with experts (the axis that a trace calls layers), its index in ``blocks``.
    """

    model: ModelRecord
    family: Family
    blocks: tuple[BlockShape, ...]
    moe: tuple[int, ...]

    @classmethod
    def of(cls, model: ModelRecord, layer_map: Sequence[int], family: Family | None = None) -> DecoderShape:
        """The shape of ``model``'s layers in ``layer_map`` (a trace's), and of the dense layers between them.

        Layers with experts that are not in ``layer_map`` were not recorded; they are left out.

        Raises:
            ForestageError: if the record lacks what the computation needs, or ``layer_map`` does not fit it.
        """
        family = family or family_of(model)
        if model.vocabulary is None:
            raise ForestageError(f"{model.name}: vocabulary: not known, so there is no decoder; add it to the record")
        swiglu = model.expert_matrices == 3 and model.activation == "swiglu"
        if (model.dense_layers or model.shared_experts) and not swiglu:
            raise ForestageError(f"{model.name}: {model.activation}: dense layers and shared experts need swiglu here")
        kept = list(layer_map)
        if not kept or kept != sorted(set(kept)) or set(kept) - set(model.layer_map):
            raise ForestageError(
                f"{model.name}: layer_map: {', '.join(map(str, kept)) or 'empty'}; give ascending indices of its "
                f"layers with experts ({model.layer_map[0]} to {model.layer_map[-1]})"
            )
        if model.layers - 1 in model.dense_layers:
            raise ForestageError(f"{model.name}: its last layer has no experts; no decoder can follow its last gate")
        indices = sorted({*kept, *(dense for dense in model.dense_layers if dense < kept[-1])})
        blocks = tuple(BlockShape(i, _attention(model, i), i in model.dense_layers) for i in indices)
        return cls(model, family, blocks, tuple(indices.index(layer) for layer in kept))

    def tensors(self, block: BlockShape) -> dict[str, TensorShape]:
        """Name → tensor of ``block``; the names are those that ``weights`` and ``blocks`` use."""
        hidden = self.model.hidden
        found = {"attention_norm": _norm(hidden), "feed_forward_norm": _norm(hidden)}
        found |= self._attention_tensors(block.attention)
        if block.dense:
            width = self.model.dense_weights // (self.model.expert_matrices * hidden)
            found |= self._feed_forward("dense", width)
            return found
        precision = torch.float32 if self.family.router_in_float else None
        router = _linear(self.model.experts, hidden)
        found["router"] = TensorShape(router.size, router.deviation, dtype=precision)
        if self.family.router_bias:
            found["router_bias"] = TensorShape((self.model.experts,), 0.02, dtype=precision)
        if self.model.shared_experts:
            found |= self._feed_forward("shared", self.model.shared_weights // (self.model.expert_matrices * hidden))
        return found

    @property
    def outer_tensors(self) -> dict[str, TensorShape]:
        """Name → tensor outside the layers: embedding, last norm, and the output matrix unless it is the embedding."""
        model = self.model
        vocabulary = model.vocabulary or 0
        found = {"embedding": TensorShape((vocabulary, model.hidden), 1.0), "norm": _norm(model.hidden)}
        return found if model.tied_embeddings else found | {"head": _linear(vocabulary, model.hidden)}

    def fixed_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of all weights in a decoder of type ``dtype``."""
        every = [self.outer_tensors, *map(self.tensors, self.blocks)]
        return sum(tensor.nbytes(dtype) for tensors in every for tensor in tensors.values())

    def cache_bytes(self, dtype: torch.dtype, *, slots: int, max_context: int) -> int:
        """Bytes of the key-value caches of ``slots`` sequences of up to ``max_context`` tokens."""
        entries = (
            sum(block.cache_widths) * block.key_heads * min(block.window or max_context, max_context)
            for block in self.blocks
        )
        return slots * sum(entries) * dtype.itemsize

    def _attention_tensors(self, attention: Attention) -> dict[str, TensorShape]:
        hidden, family = self.model.hidden, self.family
        if isinstance(attention, LatentAttention):
            return self._latent_tensors(attention)
        queries, keys = attention.query_heads * attention.head_dim, attention.kv_heads * attention.head_dim
        found = {"qkv": _linear(queries + 2 * keys, hidden), "out": self._to_residual(queries)}
        if family.attention_bias:
            found |= {"qkv_bias": TensorShape((queries + 2 * keys,), 0.02), "out_bias": TensorShape((hidden,), 0.02)}
        if family.query_key_norm is not None:
            per_head = family.query_key_norm == "head"
            found["query_norm"] = _norm(attention.head_dim if per_head else queries)
            found["key_norm"] = _norm(attention.head_dim if per_head else keys)
        if family.sinks:
            found["sinks"] = TensorShape((attention.query_heads,), 1.0)
        return found

    def _latent_tensors(self, attention: LatentAttention) -> dict[str, TensorShape]:
        hidden, heads, rank = self.model.hidden, attention.query_heads, attention.kv_rank
        queries = heads * (attention.nope_dim + attention.rope_dim)
        found = {
            "latent": _linear(rank + attention.rope_dim, hidden),
            "latent_norm": _norm(rank),
            "key_up": TensorShape((heads, attention.nope_dim, rank), rank**-0.5),
            "value_up": TensorShape((heads, rank, attention.value_dim), rank**-0.5),
            "out": self._to_residual(heads * attention.value_dim),
        }
        if not attention.query_rank:
            return found | {"query": _linear(queries, hidden)}
        return found | {
            "query_down": _linear(attention.query_rank, hidden),
            "query_down_norm": _norm(attention.query_rank),
            "query": _linear(queries, attention.query_rank),
        }

    def _feed_forward(self, name: str, width: int) -> dict[str, TensorShape]:
        return {f"{name}_gate_up": _linear(2 * width, self.model.hidden), f"{name}_down": self._to_residual(width)}

    def _to_residual(self, width: int) -> TensorShape:
        """A matrix whose output is added to the residual stream: smaller the more layers add to it, as in GPT-2."""
        return TensorShape((self.model.hidden, width), (width * 2 * self.model.layers) ** -0.5)


def _linear(outputs: int, inputs: int) -> TensorShape:
    """A matrix that keeps the scale of its input."""
    return TensorShape((outputs, inputs), inputs**-0.5)


def _norm(width: int) -> TensorShape:
    return TensorShape((width,), centre=1.0)


def _attention(model: ModelRecord, layer: int) -> Attention:
    """The attention of ``layer``, if it is of a kind that the decoder computes."""
    attention = model.attention_of(layer)
    if attention is None:
        raise ForestageError(f"{model.name}: attention: not known, so there is no decoder; add it to the record")
    if isinstance(attention, GroupedQueryAttention):
        extra = [name for name in ("chunk", "output_gate", "key_is_value", "cross") if getattr(attention, name)]
    elif isinstance(attention, LatentAttention):
        extra = ["index_heads"] if attention.index_heads else []
    else:
        raise _uncomputed(model, layer, attention.of)
    if extra:
        raise _uncomputed(model, layer, ", ".join(extra))
    return attention


def _uncomputed(model: ModelRecord, layer: int, what: str) -> ForestageError:
    return ForestageError(f"{model.name}: layer {layer}: {what}: the decoder does not compute this kind of attention")
