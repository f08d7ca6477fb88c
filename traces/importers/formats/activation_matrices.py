"""MoE-Infinity's expert activation matrices: a ``.npy`` of ``[requests, layers, experts]``, one matrix a request.

An entry is how many tokens of the request the expert got. The collection has a fixed number of places (``capacity`` of
MoE-Infinity's ``ExpertTracer``): those that were never filled hold zeros, and a full one replaces what was matched
least, so that the order of the requests is not known.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers.assembly.array_file import reason
from traces.importers.assembly.expert_loads import build_load
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report

NAME = "activation_matrices"
MAGIC = b"\x93NUMPY"


def sniff(path: Path, start: bytes) -> bool:
    """A ``.npy`` of floating-point numbers with three axes: MoE-Infinity counts in them, ids never are."""
    if not start.startswith(MAGIC):
        return False
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # its header is parsed as Python's literals, which can fail in many ways; the reader tells
        return False
    return array.ndim == 3 and array.dtype.kind == "f"


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The counts of the requests that have any, a step a request.

    Raises:
        ForestageError: if the file is damaged or no such array, a value is no count, or the model is not known.
    """
    counts = _load(path)
    if counts.ndim != 3 or counts.dtype.kind not in "iuf" or not counts.size:
        raise ForestageError(
            f"{path}: {counts.dtype} {list(counts.shape)}; expected numbers [requests, layers, experts]"
        )
    _check_counts(path, counts)
    used = np.flatnonzero((counts != 0).any(axis=(1, 2)))
    if not len(used):
        raise ForestageError(f"{path}: every matrix is zero; nothing was counted")
    if len(used) < len(counts):
        report.warn(f"{path}: {len(counts) - len(used)} of {len(counts)} matrices are zero: unused places; left out")
    return build_load(
        np.asarray(counts[used]),
        path,
        options,
        report,
        source="MoE-Infinity expert activation matrices, one a request",
        steps_ordered=False,
    )


def _load(path: Path) -> npt.NDArray[Any]:
    """The array, mapped."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise ForestageError(f"{path}: no .npy file; leave --format out or choose another")
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror or error})") from error
    except ForestageError:
        raise
    except Exception as error:
        raise ForestageError(f"{path}: damaged or truncated .npy ({reason(error)}); fetch it again") from error


def _check_counts(path: Path, counts: npt.NDArray[Any]) -> None:
    """Refuse what are no counts: router logits, gate weights, or ids."""
    for request, matrix in enumerate(counts):
        bad = np.argwhere(~((matrix >= 0) & (matrix == np.floor(matrix))))
        if len(bad):
            layer, expert = (int(place) for place in bad[0])
            raise ForestageError(
                f"{path}: [{request}, {layer}, {expert}]: {matrix[layer, expert]:g}: no count; router logits are "
                "imported as hf_router_logits (.pt or .safetensors), chosen experts as an .npz (docs/importing.md)"
            )


IMPORTER = Importer(
    NAME,
    "MoE-Infinity's expert activation matrices, .npy [requests, layers, experts] (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
)
