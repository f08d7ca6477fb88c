"""The form in which a foreign file's rows (one token's choice in one layer) are kept, and their names in errors."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST = 2**31 - 1
"""Largest position, layer or sequence: they are kept as i32."""

LARGEST_ID = 65_534
"""Largest expert id: 65,535 marks an unrecorded row."""

UNRECORDED = LARGEST_ID + 1
"""Every id of a row that the file has but that names no chosen expert."""

NO_TOKEN = -1
"""A token's identity if the file does not state it."""

ROW = np.dtype(
    [
        ("sequence", np.int32),
        ("position", np.int32),
        ("layer", np.int32),
        ("phase", np.uint8),
        ("token", np.int64),
        ("line", np.int64),
        ("origin", np.int32),
    ]
)
"""The fields of a row beside its ids and weights."""

Array = npt.NDArray[Any]


@dataclass(eq=False)
class RowPlaces:
    """The origins of rows, and their file's names for things.

    Attributes:
        position_name: the file's name for a token's position.
        line_name: the name of what a row's ``line`` counts.
        whole: whether every token must have a row in every layer; if not, only the last token of a sequence must.
        origins: the files, or parts of one; a row's ``origin`` is an index into it.
    """

    position_name: str
    line_name: str = "line"
    whole: bool = False
    origins: list[str] = field(default_factory=list)

    def of(self, row: Any) -> str:
        """The origin and line of a row of type ``ROW``."""
        return f"{self.origins[row['origin']]}: {self.line_name} {row['line']}"


def columns(facts: Array, begin: int, stop: int) -> tuple[Array, Array, Array]:
    """Sequence, position and layer of some rows."""
    part = facts[begin:stop]
    sequence, position, layer = (np.ascontiguousarray(part[name]) for name in ("sequence", "position", "layer"))
    return sequence, position, layer


def ascend(sequence: Array, position: Array, layer: Array) -> bool:
    """Whether rows are already in order of sequence, position and layer."""
    later = sequence[1:] > sequence[:-1]
    same = sequence[1:] == sequence[:-1]
    later |= same & (position[1:] > position[:-1])
    same &= position[1:] == position[:-1]
    return bool((later | (same & (layer[1:] >= layer[:-1]))).all())
