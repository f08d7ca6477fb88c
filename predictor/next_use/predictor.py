"""The next-use predictor: the row network asked within how many tokens each expert is wanted again."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.base import Scores
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network.config import NetworkConfig, lookaheads_text
from predictor.row_network.file import Provenance
from predictor.row_network.integers import CHANCE_SHIFT, NetworkTables
from predictor.row_network.kernels import distance_of
from predictor.row_network.predictor import RowNetworkPredictor
from predictor.row_network.twin import RowNetwork
from traces import RoutingTrace


class NextUsePredictor(RowNetworkPredictor):
    """A trained next-use predictor of one model, asked once per (token, target layer) at one lookahead.

    Attributes:
        network: the integers.
        config: context, size and horizons.
        provenance: what it was trained on.
    """

    head: ClassVar[str] = "next-use"
    config_model: ClassVar[type[NetworkConfig]] = NextUseConfig
    config: NextUseConfig

    def __init__(
        self,
        tables: NetworkTables,
        config: NextUseConfig,
        *,
        top_k: int,
        ranked: bool,
        provenance: Provenance,
        lookahead: int | None = None,
        origin: str = "next-use predictor",
    ) -> None:
        self.network = RowNetwork(tables, config, top_k=top_k, ranked=ranked, lookahead=lookahead, origin=origin)
        self.config = config
        self.provenance = provenance

    @property
    def lookahead(self) -> int:
        """Layers between the known gate and the target; 0: the target's own gate is known."""
        return self.network.lookahead

    def describe(self) -> dict[str, Any]:
        """Configuration and size in bytes, as JSON values."""
        size = self.network.bytes
        return {
            **self.config.model_dump(mode="json"),
            "ranks": self.network.ranked,
            "lookaheads": lookaheads_text(self.config),
            "sram_bytes_per_layer": size.sram_largest,
            "state_bytes_per_slot_layer": size.state_per_slot_layer,
            "text_bytes_per_slot": size.text_per_slot,
            "text_bytes_read_per_token": size.text_read,
            "text_bytes_written_per_token": size.text_written,
            "accumulator_bits": self.network.accumulator_bits,
        }

    # --- the streaming form ---

    def chances(self, layer: int) -> NDArray[np.uint16]:
        """Chance of each expert of ``layer`` by horizon, 65535 being certainty: u16 ``[horizons, experts]``.

        Of the current token from ``observe(layer − lookahead)`` on.
        """
        return self.network.chances(layer)

    def priorities(self, layer: int) -> NDArray[np.int32]:
        """The sum of the chances over the horizons: i32 ``[experts]``."""
        return self.chances(layer).sum(axis=0, dtype=np.int32)

    # --- the batch form ---

    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Yield ``(first token, scores i32 [tokens, layers, horizons, experts])`` in order; see ``integers``.

        Raises:
            ForestageError: if the trace is not of the model's shape, or lacks what is looked at.
        """
        self.check_trace(trace)
        for first, scores in self.network.score_chunks(trace, chunk_tokens=chunk_tokens):
            yield first, scores.reshape(len(scores), trace.layers, -1, trace.experts)

    def priority_chunks(
        self, trace: RoutingTrace, *, chunk_tokens: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Yield ``(first token, priorities i32 [tokens, layers, experts])``; raises as ``score_chunks``."""
        for first, scores in self.score_chunks(trace, chunk_tokens=chunk_tokens):
            yield first, self.priorities_of(scores)

    def priorities_of(self, scores: Scores) -> NDArray[np.int32]:
        """Priorities i32 ``[tokens, layers, experts]`` of a chunk of ``score_chunks``."""
        found = np.zeros((*scores.shape[:2], scores.shape[3]), np.int32)
        _add_chances(scores, self.network.tables.chances, self.lookahead, self.config.nearest, found)
        return found

    def check_trace(self, trace: RoutingTrace) -> None:
        """Raise ForestageError unless ``trace`` has the layers, experts and top-k of the model trained on, and records
        what is looked at."""
        self.network.check_trace(trace, origin="next-use predictor", without_identity="with --set ngram_tables=[]")


@njit()
def _add_chances(
    scores: NDArray[np.int32],
    chances: NDArray[np.uint16],
    lookahead: int,
    nearest: int,
    found: NDArray[np.int32],
) -> None:
    for token in range(scores.shape[0]):
        for layer in range(scores.shape[1]):
            table = chances[layer, distance_of(layer, lookahead, nearest)]
            for question in range(scores.shape[2]):
                for expert in range(scores.shape[3]):
                    place = scores[token, layer, question, expert] >> CHANCE_SHIFT
                    found[token, layer, expert] += np.int32(table[question, place])
