"""What a simulation is given and what it gives back: named values and arrays, through files in the run's folder.

``simulation.run`` writes the stimulus and reads the results; a test module inside the simulator calls
``read_stimulus``, ``write_results`` and ``report_progress``.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

FOLDER_VARIABLE = "FORESTAGE_RUN_FOLDER"


def write_values(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    """Write ``values`` as ``name.json`` and, for those that are arrays, ``name.safetensors``."""
    arrays = {key: np.ascontiguousarray(value) for key, value in values.items() if isinstance(value, np.ndarray)}
    plain = {key: value for key, value in values.items() if key not in arrays}
    save_file(arrays, folder / f"{name}.safetensors")
    # The JSON is written last and renamed: where it exists, the values are complete.
    partial = folder / f"{name}.json.partial"
    partial.write_text(json.dumps(plain))
    partial.rename(folder / f"{name}.json")


def read_values(folder: Path, name: str) -> dict[str, Any]:
    """The values of ``write_values``."""
    plain: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return {**plain, **load_file(folder / f"{name}.safetensors")}


def read_stimulus() -> dict[str, Any]:
    """In the simulator: the stimulus that ``simulation.run`` was given."""
    return read_values(_folder(), "stimulus")


def write_results(values: Mapping[str, Any]) -> None:
    """In the simulator: hand ``values`` (JSON values, NumPy arrays) to ``simulation.run``; the last call counts."""
    write_values(_folder(), "results", values)


def report_progress(done: int) -> None:
    """In the simulator: tell ``simulation.run`` how many units of work (its test module's own unit) are done."""
    # Eight bytes at once: a reader never sees half a number.
    with (_folder() / "progress").open("wb", buffering=0) as file:
        file.write(done.to_bytes(8, "little"))


def read_progress(folder: Path) -> int | None:
    """The last ``report_progress`` of the run in ``folder``, or None where there was none."""
    try:
        content = (folder / "progress").read_bytes()
    except FileNotFoundError:
        return None
    return int.from_bytes(content, "little") if len(content) == 8 else None


def _folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])
