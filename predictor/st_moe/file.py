"""ST-MoE's tables just after their profile, as a file: for a machine that has no training sequences."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.st_moe.batch import Profile
from predictor.st_moe.parameters import CONFIDENCE_MAX, StMoeParameters
from predictor.st_moe.predictor import StMoePredictor
from traces.safetensors_file import open_tensors, write_tensors

FORMAT = "forestage-st-moe"
VERSION = "1"
DTYPES: dict[str, np.dtype[Any]] = {"candidates": np.dtype("<i2"), "confidences": np.dtype("i1")}


class Header(StrictModel):
    """What the file's header says beside the tables.

    Attributes:
        parameters: the algorithm's choices.
        top_k: experts a gate chooses.
        lookahead: layers between the known gate and the target.
    """

    parameters: StMoeParameters
    top_k: int
    lookahead: int


def save(predictor: StMoePredictor, path: Path) -> None:
    """Write the predictor as it was just after ``fit``, atomically; the same one gives the same bytes.

    Raises:
        ForestageError: if it cannot be written.
    """
    write_tensors(
        path,
        {name: np.asarray(getattr(predictor.profile, name), dtype) for name, dtype in DTYPES.items()},
        {"format": FORMAT, "version": VERSION, "predictor": _header(predictor).model_dump_json()},
    )


def load(path: Path) -> StMoePredictor:
    """The predictor of a file that ``save`` wrote.

    Raises:
        ForestageError: naming the file and what is wrong with it.
    """
    file = open_tensors(path)
    if (file.metadata.get("format"), file.metadata.get("version")) != (FORMAT, VERSION):
        raise ForestageError(f"{path}: no tables of ST-MoE in this version's format; write them again")
    try:
        values = json.loads(file.metadata.get("predictor", ""))
    except ValueError as error:
        raise ForestageError(f"{path}: header: not readable; the file is damaged, write it again") from error
    header = Header.parse(values, origin=f"{path}: predictor")
    shapes = set()
    for name, dtype in DTYPES.items():
        array = file.tensors.get(name)
        if array is None or array.dtype != dtype or array.ndim != 3:
            raise ForestageError(f"{path}: {name}: missing, or not {dtype} [layers, experts, candidates]")
        shapes.add(array.shape)
    if len(shapes) > 1:
        raise ForestageError(f"{path}: candidates, confidences: of different shapes; the file is damaged")
    candidates, confidences = (np.array(file.tensors[name]) for name in DTYPES)
    layers, experts, _ = candidates.shape
    if candidates.min() < 0 or candidates.max() >= experts:
        raise ForestageError(f"{path}: candidates: names experts outside 0 to {experts - 1}; the file is damaged")
    if confidences.min() < 0 or confidences.max() > CONFIDENCE_MAX:
        raise ForestageError(f"{path}: confidences: outside 0 to {CONFIDENCE_MAX}; the file is damaged")
    return StMoePredictor(
        Profile(candidates, confidences),
        header.parameters,
        layers=layers,
        experts=experts,
        top_k=header.top_k,
        lookahead=header.lookahead,
    )


def digest(predictor: StMoePredictor) -> str:
    """SHA-256 (hex) of what ``save`` would keep: choices, shape and tables."""
    state = hashlib.sha256(_header(predictor).model_dump_json().encode())
    for name, dtype in DTYPES.items():
        array = np.ascontiguousarray(getattr(predictor.profile, name), dtype)
        state.update(str(array.shape).encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _header(predictor: StMoePredictor) -> Header:
    return Header(parameters=predictor.parameters, top_k=predictor.top_k, lookahead=predictor.lookahead)
