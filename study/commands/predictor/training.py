"""``forestage predictor train``: train the learned predictor on a trace."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from predictor.learned.config import RECIPES, read_recipe
from predictor.learned.model_file import EpochLog
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.requirements import check_trainable
from predictor.learned.selection import Selection
from study.commands.options import (
    JsonOption,
    ModelOption,
    TraceOption,
    check_destination,
    open_trace,
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
    lookahead: Annotated[int, typer.Option("--lookahead", help="Layers between known gate and target")] = 1,
    parameter: Annotated[list[str] | None, typer.Option("--set", help="name=value, a field of the recipe")] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only sequences of this domain")] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="Only sequences of this dataset")] = None,
    without_domain: Annotated[list[str] | None, typer.Option("--without-domain", help="Leave a domain out")] = None,
    without_dataset: Annotated[list[str] | None, typer.Option("--without-dataset", help="Leave a dataset out")] = None,
    part: Annotated[str, typer.Option("--split", help="train, or all where nothing is tested on it")] = "train",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of PyTorch")] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on the training sequences, quantise, and write the predictor.

    The state after each epoch is kept beside OUT: the same command goes on where it was interrupted.
    """
    recipe = read_recipe(config).replaced(parse_parameters(parameter or []), origin="--set")
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
    check_trainable(recorded, recipe.predictor, lookahead)
    from predictor.learned import training  # only this needs PyTorch

    if threads is not None:
        training.torch.set_num_threads(threads)
    state = out.with_name(out.name + STATE_SUFFIX)
    with progress_bar("training") as progress:
        trained = training.train(
            select_sequences(recorded, chosen),
            recipe,
            lookahead=lookahead,
            trained_on=selection.describe(recorded, trace.name),
            state_path=state,
            progress=progress,
            report=lambda entry: messages.print(epoch_line(entry), highlight=False),
        )
    predictor: LearnedPredictor = trained.predictor
    predictor.save(out)
    state.unlink(missing_ok=True)
    document = {"predictor": str(out), **predictor.describe(), **predictor.provenance.model_dump(mode="json")}
    emit(document, as_json=as_json, render=lambda console: render_training(console, out, predictor))


def epoch_line(entry: EpochLog) -> str:
    """One epoch of the log, for the terminal."""
    return (
        f"epoch {entry.epoch}: loss {entry.loss:.4f}, validation recall {percent(entry.recall)}, {entry.seconds:.0f} s"
    )


def render_training(console: Console, out: Path, predictor: LearnedPredictor) -> None:
    """Print the trained predictor's size, and its recall before and after quantisation."""
    figures = predictor.describe()
    provenance = predictor.provenance
    console.print(
        f"[bold]{escape(str(out))}[/bold]: {escape(provenance.model)}, lookahead {predictor.lookahead}, "
        f"{escape(provenance.trained_on)}",
        highlight=False,
    )
    console.print(
        f"{size(figures['sram_bytes_per_layer'])} of SRAM a layer, {size(figures['state_bytes_per_slot_layer'])} of "
        f"state a slot and layer, accumulators of {figures['accumulator_bits']} bits; in far memory "
        f"{size(figures['identity_bytes'])} of identity rows and {size(figures['tagged_bytes_per_slot'])} of tagged "
        f"tables a slot, {size(figures['far_bytes_per_token'])} read and written a token",
        highlight=False,
    )
    found = provenance.validation_recall
    table = Table("validation recall, issued", *found.int8, box=None)
    for name, values in (("floating point", found.floating_point), ("int8", found.int8), ("adapting", found.adapting)):
        table.add_row(name, *(percent(value) for value in values.values()))
    console.print(table, highlight=False)
