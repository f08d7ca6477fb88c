"""Caches: how often a needed expert is already held, without any prediction."""

from itertools import chain
from typing import Any, get_args

from catalog.progress import Progress
from staging.counting import counting_of
from staging.results import Capacity
from staging.simulate import Policy, counted_events, run_policy
from staging.static import STATIC, run_static
from study.blocks import Command, Fact, Section, Table, Text, picture, rows
from study.figures.caches import hit_rate_over_capacity
from study.numbers import percent
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import DECODE

TITLE = "Where experts are"

POLICIES: tuple[Policy, ...] = get_args(Policy)


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Simulate every policy at every configured capacity, with one cache per layer."""
    trace = context.trace
    capacities = sorted({max(trace.top_k, round(f * trace.experts)) for f in context.config.cache_fractions})
    events, counting = counted_events(trace)
    count = counting.count
    points = []
    for capacity in capacities:
        room = Capacity(capacity)
        runs = (run_policy(events, policy, room, count=count) for policy in POLICIES)
        for run in chain(runs, [run_static(events, room, count=count)]):
            points.append(run.result().model_dump(mode="json"))
            progress(len(points), len(capacities) * (len(POLICIES) + 1))
    return {"points": points, "count": count, "counted": counting.sentence}


def lacks(context: StudyContext) -> str | None:
    """Why the trace has no events to count; ``None`` if it has some."""
    trace = context.trace
    if not trace.metadata.has_unrecorded:
        return None
    counted = trace.recorded()
    if counting_of(trace).count == "decode":
        counted = counted[trace.phase == DECODE]
    return None if counted.any() else "no decode token of the trace has recorded routing"


def section(context: StudyContext) -> Section:
    """Show hit rates by capacity, with Belady's as the bound."""
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
                "knows the future, is the bound of every replacement policy (where prompts fill the cache uncounted, a "
                "close estimate of it). The most used experts, held throughout, are the null: what popularity alone "
                f"gives, whatever the order of the tokens. Counted: {result['counted']}."
            ),
            picture(hit_rate_over_capacity(points, experts), "caches", "Hit rate by cache size and policy."),
            Table(
                columns=(
                    "experts held a layer",
                    "most used, static (null)",
                    *(policy.upper() if policy != "belady" else "Belady (bound)" for policy in POLICIES),
                ),
                rows=rows(
                    [(f"{c} of {experts}", *(percent(rate[c, p]) for p in (STATIC, *POLICIES))) for c in capacities]
                ),
            ),
            Command(f"forestage cache simulate --trace {context.trace_name} --capacity {middle}"),
        ),
        facts=(
            Fact(
                f"{100 * rate[middle, 'lru']:.1f} / {percent(rate[middle, 'belady'])}",
                f"LRU / Belady hit rate with {middle} of {experts} experts held a layer",
            ),
        ),
    )


SUBJECT = Subject(Stage("caches", "Caches: hit rates and their bound", run), section, title=TITLE, lacks=lacks)
