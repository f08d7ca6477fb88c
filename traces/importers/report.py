"""What a reader reports beside the trace: warnings and progress."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from catalog.progress import Progress

Part = TypeVar("Part")


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

    def counted(self, parts: Sequence[Part]) -> Iterator[Part]:
        """``parts`` one by one; progress counts those that are done, also where the caller goes on to the next."""
        for done, part in enumerate(parts, start=1):
            yield part
            self.progress(done, len(parts))

    def apart(self, parts: Sequence[Part]) -> Iterator[tuple[Part, "Report"]]:
        """Each of ``parts`` with the report for its reader.

        The reader of a single part tells its own progress; of several parts those that are done are counted, as each
        reader's own would begin at 0 again.
        """
        if len(parts) == 1:
            yield parts[0], self
            return
        silent = Report(warnings=self.warnings)
        for part in self.counted(parts):
            yield part, silent
