"""DeepSeek EPLB's input: ``weight [layers, logical experts]``, the load of every expert, summed over steps.

``rebalance_experts(weight, …)`` (deepseek-ai/EPLB, ``eplb.py``) takes the tensor and fixes no file format; here it is
an array named ``weight`` in an ``.npz``, ``.safetensors`` or ``.json`` file. Layers are the recorded MoE layers.
"""

import json
from pathlib import Path

import numpy as np

from catalog.files import atomic_path, write_text
from catalog.progress import Progress
from traces.exporters.counts import expert_counts, plain_numbers
from traces.exporters.exporter import Exporter, ExportOptions, Source, lost_but, shape_options
from traces.safetensors_file import write_tensors

NAME = "eplb"


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Any recording can be written."""


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write the sum of the loads over steps."""
    weight = plain_numbers(expert_counts(source, progress).sum(axis=0))
    if path.suffix == ".json":
        write_text(path, json.dumps({"weight": weight.tolist()}) + "\n")
    elif path.suffix == ".safetensors":
        write_tensors(path, {"weight": weight}, {})
    else:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, weight=weight)
    return (path,)


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """All facts but the summed loads and the number of experts."""
    return lost_but(source, "experts")


def reader(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """``eplb``, given the model's name and shape."""
    return ("--format", NAME, *shape_options(source))


EXPORTER = Exporter(
    NAME,
    "DeepSeek EPLB's load: weight [layers, experts]",
    (".npz", ".safetensors", ".json"),
    check,
    write,
    lost,
    takes_loads=True,
    reader=reader,
)
