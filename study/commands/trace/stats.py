"""``forestage trace stats``: statistics of the routing, as tables, a document or a picture."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.errors import ForestageError
from study.commands.command import refuse_unused
from study.commands.opening import open_recording
from study.commands.options import JsonOption, ModelOption
from study.commands.trace.expert_loads import render_load
from study.commands.trace.labels import TraceArgument, largest, tell_omitted
from study.figures.files import check_figure_path, write_figure
from study.numbers import count, fixed, percent, tokens_of
from study.output import emit, progress_bar
from study.synthetic import plain_mark
from study.trace_profile import TraceProfile, trace_profile
from traces.expert_load import ExpertLoad
from traces.expert_load_statistics import expert_load_statistics
from traces.statistics import RoutingStatistics
from traces.statistics.batches import MOST_SAMPLES, SAMPLES


def stats_command(
    trace: TraceArgument,
    batch: Annotated[
        int, typer.Option("--batch", help="Batch size for which the tokens that each expert gets are shown")
    ] = 64,
    samples: Annotated[int, typer.Option("--samples", help="Batches to draw of each size")] = SAMPLES,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawn batches")] = 0,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Also draw the statistics to this file (.svg, .pdf or .png)")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trace: overlap, load, dependence of adjacent layers, batches, working sets and an LRU cache."""
    for option, value, least, most in (
        ("--batch", batch, 1, None),
        ("--samples", samples, 1, MOST_SAMPLES),
        ("--seed", seed, 0, None),
    ):
        if value < least or (most is not None and value > most):
            raise ForestageError(f"{option} {value}: give {least} {f'to {most}' if most else 'or more'}")
    if figure is not None:
        check_figure_path(figure)
    recording = open_recording(trace, model, batch_aside=True)
    if isinstance(recording, ExpertLoad):
        refuse_unused(
            "loads say nothing of single tokens, which it is about; leave it out",
            batch="--batch",
            samples="--samples",
            seed="--seed",
            figure="--figure",
        )
        load = expert_load_statistics(recording, trace)
        emit(load, as_json=as_json, render=lambda console: render_load(console, str(trace), load, by_layer=True))
        return
    with progress_bar("statistics") as progress:
        profile = trace_profile(recording, batch=batch, samples=samples, seed=seed, progress=progress)
    if figure is not None:
        draw(profile, figure)
    emit(profile, as_json=as_json, render=lambda console: render_profile(console, profile, figure))


def draw(profile: TraceProfile, path: Path) -> None:
    """Write the picture of ``profile`` to ``path``.

    Raises:
        ForestageError: if the ending is not that of a figure format, or the file cannot be written.
    """
    from study.figures.trace_profile import trace_profile as picture  # Matplotlib takes half a second

    write_figure(picture(profile.model_dump(mode="json")), path)


def render_profile(console: Console, profile: TraceProfile, figure: Path | None) -> None:
    """Print one table per subject."""
    mark = plain_mark(profile.synthetic)
    console.print(
        f"[bold]{escape(profile.model)}[/bold]{mark}: {tokens_of(profile.tokens, profile.sequences)}, "
        f"{profile.layers} MoE layers, top-{profile.top_k} of {profile.experts} experts",
        highlight=False,
    )
    _render_overlap(console, profile)
    _render_cross_layer(console, profile)
    _render_batches(console, profile)
    _render_working_sets(console, profile)
    _render_lru(console, profile)
    if figure is not None:
        console.print(f"\nfigure: {escape(str(figure))}", highlight=False, soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]", highlight=False)


def _render_overlap(console: Console, profile: TraceProfile) -> None:
    """Overlap and load overall and by domain, means over layers."""
    _heading(
        console,
        "Overlap of consecutive tokens, × what tokens share that are: independent and uniform "
        f"(K²/N = {profile.uniform_overlap:.3f}); shuffled over the trace; shuffled in each sequence",
    )
    table = Table("", "shared", "× K²/N", "× shuffled", "× within", "entropy", "null", "hottest", "null", box=None)

    def add(label: str, part: RoutingStatistics) -> None:
        table.add_row(
            escape(label),
            fixed(part.temporal_overlap),
            fixed(part.over_uniform, 2),
            fixed(part.over_popularity, 2),
            fixed(part.over_sequence, 2),
            percent(part.load_entropy),
            percent(part.uniform_load_entropy),
            fixed(part.hottest_over_mean, 2),
            fixed(part.uniform_hottest_over_mean, 2),
        )

    add("all", profile.overall)
    for label, part in largest(profile.by_domain):
        add(label, part)
    console.print(table, highlight=False)
    note = "entropy, hottest: of the experts' loads; null: of as many tokens that choose independently and uniformly"
    console.print(f"[dim]{note}[/dim]", highlight=False, soft_wrap=True)
    tell_omitted(console, len(profile.by_domain))


def _render_cross_layer(console: Console, profile: TraceProfile) -> None:
    """The weakest, the median and the strongest pair of adjacent layers."""
    pairs = sorted(profile.cross_layer.by_pair, key=lambda pair: pair.mutual_information_bits)
    if not pairs:
        return
    _heading(console, "Adjacent layers: χ² over co-chosen pairs, K² a token; Cramér's V; mutual information")
    table = Table("pair", "layers", "χ²", "null χ²", "dof", "log₁₀ p", "V", "bits", "null bits", box=None)
    for name, pair in (("weakest", pairs[0]), ("median", pairs[len(pairs) // 2]), ("strongest", pairs[-1])):
        table.add_row(
            name,
            f"{pair.layer}, {pair.next_layer}",
            "–" if pair.chi_square is None else count(round(pair.chi_square)),
            "–" if pair.null_chi_square is None else count(round(pair.null_chi_square)),
            "–" if pair.degrees_of_freedom is None else count(pair.degrees_of_freedom),
            "–" if pair.log10_p is None else count(round(pair.log10_p)),
            fixed(pair.cramers_v),
            fixed(pair.mutual_information_bits),
            fixed(pair.null_mutual_information_bits),
        )
    console.print(table, highlight=False)


def _render_batches(console: Console, profile: TraceProfile) -> None:
    """Distinct experts and the share of barely used ones, by batch size."""
    batches = profile.batches
    _heading(
        console,
        f"Batches of {batches.phase} tokens, one a sequence ({batches.samples} of each size, seed {batches.seed})",
    )
    table = Table("batch", "distinct experts", "by popularity", "uniform", "active: 1 token", "at most 4", box=None)
    for size in batches.by_size:
        mark = "[bold]" if size.batch == profile.histogram_batch else ""
        table.add_row(
            f"{mark}{size.batch}",
            f"{size.distinct_experts:.2f} ± {size.distinct_experts_std:.2f}",
            fixed(size.popularity_distinct_experts, 2),
            fixed(size.uniform_distinct_experts, 2),
            percent(size.single_token_share),
            percent(size.at_most_four_share),
        )
    console.print(table, highlight=False)
    if not batches.by_size or batches.by_size[-1].batch < max(256, profile.histogram_batch):
        console.print(f"[dim]larger batches need more than the trace's {batches.sequences} sequences[/dim]")


def _render_working_sets(console: Console, profile: TraceProfile) -> None:
    """Distinct experts by window."""
    _heading(console, f"Working sets: distinct experts of a layer in w consecutive {profile.working_sets.phase} tokens")
    table = Table("w", *(str(one.window) for one in profile.working_sets.by_window), box=None)
    table.add_row("measured", *(fixed(one.distinct_experts, 1) for one in profile.working_sets.by_window))
    table.add_row(
        "by popularity", *(fixed(one.popularity_distinct_experts, 1) for one in profile.working_sets.by_window)
    )
    table.add_row("uniform", *(fixed(one.uniform_distinct_experts, 1) for one in profile.working_sets.by_window))
    console.print(table, highlight=False)


def _render_lru(console: Console, profile: TraceProfile) -> None:
    """Hit rate by capacity."""
    lru = profile.lru
    of = "" if lru.tokens == profile.tokens else f", first {count(lru.tokens)} tokens"
    _heading(console, f"LRU cache in each layer: event-atomic hit rate{of}; counted: {lru.counted}")
    table = Table("experts held", *(str(point.capacity) for point in lru.by_capacity), box=None)
    table.add_row("hit rate", *(percent(point.hit_rate) for point in lru.by_capacity))
    table.add_row("most used, static", *(percent(point.static_hit_rate) for point in lru.by_capacity))
    console.print(table, highlight=False)
