"""The routers of the supported architectures, from the modelling code of `transformers` 5.23.

| architecture | chosen by | weights |
|---|---|---|
| Qwen3-MoE, OLMoE | softmax over all | as chosen by; over their sum if ``norm_topk_prob`` |
| Mixtral | softmax over all | over their sum |
| GPT-OSS | logits (with bias) | softmax over the chosen |
| DeepSeek-V2 | softmax over all; ``group_limited_greedy``: within the groups with the largest maxima | as chosen by |
| DeepSeek-V3 | sigmoid + bias, within the groups with the largest sums of two | sigmoid; over their sum as Qwen3-MoE |

DeepSeek multiplies its weights by ``routed_scaling_factor``, a constant of the model that is not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_reference.routers.adapter import RouterOutput, read_transformers_output, softmax, tie_margin

if TYPE_CHECKING:
    from traces import GateWeightKind


class SoftmaxTopKAdapter:
    """Softmax over all experts, then the best ``top_k``.

    Args:
        normalised: whether the weights are divided by their sum; ``None``: as the router's ``norm_topk_prob`` says.
    """

    def __init__(self, normalised: bool | None = None) -> None:
        self._normalised = normalised

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """``normalised``, or raw ``softmax``."""
        return "normalised" if self._divides(router) else "softmax"

    def read(self, router: Any, output: Any) -> RouterOutput:
        """The three tensors that `transformers` routers return."""
        return read_transformers_output(router, output)

    def select(self, router: Any, logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The probabilities."""
        return softmax(logits)

    def weigh(self, router: Any, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The probabilities, over their sum where the router divides."""
        weights = np.take_along_axis(softmax(logits), ids, axis=-1)
        return weights / weights.sum(axis=-1, keepdims=True) if self._divides(router) else weights

    def scale(self, router: Any) -> float:
        """None."""
        return 1.0

    def _divides(self, router: Any) -> bool:
        return bool(router.norm_topk_prob) if self._normalised is None else self._normalised


class GptOssAdapter:
    """The best ``top_k`` logits, then a softmax over them."""

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """They sum to 1."""
        return "normalised"

    def read(self, router: Any, output: Any) -> RouterOutput:
        """The three tensors that `transformers` routers return."""
        return read_transformers_output(router, output)

    def select(self, router: Any, logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The logits."""
        return logits.astype(np.float64)

    def weigh(self, router: Any, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Softmax over the chosen."""
        return softmax(np.take_along_axis(logits, ids, axis=-1))

    def scale(self, router: Any) -> float:
        """None."""
        return 1.0


class DeepseekV2Adapter:
    """Softmax over all experts, then the best ``top_k``, of all or of the groups with the largest maxima."""

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """Raw probabilities: this router never divides."""
        return "softmax"

    def read(self, router: Any, output: Any) -> RouterOutput:
        """The three tensors that `transformers` routers return."""
        return read_transformers_output(router, output)

    def select(self, router: Any, logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The probabilities, barred outside the chosen groups."""
        scores = softmax(logits)
        if router.topk_method == "greedy":
            return scores
        grouped = scores.reshape(len(scores), router.num_group, -1)
        return _bar_groups(scores, grouped.max(axis=-1), router.topk_group, chosen)

    def weigh(self, router: Any, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The probabilities, scaled."""
        return np.take_along_axis(softmax(logits), ids, axis=-1) * router.routed_scaling_factor

    def scale(self, router: Any) -> float:
        """``routed_scaling_factor``."""
        return float(router.routed_scaling_factor)


class DeepseekV3Adapter:
    """Sigmoid scores; a correction bias takes part in the choice alone, made within the best groups."""

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """``normalised``, or raw ``sigmoid``."""
        return "normalised" if router.norm_topk_prob else "sigmoid"

    def read(self, router: Any, output: Any) -> RouterOutput:
        """The three tensors that `transformers` routers return."""
        return read_transformers_output(router, output)

    def select(self, router: Any, logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Sigmoid plus bias, barred outside the groups whose two best experts have the largest sums."""
        scores = _sigmoid(logits) + router.e_score_correction_bias.detach().double().cpu().numpy()
        grouped = np.sort(scores.reshape(len(scores), router.num_group, -1), axis=-1)
        return _bar_groups(scores, grouped[..., -2:].sum(axis=-1), router.topk_group, chosen)

    def weigh(self, router: Any, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The sigmoids, over their sum where ``norm_topk_prob`` is set, scaled."""
        weights = np.take_along_axis(_sigmoid(logits), ids, axis=-1)
        if router.norm_topk_prob:
            weights /= weights.sum(axis=-1, keepdims=True)
        return weights * router.routed_scaling_factor

    def scale(self, router: Any) -> float:
        """``routed_scaling_factor``."""
        return float(router.routed_scaling_factor)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _bar_groups(scores: np.ndarray, group_scores: np.ndarray, kept: int, chosen: np.ndarray) -> np.ndarray:
    """``scores`` with −∞ for experts outside the ``kept`` groups of the largest ``group_scores [tokens, groups]``.

    Among groups that tie, those that the router chose from come first.
    """
    tokens, groups = group_scores.shape
    used = chosen.reshape(tokens, groups, -1).any(axis=-1)
    favoured = group_scores + np.where(used, tie_margin(group_scores), 0.0)
    best = np.argsort(-favoured, axis=-1, kind="stable")[:, :kept]
    open_ = np.zeros((tokens, groups), np.bool_)
    np.put_along_axis(open_, best, True, axis=-1)
    return np.where(np.repeat(open_, scores.shape[1] // groups, axis=-1), scores, -np.inf)
