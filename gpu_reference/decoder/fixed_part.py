"""What one layer computes between the experts of the layer before and its own, to measure how long it takes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from catalog.errors import ForestageError
from gpu_reference.decoder.decoder import Decoder, GateInput
from gpu_reference.decoder.graphs import GraphedDecoder


def fixed_part(decoder: Decoder | GraphedDecoder, layer: int, context: int, batch: int) -> Callable[[], GateInput]:
    """A function that runs the fixed part of ``layer`` for one token each of ``batch`` sequences.

    It runs exactly what a decode step does from the sum of the experts of the layer before (``after_experts``; for the
    first layer: from the embedding) to the layer's own choice of experts, dense layers between them included and
    shared experts not. Each sequence is ``context`` tokens long, the new one included; its cache is filled with random
    keys and values. The function may be called any number of times, and always computes the same.

    It overwrites the caches of the layer in slots 0 to ``batch - 1``: reset these before they are used otherwise.

    Raises:
        ForestageError: if the decoder has no such layer, slots or context, or its graphs are for another batch.
    """
    if not 0 <= layer < decoder.layers:
        raise ForestageError(f"layer {layer}: the decoder has layers 0 to {decoder.layers - 1}")
    if not 1 <= context <= decoder.max_context:
        raise ForestageError(f"context {context}: give 1 to {decoder.max_context} (max_context)")
    if not 1 <= batch <= decoder.slots:
        raise ForestageError(f"batch {batch}: the decoder has {decoder.slots} slots; give 1 to that")
    if isinstance(decoder, GraphedDecoder) and batch != decoder.tokens:
        raise ForestageError(f"batch {batch}: the graphs are for {decoder.tokens}; give that, or make others")
    base = decoder.decoder if isinstance(decoder, GraphedDecoder) else decoder
    generator = torch.Generator(base.device).manual_seed(layer)
    caches = [base.caches[block] for block in base.blocks_of(layer)]
    for cache in caches:
        for slot in range(batch):
            cache.fill(slot, context - 1, generator)

    def activation() -> torch.Tensor:
        empty = torch.empty((batch, base.hidden), device=base.device, dtype=base.dtype)
        return empty.normal_(generator=generator)

    residual, moe = activation(), activation()
    shared = activation() if layer and base.has_shared(layer - 1) else None
    token_ids = torch.zeros(batch, device=base.device, dtype=torch.int64)
    positions, slots = [context - 1] * batch, list(range(batch))

    def run() -> GateInput:
        for cache in caches:
            cache.lengths[:batch] = positions
        hidden = decoder.after_experts(layer - 1, residual, moe, shared) if layer else decoder.embed(token_ids)
        gate = decoder.before_gate(layer, hidden, positions, slots)
        decoder.choose(layer, gate.router_logits)
        return gate

    return run
