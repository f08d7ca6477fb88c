"""Run a gate early: a layer's router on the hidden state of an earlier layer.

Published systems call this a stale gate, a speculative or a pre-gated load (Eliseev and Mazur, arXiv:2312.17238;
AdapMoE, arXiv:2408.10284; Fate, arXiv:2502.12224). The hidden state changes slowly from layer to layer, so that the
router of layer ``l + d``, given the input of the router of layer ``l``, ranks the experts that it will choose.

The input is the earlier router's *unchanged*: in most models the residual stream after that layer's attention,
normalised by **that** layer's norm, not by the target's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from catalog.errors import SettingError
from gpu_reference.routers.adapter import RouterOutput

NONE = 0xFFFF
"""Filler where nothing is predicted: in layers below the lookahead, and for experts that the rule bars."""


class EarlyGates:
    """Runs each layer's router on earlier layers' inputs during a pass, and keeps the rankings.

    Distances count recorded layers, as lookahead always does: dense layers do not count.

    Args:
        lookaheads: each ≥ 1.
        width: experts ranked per token, layer and lookahead; ``None``: four times the ``top_k``.
    """

    def __init__(self, lookaheads: tuple[int, ...], width: int | None = None) -> None:
        self.lookaheads = lookaheads
        self._width = width
        self._entered: list[Any] = []
        self._ranked: dict[int, list[np.ndarray]] = {lookahead: [] for lookahead in lookaheads}

    def layer(self, router: Any, adapter: Any, call: RouterOutput, top_k: int) -> None:
        """Take the next layer's call: run its router on the inputs of the routers before it.

        Raises:
            SettingError: if ``width`` is more than the layer's experts.
        """
        import torch

        hidden, *rest = call.inputs
        experts = call.logits.shape[-1]
        if self._width is not None and self._width > experts:
            raise SettingError("early_gate_width", f"choose 1 to {experts}, the experts of a layer", value=self._width)
        width = self._width or min(experts, 4 * top_k)
        for lookahead in self.lookaheads:
            if lookahead > len(self._entered):
                ranked = np.full((len(call.ids), width), NONE, np.uint16)
            else:
                inputs = (self._entered[-lookahead], *rest)
                with torch.no_grad():
                    early = adapter.read(router, inputs, router(*inputs))
                ranked = _rank(adapter, router, early, width)
            self._ranked[lookahead].append(ranked)
        self._entered = [*self._entered, hidden.detach().clone()][-max(self.lookaheads) :]

    def take(self) -> dict[int, np.ndarray]:
        """Return and forget the rankings of one pass: lookahead → u16 ``[tokens, layers, width]``."""
        ranked = {lookahead: np.stack(parts, axis=1) for lookahead, parts in self._ranked.items()}
        for parts in self._ranked.values():
            parts.clear()
        self._entered = []
        return ranked


def _rank(adapter: Any, router: Any, call: RouterOutput, width: int) -> np.ndarray:
    """The best ``width`` experts of each token by the router's own selection rule, best first."""
    chosen = np.zeros(tuple(call.logits.shape), np.bool_)
    scores = adapter.select(router, call, chosen)
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :width]
    barred = ~np.isfinite(np.take_along_axis(scores, best, axis=-1))
    return np.where(barred, NONE, best).astype(np.uint16)
