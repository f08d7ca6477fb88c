"""Make a trace from collected rows: find their model and layers, and pass them through the builder."""

from collections.abc import Sequence
from pathlib import Path

from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.expert_map import ExpertMap
from traces.importers.assembly.models import RecordedModel, recorded_model
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.table_facts import checked_options, with_facts
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.metadata import TraceMetadata
from traces.trace import RoutingTrace

ROW_OPTIONS = frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"})
"""The options of every format of rows."""

UNLABELLED = "unlabelled"
"""Domain of sequences without a label from file or user."""


def model_of_layers(
    options: ImportOptions,
    origin: Path,
    layers: Sequence[int],
    top_k: int,
    report: Report,
    *,
    experts: int | None = None,
    name: str | None = None,
    written_for: str = "",
) -> RecordedModel:
    """The model of rows with the layer numbers ``layers`` (see ``recorded_model``).

    Args:
        options: the user's options; ``--layers`` overrides the numbers.
        origin: the file or folder, for errors.
        layers: the file's numbers, ascending.
        top_k: ids per row.
        report: takes the warnings.
        experts: routed experts per layer, if the file states them.
        name: the model's name in the file, if there is one.
        written_for: as in ``recorded_model``.

    Raises:
        ForestageError: if the model or its experts are not known, or it lacks these layers.
    """
    return recorded_model(
        options,
        report,
        origin=str(origin),
        layers=len(layers),
        top_k=top_k,
        used_layers=range(len(layers)),
        name=name,
        experts=experts,
        layer_map=None if options.layers is not None else layers,
        written_for=written_for,
    )


def trace_of_rows(
    rows: RoutingRows,
    labels: Sequence[tuple[str | None, str | None]],
    options: ImportOptions,
    report: Report,
    *,
    origin: Path,
    format: str,
    experts: int | None = None,
    ranked: bool | None = None,
    name: str | None = None,
    source: str | None = None,
    written_for: str = "",
    expert_map: ExpertMap | None = None,
    facts: TraceMetadata | None = None,
) -> RoutingTrace:
    """The trace of ``rows``; missing ones count as not recorded, and a warning says how many.

    Args:
        rows: all rows.
        labels: domain and dataset of each sequence, by its number; ``None`` if the file does not state them.
        options: the user's options; uses ``ROW_OPTIONS``.
        report: takes the warnings.
        origin: the file or folder.
        format: the importer's name.
        experts: routed experts per layer, if the file states them.
        ranked: whether ids are in rank order; ``None``: if all rows' weights descend.
        name: the model's name in the file, if there is one; ``--model`` overrides it.
        source: the metadata's source, if it is more than the format and the file's name.
        written_for: as in ``recorded_model``.
        expert_map: the map of the rows' ids, if they are of physical experts.
        facts: the file's metadata about the whole recording.

    Raises:
        ForestageError: as ``RoutingRows.sort``, ``checked_options``, ``model_of_layers`` and ``TraceBuilder.finish``.
    """
    placed = rows.sort()
    if facts is not None:
        options = checked_options(facts, options, placed.layers, placed.top_k, origin, report)
        name, experts = facts.model, facts.experts
    model = model_of_layers(
        options, origin, placed.layers, placed.top_k, report, experts=experts, name=name, written_for=written_for
    )
    if placed.left_out:
        report.warn(f"{origin}: {placed.left_out} rows (token, layer) repeat another; they are counted once")
    if placed.missing:
        report.warn(f"{origin}: {placed.missing} rows (token, layer) are missing; they count as not recorded")
    gaps = placed.skipped_positions()
    if gaps:
        report.warn(f"{origin}: {gaps} times tokens are left out within a sequence (positions are skipped)")
    builder = TraceBuilder(
        origin,
        layers=len(placed.layers),
        top_k=placed.top_k,
        weights=placed.has_weights,
        hashes=placed.has_tokens,
    )
    placed.feed(builder, [label(options, format, *named) for named in labels], model.experts, expert_map)
    trace = builder.finish(model, report, source=source_of(format, origin), ranked=ranked, missing_told=True)
    return trace if facts is None else with_facts(trace, facts)


def label(
    options: ImportOptions, format: str, domain: str | None = None, dataset: str | None = None
) -> tuple[str, str]:
    """Domain and dataset of a sequence: from the file, else from the user, else none and the format's name."""
    return domain or options.domain or UNLABELLED, dataset or options.dataset or format


def source_of(format: str, origin: Path) -> str:
    """The metadata's source for a recording that does not state one."""
    return f"{format}, from {origin.name or origin.resolve().name}"
