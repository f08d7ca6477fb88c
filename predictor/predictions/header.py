"""The header of a file of predictions: facts beside its arrays."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError

FORMAT = "forestage-predictions"

CHECKSUMS = "checksums"
"""Entry that we write into a safetensors header: JSON, tensor → CRC-32 in hexadecimal."""

HEADER_CHECKSUM = "header_crc32"
"""Entry that we write among the texts: CRC-32, in hexadecimal, of the other fields' texts as sorted pairs in JSON."""

_FOREIGN_KEYS = {"pandas", "ARROW:schema", "huggingface"}
"""Entries that Parquet writers leave in a schema's metadata; not about predictions."""

_FOREIGN_FORMATS = {"pt", "np", "tf", "flax", "jax", "mlx"}
"""Values of ``format`` that the safetensors libraries write."""

_TEXTS = {"source", "model", "trace_digest"}


class PredictionsHeader(StrictModel):
    """Facts about a whole file of predictions.

    Attributes:
        lookahead: layers between the last gate that a prediction may have used and its target layer.
        source: who predicted and how (a paper, a repository and commit, a command), for readers.
        model: the model whose routing is predicted; ``None``: not stated.
        experts: routed experts per layer; ``None``: not stated.
        layer_map: the model's layer of each column of the layer axis, ascending; ``None``: the axis is the trace's.
        limit: most ids that a row lists, the *m* of the ranking; ``None``: the width of the array.
        trace_digest: ``digest.trace_digest`` of the trace that was predicted; ``None``: not stated.
        minimum_score: an expert with a lower score is never issued; ``None``: every score may be issued.
        own_accord: whether the predictor itself chose how many experts a row lists (or how many reach
            ``minimum_score``), for example by a threshold; otherwise a row is a ranking that was cut somewhere.
        far_bytes_per_token: bytes that the predictor itself reads from and writes to far memory for each token;
            ``None``: not stated.
    """

    lookahead: int = Field(ge=1)
    source: str = Field(min_length=1)
    model: str | None = Field(default=None, min_length=1)
    experts: int | None = Field(default=None, ge=1)
    layer_map: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)
    trace_digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    minimum_score: float | None = Field(default=None, allow_inf_nan=False)
    own_accord: bool = False
    far_bytes_per_token: int | None = Field(default=None, ge=0)

    def texts(self) -> dict[str, str]:
        """The stated fields as texts, and their checksum, for a safetensors header or a Parquet schema."""
        stated = self.model_dump(mode="json", exclude_none=True)
        texts = {name: value if name in _TEXTS else json.dumps(value) for name, value in stated.items()}
        return {**texts, HEADER_CHECKSUM: _checksum(texts)}


def parse_texts(texts: Mapping[str, str], path: Path) -> PredictionsHeader:
    """The header in ``texts``, the metadata of a safetensors file or of a Parquet schema.

    Raises:
        ForestageError: naming ``path`` and the field.
    """
    values: dict[str, Any] = {}
    stated = {key: text for key, text in texts.items() if key not in {*_FOREIGN_KEYS, CHECKSUMS, "format"}}
    checksum = stated.pop(HEADER_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(stated):
        raise ForestageError(f"{path}: damaged (its header's checksum differs); write it again")
    written_as = texts.get("format", FORMAT)
    if written_as != FORMAT and written_as not in _FOREIGN_FORMATS:
        raise ForestageError(f"{path}: holds no predictions (its format is '{written_as}')")
    for name, text in stated.items():
        if name in _TEXTS:
            values[name] = text
            continue
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ForestageError(f"{path}: {name}: {text!r} is not JSON; write a number or a list") from error
    return parse_values(values, path)


def _checksum(texts: Mapping[str, str]) -> str:
    """The checksum of the fields' texts."""
    return f"{zlib.crc32(json.dumps(sorted(texts.items())).encode()):08x}"


def parse_values(values: dict[str, Any], path: Path) -> PredictionsHeader:
    """The header with the fields ``values``.

    Raises:
        ForestageError: naming ``path`` and the field; for a missing lookahead or source it explains the field.
    """
    known = set(PredictionsHeader.model_fields)
    if not set(values) - known:  # a misspelt name is reported first
        for name, meaning in (
            ("lookahead", "how many layers lie between the last gate known and the target"),
            ("source", "who predicted, and how"),
        ):
            if name not in values:
                raise ForestageError(f"{path}: {name}: not stated; a file of predictions says {meaning}")
    if isinstance(values.get("lookahead"), bool):
        raise ForestageError(f"{path}: lookahead: must be a whole number of layers, 1 or more")
    return PredictionsHeader.parse(values, origin=str(path))
