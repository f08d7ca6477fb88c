"""Write our own predictors' predictions to a file, which others and we can score."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.progress import Progress
from predictor.base import BatchPredictor, Scores
from predictor.measure.ranking import check_limit, rank_chunk
from predictor.predictions.writer import PredictionsWriter
from traces import RoutingTrace


def export_predictions(
    path: str | Path,
    predictor: BatchPredictor,
    part: RoutingTrace,
    *,
    whole: RoutingTrace,
    sequences: NDArray[np.int64],
    source: str,
    limit: int | None = None,
    scores: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the predictions of ``predictor`` for ``part`` of a trace; the file evaluates like the predictor.

    The file has the ids of all experts that the predictor may issue, best first, which preserves its threshold. With
    ``limit``, rows are cut there, and what the predictor would issue uncapped is lost. With ``scores``, the file has
    the scores themselves.

    Args:
        path: the file, as in ``write_predictions``.
        predictor: the predictor, or a scorer of predictions.
        part: the predicted sequences, ``traces.selection.select_sequences(whole, sequences)``.
        whole: the trace whose tokens the file names.
        sequences: indices in ``whole`` of the sequences of ``part``.
        source: who predicted and how, for readers.
        limit: most ids per row; ``None``: every expert that may be issued.
        scores: whether to write scores (i32) in place of ids.
        progress: called with (tokens done, tokens in all).

    Raises:
        ForestageError: if the limit is not in 1…experts, or the file cannot be written.
    """
    width = predictor.experts if limit is None else limit
    check_limit(width, predictor.experts)
    own = predictor.threshold is not None and limit is None
    facts = {
        "lookahead": predictor.lookahead,
        "source": source,
        "trace": whole,
        "own_accord": own,
        "minimum_score": predictor.issue_threshold if scores else None,
        "far_bytes_per_token": predictor.far_bytes_per_token,
    }
    sequence = sequences[part.sequence_index()].astype(np.int32)
    dtype = np.int8 if predictor.experts <= 1 << 7 else np.int16
    with PredictionsWriter(path, **facts) as writer:
        for first, chunk in _scored(predictor, part, progress):
            rows = slice(first, first + len(chunk))
            keys = {"sequence": sequence[rows], "position": np.asarray(part.position[rows])}
            if scores:
                everywhere = np.ones(chunk.shape[:2], np.bool_)
                writer.append(scores=chunk, predicted=everywhere, **keys)
                continue
            best = np.empty((*chunk.shape[:2], width), np.int16)
            rank_chunk(chunk, predictor.issue_threshold, best, np.empty(chunk.shape[:2], np.int32))
            writer.append(ids=best.astype(dtype), **keys)


def _scored(predictor: BatchPredictor, part: RoutingTrace, progress: Progress | None) -> Iterator[tuple[int, Scores]]:
    """The chunks of scores, with progress."""
    for first, chunk in predictor.score_chunks(part):
        yield first, chunk
        if progress is not None:
            progress(first + len(chunk), part.tokens)
