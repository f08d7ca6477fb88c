"""What the recorder must know about an architecture's router."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from catalog.errors import ForestageError

if TYPE_CHECKING:
    import torch

    from traces import GateWeightKind


@dataclass(frozen=True)
class RouterOutput:
    """One call of one router.

    Attributes:
        logits: ``[tokens, experts]``, in the type in which the router computed them.
        ids: ``[tokens, top_k]``, in the router's own order.
        weights: ``[tokens, top_k]``, in the order of the ids.
        inputs: positional arguments of the call; a model may pass a selection bias or token ids to its router.
    """

    logits: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    inputs: tuple[Any, ...] = ()

    def logits_f64(self) -> np.ndarray:
        """The logits in double precision."""
        values: np.ndarray = self.logits.detach().double().cpu().numpy()
        return values


@dataclass(frozen=True)
class LayerRouting:
    """Checked routing of one layer: ``ids`` i64 and ``weights`` f32, both ``[tokens, top_k]``, heaviest expert first.

    For a whole pass both are ``[tokens, layers, top_k]``; then ``early`` holds the rankings of early gates: lookahead →
    u16 ``[tokens, layers, width]`` (see `early_gate`).
    """

    ids: np.ndarray
    weights: np.ndarray
    early: dict[int, np.ndarray] = field(default_factory=dict)


class RouterAdapter(Protocol):
    """How an architecture's router chooses and weighs experts, recomputed in NumPy from its logits.

    `rule.TopKRule` serves most architectures; your own adapter may derive from it.
    """

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """Return the kind of ``router``'s recorded weights."""

    def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
        """Return the choice of a forward call of ``router`` with arguments ``inputs`` and result ``output``."""

    def select(self, router: Any, call: RouterOutput, chosen: np.ndarray) -> np.ndarray:
        """Return selection scores f64 ``[tokens, experts]``, −∞ for barred experts; the largest are chosen.

        ``chosen`` (bool ``[tokens, experts]``) is the router's choice; use it only to decide between groups of experts
        that tie (see ``margin``).
        """

    def margin(self, router: Any, call: RouterOutput) -> np.ndarray:
        """Return the largest difference at which scores tie, given the precision: f64 ``[tokens, experts]``."""

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """Return the gate weights ``[tokens, top_k]`` that the router gives to the experts ``ids``."""

    def scale(self, router: Any) -> float | np.ndarray:
        """Return the constants (one, or one per expert) by which the model multiplies its weights.

        The recorded weights are without them.
        """

    def agrees(self, call: RouterOutput, received: tuple[Any, ...]) -> bool | None:
        """Return whether this choice is among the tensors ``received``, with which the layer's experts were called.

        ``None`` if they are called without any choice.
        """


def three_tensors(router: Any, output: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (logits, weights, ids), as the routers of `transformers` ≥ 5.20 return them.

    Raises:
        ForestageError: if ``output`` is something else.
    """
    if not isinstance(output, tuple) or len(output) != 3:
        raise ForestageError(f"{type(router).__name__}: returned no (logits, weights, ids); register another adapter")
    return output


def chosen_by_experts(received: tuple[Any, ...]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return (ids, weights) from the tensors with which a layer's experts were called, found by type and shape.

    ``None`` unless exactly one integer matrix and one floating-point matrix of its shape are among them.
    """
    import torch

    matrices = [value for value in received if isinstance(value, torch.Tensor) and value.dim() == 2]
    whole = [value for value in matrices if not value.is_floating_point() and value.dtype != torch.bool]
    weights = [value for value in matrices if value.is_floating_point() and whole and value.shape == whole[0].shape]
    return (whole[0], weights[0]) if len(whole) == len(weights) == 1 else None


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in double precision."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function, in double precision."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
