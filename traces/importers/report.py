"""What a reader tells beside the trace: warnings, and how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, field


def _silent(done: int, total: int) -> None:
    """No progress shown."""


@dataclass
class Report:
    """Handed to every reader.

    Attributes:
        progress: called with (done, total) by long readers, in a unit of their own.
        warnings: one line each, in the order found.
    """

    progress: Callable[[int, int], None] = _silent
    warnings: list[str] = field(default_factory=list)

    def warn(self, line: str) -> None:
        """Add a warning, once however often it is given."""
        if line not in self.warnings:
            self.warnings.append(line)
