"""The arrays of a file of predictions, the same for all containers."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.predictions.header import PredictionsHeader
from traces.mapping import release

NOTHING = -1
"""The id that fills a row behind its last listed expert; in an unsigned array, the dtype's maximum."""

Array = NDArray[Any]

KEYS = ("token", "sequence", "position", "token_hash")


@dataclass(frozen=True, kw_only=True)
class PredictionArrays:
    """Arrays that may be mapped from a file; exactly one of ``ids`` and ``scores`` is given.

    Attributes:
        ids: integers ``[rows, layers, m]``, best first, then ``NOTHING``.
        scores: integers or floating point ``[rows, layers, experts]``, larger is better.
        predicted: bool or u8 ``[rows, layers]``, whether the row's ``scores`` are predictions.
        token: integers ``[rows]``, index of the token in the trace.
        sequence, position: integers ``[rows]``, index of the sequence in the trace and position in its context.
        token_hash: u32 ``[rows]``, identity of the token as in the trace.
    """

    ids: Array | None = None
    scores: Array | None = None
    predicted: Array | None = None
    token: Array | None = None
    sequence: Array | None = None
    position: Array | None = None
    token_hash: Array | None = None

    @property
    def ranking(self) -> Array:
        """``ids`` or ``scores``, whichever is given."""
        found = self.ids if self.ids is not None else self.scores
        assert found is not None, "exactly one is there"
        return found

    @property
    def rows(self) -> int:
        """Number of tokens in the file."""
        return self.ranking.shape[0]

    @property
    def layers(self) -> int:
        """Number of columns of the layer axis."""
        return self.ranking.shape[1]

    @property
    def width(self) -> int:
        """Number of ids, or of scores, per row."""
        return self.ranking.shape[2]

    def release(self) -> None:
        """Release the pages that were read."""
        release(self.ranking)

    def present(self) -> dict[str, Array]:
        """The given arrays, by name."""
        return {name: array for name in NAMES if (array := getattr(self, name)) is not None}


NAMES = tuple(field.name for field in fields(PredictionArrays))


def check_arrays(arrays: PredictionArrays, origin: str | Path) -> None:
    """Check which arrays are given, their kinds and their shapes.

    Raises:
        ForestageError: naming the origin and the array.
    """
    if (arrays.ids is None) == (arrays.scores is None):
        state = "neither ids nor scores" if arrays.ids is None else "both ids and scores, two orders that may differ"
        raise ForestageError(f"{origin}: holds {state}; give one of them, [tokens, layers, …]")
    name = "ids" if arrays.ids is not None else "scores"
    ranking = arrays.ranking
    kinds = "iu" if name == "ids" else "iuf"
    if ranking.dtype.kind not in kinds or ranking.ndim != 3 or 0 in ranking.shape:
        what = "integers [tokens, layers, m]" if name == "ids" else "numbers [tokens, layers, experts]"
        raise ForestageError(f"{origin}: {name}: {ranking.dtype} {list(ranking.shape)}; expected {what}")
    if arrays.predicted is not None:
        if arrays.ids is not None:
            raise ForestageError(f"{origin}: predicted: is of scores; where ids predict nothing they are {NOTHING}")
        _check(arrays.predicted, "predicted", "bu", (arrays.rows, arrays.layers), origin)
    for key in KEYS:
        if (array := getattr(arrays, key)) is not None:
            _check(array, key, "iu", (arrays.rows,), origin)
    if (arrays.sequence is None) != (arrays.position is None):
        here, missing = ("sequence", "position") if arrays.position is None else ("position", "sequence")
        raise ForestageError(f"{origin}: {here} without {missing}; a token is named by both")
    if arrays.token is not None and arrays.sequence is not None:
        raise ForestageError(f"{origin}: names tokens by token and by (sequence, position); give one of them")


def check_header(header: PredictionsHeader, arrays: PredictionArrays, origin: str | Path) -> None:
    """Check that the header fits the arrays.

    Raises:
        ForestageError: naming the origin and the field.
    """
    if header.minimum_score is not None and arrays.scores is None:
        raise ForestageError(
            f"{origin}: minimum_score: is of scores; ids that are not issued are left out of their row"
        )
    if header.own_accord and arrays.scores is not None and header.minimum_score is None:
        raise ForestageError(f"{origin}: own_accord: scores say how many are issued by minimum_score; state it")
    if header.limit is not None and (arrays.ids is None or arrays.width != header.limit):
        what = f"{arrays.width} ids a row" if arrays.ids is not None else "scores"
        raise ForestageError(f"{origin}: limit: {header.limit}, but the file holds {what}; leave it out")
    if header.layer_map is None:
        return
    if len(header.layer_map) != arrays.layers:
        raise ForestageError(
            f"{origin}: layer_map: {len(header.layer_map)} layers, but the ranking has {arrays.layers} columns"
        )
    if any(later <= earlier for earlier, later in zip(header.layer_map, header.layer_map[1:], strict=False)):
        raise ForestageError(f"{origin}: layer_map: {list(header.layer_map)}; must ascend strictly")


def _check(array: Array, name: str, kinds: str, shape: tuple[int, ...], origin: str | Path) -> None:
    if array.dtype.kind not in kinds or array.shape != shape:
        wanted = "integers" if kinds == "iu" else "bool"
        raise ForestageError(
            f"{origin}: {name}: {array.dtype} {list(array.shape)}; expected {wanted} {list(shape)}, as many as the "
            "ranking has rows"
        )


def plain_ids(ids: Array) -> NDArray[np.int64]:
    """``ids`` as i64, with ``NOTHING`` in place of an unsigned dtype's filler."""
    plain = ids.astype(np.int64)
    if ids.dtype.kind == "u":
        plain[ids == np.iinfo(ids.dtype).max] = NOTHING
    return plain
