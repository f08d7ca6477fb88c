"""The ``forestage`` command: its groups, and how errors are reported."""

import errno
import os
import sys
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer

from catalog.errors import ForestageError
from study.commands.command import OptionsCommand
from study.commands.late import add_late_group
from study.commands.model_config import with_model_config
from study.commands.study import study
from study.extras import EXTRAS, missing
from study.interruption import INTERRUPTED

GROUPS = {
    "trace": ("trace", "Routing traces: import, export, capture, describe, measure and make them."),
    "catalog": ("catalogue", "The catalogue of models, machines, memories and energies, each value with its source."),
    "predictor": ("predictor", "Predict which experts come next: train, evaluate, compare and export predictors."),
    "cache": ("cache", "Simulate expert caches, and compare their policies with Belady's bound."),
    "rtl": ("rtl", "The hardware: write its Verilog, and compare it with its twin under Verilator."),
    "pim": ("pim", "Processing in memory: cycles of reads, products and whole experts; check the unit."),
    "system": ("system", "Simulate the whole system: staging policies on a model of a machine."),
    "reference": ("reference", "PyTorch: decode with offloaded experts, replay routing, and measure this machine."),
}
"""Group → the module of ``study.commands`` that has its commands, and its help."""

app = typer.Typer(
    name="forestage",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def print_version(wanted: bool) -> None:
    """Print the version of the installed distribution and end, where ``--version`` is given."""
    if wanted:
        print(metadata.version("forestage"))
        raise typer.Exit


@app.callback()
def forestage(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version and end")
    ] = False,
) -> None:
    """Have mixture-of-experts weights where they are needed, before they are needed."""


app.command("study", cls=OptionsCommand)(with_model_config(study))
for name, (module, text) in GROUPS.items():
    add_late_group(app, name, f"study.commands.{module}", text)


UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's class, wherever this version of typer keeps it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk, or what standard output goes to, is full."""


def main() -> None:
    """Run the command; a user's error gives one line on stderr and exit status 2."""
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except ForestageError as error:
        fail(str(error))
    except UsageError as error:
        fail(usage_text(error))
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        fail(str(missing(module)))
    except MemoryError as error:
        fail(f"not enough memory ({str(error) or 'none is left'}); ask for less, or give a smaller trace")
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has nowhere to go
        fail(f"cannot write the output ({error.strerror}); make room, or send it elsewhere")
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED:
        print("forestage: interrupted; run the same command again (a study goes on where it was)", file=sys.stderr)
    sys.exit(status or 0)


def fail(text: str) -> NoReturn:
    """Print ``text``, unless empty, as the one line of a user's error, and exit with status 2."""
    if text:
        print(f"forestage: error: {text}", file=sys.stderr)
    sys.exit(2)


def usage_text(error: Any) -> str:
    """A usage error as one line; empty if the help was printed instead, as for a group without a command."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
    return " ".join(error.format_message().split()).rstrip(".") + where


if __name__ == "__main__":
    main()
