"""``forestage trace info``: shape, labels and provenance."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.commands.opening import open_recording
from study.commands.options import JsonOption, ModelOption
from study.commands.trace.expert_loads import render_load
from study.commands.trace.labels import TraceArgument, largest, tell_omitted
from study.numbers import count, fixed, size
from study.output import emit
from study.synthetic import render_fit, synthetic_mark
from traces import RoutingTrace
from traces.batch import BatchSchedule
from traces.batch_file import load_schedule
from traces.describe import BatchInfo, TraceInfo, describe
from traces.expert_load import ExpertLoad
from traces.expert_load_statistics import LoadStatistics, expert_load_statistics
from traces.importers import OWN_TRACE, sniff_format


def info_command(trace: TraceArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Print a recording's shape, labels and provenance."""
    info = describe_recording(open_recording(trace, model), trace, schedule_in(trace))
    emit(info, as_json=as_json, render=lambda console: render_recording(console, str(trace), info))


def schedule_in(path: Path) -> BatchSchedule | None:
    """The batch schedule in the valid trace file ``path``; ``None`` if there is none."""
    return load_schedule(path) if sniff_format(path) == OWN_TRACE else None


def describe_recording(
    recording: RoutingTrace | ExpertLoad, path: Path, schedule: BatchSchedule | None = None
) -> TraceInfo | LoadStatistics:
    """Describe a recording that was read from ``path``."""
    if isinstance(recording, ExpertLoad):
        return expert_load_statistics(recording, path)
    return describe(recording, path, schedule)


def render_recording(console: Console, name: str, info: TraceInfo | LoadStatistics) -> None:
    """Print the description."""
    if isinstance(info, LoadStatistics):
        render_load(console, name, info, by_layer=False)
    else:
        render_info(console, name, info)


def render_info(console: Console, name: str, info: TraceInfo) -> None:
    """Print the description as a two-column table, then the labels."""
    meta = info.metadata
    table = Table(box=None, show_header=False, title=escape(name), title_justify="left", title_style="bold")
    table.add_row("model", escape(meta.model) + synthetic_mark(meta))
    table.add_row("shape", f"{info.layers} MoE layers, {info.experts} experts, top-{info.top_k}")
    table.add_row("tokens", f"{count(info.prefill_tokens)} prefill, {count(info.decode_tokens)} decode")
    table.add_row("sequences", f"{count(info.sequences)} of {info.shortest} to {info.longest} tokens")
    table.add_row("ids", "in rank order" if meta.ranked else "in no order")
    table.add_row("gate weights", meta.gate_weight_kind if info.gate_weights else "not recorded")
    table.add_row("token identity", "recorded" if info.token_hash else "not recorded")
    if info.unrecorded_rows:
        table.add_row("not recorded", f"{count(info.unrecorded_rows)} rows (token, layer)")
    if info.batch is not None:
        table.add_row("batch", _batch(info.batch))
    table.add_row("size", size(info.array_bytes))
    table.add_row("source", escape(f"{meta.source} ({meta.licence})"))
    console.print(table, highlight=False)
    if meta.synthesis is not None:
        render_fit(console, meta.synthesis)
    labels = Table("domain", "sequences", "tokens", box=None)
    for label, part in largest(info.domains):
        labels.add_row(escape(label), count(part.sequences), count(part.tokens))
    console.print(labels, highlight=False)
    tell_omitted(console, len(info.domains))


def _batch(batch: BatchInfo) -> str:
    """A schedule as one line."""
    arrivals = batch.config.arrivals_per_step
    return (
        f"{count(batch.steps)} steps of up to {count(batch.config.slots)} slots, {fixed(batch.busy_slots, 1)} busy "
        f"(mean); {'all there at once' if arrivals is None else f'{arrivals:g} arrivals a step'}; made by "
        f"{batch.made_by}"
    )
