"""What the next-use head asks: is expert e of the target layer wanted within the next n tokens of its sequence?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network.head import Answers
from predictor.row_network.inputs import Examples

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NextUseHead:
    """The head.

    Attributes:
        horizons: tokens ahead, ascending.
        including_now: whether the first of the ``n`` tokens is this one (else the next).
        adaptations: it does not adapt: what comes is known too late.
    """

    horizons: tuple[int, ...]
    including_now: bool
    adaptations: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, config: NextUseConfig) -> "NextUseHead":
        """What a network of this configuration is asked."""
        return cls(config.horizons, config.nearest > 0)

    def labels(self, examples: Examples, tokens: NDArray[np.int64]) -> tuple[Answers, Answers]:
        """(wanted, whether that is known), as ``head.Head``.

        A row that was not recorded wants nothing. Of a horizon beyond the end of the sequence nothing is known: what
        follows it was never routed.
        """
        shape = (examples.ids.shape[1], len(tokens), len(self.horizons), examples.experts)
        wanted, known = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        horizons = np.array(self.horizons, np.int64)
        _fill(examples.ids, examples.ends, tokens, horizons, 0 if self.including_now else 1, wanted, known)
        return wanted, known

    def loss(self, log_odds: "Tensor", truth: "Tensor", weight: "Tensor") -> "Tensor":
        """Binary cross-entropy, the mean over what is known of a layer, summed over layers."""
        from predictor.row_network.training import yes_or_no_loss  # PyTorch is needed here alone

        return yes_or_no_loss(log_odds, truth, weight) / (weight[0].sum().clamp(min=1))

    def figures(self, scores: Answers, truth: Answers, weight: Answers) -> dict[str, tuple[float, float]]:
        """The mean log-likelihood of an answer that is known."""
        lost = np.logaddexp(0, np.where(truth > 0, -scores, scores)) * weight
        return {"log-likelihood": (-float(lost.sum(dtype=np.float64)), float(weight.sum(dtype=np.float64)))}


@njit()
def _fill(
    ids: NDArray[np.int16],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int64],
    horizons: NDArray[np.int64],
    after: int,
    wanted: Answers,
    known: Answers,
) -> None:
    """``after``: tokens from this one to the first that counts."""
    farthest = horizons[-1]
    distance = np.empty(wanted.shape[3], np.int64)  # tokens to the next use, 1 being the first that counts
    for row in range(len(tokens)):
        token = tokens[row]
        left = ends[token] - token - after
        for layer in range(ids.shape[1]):
            distance[:] = farthest + 1
            for ahead in range(min(farthest, left), 0, -1):
                chosen = ids[token + after + ahead - 1, layer]
                if chosen[0] >= 0:
                    for expert in chosen:
                        distance[expert] = ahead
            for question in range(len(horizons)):
                if left < horizons[question]:
                    continue
                known[layer, row, question] = 1
                for expert in range(len(distance)):
                    if distance[expert] <= horizons[question]:
                        wanted[layer, row, question, expert] = 1
