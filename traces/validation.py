"""Validate a trace: cheap checks of its structure, and checks of every row."""

from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.mapping import release
from traces.schema import TraceFields

CHUNK_BYTES = 8 << 20
"""Most bytes of expert ids checked at a time, so that a mapped file is never in memory as a whole."""


def check_structure(trace: TraceFields, origin: str) -> None:
    """Check dtypes, shapes, offsets and agreement with the metadata, without reading any token's rows.

    Raises:
        ForestageError: naming ``origin`` and the field.
    """
    _check_ids_shape(trace, origin)
    tokens, metadata = trace.tokens, trace.metadata
    for name, dtype, shape in (
        ("gate_weights", np.float16, trace.expert_ids.shape),
        ("position", np.int32, (tokens,)),
        ("phase", np.uint8, (tokens,)),
        ("token_hash", np.uint32, (tokens,)),
    ):
        array = getattr(trace, name)
        if array is None and name in ("gate_weights", "token_hash"):
            continue
        if array is None or array.dtype != dtype or array.shape != shape:
            found = "missing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ForestageError(f"{origin}: {name}: {found}; expected {np.dtype(dtype)} {list(shape)}")
    if (trace.gate_weights is None) != (metadata.gate_weight_kind == "none"):
        state = "has no" if trace.gate_weights is None else "has"
        raise ForestageError(
            f"{origin}: metadata.gate_weight_kind: '{metadata.gate_weight_kind}', but the trace {state} gate_weights"
        )
    _check_offsets(trace, origin)
    for name in ("domains", "datasets"):
        labels = getattr(trace, name)
        if len(labels) != trace.sequences:
            raise ForestageError(f"{origin}: {name}: {len(labels)} labels for {trace.sequences} sequences")
        bad = next((label for label in dict.fromkeys(labels) if not _is_text(label)), None)
        if bad is not None:
            raise ForestageError(f"{origin}: {name}: {bad!r} is not a text that UTF-8 can hold")


def _is_text(label: object) -> bool:
    """Whether ``label`` is a string without lone surrogates, which a file cannot hold."""
    return isinstance(label, str) and not any("\ud800" <= character <= "\udfff" for character in label)


def _check_ids_shape(trace: TraceFields, origin: str) -> None:
    """Check the dtype and shape of ``expert_ids`` against the metadata."""
    ids, metadata = trace.expert_ids, trace.metadata
    if ids is None or ids.dtype not in (np.uint8, np.uint16) or ids.ndim != 3:
        found = "missing" if ids is None else f"{ids.dtype} {list(ids.shape)}"
        raise ForestageError(f"{origin}: expert_ids: {found}; expected uint8 or uint16 [tokens, layers, top_k]")
    if metadata.experts > np.iinfo(ids.dtype).max:
        raise ForestageError(f"{origin}: expert_ids: {ids.dtype} cannot hold {metadata.experts} experts; use uint16")
    if ids.shape[0] == 0:
        raise ForestageError(f"{origin}: expert_ids: holds no tokens")
    if ids.shape[1] != len(metadata.layer_map):
        raise ForestageError(
            f"{origin}: expert_ids: {ids.shape[1]} layers, but metadata.layer_map has {len(metadata.layer_map)}"
        )
    if ids.shape[2] != metadata.top_k:
        raise ForestageError(f"{origin}: expert_ids: {ids.shape[2]} ids a row, but metadata.top_k is {metadata.top_k}")


def counted_from_one(largest: int, experts: int, *, has_first: bool = False) -> str:
    """A question for the end of an error, if the largest id equals the number of experts; else "".

    "" too if the ids name expert 0 (``has_first``): then they do not count from 1.
    """
    if largest != experts or has_first:
        return ""
    return "; do the ids count from 1? Then subtract 1 from each"


def names_first(ids: npt.NDArray[Any]) -> bool:
    """Whether a row of ``ids [..., k]`` names expert 0 and another expert; rows of zeros do not count."""
    return bool(((ids == 0).any(axis=-1) & (ids != 0).any(axis=-1)).any())


def _check_offsets(trace: TraceFields, origin: str) -> None:
    """Check that ``sequence_offsets`` ascends strictly from 0 to the number of tokens."""
    offsets = trace.sequence_offsets
    if offsets is None or offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) < 2:
        found = "missing" if offsets is None else f"{offsets.dtype} {list(offsets.shape)}"
        raise ForestageError(f"{origin}: sequence_offsets: {found}; expected int64 [sequences + 1]")
    if offsets[0] != 0:
        raise ForestageError(f"{origin}: sequence_offsets[0]: {offsets[0]}; must be 0")
    bad = np.flatnonzero(offsets[1:] <= offsets[:-1])
    if len(bad):
        row = int(bad[0]) + 1
        raise ForestageError(
            f"{origin}: sequence_offsets[{row}]: {offsets[row]} does not exceed its predecessor {offsets[row - 1]}"
        )
    if offsets[-1] != trace.tokens:
        row = len(offsets) - 1
        raise ForestageError(
            f"{origin}: sequence_offsets[{row}]: ends at {offsets[row]}, but there are {trace.tokens} tokens"
        )


def check_content(trace: TraceFields, origin: str, first: int = 0, last: int | None = None) -> None:
    """Check every row of tokens ``[first, last)``: ids, gate weights, positions, phases. Check the structure before.

    Raises:
        ForestageError: naming ``origin``, the field and the row.
    """
    row_bytes = trace.layers * trace.top_k * trace.expert_ids.itemsize
    step = max(1, CHUNK_BYTES // row_bytes)
    last = trace.tokens if last is None else last
    for start in range(first, last, step):
        stop = min(start + step, last)
        _check_ids(trace, start, stop, origin)
        _check_weights(trace, start, stop, origin)
        _check_positions(trace, start, stop, origin)
        bad = np.flatnonzero(trace.phase[start:stop] > 1)
        if len(bad):
            token = start + int(bad[0])
            raise ForestageError(f"{origin}: phase[{token}]: {trace.phase[token]}; must be 0 (prefill) or 1 (decode)")
        if start + step < last:
            release(trace.expert_ids)  # releases a mapped file's other arrays too


def _check_ids(trace: TraceFields, start: int, stop: int, origin: str) -> None:
    from traces import content  # importing numba takes half a second: only if needed

    fault, token, layer = content.find_bad_ids(
        trace.expert_ids[start:stop], trace.experts, trace.unrecorded_id, trace.metadata.has_unrecorded
    )
    if fault == content.OK:
        return
    row = trace.expert_ids[start + token, layer].tolist()
    where = f"{origin}: expert_ids[{start + token}, {layer}] (token {start + token}, layer {layer})"
    if fault == content.OUT_OF_RANGE:
        raise ForestageError(
            f"{where}: {row}: every id must be below metadata.experts ({trace.experts})"
            + counted_from_one(max(row), trace.experts, has_first=names_first(trace.expert_ids[start:stop]))
        )
    if fault == content.UNRECORDED:
        raise ForestageError(f"{where}: not recorded ({row}), but metadata.has_unrecorded is false")
    raise ForestageError(f"{where}: {row}: an expert is chosen twice; ids of a row must be distinct")


def _check_weights(trace: TraceFields, start: int, stop: int, origin: str) -> None:
    if trace.gate_weights is None:
        return
    from traces import content

    fault, token, layer = content.find_bad_weights(
        trace.gate_weights[start:stop].view(np.uint16),
        trace.expert_ids[start:stop],
        trace.experts,
        trace.metadata.gate_weight_kind == "normalised",
        content.HALF_TO_FLOAT,
        content.NORMALISED_SUM_TOLERANCE,
    )
    if fault == content.OK:
        return
    row = trace.gate_weights[start + token, layer].tolist()
    where = f"{origin}: gate_weights[{start + token}, {layer}] (token {start + token}, layer {layer})"
    if fault == content.NOT_FINITE:
        raise ForestageError(f"{where}: {row}: weights must be finite and not negative")
    raise ForestageError(f"{where}: {row} sums to {sum(row):.3f}; gate_weight_kind 'normalised' needs a sum of 1")


def _check_positions(trace: TraceFields, start: int, stop: int, origin: str) -> None:
    from traces import content

    begin = max(start - 1, 0)  # the predecessor of the chunk's first token
    starts = trace.sequence_offsets
    starts = starts[np.searchsorted(starts, begin) : np.searchsorted(starts, stop)] - begin
    bad = content.find_bad_position(trace.position[begin:stop], starts)
    if bad is not None:
        token = begin + bad
        before = "" if token == 0 else f" after {trace.position[token - 1]}"
        raise ForestageError(
            f"{origin}: position[{token}]: {trace.position[token]}{before}; positions must be ≥ 0 and ascend within "
            "a sequence"
        )
