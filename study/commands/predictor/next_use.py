"""``forestage predictor train-next-use``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from catalog.errors import ForestageError
from predictor.next_use.predictor import NextUsePredictor
from predictor.next_use.recipes import recipe_for
from predictor.next_use.requirements import check_trainable
from predictor.row_network.config import lookaheads_text, parse_lookaheads
from study.commands.opening import open_trace
from study.commands.options import JsonOption, ModelOption, TraceOption, check_destination, parse_parameters
from study.commands.predictor.training import STATE_SUFFIX, epoch_line, validation_table
from study.numbers import size
from study.output import emit, messages, progress_bar, tell
from traces import split
from traces.selection import select_sequences


def train_next_use(
    trace: TraceOption,
    out: Annotated[Path, typer.Option("--out", help="The predictor file to write (.safetensors)")],
    lookahead: Annotated[
        str,
        typer.Option(
            "--lookahead",
            help="How many layers before its own gate a layer's experts are valued (0: after it), or a range as 1-8",
        ),
    ] = "0",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="name=value, a setting of the net (hidden, horizons, …) or of its training; several times"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn at random")] = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the next-use predictor, which tells a cache what to keep, on the training sequences of a trace.

    The state after each epoch is kept beside OUT, so after an interruption the same command goes on.
    """
    if out.suffix != ".safetensors":
        raise ForestageError(f"--out {out}: the file is a safetensors file; end its name with .safetensors")
    check_destination(out)
    given = parse_parameters(parameter or [])
    for name, option in (("nearest", "lookahead"), ("farthest", "lookahead"), ("seed", "seed")):
        if name in given:
            raise ForestageError(f"--set {name}: it has an option of its own; give --{option}")
    nearest, farthest = parse_lookaheads(lookahead, least=0)
    given = {**given, "seed": seed, "nearest": nearest, "farthest": farthest}
    recipe_for(given, identity=True, tokens=0, origin="--set")  # refused before the trace is read
    recorded = open_trace(trace, model)
    identity = recorded.token_hash is not None
    sequences = split(recorded)[0]
    if len(sequences) < 2:
        raise ForestageError(
            f"{trace}: {len(sequences)} training sequence(s); at least 2 are needed, to fit and to stop by"
        )
    fitted = select_sequences(recorded, sequences)
    recipe = recipe_for(given, identity=identity, tokens=fitted.tokens, origin="--set")
    check_trainable(fitted, recipe)
    # Imported late: other commands start without torch's seconds, and refusals come without them.
    from predictor.next_use.training import train

    state = out.with_name(out.name + STATE_SUFFIX)
    with progress_bar("training next use") as progress:
        predictor = train(
            fitted,
            recipe,
            trained_on=f"the training part of {trace.name} ({len(sequences)} sequences)",
            state_path=state,
            progress=progress,
            report=lambda entry: messages.print(epoch_line(entry), highlight=False),
        )
    predictor.save(out)
    state.unlink(missing_ok=True)
    if not identity and "ngram_tables" not in given:
        note = "note: the trace does not record the identity of tokens; trained without n-gram tables"
        tell(note)
    document = {"out": str(out), **predictor.describe(), **predictor.provenance.model_dump(mode="json")}
    emit(document, as_json=as_json, render=lambda console: _render(console, out, predictor))


def _render(console: Console, out: Path, predictor: NextUsePredictor) -> None:
    figures, provenance = predictor.describe(), predictor.provenance
    console.print(
        f"[bold]{escape(str(out))}[/bold]: next use of {escape(predictor.model)}, lookahead "
        f"{lookaheads_text(predictor.config)}, {escape(predictor.trained_on)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"{size(figures['sram_bytes_per_layer'])} of SRAM a layer, {size(figures['state_bytes_per_slot_layer'])} of "
        f"state a slot and layer, accumulators of {figures['accumulator_bits']} bits",
        highlight=False,
        soft_wrap=True,
    )
    if figures["text_bytes_per_slot"]:
        console.print(
            f"far memory: {size(figures['text_bytes_read_per_token'])} read and "
            f"{size(figures['text_bytes_written_per_token'])} written a token, "
            f"{size(figures['text_bytes_per_slot'])} held a sequence",
            highlight=False,
            soft_wrap=True,
        )
    console.print(validation_table("validation", provenance.validation, "{:.4f}".format), highlight=False)
