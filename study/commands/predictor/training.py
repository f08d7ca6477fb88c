"""``forestage predictor train``: train the learned predictor on a trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import RECIPES, read_recipe
from predictor.next_layer.requirements import check_trainable
from predictor.next_layer.selection import Selection
from predictor.row_network.config import lookaheads_text, parse_lookaheads
from predictor.row_network.file import EpochLog, Validation
from study.commands.opening import open_trace
from study.commands.options import (
    DatasetOption,
    DomainOption,
    JsonOption,
    ModelOption,
    TraceOption,
    check_destination,
    parse_parameters,
)
from study.numbers import percent, size
from study.output import emit, messages, progress_bar
from traces.selection import select_sequences

STATE_SUFFIX = ".state"


def train_predictor(
    trace: TraceOption,
    out: Annotated[Path, typer.Option("--out", help="The predictor file to write (.safetensors)")],
    config: Annotated[
        str, typer.Option("--config", help=f"A recipe: {', '.join(RECIPES)}, or a TOML file")
    ] = "deployed",
    lookahead: Annotated[
        str | None,
        typer.Option(
            "--lookahead", help="How many layers ahead to predict, or a range as 1-8; default: the recipe's, 1"
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, a field of the recipe to change; several times")
    ] = None,
    domain: DomainOption = None,
    dataset: DatasetOption = None,
    without_domain: Annotated[
        list[str] | None, typer.Option("--without-domain", help="Leave out sequences of this domain; several times")
    ] = None,
    without_dataset: Annotated[
        list[str] | None, typer.Option("--without-dataset", help="Leave out sequences of this data set; several times")
    ] = None,
    part: Annotated[
        str, typer.Option("--split", help="Sequences to train on: train, or all if you will not test on this trace")
    ] = "train",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads that PyTorch uses; default: PyTorch's own choice")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on the training sequences, quantise, and write the predictor.

    The state after each epoch is kept beside OUT, so after an interruption the same command goes on.
    """
    recipe = read_recipe(config).replaced(parse_parameters(parameter or []), origin="--set")
    if lookahead is not None:
        recipe = recipe.at(*parse_lookaheads(lookahead, least=1), origin="--lookahead")
    check_destination(out)
    recorded = open_trace(trace, model)
    labels = {
        "part": part,
        "domains": tuple(domain or ()),
        "datasets": tuple(dataset or ()),
        "without_domains": tuple(without_domain or ()),
        "without_datasets": tuple(without_dataset or ()),
    }
    selection = Selection.parse_settings(labels, origin="selection")
    chosen = selection.indices(recorded)
    check_trainable(recorded, recipe.predictor)
    from predictor.next_layer import training  # PyTorch is needed here alone
    from predictor.row_network.training import set_threads

    if threads is not None:
        set_threads(threads)
    state = out.with_name(out.name + STATE_SUFFIX)
    with progress_bar("training") as progress:
        predictor: NextLayerPredictor = training.train(
            select_sequences(recorded, chosen),
            recipe,
            trained_on=selection.describe(recorded, trace.name),
            state_path=state,
            progress=progress,
            report=lambda entry: messages.print(epoch_line(entry), highlight=False),
        )
    predictor.save(out)
    state.unlink(missing_ok=True)
    document = {"predictor": str(out), **predictor.describe(), **predictor.provenance.model_dump(mode="json")}
    emit(document, as_json=as_json, render=lambda console: render_training(console, out, predictor))


def epoch_line(entry: EpochLog) -> str:
    """One epoch of the log, for the terminal."""
    return (
        f"epoch {entry.epoch}: loss {entry.loss:.4f}, validation {entry.figure} {entry.validation:.4f}, "
        f"{entry.seconds:.0f} s"
    )


def render_training(console: Console, out: Path, predictor: NextLayerPredictor) -> None:
    """What was trained: size, and recall before and after quantisation."""
    figures = predictor.describe()
    provenance = predictor.provenance
    console.print(
        f"[bold]{escape(str(out))}[/bold]: {escape(provenance.model)}, lookahead {lookaheads_text(predictor.config)}, "
        f"{escape(provenance.trained_on)}",
        highlight=False,
    )
    console.print(
        f"{size(figures['sram_bytes_per_layer'])} of SRAM a layer, {size(figures['state_bytes_per_slot_layer'])} of "
        f"state a slot and layer, accumulators of {figures['accumulator_bits']} bits; in far memory "
        f"{size(figures['identity_bytes'])} of identity rows and {size(figures['text_bytes_per_slot'])} of "
        f"n-gram tables and log a slot, {size(figures['far_bytes_per_token'])} read and written a token",
        highlight=False,
    )
    console.print(validation_table("validation recall, issued", provenance.validation, percent), highlight=False)


def validation_table(title: str, found: Validation, shown: Callable[[float], str]) -> Table:
    """The figures on the validation sequences, before and after quantisation."""
    table = Table(title, *found.int8, box=None)
    for name, values in (("floating point", found.floating_point), ("int8", found.int8), ("adapting", found.adapting)):
        if values:
            table.add_row(name, *(shown(value) for value in values.values()))
    return table
