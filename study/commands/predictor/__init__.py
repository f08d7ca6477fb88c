"""``forestage predictor``: train, measure and export predictors; one module per command."""

import typer

from study.commands.predictor import (
    calibration,
    evaluating,
    exporting,
    listing,
    next_use,
    predictions,
    sweeping,
    training,
)

app = typer.Typer()
app.command("list")(listing.list_predictors)
app.command("train")(training.train_predictor)
app.command("evaluate")(evaluating.evaluate_predictor)
app.command("predictions")(predictions.write_predictions)
app.command("calibration")(calibration.calibration_of)
app.command("export")(exporting.export_predictor)
app.command("sweep")(sweeping.sweep_predictors)
app.command("train-next-use")(next_use.train_next_use)
