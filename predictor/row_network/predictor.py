"""What the predictors of both heads share: a row network, its file, its image and its provenance."""

from pathlib import Path
from typing import Any, ClassVar, Self

from predictor.base import ExpertIds
from predictor.row_network import file
from predictor.row_network.config import NetworkConfig
from predictor.row_network.file import Provenance
from predictor.row_network.image import LANES, Manifest, write_image
from predictor.row_network.twin import RowNetwork


class RowNetworkPredictor:
    """A trained network, asked at one lookahead.

    A head's ``__init__`` takes tables, configuration, ``top_k``, ``ranked``, ``provenance``, ``lookahead`` and
    ``origin``, and sets the attributes.

    Attributes:
        head: the head's name in files.
        config_model: the head's configuration.
        network: the integers.
        config: context and size.
        provenance: what it was trained on.
    """

    head: ClassVar[str]
    config_model: ClassVar[type[NetworkConfig]]
    network: RowNetwork
    config: NetworkConfig
    provenance: Provenance

    @classmethod
    def load(cls, path: Path, lookahead: int | None = None) -> Self:
        """The predictor in a file that ``save`` wrote, asked at ``lookahead``; ``None``: at the nearest it serves.

        Raises:
            ForestageError: if the file is missing, damaged or of another kind, or does not serve the lookahead.
        """
        stored = file.read(Path(path), cls.head, cls.config_model)
        kept = {"top_k": stored.header.top_k, "ranked": stored.header.ranked, "provenance": stored.header.provenance}
        made: Any = cls
        predictor: Self = made(stored.tables, stored.config, **kept, lookahead=lookahead, origin=str(path))
        return predictor

    def save(self, path: str | Path) -> None:
        """Write tables and provenance to ``path`` (safetensors), atomically."""
        network = self.network
        file.write(
            Path(path), self.head, network.tables, self.config, top_k=network.top_k, ranked=network.ranked,
            provenance=self.provenance,
        )  # fmt: skip

    def export(self, path: str | Path, *, lanes: int = LANES) -> Manifest:
        """Write the memory image that hardware of so many ``lanes`` loads; raises as ``write_image``."""
        return write_image(self.network, path, head=self.head, model=self.model, lanes=lanes)

    @property
    def trained_on(self) -> str:
        """Which sequences of which trace it was trained on."""
        return self.provenance.trained_on

    @property
    def model(self) -> str:
        """The model whose routing it was trained on."""
        return self.provenance.model

    # --- the streaming form ---

    def start_sequence(self) -> None:
        """Forget the past."""
        self.network.start_sequence()

    def start_token(self, identity: int | None) -> None:
        """The token about to be processed has this identity (``token_hash``); ``None``: not recorded.

        Called before layer 0; a token of which it is not told has none.
        """
        self.network.start_token(identity)

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """The gate of ``layer`` chose ``ids`` ``[top_k]`` (``None``: not recorded).

        Called for every layer of every token, ascending; layer 0 begins a token.
        """
        self.network.observe(layer, ids)
