"""The file of what gates run early ranked, beside the trace of the same run.

The layout is that of `forestage predictor evaluate --predictions`: a safetensors file with ``ids`` u16
``[tokens, layers, m]``, rows and columns those of the trace, best expert first, then 0xFFFF, and ``sequence`` and
``position`` of each row; the metadata say ``format`` (``forestage-predictions``), ``lookahead``, ``source``, ``model``
and ``experts``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from traces.safetensors_file import byte_chunks, open_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from traces import RoutingTrace

FORMAT = "forestage-predictions"

FED = "each layer's router run on what entered the router {lookahead} recorded layers before it, as it is"


def predictions_path(out: Path, lookahead: int) -> Path:
    """Where the predictions at ``lookahead`` lie that belong to the trace ``out``: T.early-gate-1.safetensors."""
    return out.with_name(f"{out.name.removesuffix('.safetensors')}.early-gate-{lookahead}.safetensors")


def write_part(path: Path, ids: np.ndarray) -> None:
    """Keep the predictions of one sequence, u16 ``[tokens, layers, m]``."""
    write_tensors(path, {"ids": np.ascontiguousarray(ids)}, {})


def join_parts(path: Path, parts: Iterable[Path], trace: RoutingTrace, lookahead: int) -> None:
    """Write the predictions of all sequences of ``trace``, one after the other, to ``path``; memory holds one of them.

    Raises:
        ForestageError: if a part is damaged, or the file cannot be written.
    """
    with tempfile.TemporaryFile(dir=path.absolute().parent) as joined:
        rows, shape = 0, (0, 0)
        for part in parts:
            ids = open_tensors(part).tensors["ids"]
            rows, shape = rows + len(ids), ids.shape[1:]
            for chunk in byte_chunks(ids):
                joined.write(chunk)
        joined.flush()
        tensors = {
            "ids": np.asarray(np.memmap(joined, dtype=np.uint16, mode="r", shape=(rows, *shape))),
            "sequence": trace.sequence_index(),
            "position": np.ascontiguousarray(trace.position),
        }
        facts = {
            "format": FORMAT,
            "lookahead": str(lookahead),
            "source": f"next gate run early: {FED.format(lookahead=lookahead)}; {trace.metadata.source}",
            "model": trace.metadata.model,
            "experts": str(trace.experts),
        }
        write_tensors(path, tensors, facts)
