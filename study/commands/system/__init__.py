"""``forestage system``: policies on a model of a machine; one module per command."""

import typer

from study.commands.system import comparing, simulating

app = typer.Typer()
app.command("simulate")(simulating.simulate_command)
app.command("compare")(comparing.compare_command)
