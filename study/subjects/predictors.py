"""Predictors: how much of the coming layers' routing each foresees, and at which traffic."""

from typing import Any

from predictor.evaluate import evaluate
from study.blocks import Command, Fact, Row, Section, Table, Text, picture
from study.figures.predictors import recall_against_issued, recall_by_layer
from study.numbers import fixed, layers_text
from study.output import ProgressCallback
from study.stages import Stage, StudyContext
from study.subjects.base import Subject

OWN = "own"


def run(context: StudyContext, progress: ProgressCallback) -> dict[str, Any]:
    """Every configured predictor, fitted on the training sequences and measured on the test sequences."""
    config = context.config
    evaluations = []
    for number, name in enumerate(config.predictors):

        def advance(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(config.predictors) * total)

        result = evaluate(
            context.trace,
            name,
            issue=config.issue,
            lookahead=config.lookahead,
            trace_name=context.trace_name,
            progress=advance,
        )
        evaluations.append(result.model_dump(mode="json"))
    return {"evaluations": evaluations}


def section(context: StudyContext) -> Section:
    """Recall against traffic, beside the perfect and the random bound."""
    evaluations = context.results["predictors"]["evaluations"]
    trace = context.trace
    limits = [str(limit) for limit in context.config.issue]
    shown = limits[len(limits) // 2]
    first = evaluations[0]
    best = max(evaluations, key=lambda e: e["recall"][shown])
    return Section(
        id="predictors",
        title="Which experts come next",
        blocks=(
            Text(
                f"Each predictor is asked {layers_text(context.config.lookahead)} ahead, when the gate of the earlier "
                "layer is known: which experts will the target layer choose? Tables are profiled on the training "
                f"sequences (80 %, stratified by dataset); the figures are of the other {first['sequences']} "
                f"sequences, {first['tokens']} tokens, as means over tokens and layers ≥ {context.config.lookahead}. "
                "Routing is never changed by a prediction."
            ),
            picture(
                recall_against_issued(evaluations, trace.experts, trace.top_k),
                "recall",
                "Share of the needed experts that were issued, over the number of experts issued. The large open "
                "mark is a predictor's own threshold, uncapped. No real predictor passes the perfect bound.",
            ),
            _table(evaluations, limits, trace.experts, trace.top_k),
            picture(recall_by_layer(evaluations, shown), "recall-layers", f"Recall@{shown} for every target layer."),
            *(
                Command(_command(context, evaluation["predictor"]))
                for evaluation in evaluations
                if evaluation["predictor"] in ("st-moe", best["predictor"])
            ),
        ),
        facts=_facts(evaluations),
    )


def _facts(evaluations: list[dict[str, Any]]) -> tuple[Fact, ...]:
    """Headline of each predictor that has a threshold of its own."""
    return tuple(
        Fact(
            f"{e['recall'][OWN]:.3f}",
            f"recall of {e['predictor']} at its own {e['issued_per_layer']:.1f} experts issued a layer",
        )
        for e in evaluations
        if OWN in e["recall"]
    )


def _table(evaluations: list[dict[str, Any]], limits: list[str], experts: int, top_k: int) -> Table:
    """Recall by limit; own-threshold figures last; bounds set apart."""
    bounds = [
        Row(("random (floor)", *(fixed(int(m) / experts) for m in limits), "–", "–", "–"), bound=True),
        Row(("perfect (bound)", *(fixed(min(int(m) / top_k, 1.0)) for m in limits), "–", "–", "–"), bound=True),
    ]
    measured = [
        Row(
            (
                e["predictor"],
                *(fixed(e["recall"][m]) for m in limits),
                fixed(e["recall"].get(OWN)),
                fixed(e["precision"].get(OWN)),
                fixed(e["issued"].get(OWN), 2),
            )
        )
        for e in evaluations
    ]
    return Table(
        columns=("predictor", *(f"recall@{m}" for m in limits), "own recall", "own precision", "own issued"),
        rows=(*measured, *bounds),
        caption="own: at the predictor's own threshold, without a limit. "
        "recall@m: share of the needed experts among the best m; a predictor may issue fewer.",
    )


def _command(context: StudyContext, name: str) -> str:
    issue = " ".join(f"--issue {limit}" for limit in context.config.issue)
    return (
        f"forestage predictor evaluate --trace {context.trace_name} --predictor {name} {issue} "
        f"--lookahead {context.config.lookahead}"
    )


SUBJECT = Subject(Stage("predictors", "Predictors: recall and traffic", run), section)
