"""``forestage reference``: replay recorded routing in PyTorch, and measure a machine; one module per command."""

import typer

from study.commands.reference import checking, comparing, decoding, measuring, packing, perplexing

app = typer.Typer()
app.command("check")(checking.check_command)
app.command("decode")(decoding.decode_command)
app.command("measure")(measuring.measure_command)
app.command("compare")(comparing.compare_command)
app.command("pack")(packing.pack_command)
app.command("perplexity")(perplexing.perplexity_command)
