"""A decoder without its routed experts: what runs between them, layer by layer, on one device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from catalog.attention import GroupedQueryAttention
from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.decoder.attention import grouped_query_attention, latent_attention
from gpu_reference.decoder.cache import LayerCache
from gpu_reference.decoder.checkpoint import read_checkpoint
from gpu_reference.decoder.memory import enough_memory
from gpu_reference.decoder.router import choose
from gpu_reference.decoder.shape import DecoderShape
from gpu_reference.decoder.step import Step, Tokens, context_buckets
from gpu_reference.decoder.weights import Tensors, block_from_state, outer_from_state, prepared, random_tensors
from gpu_reference.devices import check_device

Integers = Iterable[int] | torch.Tensor


@dataclass(frozen=True)
class GateInput:
    """What a layer has computed when its gate is known.

    Attributes:
        residual: ``[n, hidden]``: the residual stream, to which the experts' output is added.
        normed: ``[n, hidden]``: what experts and router read.
        router_logits: ``[n, experts]``.
    """

    residual: torch.Tensor
    normed: torch.Tensor
    router_logits: torch.Tensor


@dataclass(frozen=True)
class _Given:
    """Positions and slots on a GPU, as they were when the host read them; their contents are not to be read again."""

    positions: torch.Tensor
    slots: torch.Tensor
    versions: tuple[int, int]

    @classmethod
    def of(cls, positions: Integers, slots: Integers) -> _Given | None:
        """``None`` where reading again costs nothing (on the host), or where PyTorch does not count changes."""
        if not (isinstance(positions, torch.Tensor) and isinstance(slots, torch.Tensor)):
            return None
        if not (positions.is_cuda and slots.is_cuda) or positions.is_inference() or slots.is_inference():
            return None
        return cls(positions, slots, (positions._version, slots._version))

    def is_still(self, before: _Given | None) -> bool:
        """Whether these are the very tensors of ``before``, unchanged."""
        return (
            before is not None
            and self.positions is before.positions
            and self.slots is before.slots
            and self.versions == before.versions
        )


class Decoder:
    """The fixed parts of a mixture-of-experts decoder: norms, attention with its cache, routers, shared experts.

    *Layers* are those with experts, numbered as in a trace; layers without experts run as a part of the next one's
    ``before_gate``. A call handles either one token each of several sequences (decode) or several tokens of one
    (prefill, causal). A sequence has a *slot* of the cache.

    Everything is computed by deterministic operations in a fixed order: a call's result depends on its arguments and
    on the tokens that its slots have had, and on nothing else.

    Positions and slots are best given as sequences of integers or host tensors; a tensor on a GPU is copied to the
    host once, which waits for the device.

    Attributes:
        shape: which layers it has.
        layers: layers with experts.
        hidden: width of the residual stream.
        experts: routed experts in a layer.
        top_k: experts that a token uses in a layer.
        dtype: of activations and weights.
        device: where all of it is.
        slots: sequences that the cache has room for.
        max_context: tokens of each.
        buckets: how many rows of a cache without a window a decode step may read; the least that holds the longest
            sequence of the step.
    """

    @torch.inference_mode(False)  # wherever it is made: its caches are written inside and outside that mode
    def __init__(
        self,
        shape: DecoderShape,
        outer: Tensors,
        blocks: Sequence[Tensors],
        *,
        slots: int,
        max_context: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.shape = shape
        self.layers = len(shape.moe)
        self.hidden, self.experts, self.top_k = shape.model.hidden, shape.model.experts, shape.model.top_k
        self.dtype, self.device, self.slots, self.max_context = dtype, device, slots, max_context
        self.buckets = context_buckets(max_context)
        self.caches = tuple(
            LayerCache(block, slots=slots, max_context=max_context, device=device, dtype=dtype)
            for block in shape.blocks
        )
        self._outer = dict(outer)
        self._blocks = tuple(map(prepared, blocks))
        self._table = shape.family.rotary.table(shape.blocks[0].rotary_width, max_context, device=device, dtype=dtype)
        self._step: Step | None = None
        self._given: _Given | None = None

    @classmethod
    def random(
        cls,
        model: ModelRecord,
        layer_map: Sequence[int],
        *,
        device: str | torch.device,
        dtype: torch.dtype,
        slots: int = 1,
        max_context: int,
        seed: int,
    ) -> Decoder:
        """A decoder of ``model``'s shape with random weights of a realistic scale, made on the device.

        Args:
            model: the model's record.
            layer_map: the model's indices of the layers with experts that were recorded (a trace's ``layer_map``).
            device: cpu, or cuda.
            dtype: torch.bfloat16 or torch.float32.
            slots: sequences at once.
            max_context: tokens of a sequence at most.
            seed: of the weights; another device has other weights.

        Raises:
            ForestageError: if the model's computation is not known, or memory does not suffice (what would fit).
        """
        shape = DecoderShape.of(model, layer_map)
        device = _checked_settings(device, dtype, slots, max_context)
        generator = torch.Generator(device).manual_seed(seed)
        with enough_memory(shape, dtype, slots=slots, max_context=max_context, device=device):
            outer = random_tensors(shape.outer_tensors, generator, device=device, dtype=dtype)
            blocks = [random_tensors(shape.tensors(b), generator, device=device, dtype=dtype) for b in shape.blocks]
            return cls(shape, outer, blocks, slots=slots, max_context=max_context, device=device, dtype=dtype)

    @classmethod
    def shipped(
        cls, checkpoint: Path, *, device: str | torch.device, dtype: torch.dtype, slots: int = 1, max_context: int
    ) -> Decoder:
        """The decoder of the shipped checkpoint (a `Qwen3MoeForCausalLM`), or of any that `gpu_reference.remake` makes.

        Raises:
            ForestageError: if a file is missing, malformed or of another model, or memory does not suffice.
        """
        shape, state = read_checkpoint(checkpoint)
        device = _checked_settings(device, dtype, slots, max_context)
        with enough_memory(shape, dtype, slots=slots, max_context=max_context, device=device):
            return cls.of_state(
                shape, state, origin=str(checkpoint), device=device, dtype=dtype, slots=slots, max_context=max_context
            )

    @classmethod
    def of_state(
        cls,
        shape: DecoderShape,
        state: dict[str, torch.Tensor],
        *,
        origin: str,
        device: torch.device,
        dtype: torch.dtype,
        slots: int,
        max_context: int,
    ) -> Decoder:
        """A decoder with the weights of a `transformers` state dictionary that came from ``origin``.

        Raises:
            ForestageError: if a tensor is missing or does not fit ``shape``.
        """

        def moved(tensors: Tensors, precisions: dict[str, torch.dtype | None]) -> Tensors:
            return {
                name: tensor.detach().to(device, precisions[name] or dtype).contiguous()
                for name, tensor in tensors.items()
            }

        outer = moved(
            outer_from_state(shape, state, origin), {name: t.dtype for name, t in shape.outer_tensors.items()}
        )
        blocks = [
            moved(
                block_from_state(shape, block, state, origin),
                {name: tensor.dtype for name, tensor in shape.tensors(block).items()},
            )
            for block in shape.blocks
        ]
        return cls(shape, outer, blocks, slots=slots, max_context=max_context, device=device, dtype=dtype)

    @property
    def fixed_bytes(self) -> int:
        """Bytes of the weights and tables on the device."""
        tensors = [self._table, *self._outer.values(), *(t for block in self._blocks for t in block.values())]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key-value caches."""
        return sum(cache.nbytes for cache in self.caches)

    def reset(self, slot: int, *, context: int = 0) -> None:
        """Begin a new sequence in ``slot``.

        With ``context``, as many tokens of random keys and values (the same each time) precede it: a stand-in for a
        prompt that was not recorded, so that attention costs what it would.

        Raises:
            ForestageError: if there is no such slot, or no room for the context.
        """
        if not 0 <= slot < self.slots:
            raise ForestageError(f"slot {slot}: the decoder has slots 0 to {self.slots - 1}")
        if not 0 <= context < self.max_context:
            raise ForestageError(f"context {context}: give 0 to {self.max_context - 1} (below max_context)")
        generator = torch.Generator(self.device).manual_seed(slot)
        for cache in self.caches:
            cache.fill(slot, context, generator)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[n, hidden]`` of ``token_ids [n]``, which may still be on the host.

        Raises:
            ForestageError: if an id on the host is outside the vocabulary (ids on a GPU are not looked at).
        """
        embedding = self._outer["embedding"]
        if token_ids.device.type == "cpu" and len(token_ids):
            low, high = int(token_ids.min()), int(token_ids.max())
            if low < 0 or high >= len(embedding):
                raise ForestageError(
                    f"token id {low if low < 0 else high}: the vocabulary has 0 to {len(embedding) - 1}"
                )
        return functional.embedding(token_ids.to(self.device, non_blocking=True), embedding)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, vocabulary]`` of the last layer's ``hidden [n, hidden]``."""
        head = self._outer.get("head", self._outer["embedding"])
        return functional.linear(self._norm(hidden, self._outer["norm"]), head)

    def before_gate(self, layer: int, hidden: torch.Tensor, positions: Integers, slots: Integers) -> GateInput:
        """Attention, norms and router of ``layer``, and all of the dense layers before it; the cache grows.

        Args:
            layer: a layer with experts, from 0.
            hidden: ``[n, hidden]``, from ``embed`` or the ``after_experts`` of the layer before.
            positions: of each token in its sequence, from 0; those of a sequence follow each other without a gap.
            slots: the sequence of each token: all the same (prefill) or all different (decode).

        Raises:
            ForestageError: if positions do not follow those that the slots have had, or exceed ``max_context``.
        """
        step = self.step(positions, slots)
        self.admit(layer, step)
        return self.run(layer, hidden, step)

    def choose(self, layer: int, router_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's own choice: ids ``[n, top_k]`` int64, best first, and gate weights ``[n, top_k]``."""
        return choose(self.shape.family, self.top_k, router_logits)

    def shared(self, layer: int, normed: torch.Tensor) -> torch.Tensor | None:
        """The shared experts' output ``[n, hidden]``; ``None`` if the model has none."""
        if not self.has_shared(layer):
            return None
        weights = self._blocks[self.shape.moe[layer]]
        return self._feed_forward(normed, weights["shared_gate_up"], weights["shared_down"])

    def after_experts(
        self, layer: int, residual: torch.Tensor, moe: torch.Tensor, shared: torch.Tensor | None
    ) -> torch.Tensor:
        """The next layer's input ``[n, hidden]``: residual stream, routed and shared experts added."""
        moe = moe.to(self.dtype)
        return residual + (moe if shared is None else moe + shared)

    # What a graph needs: the three parts of ``before_gate``.

    def step(self, positions: Integers, slots: Integers) -> Step:
        """What all layers need to know of a call's tokens; the same object while the tokens stay the same.

        Raises:
            ForestageError: if a position or slot is outside the decoder.
        """
        given = _Given.of(positions, slots)
        if given is not None and self._step is not None and given.is_still(self._given):
            return self._step
        tokens = Tokens.of(positions, slots, max_context=self.max_context, of=self.slots)
        if self._step is None or (tokens.positions, tokens.slots) != (self._step.positions, self._step.slots):
            bucket = next(bucket for bucket in self.buckets if bucket > max(tokens.positions))
            self._step = self.make_step(tokens, bucket=bucket)
        self._given = given
        return self._step

    def make_step(self, tokens: Tokens, *, bucket: int) -> Step:
        """A new `Step` for ``tokens``, whose decode reads ``bucket`` rows of a cache without a window."""
        capacities = {cache.capacity for cache in self.caches}
        return Step.of(tokens, bucket=bucket, capacities=capacities, table=self._table)

    def has_shared(self, layer: int) -> bool:
        """Whether ``layer`` has shared experts."""
        return "shared_down" in self._blocks[self.shape.moe[layer]]

    def blocks_of(self, layer: int) -> range:
        """Indices of the transformer layers that run in ``before_gate`` of ``layer``: dense ones, then its own."""
        return range(self.shape.moe[layer - 1] + 1 if layer else 0, self.shape.moe[layer] + 1)

    def admit(self, layer: int, step: Step) -> None:
        """Count the step's tokens in the caches of ``layer`` and of the dense layers before it.

        Raises:
            ForestageError: if a position is not the next of its slot.
        """
        ends = dict(zip(step.slots, step.positions, strict=True))
        starts = {step.slots[0]: step.positions[0]} if step.prefill else ends
        for block in self.blocks_of(layer):
            lengths = self.caches[block].lengths
            for slot, position in starts.items():
                if position != lengths[slot]:
                    raise ForestageError(
                        f"slot {slot}, layer {layer}: position {position} does not follow the {lengths[slot]} tokens "
                        f"of its sequence; give position {lengths[slot]}, or reset the slot"
                    )
        for block in self.blocks_of(layer):
            for slot, position in ends.items():
                self.caches[block].lengths[slot] = position + 1

    def run(self, layer: int, hidden: torch.Tensor, step: Step) -> GateInput:
        """``before_gate`` without its checks: a function of tensors alone, which writes the caches."""
        *dense, own = self.blocks_of(layer)
        for index in dense:
            weights = self._blocks[index]
            hidden = hidden + self._attention(index, hidden, step)
            normed = self._norm(hidden, weights["feed_forward_norm"])
            hidden = hidden + self._feed_forward(normed, weights["dense_gate_up"], weights["dense_down"])
        weights = self._blocks[own]
        residual = hidden + self._attention(own, hidden, step)
        normed = self._norm(residual, weights["feed_forward_norm"])
        return GateInput(residual, normed, self.route(layer, normed))

    def route(self, layer: int, normed: torch.Tensor) -> torch.Tensor:
        """Router logits ``[n, experts]`` of ``layer`` for ``normed [n, hidden]``, whichever layer that comes from."""
        weights = self._blocks[self.shape.moe[layer]]
        router = weights["router"]
        return functional.linear(normed.to(router.dtype), router, weights.get("router_bias"))

    def _attention(self, index: int, hidden: torch.Tensor, step: Step) -> torch.Tensor:
        """Norm and attention of a transformer layer."""
        weights, attention, cache = self._blocks[index], self.shape.blocks[index].attention, self.caches[index]
        x = self._norm(hidden, weights["attention_norm"])
        if isinstance(attention, GroupedQueryAttention):
            return grouped_query_attention(attention, self.shape.family, weights, cache, x, step)
        return latent_attention(attention, self.shape.family, weights, cache, x, step)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (self.hidden,), weight, self.shape.family.norm_epsilon)

    @staticmethod
    def _feed_forward(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """SwiGLU: ``down(SiLU(gate · x) ⊙ up · x)``."""
        gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * up, down)


def _checked_settings(device: str | torch.device, dtype: torch.dtype, slots: int, max_context: int) -> torch.device:
    """The device, if all settings are possible."""
    check_device(str(device))
    if dtype not in (torch.bfloat16, torch.float32):
        raise ForestageError(f"dtype: {dtype}; the decoder computes in torch.bfloat16 or torch.float32")
    if slots < 1 or max_context < 1:
        raise ForestageError(f"slots ({slots}) and max_context ({max_context}): give 1 or more of each")
    return torch.device(device)
