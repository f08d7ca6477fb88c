"""What the next-layer head asks: does the target layer choose expert e at this token?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.next_layer.recipes import NextLayerRecipe
from predictor.row_network.head import Answers
from predictor.row_network.inputs import Examples

if TYPE_CHECKING:
    from torch import Tensor

ADAPTATIONS = (0, 13, 12, 11)
"""Shifts of the adapted biases to choose from (0: none): 8, 16 or 32 steps of the score for a chance that was wrong by
one."""


@dataclass(frozen=True)
class NextLayerHead:
    """The head of one training.

    Attributes:
        limits: numbers issued at which recall is told; the first one decides.
        top_k: experts a gate chooses.
        loss_kind, gate_weighting: see ``NextLayerTraining``.
        adaptations: see ``head.Head``.
    """

    limits: tuple[int, ...]
    top_k: int
    loss_kind: str = "bce"
    gate_weighting: float = 0.0
    adaptations: tuple[int, ...] = ADAPTATIONS
    nearest: int = 1

    @classmethod
    def of(cls, recipe: NextLayerRecipe, *, experts: int, top_k: int) -> "NextLayerHead":
        """What a recipe asks of a model's routing; recall is told at once, one and a half and twice ``top_k``."""
        limits = tuple(sorted({min(experts, limit) for limit in (top_k, top_k * 3 // 2, 2 * top_k)}))
        return cls(
            limits,
            top_k,
            recipe.training.loss,
            recipe.training.gate_weighting,
            ADAPTATIONS if recipe.predictor.adaptation else (0,),
            recipe.predictor.nearest,
        )

    def labels(self, examples: Examples, tokens: NDArray[np.int64]) -> tuple[Answers, Answers]:
        """(chosen, weight), as ``head.Head``; rows that were not recorded weigh nothing."""
        shape = (examples.ids.shape[1], len(tokens), 1, examples.experts)
        chosen, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        ids = examples.ids[tokens]
        heavy = np.zeros(ids.shape, np.float32)
        if self.gate_weighting and examples.gate_weights is not None:
            gate = examples.gate_weights[tokens].astype(np.float32)
            gate /= np.maximum(gate.sum(axis=-1, keepdims=True), 1e-6)
            heavy = np.float32(self.gate_weighting) * (self.top_k * gate - 1)
        _fill(ids, heavy, chosen, weight)
        return chosen, weight

    def loss(self, log_odds: "Tensor", truth: "Tensor", weight: "Tensor") -> "Tensor":
        """The loss ``loss_kind``, per layer and chosen expert."""
        from predictor.next_layer.losses import loss_of  # PyTorch is needed here alone

        return loss_of(log_odds, truth, weight, self.loss_kind, self.top_k)

    def figures(self, scores: Answers, truth: Answers, weight: Answers) -> dict[str, tuple[float, float]]:
        """Recall at each limit over layers ≥ the nearest lookahead, recorded rows alone."""
        part = slice(self.nearest, None)
        chosen = truth[part, :, 0] * (weight[part, :, 0] > 0)
        best = np.argsort(-scores[part, :, 0], axis=-1, kind="stable")[..., : max(self.limits)]
        hits = np.take_along_axis(chosen, best, axis=-1)
        total = float(chosen.sum())
        return {str(limit): (float(hits[..., :limit].sum()), total) for limit in self.limits}


@njit()
def _fill(ids: NDArray[np.int16], heavy: NDArray[np.float32], chosen: Answers, weight: Answers) -> None:
    for token in range(ids.shape[0]):
        for layer in range(ids.shape[1]):
            if ids[token, layer, 0] < 0:
                continue
            weight[layer, token] = 1
            for rank in range(ids.shape[2]):
                chosen[layer, token, 0, ids[token, layer, rank]] = 1
                weight[layer, token, 0, ids[token, layer, rank]] += heavy[token, layer, rank]
