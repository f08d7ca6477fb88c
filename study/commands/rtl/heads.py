"""Who predicts in the engine's commands: the mode, and trained predictors."""

from pathlib import Path
from typing import Annotated

import typer

from catalog.errors import ForestageError
from predictor.engine.settings import Mode
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from traces import RoutingTrace

NextLayerOption = Annotated[
    Path | None, typer.Option("--predictor", help="Predicts coming layers: a file of `forestage predictor train`")
]
NextUseOption = Annotated[
    Path | None,
    typer.Option("--next-use", help="Says what is worth keeping: a file of `forestage predictor train-next-use`"),
]


def parse_mode(name: str) -> Mode:
    """The mode of that name.

    Raises:
        ForestageError: there is none.
    """
    if name.upper() not in Mode.__members__:
        raise ForestageError(f"--mode {name}: give {', '.join(known.name.lower() for known in Mode)}")
    return Mode[name.upper()]


def load_heads(
    trace: RoutingTrace, predictor: Path | None, next_use: Path | None, distance: int = 1
) -> tuple[NextLayerPredictor | None, NextUsePredictor | None]:
    """Both, as far as they are given, of the shape of ``trace``.

    Raises:
        ForestageError: naming the file that cannot be read, is of another shape or does not serve the distance.
    """
    next_layer = None if predictor is None else NextLayerPredictor.load(predictor, distance)
    values = None if next_use is None else NextUsePredictor.load(next_use, 0)
    for what, path in ((next_layer, predictor), (values, next_use)):
        if what is not None and (what.network.layers, what.network.experts) != (trace.layers, trace.experts):
            raise ForestageError(
                f"{path}: is of {what.network.layers} layers of {what.network.experts} experts, and the trace of "
                f"{trace.layers} of {trace.experts}; give a predictor trained on such a trace"
            )
    return next_layer, values
