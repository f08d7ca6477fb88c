"""The integer twin of the PIM tile (`rtl.pim.tile`): its arithmetic, the order of its weights, its latency formula.

The tile multiplies an int8 matrix by an int8 vector, one *beat* of ``lanes`` weights a cycle. A *vector* is loaded as
*chunks* of ``lanes`` values into one of two banks while the other is in use. A *job* is one matrix; it uses the vector
loaded next or, where the job before kept it, the same one again. Rows are taken in groups of up to ``accumulators``;
within a group each chunk of the vector is multiplied with all rows before the next chunk, so each row of the group has
its own accumulator. Results leave in row order. `pim_model.tile_cycles` gives the cycle of each result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError

ACCUMULATOR_BITS = 32

# The largest magnitude of a product of two int8 values, (-128) · (-128).
_LARGEST_PRODUCT = 128 * 128

MAX_COLUMNS = (2 ** (ACCUMULATOR_BITS - 1) - 1) // _LARGEST_PRODUCT
"""Longest vector whose dot product cannot overflow an accumulator, whatever its values: 131,071."""


class TileParameters(StrictModel):
    """What the tile is generated with.

    Attributes:
        lanes: Number of multipliers, and of weights in a beat; a power of two.
        vector_chunks: Chunks that one bank of the vector buffer holds.
        accumulators: Rows that can be in progress at once.
        max_rows: Largest number of rows of a job.
    """

    lanes: Annotated[int, Field(ge=2, le=64)] = 16
    vector_chunks: Annotated[int, Field(ge=2, le=8192)] = 256
    accumulators: Annotated[int, Field(ge=2, le=64)] = 8
    max_rows: Annotated[int, Field(ge=1, le=2**20)] = 65535

    @model_validator(mode="after")
    def _possible(self) -> "TileParameters":
        if self.lanes & (self.lanes - 1):
            raise ValueError(f"lanes is {self.lanes}; the adder tree needs a power of two")
        if self.vector_chunks * self.lanes > MAX_COLUMNS:
            raise ValueError(
                f"vector_chunks · lanes is {self.vector_chunks * self.lanes}; beyond {MAX_COLUMNS} an accumulator "
                f"of {ACCUMULATOR_BITS} bits could overflow"
            )
        return self

    @property
    def tree_stages(self) -> int:
        """Pipeline stages of the adder tree: two levels of adders each."""
        return -(-(self.lanes.bit_length() - 1) // 2)

    @property
    def result_latency_ck(self) -> int:
        """Cycles from a row's last beat being accepted to its result being offered, while nothing stalls.

        Fetch of the vector chunk, products, adder tree, accumulator.
        """
        return 3 + self.tree_stages


@dataclass(frozen=True, kw_only=True)
class TileJob:
    """One matrix times one vector.

    Attributes:
        weights: int8 ``[rows, columns]``.
        vector: int8 ``[columns]``, or None to reuse the vector of the job before.
        group: Rows in progress at once, from 1 to the tile's accumulators.
    """

    weights: NDArray[np.int8]
    vector: NDArray[np.int8] | None
    group: int


def gemv(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
    """``weights @ vector`` in int32, exactly.

    Args:
        weights: int8 ``[rows, columns]``.
        vector: int8 ``[columns]``.

    Returns:
        int32 ``[rows]``.

    Raises:
        ForestageError: other types or shapes, or more than ``MAX_COLUMNS`` columns.
    """
    if weights.dtype != np.int8 or vector.dtype != np.int8:
        raise ForestageError(f"tile: weights are {weights.dtype}, the vector {vector.dtype}; quantise both to int8")
    if weights.ndim != 2 or vector.ndim != 1 or weights.shape[1] != len(vector):
        raise ForestageError(
            f"tile: weights {list(weights.shape)} do not fit a vector {list(vector.shape)}; "
            "give [rows, columns] and [columns]"
        )
    if len(vector) > MAX_COLUMNS:
        raise ForestageError(f"tile: {len(vector)} columns; beyond {MAX_COLUMNS} an accumulator could overflow")
    return weights.astype(np.int32) @ vector.astype(np.int32)


def vector_chunks(vector: NDArray[np.int8], lanes: int) -> NDArray[np.int8]:
    """The vector as the tile takes it, int8 ``[chunks, lanes]``; zeros fill up the last chunk."""
    chunks = -(-len(vector) // lanes)
    padded = np.zeros(chunks * lanes, np.int8)
    padded[: len(vector)] = vector
    return padded.reshape(chunks, lanes)


def weight_beats(weights: NDArray[np.int8], group: int, lanes: int) -> NDArray[np.int8]:
    """The matrix in the order the tile takes it, int8 ``[rows · chunks, lanes]``.

    Order: for each group of rows, each chunk of columns, each row of the group. Zeros fill up the last chunk.
    """
    rows, columns = weights.shape
    chunks = -(-columns // lanes)
    padded = np.zeros((rows, chunks * lanes), np.int8)
    padded[:, :columns] = weights
    tiled = padded.reshape(rows, chunks, lanes)
    groups = [tiled[start : start + group].transpose(1, 0, 2).reshape(-1, lanes) for start in range(0, rows, group)]
    return np.concatenate(groups)


def check_jobs(jobs: Sequence[TileJob], parameters: TileParameters) -> None:
    """Raise unless the tile can do ``jobs``.

    Raises:
        ForestageError: naming the job and the limit.
    """
    for index, (vector, job) in enumerate(zip(job_vectors(jobs), jobs, strict=True)):
        rows, columns = job.weights.shape
        for name, value, limit in (
            ("rows", rows, parameters.max_rows),
            ("columns", columns, parameters.vector_chunks * parameters.lanes),
            ("group", job.group, parameters.accumulators),
        ):
            if not 1 <= value <= limit:
                raise ForestageError(f"tile job {index}: {name} is {value}; this tile takes 1 to {limit}")
        if len(vector) != columns:
            raise ForestageError(f"tile job {index}: {columns} columns, but the vector has {len(vector)} values")


def job_vectors(jobs: Sequence[TileJob]) -> list[NDArray[np.int8]]:
    """The vector that each job uses.

    Raises:
        ForestageError: the first job has none.
    """
    vectors: list[NDArray[np.int8]] = []
    for job in jobs:
        if job.vector is None and not vectors:
            raise ForestageError("tile job 0: vector is None, but no job before it has one")
        vectors.append(vectors[-1] if job.vector is None else job.vector)
    return vectors


def full_rate_cycles(jobs: Sequence[TileJob], parameters: TileParameters) -> int:
    """Cycles of ``jobs`` when nobody ever waits: the tile's latency formula.

    A job of R rows and C chunks takes R · C cycles, one beat each. It starts in the cycle after the previous job's end,
    or when its vector is loaded if that is later. A load takes one cycle per chunk and starts when the previous load
    has ended and a bank is free: the tile holds at most two vectors, each until the end of its last job. Only the very
    first command costs a cycle. The last result is taken ``result_latency_ck`` cycles after the last beat.
    """
    check_jobs(jobs, parameters)
    last_beat = 0  # cycle before the first possible beat: that of the first command
    loaded = 0  # first cycle in which the most recently loaded vector can be used
    released: list[int] = []  # last cycle of each vector's use
    for index, job in enumerate(jobs):
        chunks = -(-job.weights.shape[1] // parameters.lanes)
        if job.vector is not None:
            if index:
                released.append(last_beat)
            free = released[-2] + 1 if len(released) >= 2 else 0
            loaded = max(loaded, free) + chunks
        last_beat = max(last_beat + 1, loaded) + job.weights.shape[0] * chunks - 1
    return last_beat + parameters.result_latency_ck + 1 if jobs else 0
