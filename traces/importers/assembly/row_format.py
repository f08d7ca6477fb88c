"""What is kept of a foreign file's row (one token's choice in one layer), and how a row is named in errors."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST = 2**31 - 1
"""Of a position, a layer or a sequence: they are kept as i32."""

LARGEST_ID = 65_534
"""Of an expert: 65,535 marks an unrecorded row."""

UNRECORDED = LARGEST_ID + 1
"""Every id of a row that the file has, but that says of no expert that it was chosen."""

NO_TOKEN = -1
"""As a token's identity: the file does not say."""

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
"""What is kept of a row beside its ids and weights."""

Array = npt.NDArray[Any]


@dataclass(eq=False)
class RowPlaces:
    """Where rows come from, and what their file calls things.

    Attributes:
        position_name: what the file calls a token's place.
        line_name: what a row's ``line`` counts.
        whole: every token has a row in every layer; without, only the last of a sequence must.
        origins: the files, or parts of one, that a row's ``origin`` numbers.
    """

    position_name: str
    line_name: str = "line"
    whole: bool = False
    origins: list[str] = field(default_factory=list)

    def of(self, row: Any) -> str:
        """Where a row of ``ROW`` comes from."""
        return f"{self.origins[row['origin']]}: {self.line_name} {row['line']}"


def columns(facts: Array, begin: int, stop: int) -> tuple[Array, Array, Array]:
    """Sequence, position and layer of some rows."""
    part = facts[begin:stop]
    sequence, position, layer = (np.ascontiguousarray(part[name]) for name in ("sequence", "position", "layer"))
    return sequence, position, layer


def ascend(sequence: Array, position: Array, layer: Array) -> bool:
    """Whether rows stand by sequence, position and layer already."""
    later = sequence[1:] > sequence[:-1]
    same = sequence[1:] == sequence[:-1]
    later |= same & (position[1:] > position[:-1])
    same &= position[1:] == position[:-1]
    return bool((later | (same & (layer[1:] >= layer[:-1]))).all())
