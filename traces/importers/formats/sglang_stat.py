"""SGLang's expert-distribution recorder in its modes ``stat`` and ``stat_approx``: counts a step, layer and expert.

A ``torch.save`` dictionary ``{rank, logical_count: int32 [buffered steps, layers, logical experts],
average_utilization_rate_over_window}``. The steps lie in a circular buffer: unused ones are zero and are left out;
where none is unused the buffer may have wrapped, and the order of the steps is not known. Layers are all of the
model's; dense ones count nothing. The same array in JSON, ``[layers, experts]`` or with steps before, is what the
server reads as ``--init-expert-location``; it was no buffer where it has one step.
"""

from pathlib import Path

import numpy as np

from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.array_file import read_arrays
from traces.importers.assembly.loads import build_load
from traces.importers.assembly.text_file import starting_bytes
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.load import ExpertLoad

NAME = "logical_count"


def sniff(path: Path, start: bytes) -> bool:
    """A PyTorch file that names ``logical_count``, or a JSON object that begins with it."""
    if torch_file.is_torch_file(start):
        return NAME in torch_file.names_in(path)
    return start.lstrip().startswith(f'{{"{NAME}"'.encode())


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The counts of the steps that counted anything.

    Raises:
        ForestageError: if the file is damaged or no such dictionary, nothing was counted, or the model is not known.
    """
    is_json = starting_bytes(path, 64).lstrip().startswith(b"{")
    value = read_arrays(path) if is_json else torch_file.load(path)
    counts = value.get(NAME) if isinstance(value, dict) else None
    if is_json and isinstance(counts, np.ndarray) and counts.ndim == 2:
        counts = counts[None]
    if not isinstance(counts, np.ndarray):
        raise ForestageError(f"{path}: logical_count: missing; expected SGLang's recording in the mode stat")
    if counts.ndim != 3 or counts.dtype.kind not in ("iuf" if is_json else "iu"):
        raise ForestageError(
            f"{path}: logical_count: {counts.dtype} {list(counts.shape)}; expected integers [steps, layers, experts]"
        )
    used = np.flatnonzero((counts != 0).any(axis=(1, 2)))
    if not len(used):
        raise ForestageError(f"{path}: logical_count: every step is zero; nothing was counted")
    is_prefix = len(used) < len(counts) and used[-1] == len(used) - 1
    is_prefix |= is_json and len(counts) == 1
    if not is_prefix:
        report.warn(
            f"{path}: the circular buffer of {len(counts)} steps is full or has gaps: it may have wrapped, so the "
            "order of the steps is not known and earlier ones may be lost"
        )
    return build_load(
        counts[used],
        path,
        options,
        report,
        source="SGLang expert-distribution recorder, mode stat",
        steps_ordered=bool(is_prefix),
    )


IMPORTER = Importer(
    "sglang_stat",
    "SGLang's recorder, mode stat, .pt (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
)
