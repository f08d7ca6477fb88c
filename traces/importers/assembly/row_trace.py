"""A trace of collected rows: which model and layers they are of, and their way through the builder."""

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
"""What every format of rows can be told."""

UNLABELLED = "unlabelled"
"""Domain of sequences that neither the file nor the user labels."""


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
    """What rows with the layer numbers ``layers`` are of (``recorded_model``).

    Args:
        options: what the user says; ``--layers`` overrides the numbers.
        origin: the file or folder, for errors.
        layers: the file's numbers, ascending.
        top_k: ids a row.
        report: takes the warnings.
        experts: routed experts a layer, where the file says.
        name: the model's name in the file, if there is one.
        written_for: as in ``recorded_model``.

    Raises:
        ForestageError: if the model or its experts are not known, or it lacks such layers.
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
        rows: all of them.
        labels: domain and dataset of each sequence, by its number; ``None`` where the file does not say.
        options: what the user says; uses ``ROW_OPTIONS``.
        report: takes the warnings.
        origin: the file or folder.
        format: the importer's name.
        experts: routed experts a layer, where the file says.
        ranked: whether ids are in rank order; ``None``: where every row's weights descend.
        name: the model's name in the file, if there is one; ``--model`` overrides it.
        source: the metadata's source, where it is more than the format and the file's name.
        written_for: as in ``recorded_model``.
        expert_map: of the rows' ids, where they are of physical experts.
        facts: what the file says of all of it.

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
    """Domain and dataset of a sequence: as the file says, else the user, else none and the format's name."""
    return domain or options.domain or UNLABELLED, dataset or options.dataset or format


def source_of(format: str, origin: Path) -> str:
    """The metadata's source of a recording that names none."""
    return f"{format}, from {origin.name or origin.resolve().name}"
