"""Open a file of predictions in any container."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalog.errors import ForestageError
from predictor.predictions import npz_file, parquet_file
from predictor.predictions.arrays import NAMES, PredictionArrays, check_arrays, check_header
from predictor.predictions.header import CHECKSUMS, PredictionsHeader, parse_texts, parse_values
from traces.safetensors_file import TensorFile, crc32, open_tensors


@dataclass(frozen=True)
class Predictions:
    """An opened file: its arrays are mapped, their contents are not checked yet (see ``content.check_content``)."""

    path: Path
    header: PredictionsHeader
    arrays: PredictionArrays

    @property
    def listed(self) -> int | None:
        """The rank up to which a row's ranking is known; ``None``: as far as the predictor itself ranks.

        A ranking cut at *m* does not tell what would be issued under a larger limit; a ranking that the predictor
        itself ended does.
        """
        return self.arrays.width if self.arrays.ids is not None and not self.header.own_accord else None


def open_predictions(path: str | Path) -> Predictions:
    """Open ``path``, a ``.npz``, safetensors or Parquet file, recognised by its first bytes.

    Raises:
        ForestageError: if it is missing, damaged or in none of these formats, or its header or shapes are wrong.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror}); give a file of predictions") from error
    if start.startswith(b"PK"):
        header, arrays = _from_npz(path)
    elif start.startswith(b"PAR1"):
        header, arrays = parquet_file.read(path)
    elif start[8:9] == b"{":
        header, arrays = _from_safetensors(path)
    else:
        raise ForestageError(f"{path}: no predictions: give an .npz archive, a safetensors file or a Parquet table")
    check_arrays(arrays, path)
    check_header(header, arrays, path)
    return Predictions(path, header, arrays)


def _from_npz(path: Path) -> tuple[PredictionsHeader, PredictionArrays]:
    """Arrays by name; the header's fields are arrays without axes, and ``layer_map`` has one."""
    found = npz_file.open_arrays(path)
    _require_ranking(path, set(found))
    values: dict[str, Any] = {name: array.tolist() for name, array in found.items() if name not in NAMES}
    return parse_values(values, path), _known(found)


def _from_safetensors(path: Path) -> tuple[PredictionsHeader, PredictionArrays]:
    """Tensors by name; the header's fields are in its ``__metadata__``."""
    file = open_tensors(path)
    _require_ranking(path, set(file.tensors))
    if strange := sorted(set(file.tensors) - set(NAMES)):
        raise ForestageError(f"{path}: {strange[0]}: unknown tensor; predictions hold {', '.join(NAMES)}")
    header = parse_texts(file.metadata, path)
    _check_checksums(path, file)
    return header, _known(file.tensors)


def _check_checksums(path: Path, file: TensorFile) -> None:
    """Compare the CRC-32 of every tensor with the stated one, if the file states them."""
    if CHECKSUMS not in file.metadata:
        return
    try:
        stated = json.loads(file.metadata[CHECKSUMS])
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: {CHECKSUMS}: not valid JSON ({error})") from error
    if not isinstance(stated, dict) or set(stated) != set(file.tensors):
        raise ForestageError(f"{path}: {CHECKSUMS}: must name every tensor")
    for name, array in file.tensors.items():
        if stated[name] != f"{crc32(array):08x}":
            raise ForestageError(f"{path}: {name}: damaged (its checksum differs); write it again")


def _require_ranking(path: Path, names: set[str]) -> None:
    """Raise, before any other check, if the file holds something other than predictions."""
    if not {"ids", "scores"} & names:
        held = ", ".join(sorted(names)[:6]) or "nothing"
        raise ForestageError(
            f"{path}: no predictions: it has neither ids nor scores, but {held}; a trained predictor is given by "
            "--predictor"
        )


def _known(found: dict[str, Any]) -> PredictionArrays:
    return PredictionArrays(**{name: np.asarray(array) for name, array in found.items() if name in NAMES})
