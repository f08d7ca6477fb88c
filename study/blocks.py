"""The parts of which a section of the report is made."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMAND_COLUMNS = 100


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Note:
    """A paragraph of caution or provenance, in smaller type."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Command:
    """The command that remakes the figures above it."""

    kind: ClassVar[str] = "command"
    text: str

    @property
    def wrapped(self) -> str:
        """The commands, one per line; long ones are continued in shell syntax."""
        return "\n".join(
            " \\\n    ".join(textwrap.wrap(line, COMMAND_COLUMNS, break_on_hyphens=False, break_long_words=False))
            for line in self.text.splitlines()
        )


@dataclass(frozen=True)
class Row:
    """A table row; ``pale`` marks what no real system is: a bound, a floor or an oracle.

    A cell may have a second line, which is shown smaller.
    """

    cells: tuple[str, ...]
    pale: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts; columns are right-aligned, except those in ``text_columns``."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    text_columns: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Picture:
    """A figure as inline SVG."""

    kind: ClassVar[str] = "figure"
    identity: str
    svg: str
    caption: str


Block = Text | Note | Command | Table | Picture


@dataclass(frozen=True)
class Fact:
    """One headline figure."""

    value: str
    label: str


@dataclass(frozen=True)
class Section:
    """A titled part of the report, with the facts it contributes to the head of the page."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    facts: tuple[Fact, ...] = field(default=())


def picture(figure: "Figure", identity: str, caption: str) -> Picture:
    """``figure`` as a block; ``identity`` must be unique in the report."""
    from study.figures.style import to_svg  # Matplotlib takes half a second

    return Picture(identity=identity, svg=to_svg(figure, identity), caption=caption)


def rows(cells: Sequence[Sequence[str]]) -> tuple[Row, ...]:
    """``cells`` as rows of real systems."""
    return tuple(Row(tuple(row)) for row in cells)
