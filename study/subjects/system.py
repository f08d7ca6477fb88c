"""The whole system: the time per token with each way of providing experts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog import load_catalog
from catalog.progress import Progress
from perfmodel.config import SimulationConfig
from perfmodel.policies import find_policy
from perfmodel.results import SimulationResult
from perfmodel.simulate import check_simulation, compute_bounds, simulate
from perfmodel.sweep import sweep
from predictor import registry
from predictor.issue import IssueSets, issue_sets
from predictor.st_moe.cycles import trace_cycles
from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.predictor import StMoePredictor
from study import needs
from study.blocks import Command, Fact, Note, Row, Section, Table, Text, picture
from study.figures.system import time_per_token, tpot_over_bandwidth
from study.numbers import count, layers_text, percent, seconds, size
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import DECODE, RoutingTrace, split
from traces.selection import select_sequences

TITLE = "The whole system"

RIVAL = "markov-spatial"
"""The best unlearned rival of ST-MoE's tables, shown with the same policy."""

LABELS = {
    "on_demand": "on demand",
    "lru_cache": "LRU cache",
    "st_moe_prefetch": "ST-MoE prefetch",
    "perfect_prefetch": "perfect prefetch",
    "all_resident": "all resident",
}
BOUNDS = ("perfect_prefetch", "all_resident")


@dataclass(frozen=True)
class Prefetcher:
    """A predictor's issue sets for the simulated tokens, and the prefetch engine's cycles for each event."""

    issued: IssueSets
    cycles: NDArray[np.int64]


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Simulate every policy on the same tokens, then sweep the host link's bandwidth."""
    settings = context.config.system
    train, _ = parts(context.trace)
    tokens, few = (simulated(context.trace, count) for count in (settings.decode_tokens, settings.sweep_tokens))
    config = simulation_config(context)
    jobs = [(policy, "st-moe") for policy in LABELS]
    jobs.insert(list(LABELS).index("st_moe_prefetch") + 1, ("st_moe_prefetch", RIVAL))
    total = len(jobs) + len(settings.link_gb_per_s) * len(LABELS)
    limit = min(settings.issue_limit, tokens.experts)
    prefetchers = {
        name: prefetcher(name, train, tokens, lookahead=context.config.lookahead, limit=limit)
        for name in ("st-moe", RIVAL)
    }
    runs = []
    perfect = None
    for policy, name in jobs:
        result = run_policy(tokens, policy, config, prefetchers[name])
        perfect = result if policy == "perfect_prefetch" else perfect
        runs.append({"predictor": name if uses_predictor(policy) else None, **result.model_dump(mode="json")})
        progress(len(runs), total)
    bounds = compute_bounds(tokens, config, perfect=perfect)
    part = prefetchers["st-moe"]
    points = sweep(
        few,
        tuple(LABELS),
        config,
        {"link_gb_per_s": settings.link_gb_per_s},
        issue_sets=part.issued.first_tokens(few.tokens),
        engine_cycles=part.cycles[: few.tokens],
        progress=lambda done, _: progress(len(runs) + done * len(LABELS), total),
    )
    return {
        "runs": runs,
        "sweep": points,
        "sweep_tokens": few.tokens,
        "bounds": bounds.model_dump(mode="json"),
        "engine_cycles": {"mean": float(part.cycles.mean()), "largest": int(part.cycles.max())},
    }


def lacks(context: StudyContext) -> str | None:
    """Why the trace cannot be simulated (decode tokens, layers, sizes, …); ``None`` if it can."""
    return (
        needs.test_sequences(context.trace)
        or needs.layers_ahead(context)
        or needs.known_sizes(context)
        or decode_within(context)
        or _unsimulated(context)
    )


def decode_within(context: StudyContext) -> str | None:
    """Why no decode token is among the simulated tokens; ``None`` if one is."""
    settings = context.config.system
    first = first_decode(context.trace)
    if first is None:
        return "the test sequences have no decode tokens, and it is decode that is simulated"
    for name in ("decode_tokens", "sweep_tokens"):
        if first >= getattr(settings, name):
            return (
                f"none of the first {getattr(settings, name)} test tokens is a decode token; set system.{name} to more "
                f"than {first + 1} in a TOML file given as --config"
            )
    return None


def _unsimulated(context: StudyContext) -> str | None:
    """What the simulation refuses, and which setting of the study changes it; ``None`` if it refuses nothing."""
    settings = context.config.system
    for many in (settings.decode_tokens, settings.sweep_tokens):
        tokens = simulated(context.trace, many)
        why = needs.refusal(check_simulation, tokens, LABELS, simulation_config(context))
        if why is not None:
            return f"{why} (settings of the study: system.sizes_of, system.capacity_fraction, system.machine)"
    return None


def first_decode(trace: RoutingTrace) -> int | None:
    """Index, among all tokens of the test sequences, of the first decode token; ``None`` without one."""
    done = 0
    for index in split(trace)[1]:
        tokens = trace.sequence_slice(int(index))
        decode = np.flatnonzero(trace.phase[tokens] == DECODE)
        if len(decode):
            return done + int(decode[0])
        done += tokens.stop - tokens.start
    return None


def simulated(trace: RoutingTrace, tokens: int) -> RoutingTrace:
    """The first ``tokens`` tokens of the test sequences, or all of them; only the sequences needed are copied."""
    _, test = split(trace)
    ends = np.cumsum(np.diff(trace.sequence_offsets)[test])
    chosen = select_sequences(trace, test[: int(np.searchsorted(ends, tokens)) + 1])
    return chosen.token_range(0, min(tokens, chosen.tokens))


def parts(trace: RoutingTrace) -> tuple[RoutingTrace, RoutingTrace]:
    """Training and test sequences as traces."""
    train, test = split(trace)
    return select_sequences(trace, train), select_sequences(trace, test)


def simulation_config(context: StudyContext) -> SimulationConfig:
    """The simulation's configuration, from the study's settings."""
    settings = context.config.system
    return SimulationConfig(
        sizes_of=settings.sizes_of,
        machine=settings.machine,
        capacity_fraction=settings.capacity_fraction,
        lookahead=context.config.lookahead,
        issue_limit=settings.issue_limit,
    )


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


def run_policy(tokens: RoutingTrace, policy: str, config: SimulationConfig, prefetcher: Prefetcher) -> SimulationResult:
    """Simulate one policy, with the issue sets of ``prefetcher`` if it uses any."""
    return simulate(
        tokens,
        policy,
        config,
        issue_sets=prefetcher.issued if uses_predictor(policy) else None,
        engine_cycles=prefetcher.cycles if uses_predictor(policy) else None,
    )


def section(context: StudyContext) -> Section:
    """Show TPOT by policy with its parts, bytes, and the sweep."""
    result = context.results["system"]
    runs = result["runs"]
    first = runs[0]
    labels = [run_label(run) for run in runs]
    is_bound = [run["policy"] in BOUNDS for run in runs]
    record = load_catalog().match_model(first["routing_of"])
    own_sizes = record is not None and record.name == first["sizes_of"]
    sizes = "" if own_sizes else f", with the weight sizes of {first['sizes_of']} (not the traced model's own)"
    ahead = layers_text(first["config"]["lookahead"])
    layer_s = result["bounds"]["all_resident_s"] / context.trace.layers
    fetch_s = first["expert_bytes"] / (first["link_gb_per_s"] * 1e9)
    by_policy = {run["policy"]: run for run in reversed(runs)}
    return Section(
        id="system",
        title=TITLE,
        blocks=(
            Text(
                f"{count(first['decode_tokens'])} decode tokens of the test sequences, one request at a time (batch "
                f"1), routing of {first['routing_of']}{sizes}, on {first['machine']} with a host link of "
                f"{first['link_gb_per_s']:g} GB/s. An expert is {size(first['expert_bytes'])}; the device holds "
                f"{percent(first['config']['capacity_fraction'], 0)} of them. A prefetch is asked for when the gate "
                f"{ahead} earlier is known and the engine has computed it (by its "
                f"twin's latency formula: {result['engine_cycles']['mean']:.1f} cycles an event on average); demand "
                "loads overtake prefetches on the link. No prediction enters the cache at zero time or zero bytes."
            ),
            picture(
                time_per_token(runs, labels, is_bound),
                "tpot",
                "Mean TPOT and its parts; pale: what an oracle would do (the same cache and link), and every expert "
                "resident.",
            ),
            runs_table(runs, labels),
            picture(
                tpot_over_bandwidth(result["sweep"], LABELS, first["link_gb_per_s"]),
                "sweep",
                f"The same policies over the host link's bandwidth ({result['sweep_tokens']} tokens a point).",
            ),
            Text(
                f"Why: a layer computes in {seconds(layer_s)}, moving one expert takes {seconds(fetch_s)}: "
                f"a lookahead of {ahead} can hide "
                f"{percent(min(1.0, first['config']['lookahead'] * layer_s / fetch_s), 0)} of one transfer; what is "
                "prefetched in vain occupies the same link that demand loads wait for. "
                + where_it_pays(result["sweep"])
            ),
            Note(
                f"Floor without prediction (LRU cache): {seconds(result['bounds']['no_prefetch_s'])} a token. "
                f"Loading only what Belady's cache would miss, at the link's full rate, takes "
                f"{seconds(result['bounds']['link_roofline_s'])}; with every expert resident a token takes "
                f"{seconds(result['bounds']['all_resident_s'])}."
            ),
            Command(simulate_command(context)),
        ),
        facts=(
            Fact(
                f"{by_policy['on_demand']['tpot']['mean_s'] / by_policy['st_moe_prefetch']['tpot']['mean_s']:.2f} ×",
                "speed of ST-MoE prefetch over loading on demand",
            ),
            Fact(
                f"{by_policy['lru_cache']['tpot']['mean_s'] / by_policy['st_moe_prefetch']['tpot']['mean_s']:.2f} ×",
                "speed of ST-MoE prefetch over the LRU cache alone "
                f"({by_policy['lru_cache']['tpot']['mean_s'] / by_policy['perfect_prefetch']['tpot']['mean_s']:.2f} × "
                "with a perfect predictor)",
            ),
        ),
    )


def where_it_pays(sweep: list[dict[str, Any]]) -> str:
    """A sentence: the bandwidth of the sweep from which on prefetching is faster than the cache alone."""
    faster = {p["link_gb_per_s"]: p["tpot_s"]["st_moe_prefetch"] < p["tpot_s"]["lru_cache"] for p in sweep}
    paying = [link for link in sorted(faster) if all(faster[other] for other in faster if other >= link)]
    if not paying:
        return "Nowhere in this sweep does it beat the cache alone."
    return f"In this sweep it beats the cache alone from {paying[0]:g} GB/s on."


def run_label(run: dict[str, Any]) -> str:
    """A run's name in tables and figures."""
    label = LABELS[run["policy"]]
    return label if run["predictor"] in (None, "st-moe") else f"prefetch by {run['predictor']}"


def runs_table(runs: list[dict[str, Any]], labels: list[str]) -> Table:
    """TPOT, waiting, bytes and prefetch quality of each run."""
    return Table(
        columns=(
            "policy",
            "TPOT mean",
            "p95",
            "waiting",
            "hit rate",
            "moved a token",
            "wasted",
            "prefetches used",
            "in time",
        ),
        rows=tuple(
            Row(
                (
                    label,
                    seconds(run["tpot"]["mean_s"]),
                    seconds(run["tpot"]["p95_s"]),
                    percent(waiting_share(run)),
                    percent(run["experts"]["hit_rate"]),
                    size(run["bytes"]["total"] / run["decode_tokens"]),
                    percent(run["bytes"]["prefetch_wasted"] / run["bytes"]["total"] if run["bytes"]["total"] else None),
                    percent(run["experts"]["accuracy"]),
                    percent(run["experts"]["timeliness"]),
                ),
                bound=run["policy"] in BOUNDS,
            )
            for label, run in zip(labels, runs, strict=True)
        ),
        caption="waiting: share of the time in which the device is idle for an expert; wasted: bytes prefetched and "
        "not used; in time: of the prefetches used, those that had arrived.",
    )


def waiting_share(run: dict[str, Any]) -> float:
    """Share of the TPOT during which the device waits for experts."""
    parts = run["tpot_parts_s"]
    waiting = parts["demand_wait_s"] + parts["late_prefetch_wait_s"] + parts["engine_latency_s"]
    return waiting / run["tpot"]["mean_s"]


def simulate_command(context: StudyContext) -> str:
    """The command that remakes one of the runs."""
    settings = context.config.system
    return (
        f"forestage system simulate --trace {context.trace_name} --policy st_moe_prefetch --machine {settings.machine} "
        f"--sizes-of {settings.sizes_of} --capacity-fraction {settings.capacity_fraction} "
        f"--lookahead {context.config.lookahead} --issue-limit {settings.issue_limit} "
        f"--tokens {settings.decode_tokens}"
    )


SUBJECT = Subject(Stage("system", "System model: policies and sweep", run), section, title=TITLE, lacks=lacks)
