"""A decoder whose decode steps run as CUDA graphs, one for each layer and number of cached rows that it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from catalog.errors import ForestageError
from gpu_reference.decoder.capture import Capture, Captured, CudaCapture
from gpu_reference.decoder.decoder import Decoder, GateInput, Integers
from gpu_reference.decoder.step import Step, Tokens


class _Key(NamedTuple):
    """Which graph: of which layer, reading how many rows of the caches of its transformer layers."""

    layer: int
    rows: tuple[int, ...]


class GraphedDecoder:
    """The interface of `Decoder`, with decode steps of ``tokens`` tokens as CUDA graphs.

    A graph holds what ``before_gate`` and ``choose`` launch for a layer; another one its shared experts. They read
    tensors that stay where they are: ``after_experts`` writes its sum straight into the next graph's input. Shapes in
    a graph are fixed, so attention reads one of the decoder's ``buckets`` with a mask, as `Decoder` does by itself:
    results are the same. Prefills, and steps other than one token of each of the slots 0 to ``tokens - 1`` in this
    order, run as in `Decoder`.

    What a call returns is overwritten by a later one: ``GateInput`` and the choice by the next ``before_gate``, the sum
    of ``after_experts`` (but the last layer's) by the next ``after_experts``. Read it on the stream that computes, or
    have that stream wait.

    Attributes:
        decoder: the decoder that it runs; its caches and slots are shared.
        tokens: tokens of a step that runs as graphs.
        graph_calls: calls of ``before_gate`` that ran as a graph.
        eager_calls: calls of ``before_gate`` that did not.
    """

    @torch.inference_mode(False)  # as `Decoder`
    def __init__(self, decoder: Decoder, *, tokens: int, capture: Capture | None = None) -> None:
        """Make no graph yet (``prepare``, or each at its first use).

        Args:
            decoder: on a GPU.
            tokens: of a step that runs as graphs; at most the decoder's slots.
            capture: how to record work; ``None``: as CUDA graphs.

        Raises:
            ForestageError: if the decoder is on the CPU, or has fewer slots than ``tokens``.
        """
        if not 1 <= tokens <= decoder.slots:
            raise ForestageError(f"tokens: {tokens} in a step; the decoder has {decoder.slots} slots, give 1 to that")
        self._capture = CudaCapture(decoder.device) if capture is None else capture
        self.decoder, self.tokens = decoder, tokens
        self.shape, self.buckets, self.caches = decoder.shape, decoder.buckets, decoder.caches
        self.layers, self.hidden = decoder.layers, decoder.hidden
        self.experts, self.top_k = decoder.experts, decoder.top_k
        self.dtype, self.device = decoder.dtype, decoder.device
        self.slots, self.max_context = decoder.slots, decoder.max_context
        self.graph_calls = self.eager_calls = 0
        self._input = torch.zeros((tokens, self.hidden), device=self.device, dtype=self.dtype)
        self._step = self._static_step()
        self._loaded: Step | None = None
        self._gates: dict[_Key, Captured] = {}
        self._shared: dict[_Key, Captured] = {}
        self._last: _Key | None = None

    @property
    def fixed_bytes(self) -> int:
        """Bytes of weights, tables and the graphs' inputs (the graphs' own memory is not counted)."""
        step = self._step
        inputs = (self._input, step.slot_rows, step.rotary, step.empty, *step.rows.values())
        return self.decoder.fixed_bytes + sum(tensor.nbytes for tensor in inputs)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key-value caches."""
        return self.decoder.cache_bytes

    def prepare(self, context: int | None = None) -> int:
        """Capture every graph that contexts up to ``context`` (``None``: ``max_context``) need; return their number.

        Without it a graph is captured when first needed, and that step takes longer. Sequences under way are not
        disturbed: what captures write lies where the next token of each slot will be.
        """
        context = self.max_context if context is None else min(context, self.max_context)
        slots = range(self.tokens)
        nexts = [min(self.caches[0].lengths[slot], self.max_context - 1) for slot in slots]
        tokens = Tokens.of(nexts, slots, max_context=self.max_context, of=self.slots)
        needed = [bucket for bucket in self.buckets if bucket < context]
        needed.append(next(bucket for bucket in self.buckets if bucket >= context))
        self._load(self.decoder.make_step(tokens, bucket=self.max_context))
        self._loaded = None
        for layer in range(self.layers):
            for bucket in needed:
                self._graph(layer, bucket)
        return len(self._gates) + len(self._shared)

    def reset(self, slot: int, *, context: int = 0) -> None:
        """As `Decoder.reset`."""
        self.decoder.reset(slot, context=context)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """As `Decoder.embed`."""
        return self.decoder.embed(token_ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """As `Decoder.logits`."""
        return self.decoder.logits(hidden)

    def before_gate(self, layer: int, hidden: torch.Tensor, positions: Integers, slots: Integers) -> GateInput:
        """As `Decoder.before_gate`; the result is valid until the next call."""
        step = self.decoder.step(positions, slots)
        self.decoder.admit(layer, step)
        self._last = None
        if step.prefill or step.slots != tuple(range(self.tokens)):
            self.eager_calls += 1
            return self.decoder.run(layer, hidden, step)
        self.graph_calls += 1
        if self._loaded is not step:
            self._load(step)
        if hidden is not self._input:
            self._input.copy_(hidden)
        key, captured = self._graph(layer, step.bucket)
        captured.replay()
        self._last = key
        return GateInput(*captured.outputs[:3])

    def route(self, layer: int, normed: torch.Tensor) -> torch.Tensor:
        """As `Decoder.route`."""
        return self.decoder.route(layer, normed)

    def choose(self, layer: int, router_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Decoder.choose`: the graph has chosen, if these are the logits that it has just computed."""
        last = self._last
        if last is not None and last.layer == layer and router_logits is self._gates[last].outputs[2]:
            ids, weights = self._gates[last].outputs[3:]
            return ids, weights
        return self.decoder.choose(layer, router_logits)

    def shared(self, layer: int, normed: torch.Tensor) -> torch.Tensor | None:
        """As `Decoder.shared`; a graph, if ``normed`` is what the layer's graph has just computed."""
        last = self._last
        if last is None or last.layer != layer or normed is not self._gates[last].outputs[1]:
            return self.decoder.shared(layer, normed)
        captured = self._shared.get(last)
        if captured is None:
            return None
        captured.replay()
        return captured.outputs[0]

    def after_experts(
        self, layer: int, residual: torch.Tensor, moe: torch.Tensor, shared: torch.Tensor | None
    ) -> torch.Tensor:
        """As `Decoder.after_experts`; but for the last layer, the sum is valid until the next call."""
        if self._last is None or layer == self.layers - 1:
            return self.decoder.after_experts(layer, residual, moe, shared)
        moe = moe.to(self.dtype)
        return torch.add(residual, moe if shared is None else moe + shared, out=self._input)

    def _static_step(self) -> Step:
        """A step whose tensors stay where they are, for the longest context."""
        tokens = Tokens.of([0] * self.tokens, range(self.tokens), max_context=self.max_context, of=self.slots)
        return self.decoder.make_step(tokens, bucket=self.max_context)

    def _load(self, step: Step) -> None:
        """Copy ``step`` to where the graphs read it."""
        static = self._step
        static.rotary.copy_(step.rotary)
        static.empty[:, : step.bucket].copy_(step.empty)
        for capacity, rows in step.rows.items():
            static.rows[capacity].copy_(rows)
        self._loaded = step

    def _graph(self, layer: int, bucket: int) -> tuple[_Key, Captured]:
        """The graph of ``layer`` for steps that read ``bucket`` rows."""
        rows = tuple(min(self.caches[block].capacity, bucket) for block in self.decoder.blocks_of(layer))
        key = _Key(layer, rows)
        if key not in self._gates:
            self._gates[key] = self._captured(layer, bucket)
            normed = self._gates[key].outputs[1]
            if self.decoder.has_shared(layer):
                self._shared[key] = self._capture(lambda: [_some(self.decoder.shared(layer, normed))])
        return key, self._gates[key]

    def _captured(self, layer: int, bucket: int) -> Captured:
        step = replace(self._step, bucket=bucket, empty=self._step.empty[:, :bucket])

        def run() -> list[torch.Tensor]:
            gate = self.decoder.run(layer, self._input, step)
            ids, weights = self.decoder.choose(layer, gate.router_logits)
            return [gate.residual, gate.normed, gate.router_logits, ids, weights]

        return self._capture(run)


def _some(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor
