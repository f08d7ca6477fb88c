"""The file of a trained network, whichever its head: integer tables in safetensors, the rest as JSON in the header."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.predictions.header import FORMAT as PREDICTIONS
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import NAMES, NetworkTables, expected_shapes
from traces.safetensors_file import crc32, open_tensors, write_tensors

FORMAT = "forestage-predictor"
VERSION = "2"
EARLIER_KIND = "forestage next-use predictor"
"""What the header of next-use predictors of the time before this format begins with."""

COMMANDS = {"next-layer": "forestage predictor train", "next-use": "forestage predictor train-next-use"}
"""The heads, and what trains one."""


class EpochLog(StrictModel):
    """One epoch of training.

    Attributes:
        epoch: from 1 on.
        loss: mean over steps and layers.
        figure: the head's first figure, which decides when training stops.
        validation: its value on the validation sequences, in floating point; larger is better.
        seconds: wall time of the epoch, validation included.
    """

    epoch: int
    loss: float
    figure: str
    validation: float
    seconds: float


class Validation(StrictModel):
    """The head's figures on the validation sequences by name, at the nearest lookahead.

    Attributes:
        floating_point: before quantisation.
        int8: after it, without adaptation.
        adapting: of the network as it is, where it may adapt.
    """

    floating_point: dict[str, float] = Field(default_factory=dict)
    int8: dict[str, float] = Field(default_factory=dict)
    adapting: dict[str, float] = Field(default_factory=dict)


class Provenance(StrictModel):
    """Where a network comes from.

    Attributes:
        model: whose routing it was trained on.
        trained_on: which sequences of which trace, for a reader.
        synthetic: whether that trace was made by a generator.
        training: how: the fields of the recipe.
        log: one entry an epoch.
        validation: what quantisation and adaptation do.
        machine: processor and versions, for the training time.
    """

    model: str
    trained_on: str
    synthetic: bool
    training: dict[str, Any]
    log: tuple[EpochLog, ...]
    validation: Validation
    machine: str


class Header(StrictModel):
    """The header's JSON document.

    Attributes:
        head: what is asked; a key of ``COMMANDS``.
        config: fields of the head's configuration.
        top_k: experts a gate chooses.
        ranked: whether better ranks weigh more.
        provenance: where it comes from.
    """

    head: str
    config: dict[str, Any]
    top_k: int
    ranked: bool
    provenance: Provenance


@dataclass(frozen=True)
class Stored:
    """What a file holds; ``config`` is of the head's kind."""

    tables: NetworkTables
    config: NetworkConfig
    header: Header


def write(
    path: Path,
    head: str,
    tables: NetworkTables,
    config: NetworkConfig,
    *,
    top_k: int,
    ranked: bool,
    provenance: Provenance,
) -> None:
    """Write a network, atomically; the same one gives the same bytes.

    Raises:
        ForestageError: if it cannot be written.
    """
    # Empty tables (no identity) are left out: a mapped tensor has at least one byte.
    arrays = {name: getattr(tables, name) for name in NAMES if getattr(tables, name).size}
    header = Header(head=head, config=config.model_dump(mode="json"), top_k=top_k, ranked=ranked, provenance=provenance)
    write_tensors(
        path,
        arrays,
        {
            "format": FORMAT,
            "version": VERSION,
            "predictor": header.model_dump_json(),
            "checksums": json.dumps({name: f"{crc32(array):08x}" for name, array in arrays.items()}),
        },
    )


def read(path: Path, head: str, config: type[NetworkConfig]) -> Stored:
    """Read the network of ``head``, whose configuration is a ``config``; its tables are mapped.

    Raises:
        ForestageError: naming the file and what is wrong with it.
    """
    file = open_tensors(path)
    metadata, train = file.metadata, COMMANDS[head]
    if metadata.get("format") == PREDICTIONS:
        raise ForestageError(f"{path}: holds predictions, not a trained predictor; give it by --predictions")
    if metadata.get("kind", "").startswith(EARLIER_KIND):
        raise ForestageError(
            f"{path}: a next-use predictor of an earlier format; train it anew by `{COMMANDS['next-use']}`"
        )
    if metadata.get("format") != FORMAT:
        raise ForestageError(f"{path}: no trained predictor; give a file that `{train}` wrote")
    if metadata.get("version") != VERSION:
        raise ForestageError(
            f"{path}: version {metadata.get('version')!r} of the format, and this reads {VERSION!r}; train it anew by "
            f"`{train}`"
        )
    header = Header.parse(_json(path, metadata, "predictor"), origin=f"{path}: predictor")
    if header.head != head:
        raise ForestageError(f"{path}: answers {header.head}, and {head} is asked; give a file that `{train}` wrote")
    chosen = config.parse(header.config, origin=f"{path}: predictor")
    checksums = _json(path, metadata, "checksums")
    for name, array in file.tensors.items():
        if checksums.get(name) != f"{crc32(array):08x}":
            raise ForestageError(f"{path}: {name}: checksum differs; the file is damaged, copy or train it again")
    return Stored(NetworkTables(**_tables(path, dict(file.tensors), chosen)), chosen, header)


def _json(path: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError) as error:
        raise ForestageError(f"{path}: header: no readable {key!r}; the file is damaged or not a predictor") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{path}: header: {key!r} is no object; the file is damaged or not a predictor")
    return value


def _tables(path: Path, tensors: dict[str, Any], config: NetworkConfig) -> dict[str, Any]:
    """The tables by name, empty ones put back.

    Raises:
        ForestageError: for a table that is missing or unknown.
    """
    unknown = sorted(set(tensors) - set(NAMES))
    if unknown:
        raise ForestageError(f"{path}: unknown tensor {unknown[0]!r}; not a predictor of this version")
    if "output_bias" not in tensors or tensors["output_bias"].ndim != 2:
        raise ForestageError(f"{path}: output_bias: missing or not [layers, answers]; not a predictor")
    layers, answers = tensors["output_bias"].shape
    for name, (dtype, shape) in expected_shapes(config, layers=layers, experts=answers // config.questions).items():
        if name not in tensors:
            if 0 not in shape:
                raise ForestageError(f"{path}: {name}: missing; the file is damaged or not a predictor")
            tensors[name] = np.empty(shape, dtype)
    return tensors


def head_of(path: Path) -> str | None:
    """The head of the network in a file; ``None`` where the file does not say (``read`` tells why).

    Raises:
        ForestageError: if it cannot be read at all.
    """
    text = open_tensors(path).metadata.get("predictor", "")
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document.get("head") if isinstance(document, dict) else None
