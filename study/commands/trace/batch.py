"""``forestage trace batch``: interleave sequences into decode batches."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.config import StrictModel
from study.commands.command import refuse_unused
from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, TraceOption, check_destination
from study.numbers import count, counted, fixed, tokens_of
from study.output import emit
from study.synthetic import plain_mark
from traces import RoutingTrace
from traces.batch import MADE_BY, BatchConfig, BatchSchedule, distinct_experts_by_step, make_schedule
from traces.batch_file import save_batched
from traces.statistics.batches import popularity_distinct_experts, uniform_distinct_experts
from traces.statistics.walk import eligible_shares


class StepFigures(StrictModel):
    """Steps of one kind; the means are ``None`` without such steps.

    Attributes:
        steps: number of steps.
        tokens: tokens processed in a step, mean.
        distinct_experts: distinct experts that a step uses in a layer, mean.
        uniform_distinct_experts: mean of N (1 − (1 − K/N)^tokens) over the steps.
        popularity_distinct_experts: mean of Σ 1 − (1 − p)^tokens over layers and steps, where p is the share of decode
            tokens that chose an expert; ``None`` for steps with prefill tokens, whose shares differ.
    """

    steps: int
    tokens: float | None
    distinct_experts: float | None
    uniform_distinct_experts: float | None
    popularity_distinct_experts: float | None


class BatchFigures(StrictModel):
    """Figures of a trace's schedule.

    Attributes:
        model, synthetic: the metadata's.
        made_by: what made the batch.
        config: the schedule's configuration.
        tokens, sequences, steps: their numbers.
        busy_slots: sequence slots that process a token, mean over steps.
        waiting_steps: steps from a request's arrival to its first step, mean.
        decode_steps: steps with only decode tokens.
        full_decode_steps: those of them in which every slot is busy.
        mixed_steps: steps with prefill tokens.
    """

    model: str
    synthetic: bool
    made_by: str
    config: BatchConfig
    tokens: int
    sequences: int
    steps: int
    busy_slots: float
    waiting_steps: float
    decode_steps: StepFigures
    full_decode_steps: StepFigures
    mixed_steps: StepFigures


def batch_command(
    trace: TraceOption,
    batch: Annotated[int, typer.Option("--batch", help="Sequences that are served at once")],
    out: Annotated[Path, typer.Option("--out", help="The trace file to write, with its schedule (.safetensors)")],
    arrivals: Annotated[
        float | None,
        typer.Option(
            "--arrivals-per-step",
            help="Requests that arrive in a step, on average (Poisson); default: all arrive before the first step",
        ),
    ] = None,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(
            "--prefill-chunk", help="Most prompt tokens that a sequence processes in a step; default: its whole prompt"
        ),
    ] = None,
    order: Annotated[
        str, typer.Option("--order", help="Order in which the sequences arrive: trace (the trace's own) or shuffled")
    ] = "trace",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the arrivals and of the shuffle")] = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Arrange the trace's sequences by continuous batching, and write the trace with the order of the steps."""
    config = BatchConfig.parse_settings(
        {
            "slots": batch,
            "arrivals_per_step": arrivals,
            "prefill_chunk": prefill_chunk,
            "order": order,
            "seed": seed,
        },
        origin="trace batch",
    )
    if config.order == "trace" and arrivals is None:
        refuse_unused("requests come in the trace's order and all at once; leave it out", seed="--seed")
    check_destination(out, trace)
    recorded = open_trace(trace, model)
    schedule = make_schedule(recorded, config)
    save_batched(out, recorded, schedule)
    figures = batch_figures(recorded, schedule)
    emit(figures, as_json=as_json, render=lambda console: render(console, figures, out))


def batch_figures(trace: RoutingTrace, schedule: BatchSchedule) -> BatchFigures:
    """Describe ``schedule``, which was made for ``trace``."""
    distinct = distinct_experts_by_step(trace, schedule).mean(axis=1)
    tokens, busy = np.diff(schedule.step_offsets), schedule.busy_slots()
    decode = schedule.prefill_tokens(trace) == 0
    shares = eligible_shares(trace, "decode")

    def of(chosen: np.ndarray) -> StepFigures:
        if not chosen.any():
            return StepFigures(
                steps=0,
                tokens=None,
                distinct_experts=None,
                uniform_distinct_experts=None,
                popularity_distinct_experts=None,
            )
        sizes, times = np.unique(tokens[chosen], return_counts=True)
        popularity = [popularity_distinct_experts(shares, int(size)) for size in sizes]
        mixed = bool((chosen & ~decode).any())
        uniform = [uniform_distinct_experts(trace.experts, trace.top_k, int(size)) for size in sizes]
        return StepFigures(
            steps=int(chosen.sum()),
            tokens=float(tokens[chosen].mean()),
            distinct_experts=float(distinct[chosen].mean()),
            uniform_distinct_experts=float(np.average(uniform, weights=times)),
            popularity_distinct_experts=None if mixed else float(np.average(popularity, weights=times)),
        )

    return BatchFigures(
        model=trace.metadata.model,
        synthetic=trace.metadata.synthetic,
        made_by=MADE_BY,
        config=schedule.config,
        tokens=trace.tokens,
        sequences=trace.sequences,
        steps=schedule.steps,
        busy_slots=float(busy.mean()),
        waiting_steps=float(schedule.waiting().mean()),
        decode_steps=of(decode),
        full_decode_steps=of(decode & (busy == schedule.config.slots)),
        mixed_steps=of(~decode),
    )


def render(console: Console, figures: BatchFigures, out: Path) -> None:
    """Print the schedule's figures, and the experts of its steps."""
    console.print(
        f"[bold]{escape(figures.model)}[/bold]{plain_mark(figures.synthetic)}: "
        f"{tokens_of(figures.tokens, figures.sequences)} in {counted(figures.steps, 'step')} of up to "
        f"{figures.config.slots}; {figures.busy_slots:.1f} slots busy, a request waits "
        f"{figures.waiting_steps:.1f} steps (means). Made by {figures.made_by}.",
        highlight=False,
    )
    table = Table("steps", "number", "tokens", "distinct experts", "by popularity", "uniform", box=None)
    for name, kind in (
        ("decode, all slots", figures.full_decode_steps),
        ("decode", figures.decode_steps),
        ("with prefill", figures.mixed_steps),
    ):
        table.add_row(
            name,
            count(kind.steps),
            fixed(kind.tokens, 1),
            fixed(kind.distinct_experts, 2),
            fixed(kind.popularity_distinct_experts, 2),
            fixed(kind.uniform_distinct_experts, 2),
        )
    console.print(table, highlight=False)
    console.print(f"written: {escape(str(out))}", highlight=False, soft_wrap=True)
