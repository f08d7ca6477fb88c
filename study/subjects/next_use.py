"""The learned predictor of what to keep: within how many tokens an expert is wanted again."""

from typing import Any

import numpy as np

from catalog.progress import Progress
from predictor.next_use.recipes import NextUseConfig, NextUseRecipe, recipe_for
from predictor.next_use.requirements import check_trainable
from study import needs
from study.blocks import Command, Row, Section, Table, Text
from study.config import NO_LEARNED
from study.numbers import fixed, seconds, size
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import split
from traces.selection import select_sequences

TITLE = "How soon an expert is wanted again"

PREDICTOR_FILE = "next-use.safetensors"
STATE_FILE = "next-use.state"


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Train on the training sequences, and save."""
    from predictor.next_use.training import train  # PyTorch is needed here alone

    fitted = select_sequences(context.trace, split(context.trace)[0])
    state = context.out / STATE_FILE
    predictor = train(
        fitted,
        _recipe(context),
        trained_on=f"the training part of {context.trace_path.name} ({fitted.sequences} sequences)",
        state_path=state,
        progress=progress,
    )
    predictor.save(context.out / PREDICTOR_FILE)
    state.unlink(missing_ok=True)
    return {"size": predictor.describe(), "provenance": predictor.provenance.model_dump(mode="json")}


def lacks(context: StudyContext) -> str | None:
    """Sequences to train on, long enough that a use comes again."""
    if context.config.learned == NO_LEARNED:
        return f'the configuration says learned = "{NO_LEARNED}"'
    why = needs.test_sequences(context.trace)
    if why is not None:
        return why
    if len(split(context.trace)[0]) < 2:
        return "the trace has 1 training sequence, and 2 are needed, to fit and to stop by; give one of more sequences"
    return needs.refusal(check_trainable, context.trace, _recipe(context))


def _recipe(context: StudyContext) -> NextUseRecipe:
    """The default of `forestage predictor train-next-use` for such a trace, with the study's settings."""
    trace = context.trace
    tokens = int(np.diff(trace.sequence_offsets)[split(trace)[0]].sum())
    return recipe_for(
        context.config.next_use,
        identity=trace.token_hash is not None,
        tokens=tokens,
        origin="study configuration: next_use",
    )


def section(context: StudyContext) -> Section:
    """What was trained, what quantisation cost, and what it takes on chip."""
    result = context.results["next_use"]
    figures, provenance = result["size"], result["provenance"]
    log, found = provenance["log"], provenance["validation"]
    names = {"floating_point": "floating point", "int8": "int8", "adapting": "int8, adapting while it decodes"}
    memory = [
        ("SRAM of the largest layer", size(figures["sram_bytes_per_layer"])),
        ("state of a sequence and layer", size(figures["state_bytes_per_slot_layer"])),
    ]
    if figures["text_bytes_per_slot"]:
        memory.append(("n-gram tables and log of a sequence, in far memory", size(figures["text_bytes_per_slot"])))
    *near, far = context.config.next_use.get("horizons", NextUseConfig().horizons)
    horizons = f"{', '.join(str(tokens) for tokens in near)} and {far}" if near else str(far)
    settings = "".join(f" --set {name}={_value(value)}" for name, value in context.config.next_use.items())
    return Section(
        id="next_use",
        title=TITLE,
        blocks=(
            Text(
                "A cache must know what to keep. A second, smaller net of the same kind is asked at every gate: what "
                f"is the chance that an expert of this layer is wanted within the next {horizons} tokens? The sum of "
                "these chances is the expert's value: the lowest gives way, and an absent one is moved where its "
                f"value is higher by the price of a transfer. Trained on the training sequences ({len(log)} epochs, "
                f"{seconds(sum(entry['seconds'] for entry in log))}), then run in integers."
            ),
            Table(columns=("memory", ""), rows=tuple(Row(row) for row in memory)),
            Table(
                columns=("on validation sequences", *next(iter(found.values()))),
                rows=tuple(
                    Row((names[key], *(fixed(value, 4) for value in found[key].values())))
                    for key in names
                    if found[key]
                ),
                caption="What it is worth to a cache and to a whole machine is measured on the test sequences, in "
                "the section of the whole system.",
            ),
            Command(
                f"forestage predictor train-next-use --trace {context.trace_name} --out {PREDICTOR_FILE}{settings}"
            ),
        ),
    )


def _value(value: Any) -> str:
    return str(value).replace(" ", "")


SUBJECT = Subject(
    Stage("next_use", "Next-use predictor: training", run, outputs=(PREDICTOR_FILE,)), section, title=TITLE, lacks=lacks
)
