"""``forestage cache``: hit rates of expert caches, and their bound; one module per command."""

import typer

from study.commands.cache import comparing, simulating

app = typer.Typer()
app.command("simulate")(simulating.simulate_cache)
app.command("compare")(comparing.compare_policies)
