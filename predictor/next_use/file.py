"""A next-use predictor's file: safetensors, the arrays of ``NextUseTables`` by name, the rest in the header."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from catalog.errors import ForestageError
from predictor.next_use.parameters import NextUseParameters
from predictor.next_use.tables import ARRAYS, NextUseTables
from predictor.next_use.twin import NextUsePredictor
from traces.safetensors_file import write_tensors

KIND = "forestage next-use predictor 2"
EARLIER_KIND = "forestage next-use predictor 1"
"""Files of the time before identity was looked at: their header does not name contexts."""


def save(predictor: NextUsePredictor, path: Path) -> None:
    """Write the file atomically; the same predictor gives the same bytes.

    Raises:
        ForestageError: if it cannot be written.
    """
    tables = predictor.tables
    header = {
        "kind": KIND,
        "model": predictor.model,
        "trained_on": predictor.trained_on,
        "layers": str(tables.layers),
        "experts": str(tables.experts),
        "top_k": str(tables.top_k),
        "parameters": tables.parameters.model_dump_json(),
    }
    write_tensors(path, {name: getattr(tables, name) for name in ARRAYS}, header)


def load(path: Path) -> NextUsePredictor:
    """The predictor in the file.

    Raises:
        ForestageError: naming the file and the fault.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("kind") == EARLIER_KIND:
                raise ForestageError(f"{path}: a next-use predictor of an earlier version; train anew")
            if header.get("kind") != KIND:
                raise ForestageError(
                    f"{path}: no next-use predictor; give a file that `forestage predictor train-next-use` wrote"
                )
            missing = set(ARRAYS) - set(file.keys())
            if missing:
                raise ForestageError(f"{path}: {min(missing)} is missing; train anew")
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise ForestageError(f"{path}: no safetensors file ({error})") from error
    try:
        parameters = NextUseParameters.parse(json.loads(header["parameters"]), origin=str(path))
        return NextUsePredictor(
            NextUseTables(
                parameters=parameters,
                layers=int(header["layers"]),
                experts=int(header["experts"]),
                top_k=int(header["top_k"]),
                **arrays,
            ),
            model=header["model"],
            trained_on=header["trained_on"],
        )
    except (KeyError, ValueError) as error:
        raise ForestageError(f"{path}: {error}: the header is damaged; train anew") from error
    except ForestageError as error:
        raise ForestageError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
