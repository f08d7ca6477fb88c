"""``forestage system simulate``: one policy on a trace."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog import load_catalog
from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.policies import find_policy, policy_names
from perfmodel.results import SimulationResult
from perfmodel.simulate import check_simulation, simulate
from predictor import registry
from predictor.base import check_lookahead
from predictor.issue import IssueSets, issue_sets
from predictor.st_moe.cycles import trace_cycles
from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.predictor import StMoePredictor
from study.commands.command import refuse_unused
from study.commands.opening import open_trace, require_test_sequences
from study.commands.options import JsonOption, LookaheadOption, ModelOption, TraceOption
from study.numbers import count, percent, seconds, size
from study.output import emit, progress_bar
from traces import RoutingTrace, split
from traces.selection import select_sequences


def simulate_command(
    trace: TraceOption,
    policy: Annotated[str, typer.Option("--policy", help=f"One of {', '.join(policy_names())}")],
    predictor: Annotated[
        str,
        typer.Option(
            "--predictor",
            help="Predictor of the experts to prefetch, by its name in `forestage predictor list`",
        ),
    ] = "st-moe",
    machine: Annotated[str, typer.Option("--machine", help="Name of the machine in the catalogue")] = "A100-80GB",
    sizes_of: Annotated[
        str | None,
        typer.Option("--sizes-of", help="Catalogue model whose weight sizes are used; default: the trace's own model"),
    ] = None,
    capacity_fraction: Annotated[
        float | None,
        typer.Option("--capacity-fraction", help="Share of all experts that fit into the device's memory, 0 to 1"),
    ] = 0.5,
    link_gb_per_s: Annotated[
        float | None, typer.Option("--link-gb-per-s", help="Bandwidth of the host link in GB/s; default: the machine's")
    ] = None,
    lookahead: LookaheadOption = 1,
    issue_limit: Annotated[
        int, typer.Option("--issue-limit", help="Most experts to prefetch for each token and layer")
    ] = 6,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of the test sequences to simulate")] = 600,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate one policy: time per output token (TPOT), its parts, and the bytes moved."""
    chosen_policy = find_policy(policy)
    registry.profiled_kind(predictor)
    if not chosen_policy.has_cache:
        refuse_unused(f"{policy} has no cache; leave it out", capacity_fraction="--capacity-fraction")
    if not uses_predictor(policy):
        refuse_unused(
            f"{policy} prefetches nothing that a predictor foresees; leave it out",
            predictor="--predictor",
            lookahead="--lookahead",
            issue_limit="--issue-limit",
        )
    settings: dict[str, Any] = {
        "sizes_of": sizes_of,
        "machine": machine,
        "capacity_fraction": capacity_fraction,
        "link_gb_per_s": link_gb_per_s,
        "lookahead": lookahead,
        "issue_limit": issue_limit,
    }
    config = SimulationConfig.parse_settings(settings, origin="forestage system")
    catalog = load_catalog()
    catalog.machines.find(machine)
    if sizes_of is not None:
        catalog.find_model(sizes_of)
    recorded = open_trace(trace, model)
    require_test_sequences(recorded, trace)
    train, test = parts(recorded)
    part = test.token_range(0, min(tokens, test.tokens))
    check_simulation(part, (policy,), config)
    prefetches: dict[str, Any] = {}
    if uses_predictor(policy):
        check_lookahead(lookahead, recorded.layers)
        chosen = prefetcher(
            predictor, train, part, lookahead=lookahead, limit=checked_limit(issue_limit, recorded.experts)
        )
        prefetches = {"issue_sets": chosen.issued, "engine_cycles": chosen.cycles}
    with progress_bar(f"simulating {policy}") as progress:
        result = simulate(part, policy, config, progress=progress, **prefetches)
    emit(result, as_json=as_json, render=lambda console: render(console, trace, result))


@dataclass(frozen=True)
class Prefetcher:
    """A predictor's issue sets for the simulated tokens, and the prefetch engine's cycles for each event."""

    issued: IssueSets
    cycles: NDArray[np.int64]


def parts(trace: RoutingTrace) -> tuple[RoutingTrace, RoutingTrace]:
    """Training and test sequences as traces."""
    train, test = split(trace)
    return select_sequences(trace, train), select_sequences(trace, test)


def prefetcher(name: str, train: RoutingTrace, tokens: RoutingTrace, *, lookahead: int, limit: int) -> Prefetcher:
    """The issue sets of predictor ``name`` profiled on ``train``, with the cycles of ST-MoE's engine for comparability.

    Raises:
        ForestageError: for an unknown predictor, or a lookahead or limit out of range.
    """
    chosen = registry.fit(name, train, lookahead=lookahead)
    tables = chosen if isinstance(chosen, StMoePredictor) else StMoePredictor.fit(train, lookahead=lookahead)
    limits = EngineLimits.holding(
        layers=tokens.layers, experts=tokens.experts, top_k=tokens.top_k, candidates=tokens.top_k
    )
    issued = issue_sets(chosen, tokens, limit)
    return Prefetcher(issued, trace_cycles(limits, tables.configuration(limit), tokens, issued))


def uses_predictor(policy: str) -> bool:
    """Whether a policy prefetches a predictor's issue sets."""
    return find_policy(policy).uses_issue_sets


def checked_limit(limit: int, experts: int) -> int:
    """``limit``, if a layer has that many experts.

    Raises:
        ForestageError: otherwise.
    """
    if not 1 <= limit <= experts:
        raise ForestageError(f"--issue-limit {limit}: choose 1 to {experts}, the experts of a layer")
    return limit


def render(console: Console, trace: Path, result: SimulationResult) -> None:
    """Print TPOT and its parts, then bytes and counts."""
    console.print(
        f"[bold]{result.policy}[/bold] on {escape(trace.name)}: {count(result.decode_tokens)} decode tokens, sizes of "
        f"{result.sizes_of}, {result.machine}, host link {result.link_gb_per_s:g} GB/s",
        highlight=False,
    )
    table = Table(box=None, show_header=False)
    table.add_row("TPOT mean / p50 / p95 / p99", " / ".join(seconds(v) for v in result.tpot.model_dump().values()))
    for part, value_s in result.tpot_parts_s.items():
        table.add_row(f"  {part.removesuffix('_s').replace('_', ' ')}", seconds(value_s))
    table.add_row("hit rate", percent(result.experts.hit_rate))
    for kind, moved in result.bytes.model_dump().items():
        table.add_row(f"bytes a token, {kind.replace('_', ' ')}", size(moved / result.decode_tokens))
    console.print(table, highlight=False)
