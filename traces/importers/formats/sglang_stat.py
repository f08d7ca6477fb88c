"""SGLang's expert-distribution recorder in its modes ``stat`` and ``stat_approx``: counts a step, layer and expert.

A ``torch.save`` dictionary ``{rank, logical_count: int32 [buffered steps, layers, logical experts],
average_utilization_rate_over_window}``. The steps lie in a circular buffer: unused ones are zero and are left out;
where none is unused the buffer may have wrapped, and the order of the steps is not known. Layers are all of the
model's; dense ones count nothing.
"""

from pathlib import Path

import numpy as np

from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.loads import build_load
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.load import ExpertLoad


def sniff(path: Path, start: bytes) -> bool:
    """A PyTorch file that names ``logical_count``."""
    return torch_file.is_torch_file(start) and "logical_count" in torch_file.names_in(path)


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The counts of the steps that counted anything.

    Raises:
        ForestageError: if the file is damaged or no such dictionary, nothing was counted, or the model is not known.
    """
    value = torch_file.load(path)
    counts = value.get("logical_count") if isinstance(value, dict) else None
    if not isinstance(counts, np.ndarray):
        raise ForestageError(f"{path}: logical_count: missing; expected SGLang's recording in the mode stat")
    if counts.ndim != 3 or counts.dtype.kind not in "iu":
        raise ForestageError(
            f"{path}: logical_count: {counts.dtype} {list(counts.shape)}; expected integers [steps, layers, experts]"
        )
    used = np.flatnonzero((counts != 0).any(axis=(1, 2)))
    if not len(used):
        raise ForestageError(f"{path}: logical_count: every step is zero; nothing was counted")
    is_prefix = len(used) < len(counts) and used[-1] == len(used) - 1
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
