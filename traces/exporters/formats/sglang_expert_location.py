"""The file that SGLang's ``--init-expert-location FILE.json`` reads: ``{"logical_count": [steps, layers, experts]}``.

SGLang places experts by these loads before it serves (``compute_initial_expert_location_metadata`` and ``init_by_eplb``
in ``python/sglang/srt/eplb/expert_location.py``: it passes the counts to a balancer). The layer axis covers all of the
model's transformer layers; counts of dense ones are 0.
"""

import json
from pathlib import Path

import numpy as np

from catalog.files import write_text
from catalog.progress import Progress
from traces.exporters.counts import expert_counts, plain_numbers, whole_model
from traces.exporters.exporter import Exporter, ExportOptions, Source, lost_but, shape_options

NAME = "sglang_expert_location"


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Refuse a recording whose layers' places among the model's layers are not known.

    Raises:
        ForestageError: as ``whole_model``.
    """
    whole_model(source, options.model_layers)


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write the loads, at the model's layer indices."""
    counts = plain_numbers(expert_counts(source, progress))
    layers = whole_model(source, options.model_layers)
    placed = np.zeros((len(counts), layers, counts.shape[2]), counts.dtype)
    placed[:, list(source.recording.metadata.layer_map)] = counts
    write_text(path, json.dumps({"logical_count": placed.tolist()}) + "\n")
    return (path,)


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """All facts but the counts, the experts and the layers."""
    return lost_but(source, "steps", "experts", "layer_map")


def reader(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """``sglang_stat``, given the model's name and shape."""
    return ("--format", "sglang_stat", *shape_options(source))


EXPORTER = Exporter(
    NAME,
    "SGLang's --init-expert-location: logical_count, JSON",
    (".json",),
    check,
    write,
    lost,
    uses=frozenset({"model_layers"}),
    takes_loads=True,
    reader=reader,
)
