"""Check every row of predictions, chunk by chunk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from predictor.predictions.arrays import NOTHING, PredictionArrays, plain_ids
from predictor.predictions.header import PredictionsHeader

CHUNK_BYTES = 16 << 20

OK, OUT_OF_RANGE, DUPLICATE, HOLE = 0, 1, 2, 3


def row_chunks(arrays: PredictionArrays) -> Iterator[slice]:
    """The rows in slices whose ids or scores take about ``CHUNK_BYTES`` as eight-byte numbers."""
    step = max(1, CHUNK_BYTES // (8 * arrays.layers * arrays.width))
    for first in range(0, arrays.rows, step):
        yield slice(first, min(first + step, arrays.rows))


def check_content(
    arrays: PredictionArrays, header: PredictionsHeader, experts: int, late_from: int, origin: str | Path
) -> None:
    """Check every row: ids in range, each once, none behind a filler; scores finite and not all equal.

    ``late_from`` is the first column of the layer axis that is not below the lookahead.

    Raises:
        ForestageError: naming the origin, the row of the file and the column of its layer axis.
    """
    if arrays.ids is not None:
        _check_filler(arrays.ids.dtype, experts, origin)
    elif arrays.width != experts:
        raise ForestageError(
            f"{origin}: scores: {arrays.width} a layer, but the model has {experts} experts; give one for each expert"
        )
    for rows in row_chunks(arrays):
        if arrays.ids is not None:
            _check_ids(plain_ids(arrays.ids[rows]), experts, rows.start, origin)
        else:
            assert arrays.scores is not None, "a file has ids or scores"
            chosen = predicted_rows(arrays, late_from, rows)
            _check_scores(arrays.scores[rows], chosen, header, rows.start, origin)
        arrays.release()


def predicted_rows(arrays: PredictionArrays, late_from: int, rows: slice | NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool ``[n, columns]``: where ``rows`` hold scores that are predictions.

    Without the array ``predicted``, these are the columns from ``late_from`` on: below the lookahead no gate is known.
    """
    if arrays.predicted is not None:
        return np.asarray(arrays.predicted[rows]).astype(np.bool_)
    count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
    chosen = np.ones((count, arrays.layers), np.bool_)
    chosen[:, :late_from] = False
    return chosen


def _check_filler(dtype: np.dtype, experts: int, origin: str | Path) -> None:
    """Refuse an unsigned dtype whose maximum, the filler, is also an expert."""
    if dtype.kind == "u" and experts > np.iinfo(dtype).max:
        raise ForestageError(
            f"{origin}: ids: {dtype} cannot hold {experts} experts and a filler ({np.iinfo(dtype).max}); use int16"
        )


def _check_ids(ids: NDArray[np.int64], experts: int, first: int, origin: str | Path) -> None:
    fault, row, layer = _find_bad_ids(ids, experts, np.full(experts, -1, np.int64))
    if fault == OK:
        return
    where = f"{origin}: ids[{first + row}, {layer}] (row {first + row}, layer {layer})"
    listed = ids[row, layer].tolist()
    shown = str(listed) if len(listed) <= 16 else f"{str(listed[:16])[:-1]}, …]"
    if fault == OUT_OF_RANGE:
        raise ForestageError(f"{where}: {shown}: every id must be in 0…{experts - 1}, or {NOTHING} for none")
    if fault == DUPLICATE:
        raise ForestageError(f"{where}: {shown}: an expert is listed twice; the ids of a row must be distinct")
    raise ForestageError(f"{where}: {shown}: an id follows {NOTHING}; put what is predicted first, best first")


@njit()
def _find_bad_ids(ids: NDArray[np.int64], experts: int, seen: NDArray[np.int64]) -> tuple[int, int, int]:
    """First bad row of ``ids [rows, layers, m]``; ``seen [experts]`` is scratch, all −1."""
    rows, layers, width = ids.shape
    for row in range(rows):
        for layer in range(layers):
            here = row * layers + layer
            ended = False
            for i in range(width):
                expert = ids[row, layer, i]
                if expert == -1:
                    ended = True
                    continue
                if expert < 0 or expert >= experts:
                    return OUT_OF_RANGE, row, layer
                if ended:
                    return HOLE, row, layer
                if seen[expert] == here:
                    return DUPLICATE, row, layer
                seen[expert] = here
    return OK, 0, 0


def _check_scores(
    scores: NDArray[np.number], chosen: NDArray[np.bool_], header: PredictionsHeader, first: int, origin: str | Path
) -> None:
    finite = np.isfinite(scores).all(axis=-1)
    bad = np.argwhere(chosen & ~finite)
    if len(bad):
        row, layer = bad[0].tolist()
        raise ForestageError(
            f"{origin}: scores[{first + row}, {layer}] (row {first + row}, layer {layer}): not finite; a row without a "
            "prediction is false in the array 'predicted'"
        )
    if header.minimum_score is not None or scores.shape[-1] == 1:
        return
    alike = np.argwhere(chosen & (scores.max(axis=-1) == scores.min(axis=-1)))
    if len(alike):
        row, layer = alike[0].tolist()
        raise ForestageError(
            f"{origin}: scores[{first + row}, {layer}] (row {first + row}, layer {layer}): all are "
            f"{scores[row, layer, 0]}, which ranks nothing; where nothing is predicted set the array 'predicted' to "
            "false, or state minimum_score"
        )
