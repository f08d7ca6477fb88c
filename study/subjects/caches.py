"""Caches: how often a needed expert is already there, without any prediction."""

from typing import Any, get_args

from staging.simulate import Policy, simulate
from study.blocks import Command, Fact, Section, Table, Text, picture, rows
from study.figures.caches import hit_rate_over_capacity
from study.numbers import percent
from study.output import ProgressCallback
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import DECODE

TITLE = "Where experts are"

POLICIES: tuple[Policy, ...] = get_args(Policy)


def run(context: StudyContext, progress: ProgressCallback) -> dict[str, Any]:
    """Every policy at every configured capacity, one cache a layer."""
    trace = context.trace
    capacities = sorted({max(trace.top_k, round(f * trace.experts)) for f in context.config.cache_fractions})
    count = "decode" if (trace.phase == DECODE).any() else "all"
    points = []
    for capacity in capacities:
        for policy in POLICIES:
            result = simulate(trace, capacity=capacity, policy=policy, count=count)  # type: ignore[arg-type]
            points.append(result.model_dump(mode="json"))
            progress(len(points), len(capacities) * len(POLICIES))
    return {"points": points, "count": count}


def lacks(context: StudyContext) -> str | None:
    """Rows that count."""
    trace = context.trace
    if not trace.metadata.has_unrecorded:
        return None
    decode = trace.phase == DECODE
    counted = trace.recorded()[decode] if decode.any() else trace.recorded()
    return None if counted.any() else "no decode token of the trace has recorded routing"


def section(context: StudyContext) -> Section:
    """Hit rates by capacity, with Belady's as the bound."""
    result = context.results["caches"]
    points = result["points"]
    experts = context.trace.experts
    capacities = sorted({point["capacity"] for point in points})
    rate = {(point["capacity"], point["policy"]): point["hit_rate"] for point in points}
    middle = capacities[len(capacities) // 2]
    return Section(
        id="caches",
        title=TITLE,
        blocks=(
            Text(
                "A cache that loads what is missing and never predicts. Hit rates are event-atomic: a token's "
                "experts of one layer are looked up together, against what was there before. Belady's rule, which "
                "knows the future, is the bound of every replacement policy"
                + (
                    ", counted on decode tokens alone (where recorded prompts fill the cache uncounted, a close "
                    "estimate of it)."
                    if result["count"] == "decode"
                    else "; the trace has prompt tokens alone."
                )
            ),
            picture(hit_rate_over_capacity(points, experts), "caches", "Hit rate by cache size and policy."),
            Table(
                columns=(
                    "experts held a layer",
                    *(policy.upper() if policy != "belady" else "Belady (bound)" for policy in POLICIES),
                ),
                rows=rows([(f"{c} of {experts}", *(percent(rate[c, p]) for p in POLICIES)) for c in capacities]),
            ),
            Command(
                f"forestage cache simulate --trace {context.trace_name} --capacity {middle} --count {result['count']}"
            ),
        ),
        facts=(
            Fact(
                f"{100 * rate[middle, 'lru']:.1f} / {percent(rate[middle, 'belady'])}",
                f"LRU / Belady hit rate with {middle} of {experts} experts held a layer",
            ),
        ),
    )


SUBJECT = Subject(Stage("caches", "Caches: hit rates and their bound", run), section, title=TITLE, lacks=lacks)
