"""The learned predictor: trained on the study's trace, quantised, exported, and how true its probabilities are."""

from typing import Any

from catalog.progress import Progress
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import NextLayerRecipe, read_recipe
from predictor.next_layer.requirements import check_trainable
from predictor.next_layer.selection import Selection
from study import needs
from study.blocks import Command, Row, Section, Table, Text, picture
from study.calibration import calibration
from study.config import NO_LEARNED
from study.figures.learned import reliability_diagram
from study.numbers import count, layers_text, percent, seconds, size
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import split
from traces.selection import select_sequences

TITLE = "A predictor that is learned"

PREDICTOR_FILE = "learned.safetensors"
IMAGE_FILE = "learned.img"
STATE_FILE = "learned.state"


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Train on the training sequences, save, export."""
    from predictor.next_layer.training import train  # PyTorch is needed here alone

    selection = Selection()
    state = context.out / STATE_FILE
    predictor: NextLayerPredictor = train(
        select_sequences(context.trace, selection.indices(context.trace)),
        _recipe(context),
        trained_on=selection.describe(context.trace, context.trace_path.name),
        state_path=state,
        progress=progress,
    )
    predictor.save(context.out / PREDICTOR_FILE)
    state.unlink(missing_ok=True)
    image = predictor.export(context.out / IMAGE_FILE)
    return {
        "size": predictor.describe(),
        "provenance": predictor.provenance.model_dump(mode="json"),
        "image_bytes": image.size,
        "calibration": calibration(
            predictor, context.trace, split(context.trace)[1], name="learned", trace_name=context.trace_name
        ),
    }


def lacks(context: StudyContext) -> str | None:
    """Sequences to train and to measure on, and whatever the recipe looks at."""
    if context.config.learned == NO_LEARNED:
        return f'the configuration says learned = "{NO_LEARNED}"'
    return (
        needs.test_sequences(context.trace)
        or needs.layers_ahead(context)
        or needs.refusal(Selection().indices, context.trace)
        or needs.refusal(check_trainable, context.trace, _recipe(context).predictor)
    )


def _recipe(context: StudyContext) -> NextLayerRecipe:
    """The configuration's recipe, whose nearest lookahead is the study's."""
    recipe, lookahead = read_recipe(context.config.learned), context.config.lookahead
    return recipe.at(lookahead, max(lookahead, recipe.predictor.farthest), origin="lookahead")


def section(context: StudyContext) -> Section:
    """What was trained, what quantisation cost, what it takes on chip, and whether its probabilities are true."""
    result = context.results["learned"]
    figures, provenance = result["size"], result["provenance"]
    log = provenance["log"]
    return Section(
        id="learned",
        title=TITLE,
        blocks=(
            Text(
                "Everything known when the gate "
                f"{layers_text(context.config.lookahead)} earlier has chosen feeds one sum of int8 rows, picked by "
                "expert ids"
                + (" and token identity" if figures["identities"] else "")
                + (
                    "; so does what each layer chose when the last tokens were last the same"
                    if figures["ngram_tables"]
                    else ""
                )
                + ". Then ReLU, one int8 matrix, a score an expert. Trained in PyTorch on the training sequences "
                f"({len(log)} epochs, {seconds(sum(entry['seconds'] for entry in log))}), then run in integers: what "
                "follows in this report is the integers' result, which is also what the memory image "
                f"({IMAGE_FILE}, {size(result['image_bytes'])}) holds."
            ),
            _memory(figures),
            _validation(provenance["validation"]),
            picture(
                reliability_diagram(result["calibration"]),
                "reliability",
                "How often experts were chosen that were given a probability, on the test sequences "
                f"({count(result['calibration']['tokens'])} tokens), and how often each probability is given.",
            ),
            Command(
                f"forestage predictor train --trace {context.trace_name} --config {context.config.learned} "
                f"--lookahead {context.config.lookahead} --out {PREDICTOR_FILE}"
            ),
            Command(f"forestage predictor calibration --trace {context.trace_name} --predictor {PREDICTOR_FILE}"),
        ),
        facts=(),
    )


def _memory(figures: dict[str, Any]) -> Table:
    rows = [
        ("SRAM of the largest layer: rows, matrix, biases, probabilities", size(figures["sram_bytes_per_layer"])),
        ("state of a sequence and layer", size(figures["state_bytes_per_slot_layer"])),
        ("widest accumulator", f"{figures['accumulator_bits']} bits"),
    ]
    if figures["identity_bytes"]:
        rows.append(("identity rows, in far memory", size(figures["identity_bytes"])))
        rows.append(("– of these, fetched for each token in one burst", size(figures["identity_burst_bytes"])))
    if figures["ngram_tables"]:
        rows.append(("n-gram tables and log of a sequence, in far memory", size(figures["text_bytes_per_slot"])))
    if figures["far_bytes_per_token"]:
        rows.append(("far memory read and written for each token", size(figures["far_bytes_per_token"])))
    return Table(columns=("memory", ""), rows=tuple(Row(row) for row in rows))


def _validation(found: dict[str, dict[str, float]]) -> Table:
    limits = list(found["int8"])
    names = {"floating_point": "floating point", "int8": "int8", "adapting": "int8, adapting while it decodes"}
    return Table(
        columns=("on validation sequences", *(f"recall@{limit}" for limit in limits)),
        rows=tuple(Row((names[key], *(percent(found[key][limit]) for limit in limits))) for key in names if found[key]),
        caption="Validation sequences are part of the training part: they stop the training and choose the scales. "
        "The test sequences are measured in the next section.",
    )


SUBJECT = Subject(
    Stage("learned", "Learned predictor: training", run, outputs=(PREDICTOR_FILE, IMAGE_FILE)),
    section,
    title=TITLE,
    lacks=lacks,
)
