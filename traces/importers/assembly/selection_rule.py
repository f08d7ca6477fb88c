"""What a router makes of its logits: which experts it chooses, and what their weights are.

A router scores the experts (the logits themselves, their softmax or sigmoid), may add a bias that counts for the choice
alone, may bar all but the best groups of experts, and takes the k largest of what is left. The weights follow from the
scores without the bias. One rule says all of it; ``selection_table`` has those of the models that are known.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from catalog.config import StrictModel
from traces.metadata import GateWeightKind

Score = Literal["logits", "softmax", "sigmoid"]
Floats = npt.NDArray[np.float32]

ROUNDINGS = 4
"""Scores closer than so many roundings of their type may stand the other way round in the model's own arithmetic."""

SPARSE_MIXER_MARGIN = 2 * 0.01
"""Twice ``router_jitter_noise`` of the published PhiMoE models: what lies further below the best is left out."""

MANTISSA_BITS = {"float32": 23, "float16": 10, "bfloat16": 7}
"""Of a type of numbers, without the hidden one."""


class SelectionRule(StrictModel):
    """How experts are chosen and weighed.

    Attributes:
        score: what the choice is the k largest of.
        bias: a bias is added to the scores for the choice alone.
        groups, top_groups: experts stand in so many groups of one size, one after another, and are chosen within so
            many of them.
        group_score: what groups are compared by: their ``best`` expert (DeepSeek-V2), or the sum of their
            ``best_two`` (DeepSeek-V3).
        weight: what the gate weights are made of: ``softmax`` over all experts, ``sigmoid``, PhiMoE's
            ``sparse_mixer``; ``None`` where they do not follow from the logits.
        normalised: the chosen experts' weights are divided by their sum.
        coarse: scores are rounded to the type of the logits, as the model keeps them in it; else float32.
        coarse_bias: and so is the bias.
    """

    score: Score
    bias: bool = False
    groups: int = Field(default=1, ge=1)
    top_groups: int = Field(default=1, ge=1)
    group_score: Literal["best", "best_two"] = "best_two"
    weight: Literal["softmax", "sigmoid", "sparse_mixer"] | None = None
    normalised: bool = False
    coarse: bool = False
    coarse_bias: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "SelectionRule":
        if self.top_groups > self.groups:
            raise ValueError(f"top_groups ({self.top_groups}) exceeds groups ({self.groups})")
        if self.normalised and self.weight not in ("softmax", "sigmoid"):
            raise ValueError(f"weights of kind {self.weight} are not normalised")
        return self

    @property
    def limits_groups(self) -> bool:
        """Whether some groups are barred."""
        return self.top_groups < self.groups

    @property
    def gate_weight_kind(self) -> GateWeightKind:
        """What a trace's metadata call the weights."""
        if self.weight is None:
            return "none"
        if self.normalised:
            return "normalised"
        return "unknown" if self.weight == "sparse_mixer" else self.weight

    def fault(self, experts: int, top_k: int) -> str | None:
        """Why the rule cannot hold of a layer of so many experts, if it cannot."""
        if top_k > experts:
            return f"top-{top_k} of {experts} experts"
        if experts % self.groups:
            return f"{experts} experts do not stand in {self.groups} groups of one size"
        size = experts // self.groups
        if self.limits_groups and self.group_score == "best_two" and size < 2:
            return f"{self.groups} groups of {experts} experts have one each, and are compared by their best two"
        if top_k > self.top_groups * size:
            return f"top-{top_k} of {self.top_groups} groups of {size} experts"
        if self.weight == "sparse_mixer" and top_k != 2:
            return f"top-{top_k}, but the sparse mixer chooses two"
        return None


@dataclass(frozen=True, eq=False)
class Selection:
    """What a rule makes of some rows.

    Attributes:
        ids: ``[rows, top_k]``, the heaviest weight first (the best score, where there are no weights).
        weights: ``[rows, top_k]``, or ``None``.
        open: ``[rows]``, where the last that was chosen, expert or group, is as good as the first that was not.
        below_zero: ``[rows]``, where groups are barred and a chosen score is negative: modelling code that gives barred
            experts 0 in place of −∞ (DeepSeek-V3's first) chooses otherwise.
    """

    ids: npt.NDArray[np.int32]
    weights: Floats | None
    open: npt.NDArray[np.bool_]
    below_zero: npt.NDArray[np.bool_]


def select_experts(
    rule: SelectionRule,
    values: Floats,
    top_k: int,
    bias: Floats | None = None,
    *,
    values_are: Score = "logits",
    kept_as: str = "float32",
) -> Selection:
    """The experts that ``rule`` chooses in each row; of equals, the one with the smaller id.

    Args:
        rule: must have no ``fault`` for these experts and ``top_k``.
        values: finite ``[rows, experts]``.
        top_k: experts a row.
        bias: ``[experts]``, where the rule has one.
        values_are: what ``values`` are: logits, or scores already. Of scores, the rule must have the same.
        kept_as: the type that the model keeps its logits in, for what is ``coarse``.
    """
    if values_are not in ("logits", rule.score):
        raise ValueError(f"the {rule.score} does not follow from the {values_are}")
    scores = values if values_are == rule.score else score_experts(rule.score, values)
    if rule.coarse:
        scores = round_to(scores, kept_as)
    if bias is not None and rule.coarse_bias:
        bias = round_to(bias, kept_as)
    choice = scores if bias is None else scores + bias[None, :]
    open_rows = np.zeros(len(values), np.bool_)
    if rule.limits_groups:
        choice, open_rows = _bar_groups(rule, choice)
    # Softmax and sigmoid may run together at their ends where the logits do not.
    ranked_by = values if bias is None and not rule.limits_groups else choice
    order = np.argsort(-ranked_by, axis=1, kind="stable")
    edge = np.take_along_axis(choice, order[:, top_k - 1 : top_k + 1], axis=1)
    if edge.shape[1] == 2:
        open_rows |= _as_good(edge[:, 0], edge[:, 1], exact=rule.score == "logits" and bias is None)
    ids = order[:, :top_k]
    weights = _weights(rule, values, values_are, scores, ids)
    if weights is not None:
        heaviest = np.argsort(-weights, axis=1, kind="stable")
        ids, weights = np.take_along_axis(ids, heaviest, axis=1), np.take_along_axis(weights, heaviest, axis=1)
    below_zero = np.zeros(len(values), np.bool_) if not rule.limits_groups else edge[:, 0] < 0
    return Selection(ids.astype(np.int32), weights, open_rows, below_zero)


def score_experts(score: Score, logits: Floats) -> Floats:
    """Scores of logits ``[rows, experts]``, in float32 as the routers compute them."""
    if score == "logits":
        return logits
    if score == "softmax":
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)
    small = np.exp(-np.abs(logits))  # never overflows
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), dtype=np.float32)


def weigh_experts(rule: SelectionRule, values: Floats, values_are: Score, ids: npt.NDArray[Any]) -> Floats | None:
    """The weights ``[rows, top_k]`` of experts that are known to be chosen; as ``select_experts`` has them."""
    if rule.weight is None:
        return None
    scores = values if values_are != "logits" or rule.score == "logits" else score_experts(rule.score, values)
    return _weights(rule, values, values_are, scores, ids)


def round_to(values: Floats, type_name: str) -> Floats:
    """``values`` rounded, ties to even, to a type of ``MANTISSA_BITS``."""
    if type_name == "float32":
        return values
    if type_name == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF_0000)).view(np.float32)


def kept_as(values: npt.NDArray[Any]) -> str:
    """The type that logits were kept in: bfloat16 where float32 numbers all end in its zeros."""
    if values.dtype == np.float16:
        return "float16"
    low = np.ascontiguousarray(values.astype(np.float32)).view(np.uint32) & np.uint32(0xFFFF)
    return "bfloat16" if not low.any() else "float32"


def _bar_groups(rule: SelectionRule, choice: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """``choice`` with −∞ outside the best groups, and where the last of them is as good as the next."""
    rows, experts = choice.shape
    grouped = np.sort(choice.reshape(rows, rule.groups, experts // rule.groups), axis=2)
    value = grouped[:, :, -1] if rule.group_score == "best" else grouped[:, :, -1] + grouped[:, :, -2]
    order = np.argsort(-value, axis=1, kind="stable")
    edge = np.take_along_axis(value, order[:, rule.top_groups - 1 : rule.top_groups + 1], axis=1)
    allowed = np.zeros((rows, rule.groups), np.bool_)
    np.put_along_axis(allowed, order[:, : rule.top_groups], True, axis=1)
    barred = np.where(np.repeat(allowed, experts // rule.groups, axis=1), choice, np.float32(-np.inf))
    return barred, _as_good(edge[:, 0], edge[:, 1], exact=False)


def _as_good(better: Floats, other: Floats, *, exact: bool) -> npt.NDArray[np.bool_]:
    """Where ``other`` is not surely less than ``better``."""
    if exact:
        return better == other
    return better - other <= ROUNDINGS * np.finfo(np.float32).eps * np.abs(better)


def _weights(
    rule: SelectionRule, values: Floats, values_are: Score, scores: Floats, ids: npt.NDArray[Any]
) -> Floats | None:
    """The chosen experts' weights ``[rows, top_k]``."""
    if rule.weight is None:
        return None
    if rule.weight == "sparse_mixer":
        return _sparse_mixer(values, ids)
    if rule.weight in (values_are, rule.score):
        base = values if rule.weight == values_are else scores
    elif values_are == "logits":
        base = score_experts(rule.weight, values)
    else:
        raise ValueError(f"weights of {rule.weight} do not follow from the {values_are}")
    chosen = np.take_along_axis(base, ids, axis=1)
    if not rule.normalised:
        return chosen
    total = chosen.sum(axis=1, keepdims=True)
    # Where every chosen score underflows, the models divide by a floor, or by nothing.
    return np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)


def _sparse_mixer(logits: Floats, ids: npt.NDArray[Any]) -> Floats:
    """PhiMoE's weights of its two experts: each one's softmax over those not far below it, the first left out of the
    second's. Source: ``sparsemixer`` of transformers' ``modeling_phimoe.py`` in evaluation.
    """
    weights = np.zeros(ids.shape, np.float32)
    left = logits.astype(np.float32)
    for rank in range(2):
        best = np.take_along_axis(left, ids[:, rank : rank + 1], axis=1)
        with np.errstate(invalid="ignore"):  # 0 / 0 where all logits are 0: not far below
            far = (best - left) / np.maximum(np.abs(logits), best) > SPARSE_MIXER_MARGIN
        exponentials = np.where(far, np.float32(0), np.exp(left - best))
        weights[:, rank] = 1 / exponentials.sum(axis=1)
        np.put_along_axis(left := left.copy(), ids[:, rank : rank + 1], np.float32(-np.inf), axis=1)
    return weights
