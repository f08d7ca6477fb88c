"""``forestage trace``: import, export, capture, describe, measure and make routing traces; one module per command."""

import typer

from study.commands.trace import batch, capture, exporting, importing, info, stats, synthesise

app = typer.Typer()
app.command("import")(importing.import_command)
app.command("export")(exporting.export_command)
app.command("capture")(capture.capture_command)
app.command("info")(info.info_command)
app.command("stats")(stats.stats_command)
app.command("batch")(batch.batch_command)
app.command("synthesise")(synthesise.synthesise_command)
