"""Tokens through a decoder whose experts are elsewhere."""

from __future__ import annotations

import torch

from gpu_reference.decoder.decoder import Decoder
from gpu_reference.decoder.graphs import GraphedDecoder
from gpu_reference.offload.resident import ResidentExperts
from gpu_reference.offload.runtime import ForcedRouting, OffloadedExperts

AnyDecoder = Decoder | GraphedDecoder
AnyExperts = OffloadedExperts | ResidentExperts


def through_layers(
    decoder: AnyDecoder,
    experts: AnyExperts,
    ids: torch.Tensor,
    positions: list[int],
    slots: list[int],
    *,
    forced: list[ForcedRouting] | None = None,
    speculate: bool = False,
) -> torch.Tensor:
    """The last layer's output ``[n, hidden]`` for tokens ``ids [n]`` (on the host), launched.

    Args:
        decoder, experts: the fixed parts, and the others.
        ids, positions, slots: of the tokens.
        forced: each layer's routing, in place of the router's.
        speculate: bring the next layer's choice for this layer's inputs to the host with each gate
            (`foresight.SpeculativeForesight`).
    """
    hidden = decoder.embed(ids)
    for layer in range(decoder.layers):
        gate = decoder.before_gate(layer, hidden, positions, slots)
        chosen, weights = decoder.choose(layer, gate.router_logits)
        beside = None
        if speculate and layer + 1 < decoder.layers:
            beside, _ = decoder.choose(layer + 1, decoder.route(layer + 1, gate.normed))
        shared = _Shared(decoder, layer, gate.normed)
        moe = experts.run(
            layer,
            gate.normed,
            chosen,
            weights,
            None if forced is None else forced[layer],
            meanwhile=shared,
            beside=beside,
        )
        hidden = decoder.after_experts(layer, gate.residual, moe, shared.output)
    return hidden


class _Shared:
    """Launches the shared experts when called."""

    def __init__(self, decoder: AnyDecoder, layer: int, normed: torch.Tensor) -> None:
        self._arguments = (layer, normed)
        self._decoder = decoder
        self.output: torch.Tensor | None = None

    def __call__(self) -> None:
        self.output = self._decoder.shared(*self._arguments)
