"""``forestage trace info``: shape, labels and provenance."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.commands.options import JsonOption, ModelOption, open_recording
from study.commands.trace.labels import TraceArgument, largest, tell_omitted
from study.commands.trace.loads import render_load
from study.numbers import count, size
from study.output import emit
from study.synthetic import render_fit, synthetic_mark
from traces import RoutingTrace
from traces.describe import TraceInfo, describe
from traces.load import ExpertLoad
from traces.load_statistics import LoadStatistics, load_statistics


def info_command(trace: TraceArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Shape, labels and provenance."""
    info = describe_recording(open_recording(trace, model), trace)
    emit(info, as_json=as_json, render=lambda console: render_recording(console, str(trace), info))


def describe_recording(recording: RoutingTrace | ExpertLoad, path: Path) -> TraceInfo | LoadStatistics:
    """What a recording, read from ``path``, holds."""
    return load_statistics(recording, path) if isinstance(recording, ExpertLoad) else describe(recording, path)


def render_recording(console: Console, name: str, info: TraceInfo | LoadStatistics) -> None:
    """The description, for a person."""
    if isinstance(info, LoadStatistics):
        render_load(console, name, info, by_layer=False)
    else:
        render_info(console, name, info)


def render_info(console: Console, name: str, info: TraceInfo) -> None:
    """The description as a two-column table, then the labels."""
    meta = info.metadata
    table = Table(box=None, show_header=False, title=name, title_justify="left", title_style="bold")
    table.add_row("model", meta.model + synthetic_mark(meta))
    table.add_row("shape", f"{info.layers} MoE layers, {info.experts} experts, top-{info.top_k}")
    table.add_row("tokens", f"{count(info.prefill_tokens)} prefill, {count(info.decode_tokens)} decode")
    table.add_row("sequences", f"{count(info.sequences)} of {info.shortest} to {info.longest} tokens")
    table.add_row("ids", "in rank order" if meta.ranked else "in no order")
    table.add_row("gate weights", meta.gate_weight_kind if info.gate_weights else "not recorded")
    table.add_row("token identity", "recorded" if info.token_hash else "not recorded")
    if info.unrecorded_rows:
        table.add_row("not recorded", f"{count(info.unrecorded_rows)} rows (token, layer)")
    table.add_row("size", size(info.array_bytes))
    table.add_row("source", f"{meta.source} ({meta.licence})")
    console.print(table, highlight=False)
    if meta.synthesis is not None:
        render_fit(console, meta.synthesis)
    labels = Table("domain", "sequences", "tokens", box=None)
    for label, part in largest(info.domains):
        labels.add_row(label, count(part.sequences), count(part.tokens))
    console.print(labels, highlight=False)
    tell_omitted(console, len(info.domains))
