"""The ``forestage`` command: its groups, and how errors are reported."""

import errno
import os
import sys
from typing import Any, NoReturn

import typer

from catalog.errors import ForestageError
from study.commands import cache, catalogue, pim, predictor, reference, rtl, system, trace
from study.commands.command import use_options_command
from study.commands.model_config import add_config_options
from study.commands.study import study
from study.extras import EXTRAS, missing
from study.interruption import INTERRUPTED

app = typer.Typer(
    name="forestage",
    help="Have mixture-of-experts weights where they are needed, before they are needed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("study")(study)
app.add_typer(trace.app, name="trace")
app.add_typer(catalogue.app, name="catalog")
app.add_typer(predictor.app, name="predictor")
app.add_typer(cache.app, name="cache")
app.add_typer(rtl.app, name="rtl")
app.add_typer(pim.app, name="pim")
app.add_typer(system.app, name="system")
app.add_typer(reference.app, name="reference")
add_config_options(app)
use_options_command(app)


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
