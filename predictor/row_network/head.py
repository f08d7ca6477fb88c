"""What a head adds to a row network: what it is asked, what is lost by an answer, how good it is."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.row_network.inputs import Examples

if TYPE_CHECKING:
    from torch import Tensor

Answers = NDArray[np.float32]
"""f32 ``[layers, tokens, questions, experts]``"""


class Head(Protocol):
    """A question about experts."""

    @property
    def adaptations(self) -> tuple[int, ...]:
        """Shifts of the adapted biases to choose from (``integers``); ``(0,)``: it does not adapt."""

    def labels(self, examples: Examples, tokens: NDArray[np.int64]) -> tuple[Answers, Answers]:
        """(truth 0 or 1, weight of each answer in the loss) of ``tokens``; what is not known weighs nothing."""

    def loss(self, log_odds: "Tensor", truth: "Tensor", weight: "Tensor") -> "Tensor":
        """The loss of answers ``[layers, tokens, questions, experts]``, a mean that does not grow with their number."""

    def figures(self, scores: Answers, truth: Answers, weight: Answers) -> dict[str, tuple[float, float]]:
        """Sums and counts of figures of merit by name, larger is better; the first one decides."""
