"""Predictors: how much of the coming layers' routing each predicts, and at which traffic."""

from typing import Any

from catalog.progress import Progress
from predictor import registry
from predictor.measure.compare import compare
from predictor.measure.results import OWN
from study import needs
from study.blocks import Command, Fact, Row, Section, Table, Text, picture
from study.figures.predictors import recall_against_issued, recall_by_layer
from study.numbers import count, fixed, layers_text, percent
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from study.subjects.learned import PREDICTOR_FILE

TITLE = "Which experts come next"


def lacks(context: StudyContext) -> str | None:
    """Why the trace lacks sequences to profile or to measure on, or layers; ``None`` if it lacks nothing."""
    return needs.test_sequences(context.trace) or needs.layers_ahead(context)


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Fit every configured predictor on the training sequences and measure it on the test sequences."""
    config = context.config
    trained = () if "learned" in context.left_out else (context.out / PREDICTOR_FILE,)
    comparison = compare(
        context.trace,
        (*config.predictors, *trained),
        trace_name=context.trace_name,
        progress=progress,
        issue=config.issue,
        lookahead=config.lookahead,
    )
    return comparison.model_dump(mode="json")


def section(context: StudyContext) -> Section:
    """Show recall against traffic, with the perfect and the random bound."""
    comparison = context.results["predictors"]
    evaluations = comparison["evaluations"]
    limits = list(comparison["bounds"]["perfect"])
    shown = limits[len(limits) // 2]
    resamples = evaluations[0]["bootstrap"]["resamples"]
    return Section(
        id="predictors",
        title=TITLE,
        blocks=(
            Text(
                f"Each predictor is asked {layers_text(context.config.lookahead)} ahead, when the gate of the earlier "
                "layer is known: which experts will the target layer choose? Tables are profiled on the training "
                f"sequences (80 %, stratified by dataset); the figures are of the other {comparison['sequences']} "
                f"sequences, {count(comparison['tokens'])} tokens, as means over tokens and layers ≥ "
                f"{context.config.lookahead}. Intervals are 95 %, by {count(resamples)} resamples of whole sequences. "
                "Routing is never changed by a prediction."
            ),
            picture(
                recall_against_issued(comparison),
                "recall",
                "Share of the needed experts that were issued, over what is issued. The large open mark is a "
                "predictor's own threshold, uncapped. No real predictor passes the perfect bound.",
            ),
            _table(comparison, limits),
            picture(
                recall_by_layer(comparison, shown),
                "recall-layers",
                f"Recall@{shown} for every target layer; open marks lie below the lookahead and count in no mean.",
            ),
            Command(_command(context)),
        ),
        facts=_facts(evaluations, shown),
    )


def _facts(evaluations: list[dict[str, Any]], limit: str) -> tuple[Fact, ...]:
    """What is learned at ``limit`` beside the best of the rest; without it, each predictor's own threshold."""
    learned = [e for e in evaluations if e["file"] is not None]
    rest = [e for e in evaluations if e["file"] is None]
    if not learned or not rest:
        return tuple(
            Fact(
                f"{e['recall'][OWN]:.3f}",
                f"recall of {e['predictor']} at its own {e['issued_per_layer']:.1f} experts issued a layer",
            )
            for e in evaluations
            if OWN in e["recall"]
        )
    best = max(rest, key=lambda e: e["recall"][limit])
    return tuple(
        Fact(
            f"{e['recall'][limit]:.3f}",
            f"recall@{limit} of the {e['predictor']} predictor; {best['predictor']}, the best of the others: "
            f"{best['recall'][limit]:.3f}",
        )
        for e in learned
    )


def _table(comparison: dict[str, Any], limits: list[str]) -> Table:
    """Recall by limit, then uncapped figures; bounds in separate rows."""
    bounds = [
        Row((name, *(fixed(values[m]) for m in limits), "–", "–", "–"), pale=True)
        for name, values in (
            ("random (floor)", comparison["bounds"]["random"]),
            ("perfect (bound)", comparison["bounds"]["perfect"]),
        )
    ]
    measured = [
        Row(
            (
                e["predictor"],
                *(fixed(e["recall"][m]) for m in limits),
                _half_width(e["intervals"]["recall"][limits[len(limits) // 2]]),
                percent(e["exact_set"]),
                _own(e),
            )
        )
        for e in comparison["evaluations"]
    ]
    shown = limits[len(limits) // 2]
    return Table(
        columns=("predictor", *(f"recall@{m}" for m in limits), f"± @{shown}", "exact set", "own threshold"),
        rows=(*measured, *bounds),
        caption="own threshold: recall, precision and experts issued a layer, uncapped. "
        f"± @{shown}: half the width of the 95 % interval. recall@m: share of the needed experts among the best m; "
        "a predictor may issue fewer.",
    )


def _own(evaluation: dict[str, Any]) -> str:
    """Uncapped recall / precision / issued experts of a predictor with a threshold."""
    if OWN not in evaluation["recall"]:
        return "–"
    found = [evaluation[name][OWN] for name in ("recall", "precision", "issued")]
    return f"{fixed(found[0])} / {fixed(found[1])} / {fixed(found[2], 2)}"


def _half_width(interval: list[float] | None) -> str:
    return fixed(None if interval is None else (interval[1] - interval[0]) / 2)


def _command(context: StudyContext) -> str:
    config = context.config
    issue = "".join(f" --issue {limit}" for limit in config.issue)
    every = set(config.predictors) == set(registry.profiled_names())
    trained = "learned" not in context.left_out
    kinds = "" if every else "".join(f" --predictor {name}" for name in config.predictors)
    return (
        f"forestage predictor evaluate --compare --trace {context.trace_name}{kinds}"
        + (f" --predictor {PREDICTOR_FILE}" if trained else "")
        + f"{issue} "
        f"--lookahead {config.lookahead} --figure recall.svg"
    )


SUBJECT = Subject(Stage("predictors", "Predictors: recall and traffic", run), section, title=TITLE, lacks=lacks)
