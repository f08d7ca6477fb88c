"""A trace and its batch schedule in one file.

The file is a trace file (``trace_file``) of version 2 with five more tensors and a header entry ``batch`` (JSON:
``made_by`` and ``config``). Readers of version 1 refuse it. ``RoutingTrace.load`` reads the trace, in the order of its
sequences; ``load_schedule`` reads the order of the batch.
"""

import json
from pathlib import Path

import numpy as np

from catalog.errors import ForestageError
from traces import trace_file
from traces.batch import MADE_BY, BatchConfig, BatchSchedule, check_schedule
from traces.safetensors_file import open_tensors, write_tensors
from traces.trace import RoutingTrace

_DTYPES = {
    "step_offsets": np.dtype(np.int64),
    "clock": np.dtype(np.int64),
    "token": np.dtype(np.int64),
    "slot": np.dtype(np.uint16),
    "arrival": np.dtype(np.int64),
}
"""Fields of the schedule that are stored as tensors ``batch_…``."""


def save_batched(path: Path, trace: RoutingTrace, schedule: BatchSchedule) -> None:
    """Write ``trace`` and ``schedule``, which was made for it, to ``path``, atomically.

    Raises:
        ForestageError: if the file cannot be written, or trace or schedule is invalid.
    """
    if not np.array_equal(schedule.sequence_offsets, trace.sequence_offsets):
        raise ForestageError(f"{path}: the schedule was made for another trace")
    check_schedule(schedule, str(path))
    tensors, header = trace_file.compose(trace.checked())
    extra = {f"batch_{name}": getattr(schedule, name) for name in _DTYPES}
    text = json.dumps({"made_by": MADE_BY, "config": schedule.config.model_dump(mode="json")})
    write_tensors(path, {**tensors, **extra}, trace_file.add_batch(header, extra, text))


def has_schedule(path: Path) -> bool:
    """Whether the trace file ``path`` holds a schedule; only its header is read.

    Raises:
        ForestageError: naming the file, if it is not a safetensors file.
    """
    return trace_file.BATCH in open_tensors(path).metadata


def load_schedule(path: Path) -> BatchSchedule | None:
    """The schedule in trace file ``path``, checked; ``None`` if it has none.

    Raises:
        ForestageError: naming the file and the field, if it is not a trace or the schedule is invalid.
    """
    file = open_tensors(path)
    trace_file.parse(path, file)
    if trace_file.BATCH not in file.metadata:
        return None
    trace_file.check_checksums(path, file)
    for name, dtype in _DTYPES.items():
        found = file.tensors[f"batch_{name}"]
        if found.dtype != dtype or found.ndim != 1:
            raise ForestageError(f"{path}: batch_{name}: must be {dtype} in one dimension")
    try:
        document = json.loads(file.metadata[trace_file.BATCH])
        config = document["config"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ForestageError(f"{path}: header: 'batch' is not the JSON of a batch ({error})") from error
    if not isinstance(config, dict):
        raise ForestageError(f"{path}: header: 'batch' holds no config")
    schedule = BatchSchedule(
        config=BatchConfig.parse(config, origin=f"{path}: batch"),
        **{name: file.tensors[f"batch_{name}"] for name in _DTYPES},
        sequence_offsets=file.tensors["sequence_offsets"],
    )
    check_schedule(schedule, str(path))
    return schedule
