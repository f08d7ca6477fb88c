"""Shapes of mixture-of-experts models."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.records import PositiveInt, Record

Activation = Literal["swiglu", "gpt_oss_swiglu", "geglu", "relu"]
"""``swiglu``: down(SiLU(gate·x) ⊙ up·x); ``gpt_oss_swiglu``: gate clamped to ≤ 7, up to ±7,
down((up + 1) · gate · σ(1.702 · gate)), biases on all, gate and up rows interleaved; ``geglu``: GELU in place of SiLU;
``relu``: down(ReLU(up·x))."""

WeightFormat = Literal["bf16", "fp32", "fp8", "mxfp4", "q4_k_m"]

BIAS_BYTES = 2
"""Biases are kept in BF16 beside weights of any format."""


class GroupedQueryAttention(StrictModel):
    """Attention with ``kv_heads`` shared by ``query_heads``."""

    kind: Literal["gqa"] = "gqa"
    query_heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt

    def parameters(self, hidden: int) -> int:
        """Weights of the Q, K, V and output projections of one layer."""
        return hidden * self.head_dim * (2 * self.query_heads + 2 * self.kv_heads)

    def kv_elements(self) -> int:
        """Elements that one token adds to the cache of one layer."""
        return 2 * self.kv_heads * self.head_dim


class LatentAttention(StrictModel):
    """DeepSeek's multi-head latent attention (arXiv 2405.04434, section 2.1); ``query_rank`` 0: no query rank."""

    kind: Literal["mla"]
    query_heads: PositiveInt
    query_rank: Annotated[int, Field(ge=0)]
    kv_rank: PositiveInt
    nope_dim: PositiveInt
    rope_dim: PositiveInt
    value_dim: PositiveInt

    def parameters(self, hidden: int) -> int:
        """Weights of all projections of one layer."""
        query_out = self.query_heads * (self.nope_dim + self.rope_dim)
        query = self.query_rank * (hidden + query_out) if self.query_rank else hidden * query_out
        key_value = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank * self.query_heads * (
            self.nope_dim + self.value_dim
        )
        return query + key_value + self.query_heads * self.value_dim * hidden

    def kv_elements(self) -> int:
        """Elements that one token adds to the cache of one layer: the latent and the shared rotary key."""
        return self.kv_rank + self.rope_dim


class ModelRecord(Record):
    """A model's routed experts and what runs beside them.

    Attributes:
        layers: transformer layers of the model.
        dense_layers: indices of those whose feed-forward part is no mixture of experts.
        experts: routed experts a layer.
        shared_experts: experts that every token uses; they have the routed ones' shape.
        top_k: routed experts a token uses in a layer.
        hidden: width of the residual stream.
        expert_intermediate: width inside an expert.
        expert_matrices: 3 (gate, up, down) or 2 (up, down).
        expert_bias: every matrix has a bias.
        activation: how an expert combines them.
        expert_weight_format: how the matrices are stored.
        bits_per_weight: with scales.
        attention: of a layer; ``None`` where it is hybrid or not known.
    """

    layers: PositiveInt
    dense_layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    experts: PositiveInt
    shared_experts: Annotated[int, Field(ge=0, strict=True)] = 0
    top_k: PositiveInt
    hidden: PositiveInt
    expert_intermediate: PositiveInt
    expert_matrices: Literal[2, 3] = 3
    expert_bias: bool = False
    activation: Activation = "swiglu"
    expert_weight_format: WeightFormat
    bits_per_weight: Annotated[float, Field(gt=0, le=64)]
    attention: Annotated[GroupedQueryAttention | LatentAttention, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ModelRecord":
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) exceeds experts ({self.experts})")
        if sorted(set(self.dense_layers)) != list(self.dense_layers) or any(
            d >= self.layers for d in self.dense_layers
        ):
            raise ValueError("dense_layers must ascend and lie below layers")
        if len(self.dense_layers) == self.layers:
            raise ValueError("no layer has experts")
        return self

    @property
    def layer_map(self) -> tuple[int, ...]:
        """Indices of the mixture-of-experts layers."""
        return tuple(layer for layer in range(self.layers) if layer not in self.dense_layers)

    @property
    def moe_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return self.layers - len(self.dense_layers)

    @property
    def expert_weights(self) -> int:
        """Elements of an expert's matrices, biases not counted."""
        return self.expert_matrices * self.hidden * self.expert_intermediate

    @property
    def expert_bytes(self) -> int:
        """Bytes of one routed expert: its matrices with their scales, and its biases."""
        biases = (self.expert_matrices - 1) * self.expert_intermediate + self.hidden if self.expert_bias else 0
        return math.ceil(self.expert_weights * self.bits_per_weight / 8) + biases * BIAS_BYTES

    @property
    def expert_flops(self) -> int:
        """Operations of one expert on one token, two a multiply-add."""
        return 2 * self.expert_weights
