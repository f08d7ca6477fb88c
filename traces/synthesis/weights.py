"""Gate weights of a synthetic trace: recorded rows drawn at random."""

import numpy as np
import numpy.typing as npt

from traces.synthesis.model import WEIGHTS
from traces.trace import RoutingTrace

ROWS = 4096
"""Most recorded rows kept of each layer."""


class WeightRows:
    """Recorded rows of gate weights by layer, best first.

    Args:
        trace: a recorded trace with gate weights.
        layers: number of layers of the trace to be made; a layer takes the rows of the recorded layer at the same
            relative depth.
        seed: seed of the draws.
    """

    def __init__(self, trace: RoutingTrace, layers: int, seed: int) -> None:
        assert trace.gate_weights is not None
        self._generator = np.random.default_rng([seed, WEIGHTS])
        tokens = np.sort(self._generator.integers(trace.tokens, size=ROWS))
        rows = -np.sort(-trace.gate_weights[tokens], axis=2)
        recorded = trace.expert_ids[tokens, :, 0] < trace.experts
        depth = np.round(np.linspace(0, trace.layers - 1, layers)).astype(int)
        self._rows = [rows[recorded[:, layer], layer] for layer in depth]

    @property
    def complete(self) -> bool:
        """Whether every layer has rows to draw from."""
        return all(len(rows) for rows in self._rows)

    def draw(self, tokens: int) -> npt.NDArray[np.float16]:
        """Weights f16 ``[tokens, layers, top_k]``, independent of each other and of the experts."""
        chosen = self._generator.random((tokens, len(self._rows)))
        weights = [rows[(chosen[:, layer] * len(rows)).astype(np.int64)] for layer, rows in enumerate(self._rows)]
        return np.stack(weights, axis=1)
