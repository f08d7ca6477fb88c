"""The learned predictor: the row network asked which experts a coming layer will choose."""

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.base import Predictor, Scores
from predictor.next_layer.recipes import NextLayerConfig
from predictor.row_network.config import NetworkConfig, lookaheads_text
from predictor.row_network.file import Provenance
from predictor.row_network.integers import CERTAIN, NetworkTables
from predictor.row_network.predictor import RowNetworkPredictor
from predictor.row_network.twin import RowNetwork
from traces import RoutingTrace


class LearnedParameters(StrictModel):
    """A learned predictor takes no parameters where it is used: they are part of its file (see ``NextLayerRecipe``)."""


class NextLayerPredictor(RowNetworkPredictor, Predictor):
    """Scores are a calibrated scale's: a larger score is a larger chance; every expert has one ≥ 1.

    Layers below the lookahead are predicted from token identity and previous tokens. ``start_token`` tells the
    identity; where it is told none, no identity row enters the sums, and the text is not known to have stood so before.

    Attributes:
        network: the integers.
        config: context and size.
        provenance: what it was trained on.
    """

    head: ClassVar[str] = "next-layer"
    config_model: ClassVar[type[NetworkConfig]] = NextLayerConfig
    config: NextLayerConfig
    name: ClassVar[str] = "learned"
    parameters_model: ClassVar[type[StrictModel]] = LearnedParameters

    def __init__(
        self,
        tables: NetworkTables,
        config: NextLayerConfig,
        *,
        top_k: int,
        ranked: bool,
        provenance: Provenance,
        lookahead: int | None = None,
        origin: str = "learned predictor",
    ) -> None:
        lookahead = config.nearest if lookahead is None else lookahead
        super().__init__(layers=tables.layers, experts=tables.experts, top_k=top_k, lookahead=lookahead)
        self.network = RowNetwork(tables, config, top_k=top_k, ranked=ranked, lookahead=lookahead, origin=origin)
        self.config = config
        self.provenance = provenance
        self.far_bytes_per_token = self.network.bytes.far_per_token

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        """Refused: training takes minutes, PyTorch and a recipe (``predictor.next_layer.training.train``).

        Raises:
            ForestageError: always, saying so.
        """
        raise ForestageError(
            "learned: is trained once: run `forestage predictor train`, then give the file that it writes"
        )

    def at(self, lookahead: int) -> Self:
        """The same predictor asked at another lookahead that it serves.

        Raises:
            ForestageError: naming those that it serves.
        """
        return type(self)(
            self.tables, self.config, top_k=self.top_k, ranked=self.ranked, provenance=self.provenance,
            lookahead=lookahead,
        )  # fmt: skip

    @property
    def tables(self) -> NetworkTables:
        """Every integer."""
        return self.network.tables

    @property
    def ranked(self) -> bool:
        """Whether the rows of better ranks weigh more."""
        return self.network.ranked

    def describe(self) -> dict[str, Any]:
        """Configuration and size in bytes, as JSON values."""
        size = self.network.bytes
        return {
            **self.config.model_dump(mode="json"),
            "ranks": self.ranked,
            "lookaheads": lookaheads_text(self.config),
            "sram_bytes_per_layer": size.sram_largest,
            "state_bytes_per_slot_layer": size.state_per_slot_layer,
            "identity_bytes": size.identity_bytes,
            "identity_burst_bytes": size.burst_bytes,
            "text_bytes_per_slot": size.text_per_slot,
            "far_bytes_per_token": size.far_per_token,
            "accumulator_bits": self.network.accumulator_bits,
        }

    def probabilities(self, layer: int, scores: Scores) -> NDArray[np.float64]:
        """Calibrated chance that each expert is chosen, from scores ``[…, experts]`` of ``layer``."""
        found: NDArray[np.float64] = self.network.chances_of(layer, scores[..., None, :])[..., 0, :] / CERTAIN
        return found

    # --- the streaming form ---

    @override
    def reset(self) -> None:
        self.network.start_sequence()

    @override
    def predict(self, layer: int) -> Scores:
        return self.network.scores(layer)[0]

    # --- the batch form ---

    @override
    def check_trace(self, trace: RoutingTrace) -> None:
        self.network.check_trace(trace, origin="predictor 'learned'", without_identity="with the recipe no-identity")

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        yield from self.network.score_chunks(trace, chunk_tokens=chunk_tokens)
