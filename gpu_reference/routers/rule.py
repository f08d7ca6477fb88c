"""The rule that most routers follow: score every expert, add a bias for the choice alone, take the best, weigh them."""

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
"""Two scores closer than this (relative to what they are summed of) tie: single precision may order them either way."""

UNDERFLOW = 1e-37
"""Scores below single precision's smallest normal number (1.2e-38) tie, with some room."""


@dataclass(frozen=True)
class TopKRule:
    """The best ``top_k`` of ``score(logits) + bias``, weighed by ``score(logits)``.

    Names of attributes are paths from the router, such as ``moe_statics.bias``; all are read at each call.

    Attributes:
        score: of an expert, by itself or (softmax) among all.
        normalised: weights are divided by their sum; or the name of the attribute that says whether they are.
        over_chosen: weights are the softmax over the chosen experts' logits instead of their scores.
        bias: attribute that is added to the scores for the choice alone; or the place of that tensor among the
            arguments of the router's call.
        bias_if: attribute that says whether there is a bias.
        groups: experts are chosen within the ``topk_group`` of ``num_group`` groups with the largest maximum, or the
            largest sum of the best two.
        groups_if: attribute and the value it has where groups count.
        scale: attribute that all weights are multiplied by.
        added: what is added to the sum that weights are divided by.
        least: attribute that this sum is raised to where it is smaller.
        in_logits_type: the router computes scores in the type of its logits, half precision included.
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
        """``normalised`` where weights sum to 1, else the score's name where the trace format has it."""
        if self.over_chosen or self._divides(router):
            return "normalised"
        return self.score if self.score in ("softmax", "sigmoid") else "unknown"

    def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
        """The three tensors that `transformers` routers return."""
        logits, weights, ids = three_tensors(router, output)
        return RouterOutput(logits, ids, weights, inputs)

    def select(self, router: Any, call: RouterOutput, chosen: np.ndarray) -> np.ndarray:
        """Scores plus bias, barred outside the best groups."""
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
        """What rounding may change of a score: a share of each of its summands; nothing of a logit."""
        import torch

        if self.score == "logits" and self.bias is None:
            return np.zeros(tuple(call.logits.shape))
        scores = np.abs(self._scores(call.logits_f64()))
        bias = self._bias(router, call)
        relative = max(RELATIVE_TIE, float(torch.finfo(call.logits.dtype).eps) if self.in_logits_type else 0.0)
        return relative * (scores if bias is None else scores + np.abs(bias)) + UNDERFLOW

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """Scores of the chosen (or the softmax over them), divided and scaled as the router does."""
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
        """The attribute ``scale_by``."""
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
    """``scores`` with −∞ for experts outside the ``kept`` groups of the largest ``group_scores [tokens, groups]``.

    Groups that lie within ``margin [tokens, 1]`` of the border may be open or closed, for want of precision: of these,
    the ones that the router chose from come first, then those that would change its choice least.
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
