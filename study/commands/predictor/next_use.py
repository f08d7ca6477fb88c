"""``forestage predictor train-next-use``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import write_text
from predictor.next_use import file
from predictor.next_use.parameters import NextUseParameters, NextUseTraining
from study.commands.options import (
    JsonOption,
    ModelOption,
    TraceOption,
    check_destination,
    open_trace,
    parse_parameters,
)
from study.numbers import size
from study.output import emit, messages, progress_bar
from traces import split
from traces.selection import select_sequences


def train_next_use(
    trace: TraceOption,
    out: Annotated[Path, typer.Option("--out", help="The predictor's file, .safetensors; a log is put beside it")],
    lookahead: Annotated[
        int, typer.Option("--lookahead", min=0, help="0: asked after a layer's own gate; more: that many layers before")
    ] = 0,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, of the shape (hidden, horizons, …) or the training")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn")] = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the next-use predictor on the training sequences of a trace: which experts a cache should keep.

    An interrupted training goes on with the first unfinished layer when the same command is run again.
    """
    if out.suffix != ".safetensors":
        raise ForestageError(f"--out {out}: the file is a safetensors file; end its name with .safetensors")
    check_destination(out)
    shape, training = _settings(parameter or [], lookahead, seed)
    recorded = open_trace(trace, model)
    identity = recorded.token_hash is not None
    parameters = NextUseParameters.for_trace(shape, identity=identity, origin="--set")
    sequences = split(recorded)[0]
    if len(sequences) < 2:
        raise ForestageError(
            f"{trace}: {len(sequences)} training sequence(s); at least 2 are needed, to fit and to stop by"
        )
    # Imported late: other commands start without torch's seconds, and refusals come without them.
    from predictor.next_use.training import train

    unfinished = out.with_suffix(".unfinished")
    log = _Log(out.with_suffix(".log.jsonl"), goes_on=unfinished.is_dir())
    with progress_bar("training next use") as progress:
        predictor = train(
            select_sequences(recorded, sequences),
            parameters=parameters,
            training=training,
            trained_on=f"the training part of {trace.name} ({len(sequences)} sequences)",
            resume=unfinished,
            progress=progress,
            log=log.append,
        )
    file.save(predictor, out)
    if not identity and "contexts" not in shape:
        note = "note: the trace does not record the identity of tokens; trained without contexts"
        messages.print(note, highlight=False, markup=False, soft_wrap=True)
    document = {
        "out": str(out),
        "log": str(log.path),
        "model": predictor.model,
        "trained_on": predictor.trained_on,
        "layer_bytes": predictor.tables.layer_bytes,
        "far_memory": asdict(predictor.tables.far_memory),
        "parameters": parameters.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "validation_loss": log.best_losses(),
    }
    emit(document, as_json=as_json, render=lambda console: _render(console, document))


def _settings(texts: list[str], lookahead: int, seed: int) -> tuple[dict[str, Any], NextUseTraining]:
    """Divide the ``--set`` options into parameters of the shape and settings of the training.

    Raises:
        ForestageError: for an unknown name (naming the nearest known one), or a bad value.
    """
    given = parse_parameters(texts)
    for name in ("lookahead", "seed"):
        if name in given:
            raise ForestageError(f"--set {name}: it has an option of its own; give --{name}")
    known: type[StrictModel] = _Settings
    known.parse(given, origin="--set")
    shape = {name: value for name, value in given.items() if name in NextUseParameters.model_fields}
    rest = {name: value for name, value in given.items() if name not in shape}
    shape["lookahead"] = lookahead
    NextUseParameters.parse(shape, origin="--set")
    return shape, NextUseTraining.parse({**rest, "seed": seed}, origin="--set")


class _Settings(NextUseParameters, NextUseTraining):
    """The fields of both, to find the nearest name to an unknown one."""


class _Log:
    """The log of a training, one JSON record per line.

    The first record starts a new log, so that a refused training leaves an earlier log unchanged. If an interrupted
    training continues, its lines stay.
    """

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        self.path = path
        self._begun = goes_on and path.is_file()

    def append(self, record: dict[str, Any]) -> None:
        """Write one more line at once, so that a training can be watched.

        Raises:
            ForestageError: if it cannot be written.
        """
        if not self._begun:
            write_text(self.path, "")
            self._begun = True
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")

    def best_losses(self) -> dict[int, float]:
        """Logged layer → validation loss of its best epoch."""
        best: dict[int, float] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self._begun else ():
            record = json.loads(line)
            layer, loss = record["layer"], record["validation_loss"]
            best[layer] = min(loss, best.get(layer, loss))
        return best


def _render(console: Console, document: dict[str, Any]) -> None:
    losses = list(document["validation_loss"].values())
    mean = f", mean validation loss {sum(losses) / len(losses):.4f}" if losses else ""
    console.print(
        f"[bold]{escape(document['out'])}[/bold]: next use of {escape(document['model'])}, "
        f"{size(document['layer_bytes'])} a layer{mean}",
        highlight=False,
        soft_wrap=True,
    )
    far = document["far_memory"]
    if far["held_bytes"]:
        console.print(
            f"far memory: {size(far['read_bytes'])} read and {size(far['written_bytes'])} written a token, "
            f"{size(far['held_bytes'])} held a sequence",
            highlight=False,
            soft_wrap=True,
        )
    made = f"made from {document['trained_on']}; log: {document['log']}"
    console.print(made, style="dim", highlight=False, markup=False)
