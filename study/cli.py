"""The ``forestage`` command: its groups, and what becomes of errors."""

import sys

import typer

from catalog.errors import ForestageError
from study.commands import cache, pim, predictor, reference, rtl, system, trace
from study.commands.study import study

app = typer.Typer(
    name="forestage",
    help="Have mixture-of-experts weights where they are needed, before they are needed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("study")(study)
app.add_typer(trace.app, name="trace")
app.add_typer(predictor.app, name="predictor")
app.add_typer(cache.app, name="cache")
app.add_typer(rtl.app, name="rtl")
app.add_typer(pim.app, name="pim")
app.add_typer(system.app, name="system")
app.add_typer(reference.app, name="reference")


def main() -> None:
    """Run the command; a user's error is one line on stderr and exit status 2."""
    try:
        app()
    except ForestageError as error:
        print(f"forestage: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("forestage: interrupted; finished stages are kept, run the same command to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
