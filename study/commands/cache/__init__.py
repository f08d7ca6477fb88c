"""``forestage cache``: where experts are, and the bound on it; one module a command."""

import typer

from study.commands.cache import comparing, simulating

app = typer.Typer(help="Where experts are: caches and the bound on them.", no_args_is_help=True)
app.command("simulate")(simulating.simulate_cache)
app.command("compare")(comparing.compare_policies)
