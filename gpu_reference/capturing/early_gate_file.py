"""The file with the rankings of early gates, beside the trace of the same run (see ``predictor.predictions``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from predictor.predictions.writer import PredictionsWriter
from traces.safetensors_file import open_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from traces import RoutingTrace

FED = "each layer's router run on what entered the router {lookahead} recorded layers before it, as it is"


def predictions_path(out: Path, lookahead: int) -> Path:
    """The file of predictions at ``lookahead`` for the trace ``out`` (T): T.early-gate-1.safetensors."""
    return out.with_name(f"{out.name.removesuffix('.safetensors')}.early-gate-{lookahead}.safetensors")


def write_part(path: Path, ids: np.ndarray) -> None:
    """Keep the predictions of one sequence, u16 ``[tokens, layers, m]``."""
    write_tensors(path, {"ids": np.ascontiguousarray(ids)}, {})


def join_parts(path: Path, parts: Iterable[Path], trace: RoutingTrace, lookahead: int) -> None:
    """Write the predictions of all sequences of ``trace`` in order to ``path``; memory holds those of one sequence.

    Raises:
        ForestageError: if a part is damaged, or the file cannot be written.
    """
    source = f"next gate run early: {FED.format(lookahead=lookahead)}; {trace.metadata.source}"
    with PredictionsWriter(path, lookahead=lookahead, source=source, trace=trace) as writer:
        for part in parts:
            writer.append(ids=open_tensors(part).tensors["ids"])
