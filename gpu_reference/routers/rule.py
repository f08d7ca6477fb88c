"""The rule of most routers: score every expert, add a bias (for the choice only), take the best, weigh them."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpu_reference.routers.adapter import RouterOutput, chosen_by_experts, sigmoid, softmax, three_tensors

if TYPE_CHECKING:
    from traces import GateWeightKind

Score = Literal["logits", "softmax", "sigmoid", "sqrt_softplus"]

RELATIVE_TIE = 1e-5
"""Scores whose difference, relative to their summands, is smaller tie: single precision may order them either way."""

UNDERFLOW = 1e-37
"""Scores below this tie: single precision's smallest normal number (1.2e-38), with some room."""


@dataclass(frozen=True)
class TopKRule:
    """The ``top_k`` largest of ``score(logits) + bias`` are chosen; ``score(logits)`` are their weights.

    Attributes are named by paths from the router, such as ``moe_statics.bias``; they are read at each call.

    Attributes:
        score: function from logits to scores, of each expert alone or (softmax) over all.
        normalised: whether weights are divided by their sum, or the name of the attribute that says so.
        over_chosen: whether weights are the softmax over the chosen experts' logits instead of their scores.
        bias: attribute that is added to the scores for the choice only; or the index of that tensor among the
            arguments of the router's call.
        bias_if: attribute that says whether there is a bias.
        groups: choose experts only in the ``topk_group`` (of ``num_group``) groups with the largest maximum, or with
            the largest sum of their best two.
        groups_if: attribute, and its value when groups are used.
        scale_by: attribute by which all weights are multiplied.
        added: number added to the sum by which weights are divided.
        least: attribute with the smallest value allowed for this sum.
        in_logits_type: whether the router computes scores in the type of its logits, half precision included.
    """

    score: Score = "softmax"
    normalised: bool | str = False
    over_chosen: bool = False
    bias: str | int | None = None
    bias_if: str | None = None
    groups: Literal["maximum", "best two"] | None = None
    groups_if: tuple[str, str] | None = None
    scale_by: str | None = None
    added: float = 0.0
    least: str | None = None
    in_logits_type: bool = False

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """``normalised`` if weights sum to 1, else the score's name if the trace format has it, else ``unknown``."""
        if self.over_chosen or self._divides(router):
            return "normalised"
        return self.score if self.score in ("softmax", "sigmoid") else "unknown"

    def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
        """The three tensors that `transformers` routers return."""
        logits, weights, ids = three_tensors(router, output)
        return RouterOutput(logits, ids, weights, inputs)

    def select(self, router: Any, call: RouterOutput, chosen: np.ndarray) -> np.ndarray:
        """Scores plus bias; −∞ outside the best groups."""
        scores = self._scores(call.logits_f64())
        bias = self._bias(router, call)
        scores = scores if bias is None else scores + bias
        if self.groups is None or (self.groups_if and attrgetter(self.groups_if[0])(router) != self.groups_if[1]):
            return scores
        grouped = np.sort(scores.reshape(len(scores), router.num_group, -1), axis=-1)
        best = grouped[..., -1:] if self.groups == "maximum" else grouped[..., -2:]
        margin = best.shape[-1] * self.margin(router, call).max(axis=-1, keepdims=True)
        return bar_groups(scores, best.sum(axis=-1), router.topk_group, chosen, margin)

    def margin(self, router: Any, call: RouterOutput) -> np.ndarray:
        """How much rounding may change a score: a share of each summand; 0 for a logit."""
        import torch

        if self.score == "logits" and self.bias is None:
            return np.zeros(tuple(call.logits.shape))
        scores = np.abs(self._scores(call.logits_f64()))
        bias = self._bias(router, call)
        relative = max(RELATIVE_TIE, float(torch.finfo(call.logits.dtype).eps) if self.in_logits_type else 0.0)
        return relative * (scores if bias is None else scores + np.abs(bias)) + UNDERFLOW

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """Scores of the chosen experts (or the softmax over them), divided and scaled as the router does."""
        logits = call.logits_f64()
        if self.over_chosen:
            weights = softmax(np.take_along_axis(logits, ids, axis=-1))
        else:
            weights = np.take_along_axis(self._scores(logits), ids, axis=-1)
        if self._divides(router):
            total = weights.sum(axis=-1, keepdims=True) + self.added
            weights = weights / (total if self.least is None else np.maximum(total, attrgetter(self.least)(router)))
        return weights * np.asarray(self.scale(router))

    def scale(self, router: Any) -> float:
        """The value of the attribute ``scale_by``; 1 without one."""
        return 1.0 if self.scale_by is None else float(attrgetter(self.scale_by)(router))

    def agrees(self, call: RouterOutput, received: tuple[Any, ...]) -> bool | None:
        """Whether the experts were called with the ids and the weights that the router returned."""
        import torch

        told = chosen_by_experts(received)
        if told is None:
            return None
        ids, weights = told
        return torch.equal(ids, call.ids) and torch.equal(weights, call.weights.to(weights.dtype))

    def _divides(self, router: Any) -> bool:
        return self.normalised if isinstance(self.normalised, bool) else bool(attrgetter(self.normalised)(router))

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        if self.score == "softmax":
            return softmax(logits)
        if self.score == "sigmoid":
            return sigmoid(logits)
        return np.sqrt(np.logaddexp(0.0, logits)) if self.score == "sqrt_softplus" else logits

    def _bias(self, router: Any, call: RouterOutput) -> np.ndarray | None:
        if self.bias is None or (self.bias_if is not None and not attrgetter(self.bias_if)(router)):
            return None
        bias = call.inputs[self.bias] if isinstance(self.bias, int) else attrgetter(self.bias)(router)
        values: np.ndarray = bias.detach().double().cpu().numpy().reshape(-1)
        return values


def bar_groups(
    scores: np.ndarray, group_scores: np.ndarray, kept: int, chosen: np.ndarray, margin: np.ndarray
) -> np.ndarray:
    """``scores`` with −∞ for experts outside the ``kept`` groups with the largest ``group_scores [tokens, groups]``.

    Limited precision may put groups within ``margin [tokens, 1]`` of the border on either side. Of these, the groups
    from which the router chose are kept first, then those that would change its choice least.
    """
    tokens, groups = group_scores.shape
    by_group = (tokens, groups, scores.shape[1] // groups)
    ranked = -np.sort(-group_scores, axis=-1)
    last_open = ranked[:, kept - 1, None]
    first_closed = ranked[:, kept, None] if kept < groups else np.full((tokens, 1), -np.inf)
    certain = group_scores > first_closed + margin
    at_border = ~certain & (group_scores >= last_open - margin)
    used = chosen.reshape(by_group).any(axis=-1)
    standing = 3 * certain + at_border * np.where(used, 2, 1)
    tempting = np.where(at_border, scores.reshape(by_group).max(axis=-1), -group_scores)
    best = np.lexsort((tempting, -standing), axis=-1)[:, :kept]
    open_ = np.zeros((tokens, groups), np.bool_)
    np.put_along_axis(open_, best, True, axis=-1)
    return np.where(np.repeat(open_, by_group[2], axis=-1), scores, -np.inf)
