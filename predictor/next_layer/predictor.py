"""The learned predictor: the row network asked which experts a coming layer will choose."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.base import ExpertIds, Predictor, Scores
from predictor.next_layer.recipes import NextLayerConfig
from predictor.row_network import file
from predictor.row_network.config import lookaheads_text
from predictor.row_network.file import Provenance
from predictor.row_network.image import Manifest, write_image
from predictor.row_network.integers import CERTAIN, NetworkTables
from predictor.row_network.twin import RowNetwork
from traces import RoutingTrace

HEAD = "next-layer"


class LearnedParameters(StrictModel):
    """A learned predictor takes no parameters where it is used: they are part of its file (see ``NextLayerRecipe``)."""


class NextLayerPredictor(Predictor):
    """Scores are a calibrated scale's: a larger score is a larger chance; every expert has one ≥ 1.

    Layers below the lookahead are predicted from token identity and previous tokens. ``start_token`` tells the
    identity; where it is told none, no identity row enters the sums, and the text is not known to have stood so before.

    Attributes:
        network: the integers.
        config: context and size.
        provenance: what it was trained on.
    """

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

    # --- from training, from a file ---

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

    @classmethod
    def load(cls, path: str | Path, lookahead: int | None = None) -> Self:
        """The predictor in a file that ``save`` wrote, asked at ``lookahead``; ``None``: at the nearest it serves.

        Raises:
            ForestageError: if the file is missing, damaged or of another kind, or does not serve the lookahead.
        """
        stored = file.read(Path(path), HEAD, NextLayerConfig)
        assert isinstance(stored.config, NextLayerConfig)
        return cls(
            stored.tables,
            stored.config,
            top_k=stored.header.top_k,
            ranked=stored.header.ranked,
            provenance=stored.header.provenance,
            lookahead=lookahead,
            origin=str(path),
        )

    def save(self, path: str | Path) -> None:
        """Write tables and provenance to ``path`` (safetensors), atomically."""
        file.write(
            Path(path), HEAD, self.tables, self.config, top_k=self.top_k, ranked=self.ranked, provenance=self.provenance
        )

    def export(self, path: str | Path) -> Manifest:
        """Write the memory image that the hardware loads; raises as ``write_image``."""
        return write_image(self.network, path, head=HEAD, model=self.model)

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

    @property
    def trained_on(self) -> str:
        """Which sequences of which trace it was trained on."""
        return self.provenance.trained_on

    @property
    def model(self) -> str:
        """The model whose routing it was trained on."""
        return self.provenance.model

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
    def start_sequence(self) -> None:
        self.network.start_sequence()

    @override
    def start_token(self, identity: int | None) -> None:
        self.network.start_token(identity)

    @override
    def predict(self, layer: int) -> Scores:
        return self.network.scores(layer)[0]

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        self.network.observe(layer, ids)

    # --- the batch form ---

    @override
    def check_trace(self, trace: RoutingTrace) -> None:
        self.network.check_trace(trace, origin="predictor 'learned'", without_identity="with the recipe no-identity")

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        yield from self.network.score_chunks(trace, chunk_tokens=chunk_tokens)
