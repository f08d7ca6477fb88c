"""Shapes of mixture-of-experts models."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catalog.attention import Attention, FixedState, GroupedQueryAttention, HybridAttention, LatentAttention
from catalog.records import PositiveInt, Record

Activation = Literal["swiglu", "gpt_oss_swiglu", "geglu", "relu", "relu2"]
"""``swiglu``: down(SiLU(gate·x) ⊙ up·x); ``gpt_oss_swiglu``: gate clamped to ≤ 7, up to ±7,
down((up + 1) · gate · σ(1.702 · gate)), biases on all, gate and up rows interleaved; ``geglu``: GELU in place of SiLU;
``relu``: down(ReLU(up·x)); ``relu2``: down(ReLU(up·x)²)."""

WeightFormat = Literal["bf16", "fp16", "fp32", "fp8", "int8", "int4", "nvfp4", "mxfp4", "q4_k_m"]

BIAS_BYTES = 2
"""Biases are kept in BF16 beside weights of any format."""


class ModelRecord(Record):
    """A model's routed experts and what runs beside them.

    Attributes:
        layers: transformer layers of the model.
        dense_layers: indices of the layers without experts.
        experts: routed experts a layer.
        shared_experts: experts that every token uses; they have the routed ones' shape, unless ``shared_intermediate``
            says otherwise.
        shared_intermediate: width inside all shared experts together, if it is no multiple of ``expert_intermediate``;
            ``None``: ``shared_experts`` times ``expert_intermediate``.
        top_k: routed experts a token uses in a layer.
        hidden: width of the residual stream.
        expert_intermediate: inner width of an expert.
        expert_matrices: 3 (gate, up, down) or 2 (up, down).
        expert_bias: every matrix has a bias.
        activation: the function between an expert's matrices.
        expert_weight_format: how the matrices are stored.
        bits_per_weight: of the experts' matrices, scales included.
        dense_intermediate: width inside the feed-forward part of a layer without experts; ``None``: not known.
        attention: the same in every layer, or of several kinds (below); ``None``: not known.
        vocabulary: tokens of the embedding; ``None``: not known.
        tied_embeddings: the embedding is also the output matrix.
        architecture: the model's ``model_type`` in transformers, which tells how its routers choose; ``None``: not
            stated.
    """

    layers: PositiveInt
    dense_layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    experts: PositiveInt
    shared_experts: Annotated[int, Field(ge=0, strict=True)] = 0
    shared_intermediate: PositiveInt | None = None
    top_k: PositiveInt
    hidden: PositiveInt
    expert_intermediate: PositiveInt
    expert_matrices: Literal[2, 3] = 3
    expert_bias: bool = False
    activation: Activation = "swiglu"
    expert_weight_format: WeightFormat
    bits_per_weight: Annotated[float, Field(gt=0, le=64)]
    dense_intermediate: PositiveInt | None = None
    attention: Attention | None = None
    vocabulary: PositiveInt | None = None
    tied_embeddings: bool = False
    architecture: str | None = None

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
        if self.shared_intermediate is not None and not self.shared_experts:
            raise ValueError("shared_intermediate is given, but shared_experts is 0")
        return self

    @property
    def layer_map(self) -> tuple[int, ...]:
        """Indices of the mixture-of-experts layers."""
        return tuple(layer for layer in range(self.layers) if layer not in self.dense_layers)

    @property
    def routing_shape(self) -> tuple[int, tuple[int, ...], int, int]:
        """Layers, which of them are dense, experts and top-k: what a recording of its routing looks like."""
        return self.layers, self.dense_layers, self.experts, self.top_k

    @property
    def moe_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return self.layers - len(self.dense_layers)

    @property
    def expert_weights(self) -> int:
        """Elements of an expert's matrices, biases not counted."""
        return self.expert_matrices * self.hidden * self.expert_intermediate

    @property
    def shared_weights(self) -> int:
        """Elements of the matrices of all shared experts together."""
        if self.shared_intermediate is not None:
            return self.expert_matrices * self.hidden * self.shared_intermediate
        return self.shared_experts * self.expert_weights

    @property
    def dense_weights(self) -> int:
        """Elements of the feed-forward part of a layer without experts.

        If ``dense_intermediate`` is not known: as many as all experts, shared and routed, that a token uses in a layer.
        """
        if self.dense_intermediate is not None:
            return self.expert_matrices * self.hidden * self.dense_intermediate
        return self.top_k * self.expert_weights + self.shared_weights

    def attention_of(self, layer: int) -> GroupedQueryAttention | LatentAttention | FixedState | None:
        """The attention of the model's layer ``layer``; ``None`` where not known."""
        return self.attention.of_layer(layer) if isinstance(self.attention, HybridAttention) else self.attention

    def parameters(self, *, active: bool = False) -> int:
        """Weights of the whole model, or those that one token uses; norms, biases and unknown parts are left out.

        Counted: routed and shared experts, routers, dense layers, attention and embeddings (with ``active`` too all
        embeddings, as publishers count).
        """
        routed = self.top_k if active else self.experts
        layer = routed * self.expert_weights + self.shared_weights + self.experts * self.hidden
        attention = sum(
            attention.parameters(self.hidden)
            for attention in map(self.attention_of, range(self.layers))
            if attention is not None
        )
        embeddings = (1 if self.tied_embeddings else 2) * (self.vocabulary or 0) * self.hidden
        return self.moe_layers * layer + len(self.dense_layers) * self.dense_weights + attention + embeddings

    @property
    def expert_bytes(self) -> int:
        """Bytes of one routed expert: its matrices with their scales, and its biases."""
        biases = (self.expert_matrices - 1) * self.expert_intermediate + self.hidden if self.expert_bias else 0
        return math.ceil(self.expert_weights * self.bits_per_weight / 8) + biases * BIAS_BYTES

    @property
    def expert_flops(self) -> int:
        """Operations of one expert on one token, two per multiply-add."""
        return 2 * self.expert_weights
