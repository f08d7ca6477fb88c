"""What a reader reports beside the trace: warnings and progress."""

from dataclasses import dataclass, field

from catalog.progress import Progress


def _silent(done: int, total: int) -> None:
    """Show no progress."""


@dataclass
class Report:
    """Takes warnings and progress from a reader.

    Attributes:
        progress: long readers call it with (done, total), in their own unit.
        warnings: one line each, in the order found.
    """

    progress: Progress = _silent
    warnings: list[str] = field(default_factory=list)

    def warn(self, line: str) -> None:
        """Add a warning, unless it was already given."""
        if line not in self.warnings:
            self.warnings.append(line)
