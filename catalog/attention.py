"""What precedes the feed-forward part of a layer: attention over the context, or a state of fixed size.

Parameters are counted without norms and biases (under 0.1 % of a layer's); elements are counted, not bytes.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.records import PositiveInt

STATE_PASSES = 3
"""Multiply-adds per state element and token: read with the key, write, read with the query (the gated delta rule, arXiv
2412.06464 equation 10). A state-space layer, which decays and reads, is assumed to cost the same."""


class GroupedQueryAttention(StrictModel):
    """Attention with ``kv_heads`` shared by ``query_heads``.

    Attributes:
        query_heads: heads of the queries.
        kv_heads: heads of the keys, and of the values.
        head_dim: width of a head.
        window: how many of the latest tokens the layer attends to, the token itself included; ``None``: all.
        chunk: tokens in a chunk (Llama 4); the layer attends from the chunk's first token to the token itself.
        output_gate: a projection as wide as the queries' gates the output (Qwen3-Next).
        key_is_value: the projected keys serve as values (gemma-4's global layers). The cache holds both, because only
            keys are rotated.
        cross: a second attention of the same shape looks at an encoder's output (decoder layers of encoder-decoders).
    """

    kind: Literal["gqa"] = "gqa"
    query_heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    window: PositiveInt | None = None
    chunk: PositiveInt | None = None
    output_gate: bool = False
    key_is_value: bool = False
    cross: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.query_heads % self.kv_heads:
            raise ValueError(f"query_heads ({self.query_heads}) is no multiple of kv_heads ({self.kv_heads})")
        if self.window is not None and self.chunk is not None:
            raise ValueError("give window or chunk, not both")
        return self

    def parameters(self, hidden: int) -> int:
        """Weights of the projections of one layer: Q, K, V and output, and the output's gate."""
        queries = 3 if self.output_gate else 2
        keys = 1 if self.key_is_value else 2
        return (2 if self.cross else 1) * hidden * self.head_dim * (queries * self.query_heads + keys * self.kv_heads)

    def kv_elements(self) -> int:
        """Elements that one token adds to the self-attention cache of one layer."""
        return 2 * self.kv_heads * self.head_dim

    def attended(self, context_tokens: int) -> int:
        """Tokens that the last of ``context_tokens`` attends to, itself included."""
        if self.window is not None:
            return min(context_tokens, self.window)
        return (context_tokens - 1) % self.chunk + 1 if self.chunk is not None else context_tokens

    def cache_elements(self, context_tokens: int) -> int:
        """Elements of the cache that one token reads; an encoder's output counts as if as long as the context."""
        cross = context_tokens if self.cross else 0
        return (self.attended(context_tokens) + cross) * self.kv_elements()

    def multiply_adds(self, context_tokens: int) -> int:
        """Multiply-adds for one token beyond the projections: scores, then values."""
        cross = context_tokens if self.cross else 0
        return (self.attended(context_tokens) + cross) * 2 * self.query_heads * self.head_dim


class LatentAttention(StrictModel):
    """DeepSeek's multi-head latent attention (arXiv 2405.04434, section 2.1), in its absorbed form when decoding.

    Attributes:
        query_heads: heads of the queries.
        query_rank: rank of the queries' low-rank projection; 0: none.
        kv_rank: width of the latent from which keys and values are made.
        nope_dim: width of a query's part that is not rotated.
        rope_dim: width of a query's part that is rotated.
        value_dim: width of a value.
        index_heads: heads of the indexer (DeepSeek-V3.2, arXiv 2512.02556), which scores the whole context; 0: none.
        index_dim: width of such a head.
        index_top_k: tokens that the indexer lets the attention see.
    """

    kind: Literal["mla"] = "mla"
    query_heads: PositiveInt
    query_rank: Annotated[int, Field(ge=0)]
    kv_rank: PositiveInt
    nope_dim: PositiveInt
    rope_dim: PositiveInt
    value_dim: PositiveInt
    index_heads: Annotated[int, Field(ge=0)] = 0
    index_dim: Annotated[int, Field(ge=0)] = 0
    index_top_k: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        index = (self.index_heads, self.index_dim, self.index_top_k)
        if any(index) and not (all(index) and self.query_rank):
            raise ValueError("index_heads, index_dim, index_top_k and query_rank come together")
        return self

    def parameters(self, hidden: int) -> int:
        """Weights of all projections of one layer, the indexer's included."""
        query_out = self.query_heads * (self.nope_dim + self.rope_dim)
        query = self.query_rank * (hidden + query_out) if self.query_rank else hidden * query_out
        key_value = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank * self.query_heads * (
            self.nope_dim + self.value_dim
        )
        index = self.query_rank * self.index_heads * self.index_dim + hidden * (self.index_dim + self.index_heads)
        return query + key_value + self.query_heads * self.value_dim * hidden + index

    def kv_elements(self) -> int:
        """Elements that one token adds to the cache of one layer: the latent, the rotary key, the indexer's key."""
        return self.kv_rank + self.rope_dim + self.index_dim

    def attended(self, context_tokens: int) -> int:
        """Tokens whose latents the last of ``context_tokens`` attends to."""
        return min(context_tokens, self.index_top_k) if self.index_top_k else context_tokens

    def cache_elements(self, context_tokens: int) -> int:
        """Elements of the cache that one token reads: latents of those attended to, the indexer's keys of all."""
        return self.attended(context_tokens) * (self.kv_rank + self.rope_dim) + context_tokens * self.index_dim

    def multiply_adds(self, context_tokens: int) -> int:
        """Multiply-adds for one token beyond the projections: scores (latent and rotary key), then values (latent)."""
        latent = self.attended(context_tokens) * self.query_heads * (2 * self.kv_rank + self.rope_dim)
        return latent + context_tokens * self.index_heads * self.index_dim


class FixedState(StrictModel):
    """A layer that remembers the context in a state of fixed size: linear attention, a state space, a convolution.

    Attributes:
        of: what the layer is, in words.
        weights: parameters of the layer.
        state_elements: elements of the state, which is kept in FP32 and read and written once for each token.
    """

    kind: Literal["state"]
    of: str = Field(min_length=1)
    weights: PositiveInt
    state_elements: PositiveInt

    def parameters(self, hidden: int) -> int:
        """Weights of one layer."""
        return self.weights

    def kv_elements(self) -> int:
        """Elements that one token adds to a cache: 0."""
        return 0

    def cache_elements(self, context_tokens: int) -> int:
        """State that one token moves (FP32, read and written), counted in BF16 elements."""
        return 4 * self.state_elements

    def multiply_adds(self, context_tokens: int) -> int:
        """Multiply-adds for one token beyond the projections."""
        return STATE_PASSES * self.state_elements

    @classmethod
    def gated_delta_net(
        cls, *, hidden: int, key_heads: int, value_heads: int, key_dim: int, value_dim: int, kernel: int
    ) -> Self:
        """Qwen3-Next's and Qwen3.5's linear attention, as transformers 5.23 builds it (Qwen3NextGatedDeltaNet).

        Weights: queries, keys, values, the output's gate, two gates per value head, a depthwise convolution over the
        first three, the output. State: a key × value matrix per value head, and the convolution's last inputs.
        """
        keys, values = key_heads * key_dim, value_heads * value_dim
        convolved = 2 * keys + values
        weights = hidden * (2 * keys + 2 * values + 2 * value_heads) + convolved * kernel + values * hidden
        state = value_heads * key_dim * value_dim + convolved * kernel
        return cls(kind="state", of="gated delta net", weights=weights, state_elements=state)

    @classmethod
    def mamba(cls, *, hidden: int, inner: int, state: int, rank: int, kernel: int) -> Self:
        """Jamba's Mamba layer, as transformers 5.23 builds it (JambaMambaMixer)."""
        weights = 2 * hidden * inner + inner * (kernel + rank + 2 * state + rank + state) + inner * hidden
        return cls(kind="state", of="Mamba", weights=weights, state_elements=inner * (state + kernel))

    @classmethod
    def mamba2(cls, *, hidden: int, heads: int, head_dim: int, groups: int, state: int, kernel: int) -> Self:
        """Granite 4's Mamba-2 layer, as transformers 5.23 builds it (GraniteMoeHybridMambaLayer)."""
        inner = heads * head_dim
        convolved = inner + 2 * groups * state
        weights = hidden * (inner + convolved + heads) + convolved * kernel + inner * hidden
        return cls(kind="state", of="Mamba-2", weights=weights, state_elements=inner * state + convolved * kernel)

    @classmethod
    def short_convolution(cls, *, hidden: int, kernel: int) -> Self:
        """LFM2's gated short convolution, as transformers 5.23 builds it (Lfm2MoeShortConv)."""
        weights = 4 * hidden * hidden + hidden * kernel
        return cls(kind="state", of="short convolution", weights=weights, state_elements=hidden * kernel)

    @classmethod
    def lightning(cls, *, hidden: int, heads: int, head_dim: int) -> Self:
        """MiniMax-01's linear attention, as transformers 5.23 builds it (MiniMaxLightningAttention)."""
        inner = heads * head_dim
        return cls(
            kind="state", of="lightning attention", weights=5 * hidden * inner, state_elements=heads * head_dim**2
        )


LayerAttention = Annotated[GroupedQueryAttention | LatentAttention | FixedState, Field(discriminator="kind")]
"""The attention or state of one layer."""


class HybridAttention(StrictModel):
    """Layers of several kinds.

    Attributes:
        kinds: name → one of the kinds above.
        pattern: names of the first layers' kinds, repeated up to the last layer.
    """

    kind: Literal["hybrid"]
    kinds: dict[str, LayerAttention] = Field(min_length=1)
    pattern: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if set(self.pattern) != set(self.kinds):
            raise ValueError(f"pattern names {sorted(set(self.pattern))}, kinds are {sorted(self.kinds)}")
        return self

    def of_layer(self, layer: int) -> GroupedQueryAttention | LatentAttention | FixedState:
        """The kind of the model's layer ``layer``."""
        return self.kinds[self.pattern[layer % len(self.pattern)]]


Attention = Annotated[
    GroupedQueryAttention | LatentAttention | FixedState | HybridAttention, Field(discriminator="kind")
]
