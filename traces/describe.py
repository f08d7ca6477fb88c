"""Describe a trace without looking at the routing itself."""

from pathlib import Path

import numpy as np

from catalog.config import StrictModel
from catalog.files import bytes_at
from traces.batch import MADE_BY, BatchConfig, BatchSchedule
from traces.metadata import TraceMetadata
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace


class LabelCount(StrictModel):
    """How many sequences and tokens of a trace have a label."""

    sequences: int
    tokens: int


class BatchInfo(StrictModel):
    """The batch schedule stored with a trace.

    Attributes:
        made_by: what made the batch.
        config: the schedule's; its ``slots`` is the largest number of sequences in a step.
        steps: number of steps.
        busy_slots: slots that process a token, mean over steps.
    """

    made_by: str
    config: BatchConfig
    steps: int
    busy_slots: float


class TraceInfo(StrictModel):
    """A trace's shape and provenance.

    Attributes:
        tokens, layers, experts, top_k, sequences: the shape.
        prefill_tokens, decode_tokens: tokens by phase.
        shortest, median, longest: length of a sequence, in tokens.
        longest_context: the largest position, plus 1.
        unrecorded_rows: number of (token, layer) rows that were not recorded.
        gate_weights, token_hash: whether the trace has them.
        datasets, domains: label → how many sequences and tokens have it.
        array_bytes: size of all arrays.
        file_bytes: size of the file, or of the files in the folder; ``None`` without either.
        batch: the schedule in the file; ``None`` without one.
        metadata: the trace's metadata.
    """

    tokens: int
    layers: int
    experts: int
    top_k: int
    sequences: int
    prefill_tokens: int
    decode_tokens: int
    shortest: int
    median: float
    longest: int
    longest_context: int
    unrecorded_rows: int
    gate_weights: bool
    token_hash: bool
    datasets: dict[str, LabelCount]
    domains: dict[str, LabelCount]
    array_bytes: int
    file_bytes: int | None
    batch: BatchInfo | None
    metadata: TraceMetadata


def describe(trace: RoutingTrace, path: Path | str | None = None, schedule: BatchSchedule | None = None) -> TraceInfo:
    """Describe ``trace``, reading it in chunks; ``path`` is its file and ``schedule`` the one in that file, if any."""
    lengths = np.diff(trace.sequence_offsets)
    phases = np.zeros(2, np.int64)
    last_position = unrecorded = 0
    for part in trace.chunks():
        phases += np.bincount(part.phase, minlength=2)
        last_position = max(last_position, int(part.position.max()))
        if trace.metadata.has_unrecorded:
            unrecorded += int(np.count_nonzero(~part.recorded()))
    return TraceInfo(
        tokens=trace.tokens,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        sequences=trace.sequences,
        prefill_tokens=int(phases[PREFILL]),
        decode_tokens=int(phases[DECODE]),
        shortest=int(lengths.min()),
        median=float(np.median(lengths)),
        longest=int(lengths.max()),
        longest_context=last_position + 1,
        unrecorded_rows=unrecorded,
        gate_weights=trace.gate_weights is not None,
        token_hash=trace.token_hash is not None,
        datasets=_count_labels(trace.datasets, lengths.tolist()),
        domains=_count_labels(trace.domains, lengths.tolist()),
        array_bytes=trace.nbytes,
        file_bytes=None if path is None else bytes_at(Path(path)),
        batch=None if schedule is None else _describe_batch(schedule),
        metadata=trace.metadata,
    )


def _describe_batch(schedule: BatchSchedule) -> BatchInfo:
    return BatchInfo(
        made_by=MADE_BY,
        config=schedule.config,
        steps=schedule.steps,
        busy_slots=float(schedule.busy_slots().mean()),
    )


def _count_labels(labels: tuple[str, ...], lengths: list[int]) -> dict[str, LabelCount]:
    """Sequences and tokens by label, in order of first appearance."""
    sequences: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for label, length in zip(labels, lengths, strict=True):
        sequences[label] = sequences.get(label, 0) + 1
        tokens[label] = tokens.get(label, 0) + length
    return {label: LabelCount(sequences=count, tokens=tokens[label]) for label, count in sequences.items()}
