"""The trace itself: shape, provenance, temporal overlap, load."""

from typing import Any

from catalog.progress import Progress
from study.blocks import Command, Fact, Note, Section, Table, Text, picture, rows
from study.figures.trace import routing_by_layer
from study.numbers import count, fixed, percent
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces.describe import describe
from traces.importers import suspicions
from traces.statistics import statistics

TITLE = "The trace"

DOMAINS_SHOWN = 8


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Describe the trace and compute its statistics."""
    return {
        # Each line begins with the trace's name, which the section gives only once.
        "suspicious": [line.removeprefix(f"{context.trace.origin}: ") for line in suspicions(context.trace)],
        "info": describe(context.trace, context.trace_path).model_dump(mode="json"),
        "statistics": statistics(context.trace, progress).model_dump(mode="json"),
    }


def section(context: StudyContext) -> Section:
    """Show what was recorded, and how far it is from shuffled tokens and from independent uniform choices."""
    result = context.results["trace"]
    info, figures = result["info"], result["statistics"]
    meta = info["metadata"]
    overall = figures["overall"]
    domains = sorted(figures["by_domain"].items(), key=lambda item: -item[1]["tokens"])
    omitted = len(domains) - DOMAINS_SHOWN
    table = Table(
        columns=(
            "domain",
            "sequences",
            "tokens",
            "shared",
            "× K²/N",
            "× shuffled",
            "× within",
            "load entropy (null)",
            "hottest / mean (null)",
        ),
        rows=rows(
            [
                (
                    label,
                    count(part["sequences"]),
                    count(part["tokens"]),
                    fixed(part["temporal_overlap"]),
                    fixed(part["over_uniform"], 2),
                    fixed(part["over_popularity"], 2),
                    fixed(part["over_sequence"], 2),
                    f"{percent(part['load_entropy'])} ({percent(part['uniform_load_entropy'])})",
                    f"{fixed(part['hottest_over_mean'], 2)} ({fixed(part['uniform_hottest_over_mean'], 2)})",
                )
                for label, part in [
                    ("all", {**overall, "sequences": info["sequences"], "tokens": info["tokens"]}),
                    *domains[:DOMAINS_SHOWN],
                ]
            ]
        ),
        caption="Means over layers. Shared: experts that consecutive tokens share; × K²/N: over what independent "
        "uniform choices share; × shuffled: over what the row's tokens share in any order (popularity kept); × within: "
        "over what each sequence's tokens share in any order (what each text uses kept, order alone destroyed). Null "
        "of the loads: as many tokens that choose independently and uniformly."
        + (f" {omitted} smaller domains are in results.json." if omitted > 0 else ""),
    )
    return Section(
        id="trace",
        title=TITLE,
        blocks=(
            Text(
                f"{meta['model']}: {count(info['prefill_tokens'])} prompt tokens and {count(info['decode_tokens'])} "
                f"decode tokens in {count(info['sequences'])} sequences. Source: {meta['source']}; licence: "
                f"{meta['licence']}."
            ),
            picture(
                routing_by_layer(figures),
                "trace",
                f"Left: of the {figures['top_k']} experts a token uses in a layer, how many the next token uses "
                "again, beside three nulls: tokens shuffled within each sequence, shuffled over the trace, and "
                f"independent uniform choices (K²/N = {figures['uniform_overlap']:.3f}). Right: how unevenly "
                "a layer's experts are used over the whole trace (1: all alike; dashed: what as many independent "
                "uniform choices have).",
            ),
            table,
            *(Note(f"Suspicious: {line}.") for line in result["suspicious"]),
            Note("Sequences are single requests; nothing here is batched."),
            Command(f"forestage trace stats {context.trace_name}"),
        ),
        facts=(
            Fact(
                f"{fixed(overall['over_popularity'], 2)} / {fixed(overall['over_sequence'], 2)} ×",
                "experts shared by consecutive tokens, against tokens shuffled over the trace / within sequences",
            ),
        ),
    )


SUBJECT = Subject(Stage("trace", "Trace: shape and statistics", run), section, title=TITLE)
