"""Show recorded expert loads, for recordings without routing."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.numbers import count, fixed, percent, size
from study.synthetic import plain_mark
from traces.expert_load_statistics import LayerLoad, LoadStatistics

LAYERS_SHOWN = 12
"""Most layers in the printed table, the most skewed first; ``--json`` has all."""


def render_load(console: Console, name: str, figures: LoadStatistics, *, by_layer: bool) -> None:
    """Print shape and provenance, then the mean skew; with ``by_layer`` also that of the most skewed layers."""
    meta = figures.metadata
    table = Table(box=None, show_header=False, title=escape(name), title_justify="left", title_style="bold")
    table.add_row("model", escape(meta.model) + plain_mark(meta.synthetic))
    table.add_row("content", "expert loads, no routing")
    top_k = f", top-{meta.top_k}" if meta.top_k else ""
    table.add_row("shape", f"{figures.layers} MoE layers, {figures.experts} experts{top_k}")
    table.add_row("steps", count(figures.steps) + ("" if meta.steps_ordered else ", in no known order"))
    table.add_row("counted", f"{figures.total:,.6g}".replace(",", "\u202f"))
    table.add_row("size", size(figures.file_bytes))
    table.add_row("source", escape(f"{meta.source} ({meta.licence})"))
    console.print(table, highlight=False)
    skew = Table("layer", "load entropy (null)", "hottest / mean", "of single steps", "idle experts", box=None)
    _add(skew, "mean", figures.overall)
    if by_layer:
        layers = sorted(zip(meta.layer_map, figures.by_layer, strict=True), key=lambda item: -item[1].hottest_over_mean)
        for index, layer in layers[:LAYERS_SHOWN]:
            _add(skew, str(index), layer)
    console.print(skew, highlight=False)
    known = figures.overall.uniform_load_entropy is not None
    said = "as many tokens that choose independently and uniformly" if known else "unknown, as the number of tokens is"
    console.print(f"[dim](null): {said}[/dim]", highlight=False, soft_wrap=True)
    if by_layer and figures.layers > LAYERS_SHOWN:
        console.print(f"[dim]… and {figures.layers - LAYERS_SHOWN} more even layers; --json lists all[/dim]")
    console.print(f"[yellow]{figures.note}[/yellow]", highlight=False)


def _add(table: Table, label: str, layer: LayerLoad) -> None:
    """Add a row of skew."""
    table.add_row(
        label,
        f"{percent(layer.load_entropy)} ({percent(layer.uniform_load_entropy)})",
        f"{fixed(layer.hottest_over_mean, 2)} ({fixed(layer.uniform_hottest_over_mean, 2)})",
        f"{fixed(layer.step_hottest_over_mean, 2)} ({fixed(layer.uniform_step_hottest_over_mean, 2)})",
        fixed(layer.idle_experts, 1),
    )
