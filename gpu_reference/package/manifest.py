"""The manifest of a package: what its files are of, and a digest of each."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import write_text

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MOST_BYTES = 64 << 20
"""Of all files of a package together."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Slice(StrictModel):
    """Some whole sequences of the recorded trace.

    Attributes:
        sequences: their indices there, in the slice's order.
        tokens: of all.
        digest: as `predictor.predictions.digest.trace_digest`, of the slice.
    """

    sequences: tuple[int, ...] = Field(min_length=1)
    tokens: int = Field(ge=1)
    digest: Digest


class PackedFile(StrictModel):
    """A file of the package.

    Attributes:
        bytes: its size.
        sha256: of its content, hex.
    """

    bytes: int = Field(ge=0)
    sha256: Digest


class Manifest(StrictModel):
    """See the module's description.

    Attributes:
        schema_version: of this file.
        command: that made the package.
        trace, model: the recorded trace's file, and the model whose routing it is.
        split_seed: of the division into training and test sequences, and of the choice among them.
        test, tuning: the slices of the test and of the training part.
        training_sequences: of the recorded trace, on which uses and tables are profiled.
        distances, activation_distances, prefetched, issue_limit: as `predictor.policies.parts.Predictors`.
        digests: as `predictor.policies.material.Material`.
        files: every other file of the package, by its path inside.
    """

    schema_version: Literal[1] = 1
    command: str = Field(min_length=1)
    trace: str
    model: str
    split_seed: int = Field(ge=0)
    test: Slice
    tuning: Slice
    training_sequences: int = Field(ge=1)
    distances: tuple[int, ...] = Field(min_length=1)
    activation_distances: tuple[int, ...] = Field(min_length=1)
    prefetched: int = Field(ge=1)
    issue_limit: int = Field(ge=1)
    digests: dict[str, Digest]
    files: dict[str, PackedFile]

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, PackedFile]) -> dict[str, PackedFile]:
        for name in files:
            path = Path(name)
            if path.is_absolute() or ".." in path.parts or name != path.as_posix():
                raise ValueError(f"{name!r} is no path inside the package; make the package again")
        return files

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The manifest of the package ``folder``.

        Raises:
            ForestageError: naming the folder or the file, and the field.
        """
        path = folder / MANIFEST
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ForestageError(
                f"{folder}: no package: it has no {MANIFEST}; give a folder that `forestage reference pack` wrote"
            ) from error
        except OSError as error:
            raise ForestageError(f"{path}: cannot read ({error.strerror})") from error
        except ValueError as error:
            raise ForestageError(f"{path}: not JSON ({error}); make the package again") from error
        if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
            version = values.get("schema_version") if isinstance(values, dict) else None
            raise ForestageError(
                f"{path}: schema_version: {version!r}, and this version of Forestage reads {SCHEMA_VERSION}; make the "
                "package again"
            )
        return cls.parse(values, origin=str(path))

    def save(self, folder: Path) -> None:
        """Write it into ``folder``.

        Raises:
            ForestageError: if it cannot be written.
        """
        write_text(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")
