"""What has to be known of an architecture's router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from catalog.errors import ForestageError

if TYPE_CHECKING:
    import torch

    from traces import GateWeightKind


@dataclass(frozen=True)
class RouterOutput:
    """One call of one router: ``logits [tokens, experts]``; ``ids`` and ``weights [tokens, top_k]`` in its order."""

    logits: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class LayerRouting:
    """Checked routing: ``ids`` i64 and ``weights`` f32, both ``[tokens, top_k]``, heaviest expert first."""

    ids: np.ndarray
    weights: np.ndarray


class RouterAdapter(Protocol):
    """How an architecture's router chooses and weighs, said again in NumPy from its logits alone."""

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """Return what the recorded weights of ``router`` are."""

    def read(self, router: Any, output: Any) -> RouterOutput:
        """Return what a forward call of ``router`` chose, from its ``output``."""

    def select(self, router: Any, logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return selection scores ``[tokens, experts]`` (f64), −∞ where barred; the largest are chosen.

        ``chosen`` (bool ``[tokens, experts]``) says what the router chose; it may only decide between groups of experts
        that tie (see ``tie_margin``).
        """

    def weigh(self, router: Any, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Return the gate weights ``[tokens, top_k]`` that the router gives to the experts ``ids``."""

    def scale(self, router: Any) -> float:
        """Return the constant that the router multiplies its weights by; what is recorded is without it."""


def read_transformers_output(router: Any, output: Any) -> RouterOutput:
    """Return (logits, weights, ids), as the routers of `transformers` ≥ 5.20 return them.

    Raises:
        ForestageError: if ``output`` is something else.
    """
    if not isinstance(output, tuple) or len(output) != 3:
        raise ForestageError(f"{type(router).__name__}: returned no (logits, weights, ids); register another adapter")
    logits, weights, ids = output
    return RouterOutput(logits, ids, weights)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in double precision."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


RELATIVE_TIE = 1e-5
"""Two scores closer than this (relative) are a tie: single precision may order them either way."""


def tie_margin(scores: np.ndarray) -> np.ndarray:
    """How far below ``scores`` another score still ties with it."""
    return RELATIVE_TIE * np.abs(scores)
