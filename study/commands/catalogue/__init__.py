"""``forestage catalog``: show what is known about models, machines, memories and energies, and add to it."""

import typer

from study.commands.catalogue.adding import add_command
from study.commands.catalogue.fields import fields_command
from study.commands.catalogue.listing import list_command
from study.commands.catalogue.showing import show_command

app = typer.Typer()
app.command("list")(list_command)
app.command("show")(show_command)
app.command("fields")(fields_command)
app.command("add")(add_command)
