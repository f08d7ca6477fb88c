"""``forestage rtl``: the hardware; one module per command."""

import typer

from study.commands.rtl import comparing, energy, generating, picturing, proving, replaying, synthesising

app = typer.Typer()
app.command("generate")(generating.generate_command)
app.command("replay")(replaying.replay_command)
app.command("compare-system")(comparing.compare_system_command)
app.command("synthesise")(synthesising.synthesise_command)
app.command("energy")(energy.energy_command)
app.command("prove")(proving.prove_command)
app.command("blocks")(picturing.blocks_command)
app.command("timeline")(picturing.timeline_command)
