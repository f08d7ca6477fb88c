"""What a Parquet table of this project's own says of its trace, held against its rows and against the options.

``forestage trace export --format table`` writes the trace's metadata as JSON under ``PARQUET_KEY`` of the file's
key-value metadata, which programs that filter or sort the table usually keep. So they are of the trace that was
exported: its layers may have become fewer, and nothing else may differ.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from catalog.errors import ForestageError
from catalog.json_text import parse_json
from traces.importers.assembly.stated import check_stated
from traces.importers.assembly.table_source import PARQUET_MAGIC
from traces.importers.assembly.text_file import starting_bytes
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.metadata import PARQUET_KEY, TraceMetadata
from traces.trace import RoutingTrace

SHOWN = ("model", "experts", "top_k", "ranked", "gate_weight_kind", "source", "licence", "synthetic")
"""What the tables of one recording say alike."""


def table_facts(files: Sequence[Path]) -> TraceMetadata | None:
    """What the tables say of the trace that they hold, ``None`` where they are others' tables.

    Raises:
        ForestageError: if the metadata are damaged, or differ between the files.
    """
    first: TraceMetadata | None = None
    for number, file in enumerate(files):
        facts = _facts_of(file)
        if not number:
            first = facts
            continue
        differing = [name for name in SHOWN if getattr(first, name, None) != getattr(facts, name, None)]
        if differing:
            raise ForestageError(
                f"{file}: {differing[0]}: {getattr(facts, differing[0], None)!r} in the file's metadata, but "
                f"{getattr(first, differing[0], None)!r} in those of {files[0].name}; import them one by one"
            )
    return first


def _facts_of(file: Path) -> TraceMetadata | None:
    """The metadata of one file."""
    if not starting_bytes(file, len(PARQUET_MAGIC)).startswith(PARQUET_MAGIC):
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stated = (pq.read_schema(file).metadata or {}).get(PARQUET_KEY.encode())
    except (pa.ArrowException, OSError):  # damaged: who reads the rows tells
        return None
    if stated is None:
        return None
    origin = f"{file}: the metadata {PARQUET_KEY}"
    try:
        value = parse_json(stated.decode())
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{origin}: not valid JSON ({error}); export the trace again") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{origin}: no JSON object; export the trace again")
    return TraceMetadata.parse(value, origin=origin)


def checked_options(
    facts: TraceMetadata, options: ImportOptions, layers: Sequence[int], top_k: int, origin: Path, report: Report
) -> ImportOptions:
    """The options, with what the file states in place of what the user need not say.

    Args:
        facts: what the file states.
        options: what the user says.
        layers: of the rows, ascending.
        top_k: ids a row.
        origin: the file or folder, for errors.
        report: takes the warnings.

    Raises:
        ForestageError: if the rows or an option contradict the file.
    """
    stray = sorted(set(layers) - set(facts.layer_map))
    if stray:
        raise ForestageError(
            f"{origin}: layer {stray[0]}: the file's metadata have layers {', '.join(map(str, facts.layer_map))}; were "
            "rows of another trace added?"
        )
    if top_k != facts.top_k:
        raise ForestageError(f"{origin}: {top_k} ids a row, but the file's metadata say top_k {facts.top_k}")
    check_stated(
        options,
        report,
        origin=str(origin),
        model=facts.model,
        experts=facts.experts,
        top_k=facts.top_k,
        layer_map=layers,
    )
    return options.model_copy(update={"layers": tuple(layers), "top_k": facts.top_k})


def with_facts(trace: RoutingTrace, facts: TraceMetadata) -> RoutingTrace:
    """The trace with what its rows cannot say: where it is from, whether it is synthetic, and what its weights are.

    Ids are ranked where both the file says so and the weights, if there are any, descend.
    """
    kind = "none" if trace.gate_weights is None else facts.gate_weight_kind
    said = {name: getattr(facts, name) for name in ("source", "licence", "synthetic", "synthesis")}
    ranked = facts.ranked and (trace.gate_weights is None or trace.metadata.ranked)
    metadata = trace.metadata.model_copy(update={**said, "gate_weight_kind": kind, "ranked": ranked})
    return replace(trace, metadata=metadata, content="unchecked")
