"""Score a file of predictions with the code that measures our own predictors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from predictor.base import CHUNK_BYTES, Scores, check_lookahead
from predictor.predictions.alignment import Alignment, align
from predictor.predictions.arrays import plain_ids
from predictor.predictions.content import check_content, predicted_rows
from predictor.predictions.file import Predictions
from traces import RoutingTrace


@dataclass(frozen=True)
class LaidPredictions:
    """Predictions aligned with their whole trace; every row has been checked.

    Attributes:
        predictions: the opened file.
        trace: the whole trace.
        alignment: the row of each token.
    """

    predictions: Predictions
    trace: RoutingTrace
    alignment: Alignment

    @property
    def lookahead(self) -> int:
        """Layers ahead."""
        return self.predictions.header.lookahead

    def covers(self) -> NDArray[np.bool_]:
        """bool ``[sequences]``: whether the file has a row for every token of the sequence."""
        offsets = np.asarray(self.trace.sequence_offsets)
        return np.minimum.reduceat(self.alignment.row_of_token >= 0, offsets[:-1])

    def scorer(self, sequences: NDArray[np.int64]) -> "PredictionsScorer":
        """The predictions of ``sequences`` of the trace, in that order.

        Raises:
            ForestageError: if the file lacks a token of them, naming the first.
        """
        offsets = np.asarray(self.trace.sequence_offsets)
        tokens = np.concatenate([np.arange(offsets[index], offsets[index + 1]) for index in sequences])
        rows = self.alignment.row_of_token[tokens]
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            token = tokens[missing[0]]
            sequence = int(np.searchsorted(offsets, token, side="right")) - 1
            whole = int(self.covers()[sequences].sum())
            raise ForestageError(
                f"{self.predictions.path}: has rows for {len(tokens) - len(missing)} of the {len(tokens)} tokens "
                f"evaluated; the first without one is position {self.trace.position[token]} of sequence {sequence}; "
                "add rows (they may predict nothing)"
                + (f", or evaluate the {whole} sequences that it covers with --only-covered" if whole else "")
            )
        return PredictionsScorer(self, rows)


def lay(predictions: Predictions, trace: RoutingTrace) -> LaidPredictions:
    """Align ``predictions`` with the whole ``trace``, and check every row.

    Raises:
        ForestageError: as ``alignment.align`` and ``content.check_content``, or if the trace is too shallow for the
            lookahead.
    """
    path, header, arrays = predictions.path, predictions.header, predictions.arrays
    if not header.lookahead < trace.layers:
        raise ForestageError(
            f"{path}: lookahead: {header.lookahead} layers, but the trace has {trace.layers}; the file is of another "
            "model, or states another distance"
        )
    check_lookahead(header.lookahead, trace.layers)
    alignment = align(arrays, header, trace, path)
    check_content(arrays, header, trace.experts, alignment.first_late_column(header.lookahead), path)
    return LaidPredictions(predictions, trace, alignment)


class PredictionsScorer:
    """A batch predictor (``predictor.base.BatchPredictor``) that returns a file's predictions.

    Its scores are ranks, counted from the worst. In a file of ids ``[m]`` the first id scores *m*, the last 1, and an
    expert not listed 0, which is never issued. In a file of scores the best expert scores ``experts`` (ties: the
    smaller id first), and those below ``minimum_score`` score 0.

    Attributes:
        layers, experts, lookahead: as ``Predictor``.
        threshold: 1 if the predictor itself ended the file's rows (``own_accord``), else ``None``.
        listed: the rank up to which a row's ranking is known; ``None``: as far as the predictor itself ranks.
        far_bytes_per_token: what the file states; ``None`` if it does not.
    """

    issue_threshold = 1

    def __init__(self, laid: LaidPredictions, rows: NDArray[np.int64]) -> None:
        header = laid.predictions.header
        self._laid = laid
        self._rows = rows
        self.layers = laid.trace.layers
        self.experts = laid.trace.experts
        self.lookahead = header.lookahead
        self.threshold = 1 if header.own_accord else None
        self.listed = laid.predictions.listed
        self.far_bytes_per_token = header.far_bytes_per_token

    def describe(self) -> dict[str, Any]:
        """A description of the file, as JSON values."""
        arrays, header = self._laid.predictions.arrays, self._laid.predictions.header
        held = {"ids": arrays.width} if arrays.ids is not None else {"scores": str(arrays.ranking.dtype)}
        return {
            **held,
            "tokens": arrays.rows,
            "aligned_by": self._laid.alignment.proof or "the number of tokens alone",
            **header.model_dump(mode="json", exclude_none=True, include={"minimum_score", "own_accord"}),
        }

    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """As ``Predictor.score_chunks``; ``trace`` must consist of the sequences that the scorer was made for."""
        if trace.tokens != len(self._rows):
            raise ValueError(f"made for {len(self._rows)} tokens, asked for {trace.tokens}")
        if chunk_tokens is None:
            chunk_tokens = max(1, CHUNK_BYTES // (8 * self.layers * self.experts))
        for first in range(0, trace.tokens, chunk_tokens):
            yield first, self._score(self._rows[first : first + chunk_tokens])

    def _score(self, rows: NDArray[np.int64]) -> Scores:
        """Scores of some rows, ``[n, layers, experts]``."""
        arrays = self._laid.predictions.arrays
        columns = self._laid.alignment.column_of_layer
        scores = np.zeros((len(rows), self.layers, self.experts), np.int32)
        if arrays.ids is not None:
            _place_ids(plain_ids(arrays.ids[rows]), columns, scores)
        else:
            assert arrays.scores is not None, "a file has ids or scores"
            late_from = self._laid.alignment.first_late_column(self.lookahead)
            present = np.flatnonzero(columns >= 0)
            chosen = predicted_rows(arrays, late_from, rows)
            places = _places(arrays.scores[rows], chosen, self._laid.predictions.header.minimum_score)
            scores[:, present] = places[:, columns[present]]
        arrays.release()
        return scores


@njit()
def _place_ids(ids: NDArray[np.int64], columns: NDArray[np.int64], scores: Scores) -> None:
    """Fill ``scores [n, layers, experts]`` (zeros) from ``ids [n, columns, m]``."""
    width = ids.shape[2]
    for row in range(ids.shape[0]):
        for layer in range(len(columns)):
            column = columns[layer]
            if column < 0:
                continue
            for i in range(width):
                if ids[row, column, i] >= 0:
                    scores[row, layer, ids[row, column, i]] = width - i


def _places(scores: NDArray[Any], chosen: NDArray[np.bool_], minimum: float | None) -> Scores:
    """Ranks of ``scores [n, columns, experts]``: ``experts`` for the best, down to 1; 0 where nothing may be issued."""
    # Equal scores are ordered by id; ~x descends as x ascends, and cannot overflow.
    descending = np.negative(scores) if scores.dtype.kind == "f" else np.invert(scores)
    order = np.argsort(descending, axis=-1, kind="stable")
    places = np.empty(scores.shape, np.int32)
    np.put_along_axis(places, order, np.arange(scores.shape[-1], 0, -1, dtype=np.int32)[None, None], axis=-1)
    issuable = chosen[:, :, None]
    if minimum is not None:
        issuable = issuable & (
            scores.astype(np.float64) >= minimum
        )  # so that the minimum is not rounded to the scores' dtype
    return np.where(issuable, places, 0).astype(np.int32)
