"""The installed command's first steps: an interruption while the program is still being loaded is one line, too."""

import signal
import sys

from study.interruption import INTERRUPTED


def entry() -> None:
    """Run ``forestage``; SIGTERM is treated as an interruption, so that temporary files are removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from study.cli import main  # loading the commands takes seconds on a busy machine
    except KeyboardInterrupt:
        print("forestage: interrupted before it began", file=sys.stderr)
        sys.exit(INTERRUPTED)
    main()


if __name__ == "__main__":
    entry()
