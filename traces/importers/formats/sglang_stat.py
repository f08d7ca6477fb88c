"""SGLang's expert-distribution recorder in its modes ``stat`` and ``stat_approx``: counts a step, layer and expert.

A ``torch.save`` dictionary ``{rank, logical_count: int32 [buffered steps, layers, logical experts],
average_utilization_rate_over_window}``. The steps lie in a circular buffer: unused ones are zero and are left out;
where none is unused the buffer may have wrapped, and the order of the steps is not known. Layers are all of the
model's; dense ones count nothing. The same array in JSON, ``[layers, experts]`` or with steps before, is what the
server reads as ``--init-expert-location``; it was no buffer where it has one step.

The file is the sum over all ranks (``all_reduce``), written by rank 0. Ranks of tensor parallelism see the same tokens,
so that each is counted as often as there are such ranks; and in a step every layer that was counted whole has as many
choices as any other. Source: ``python/sglang/srt/eplb/expert_distribution.py`` (``_StatAccumulator``).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers.assembly import torch_file
from traces.importers.assembly.array_file import read_arrays
from traces.importers.assembly.expert_loads import build_load
from traces.importers.assembly.text_file import starting_bytes
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report

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
    _warn_of_sums(counts[used].astype(np.int64), path, report)
    return build_load(
        counts[used],
        path,
        options,
        report,
        source="SGLang expert-distribution recorder, mode stat",
        steps_ordered=bool(is_prefix),
    )


def _warn_of_sums(counts: npt.NDArray[np.int64], path: Path, report: Report) -> None:
    """Tell of ``counts [steps, layers, experts]`` that were counted several times over, or not in every layer."""
    often = int(np.gcd.reduce(counts, axis=None))
    if often > 1:
        report.warn(
            f"{path}: every count is a multiple of {often}: the recorder adds up its ranks, and those of tensor "
            "parallelism each count every token; shares hold, numbers of tokens may be that many times too large"
        )
    sums = counts[:, counts.any(axis=(0, 2))].sum(axis=2)
    unequal = int((sums != sums[:, :1]).any(axis=1).sum())
    if unequal:
        report.warn(
            f"{path}: in {unequal} of {len(sums)} steps the layers counted different numbers of choices: approximate "
            "(stat_approx), or not counted whole"
        )


IMPORTER = Importer(
    "sglang_stat",
    "SGLang's recorder, mode stat, .pt (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
)
