"""Expert loads: how many tokens each expert got, without saying which tokens.

Serving systems that balance experts over devices record only this. It is not a routing trace: it cannot tell what any
single token did.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces.metadata import MAX_EXPERTS
from traces.safetensors_file import crc32, open_tensors, write_tensors

FORMAT = "forestage-load"
VERSION = "1"

REFUSAL = (
    "holds expert loads (counts a step, layer and expert), not which experts each token chose; only `forestage trace "
    "info`, `stats` and `import` read it"
)
"""What every command that needs a trace answers when given such a file."""


class LoadMetadata(StrictModel):
    """Facts about a whole recording of loads.

    Attributes:
        model: the model's name.
        experts: routed (logical) experts per layer.
        top_k: experts that a token uses in a layer, if known.
        layer_map: the model's index of each layer, ascending.
        steps_ordered: whether steps are in the order in which they ran.
        source: where it was recorded.
        licence: SPDX name, or what is known.
        synthetic: whether a generator made it.
    """

    model: str = Field(min_length=1)
    experts: int = Field(ge=1, le=MAX_EXPERTS)
    top_k: int | None = Field(default=None, ge=1)
    layer_map: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    steps_ordered: bool = True
    source: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    synthetic: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "LoadMetadata":
        if self.top_k is not None and self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) exceeds experts ({self.experts})")
        if any(later <= earlier for earlier, later in zip(self.layer_map, self.layer_map[1:], strict=False)):
            raise ValueError("layer_map must be strictly ascending")
        return self


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExpertLoad:
    """Recorded loads, checked when the object is made.

    Attributes:
        counts: f64 ``[steps, layers, experts]``, finite and ≥ 0: how many tokens chose the expert, or an estimate up to
            a factor if the source has only that. Every layer has at least one expert with a positive count.
        metadata: facts about the whole recording.
        origin: the file, for errors.
    """

    counts: npt.NDArray[np.float64]
    metadata: LoadMetadata
    origin: str = "load"

    def __post_init__(self) -> None:
        view = np.ascontiguousarray(self.counts).view()
        view.flags.writeable = False
        object.__setattr__(self, "counts", view)
        self.validate()

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.counts.shape[0]

    @property
    def layers(self) -> int:
        """Number of MoE layers."""
        return self.counts.shape[1]

    @property
    def experts(self) -> int:
        """Routed experts per layer."""
        return self.counts.shape[2]

    def __repr__(self) -> str:
        return f"ExpertLoad({self.metadata.model}: {self.steps} steps, {self.layers} layers, {self.experts} experts)"

    def equals(self, other: "ExpertLoad") -> bool:
        """Whether counts and metadata are the same."""
        return np.array_equal(self.counts, other.counts) and self.metadata == other.metadata

    def validate(self) -> None:
        """Check the shape and every count.

        Raises:
            ForestageError: naming the origin, the field and the row.
        """
        counts, metadata = self.counts, self.metadata
        expected = f"[steps, {len(metadata.layer_map)}, {metadata.experts}]"
        if counts.dtype != np.float64 or counts.ndim != 3:
            raise ForestageError(f"{self.origin}: counts: {counts.dtype} {list(counts.shape)}; expected F64 {expected}")
        if counts.shape[1:] != (len(metadata.layer_map), metadata.experts) or not len(counts):
            raise ForestageError(f"{self.origin}: counts: {list(counts.shape)}; the metadata say {expected}")
        bad = np.argwhere(~(np.isfinite(counts) & (counts >= 0)))
        if len(bad):
            where = ", ".join(str(i) for i in bad[0])
            raise ForestageError(f"{self.origin}: counts[{where}]: {counts[tuple(bad[0])]}; expected a number ≥ 0")
        empty = np.flatnonzero(counts.sum(axis=(0, 2)) == 0)
        if len(empty):
            raise ForestageError(
                f"{self.origin}: counts: layer {metadata.layer_map[empty[0]]} counts nothing; leave it out"
            )

    def save(self, path: str | Path) -> None:
        """Write ``path`` (safetensors), atomically.

        Raises:
            ForestageError: if it cannot be written.
        """
        document = json.dumps(self.metadata.model_dump(mode="json"), ensure_ascii=False)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "load": document,
            "checksums": _checksums(self.counts, document),
        }
        write_tensors(Path(path), {"counts": self.counts}, header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            ForestageError: naming the file and the fault.
        """
        path = Path(path)
        file = open_tensors(path)
        stated = file.metadata.get("format"), file.metadata.get("version")
        if stated != (FORMAT, VERSION):
            raise ForestageError(f"{path}: header: format {stated[0]!r} {stated[1]!r}; expected {FORMAT!r} {VERSION!r}")
        if set(file.tensors) != {"counts"} or set(file.metadata) != {"format", "version", "load", "checksums"}:
            raise ForestageError(
                f"{path}: header: must hold the tensor 'counts' and the entries load and checksums alone"
            )
        try:
            values: Any = json.loads(file.metadata["load"])
        except (ValueError, RecursionError) as error:
            raise ForestageError(f"{path}: header: 'load' is not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise ForestageError(f"{path}: header: 'load' must be a JSON object")
        counts = file.tensors["counts"]
        if file.metadata["checksums"] != _checksums(counts, file.metadata["load"]):
            raise ForestageError(f"{path}: damaged (its checksums differ); fetch or import the file again")
        return cls(counts=counts, metadata=LoadMetadata.parse(values, origin=f"{path}: metadata"), origin=str(path))


def _checksums(counts: npt.NDArray[np.float64], document: str) -> str:
    """CRC-32 of the counts and of the header's document, as text for the header."""
    return f"{crc32(counts):08x} {zlib.crc32(document.encode()):08x}"
