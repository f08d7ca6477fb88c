"""``forestage rtl synthesise``."""

from study.commands.options import JsonOption


def synthesise_command(as_json: JsonOption = False) -> None:
    """TODO."""
