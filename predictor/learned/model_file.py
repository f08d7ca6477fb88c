"""The file of a trained predictor: its integer tables in safetensors, the rest as JSON in the header."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.learned.config import LearnedConfig, TrainingConfig
from predictor.learned.tables import NAMES, LearnedTables
from predictor.predictions.header import FORMAT as PREDICTIONS
from traces.safetensors_file import crc32, open_tensors, write_tensors

FORMAT = "forestage-predictor"
VERSION = "1"


class EpochLog(StrictModel):
    """One epoch of training.

    Attributes:
        epoch: from 1 on.
        loss: mean over steps and layers.
        recall: on the validation sequences, at top_k issued, in floating point, mean over layers ≥ lookahead.
        seconds: wall time of the epoch, validation included.
    """

    epoch: int
    loss: float
    recall: float
    seconds: float


class ValidationRecall(StrictModel):
    """Recall on the validation sequences by number issued, mean over layers ≥ lookahead.

    Attributes:
        floating_point: before quantisation.
        int8: after it, without adaptation.
        adapting: of the predictor as it is.
    """

    floating_point: dict[str, float] = Field(default_factory=dict)
    int8: dict[str, float] = Field(default_factory=dict)
    adapting: dict[str, float] = Field(default_factory=dict)


class Provenance(StrictModel):
    """Where a predictor comes from.

    Attributes:
        model: whose routing it was trained on.
        trained_on: which sequences of which trace, for a reader.
        synthetic: whether that trace was made by a generator.
        training: how.
        log: one entry an epoch.
        validation_recall: what quantisation and adaptation do.
        machine: processor and versions, for the training time.
    """

    model: str
    trained_on: str
    synthetic: bool
    training: TrainingConfig
    log: tuple[EpochLog, ...]
    validation_recall: ValidationRecall
    machine: str


class Document(StrictModel):
    """The header's JSON document."""

    config: LearnedConfig
    lookahead: int
    top_k: int
    ranked: bool
    provenance: Provenance


@dataclass(frozen=True)
class Stored:
    """What a file holds."""

    tables: LearnedTables
    document: Document


def write(path: Path, tables: LearnedTables, document: Document) -> None:
    """Write a predictor, atomically.

    Raises:
        ForestageError: if it cannot be written.
    """
    # Empty tables (no identity) are left out: a mapped tensor has at least one byte.
    arrays = {name: getattr(tables, name) for name in NAMES if getattr(tables, name).size}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "predictor": document.model_dump_json(),
        "checksums": json.dumps({name: f"{crc32(array):08x}" for name, array in arrays.items()}),
    }
    write_tensors(path, arrays, header)


def read(path: Path) -> Stored:
    """Read a predictor; its tables are mapped.

    Raises:
        ForestageError: naming the file and what is wrong with it.
    """
    file = open_tensors(path)
    if file.metadata.get("format") == PREDICTIONS:
        raise ForestageError(f"{path}: holds predictions, not a trained predictor; give it by --predictions")
    if file.metadata.get("format") != FORMAT:
        raise ForestageError(f"{path}: not a trained predictor (format {file.metadata.get('format')!r}); train one")
    if file.metadata.get("version") != VERSION:
        raise ForestageError(f"{path}: version {file.metadata.get('version')!r} of the format; this reads {VERSION}")
    document = Document.parse(_json(path, file.metadata, "predictor"), origin=f"{path}: predictor")
    checksums = _json(path, file.metadata, "checksums")
    for name, array in file.tensors.items():
        if checksums.get(name) != f"{crc32(array):08x}":
            raise ForestageError(f"{path}: {name}: checksum differs; the file is damaged, copy or train it again")
    return Stored(LearnedTables(**_tables(path, dict(file.tensors), document)), document)


def _json(path: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError) as error:
        raise ForestageError(f"{path}: header: no readable {key!r}; the file is damaged or not a predictor") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{path}: header: {key!r} is no object; the file is damaged or not a predictor")
    return value


def _tables(path: Path, tensors: dict[str, Any], document: Document) -> dict[str, Any]:
    """The tables by name, empty ones put back.

    Raises:
        ForestageError: for a table that is missing or unknown.
    """
    import numpy as np

    from predictor.learned.tables import expected_shapes

    unknown = sorted(set(tensors) - set(NAMES))
    if unknown:
        raise ForestageError(f"{path}: unknown tensor {unknown[0]!r}; not a predictor of this version")
    if "output" not in tensors or tensors["output"].ndim != 3:
        raise ForestageError(f"{path}: output: missing or not [layers, hidden, experts]; not a predictor")
    layers, _, experts = tensors["output"].shape
    shapes = expected_shapes(document.config, layers=layers, experts=experts, lookahead=document.lookahead)
    for name, (dtype, shape) in shapes.items():
        if name not in tensors:
            if 0 not in shape:
                raise ForestageError(f"{path}: {name}: missing; the file is damaged or not a predictor")
            tensors[name] = np.empty(shape, dtype)
    return tensors
