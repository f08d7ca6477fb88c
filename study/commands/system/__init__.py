"""``forestage system``: policies on a model of a machine; one module per command."""

import typer

from study.commands.system import comparing, one_expert, simulating

app = typer.Typer()
app.command("simulate")(simulating.simulate_command)
app.command("compare")(comparing.compare_command)
app.command("expert")(one_expert.expert_command)
