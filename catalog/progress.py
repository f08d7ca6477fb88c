"""How long work says how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Long work calls it with (done, total), in units of its own: tokens, rows, variants."""
