"""Match each row of a file of predictions with a token of a trace, and state what proves the match."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.predictions.arrays import PredictionArrays
from predictor.predictions.digest import trace_digest
from predictor.predictions.header import PredictionsHeader
from traces import RoutingTrace

_POSITIONS = 1 << 32


@dataclass(frozen=True)
class Alignment:
    """How the rows and columns of a file match the tokens and layers of a trace.

    Attributes:
        row_of_token: i64 ``[tokens]``, the row of each token of the trace; −1: the file has none.
        column_of_layer: i64 ``[layers]``, the column of each recorded layer; −1: not in the file.
        proof: what shows that rows and tokens match; ``None``: only their numbers agree.
    """

    row_of_token: NDArray[np.int64]
    column_of_layer: NDArray[np.int64]
    proof: str | None

    def first_late_column(self, lookahead: int) -> int:
        """The first column of the file whose layer is not below ``lookahead``."""
        early = self.column_of_layer[:lookahead]
        return int((early >= 0).sum())


def align(arrays: PredictionArrays, header: PredictionsHeader, trace: RoutingTrace, origin: str | Path) -> Alignment:
    """Match the rows with the tokens of the whole ``trace``.

    Raises:
        ForestageError: if anything in the file shows that it is of another trace: its digest, its number of rows, a
            token that the trace lacks or that occurs twice, a token's identity, the number of experts, a layer.
    """
    if header.experts not in (None, trace.experts):
        raise ForestageError(f"{origin}: experts: {header.experts} a layer, but the trace has {trace.experts}")
    columns = _columns(arrays, header, trace, origin)
    proofs = []
    if header.trace_digest is not None:
        if header.trace_digest != trace_digest(trace):
            raise ForestageError(
                f"{origin}: trace_digest: predictions of another trace (or of a part or another import of it): "
                f"{header.trace_digest[:12]}…, not {trace_digest(trace)[:12]}…; give the trace that was predicted"
            )
        proofs.append("the digest of the trace")
    tokens = _tokens(arrays, trace, origin)
    if arrays.sequence is not None:
        proofs.append("sequence and position of every row")
    if arrays.token_hash is not None and trace.token_hash is not None:
        _check_hashes(arrays.token_hash, tokens, trace, origin)
        proofs.append("the identity of every token")
    row_of_token = np.full(trace.tokens, -1, np.int64)
    row_of_token[tokens] = np.arange(arrays.rows)
    return Alignment(row_of_token, columns, ", ".join(proofs) or None)


def _columns(
    arrays: PredictionArrays, header: PredictionsHeader, trace: RoutingTrace, origin: str | Path
) -> NDArray[np.int64]:
    """The column of each recorded layer."""
    layer_map = trace.metadata.layer_map
    if header.layer_map is None:
        if arrays.layers != trace.layers:
            raise ForestageError(
                f"{origin}: {arrays.layers} layers, but the trace has {trace.layers}; give every recorded layer a "
                f"column (nothing predicted below the lookahead), or state layer_map, the model's layer of each column "
                f"(the trace's are {layer_map[0]}…{layer_map[-1]})"
            )
        return np.arange(trace.layers)
    place = {layer: column for column, layer in enumerate(header.layer_map)}
    if strange := sorted(set(place) - set(layer_map)):
        raise ForestageError(
            f"{origin}: layer {strange[0]} is no MoE layer that the trace recorded; the model's layers there are "
            f"{layer_map[0]}…{layer_map[-1]}"
        )
    return np.array([place.get(layer, -1) for layer in layer_map], np.int64)


def _tokens(arrays: PredictionArrays, trace: RoutingTrace, origin: str | Path) -> NDArray[np.int64]:
    """The token of each row; no token may occur twice."""
    if arrays.token is not None:
        tokens = np.asarray(arrays.token).astype(np.int64)
        beyond = np.flatnonzero((tokens < 0) | (tokens >= trace.tokens))
        if len(beyond):
            row = int(beyond[0])
            raise ForestageError(f"{origin}: token[{row}]: {tokens[row]} is not in 0…{trace.tokens - 1} of the trace")
        _refuse_twice(tokens, lambda row: f"token {tokens[row]}", origin)
        return tokens
    if arrays.sequence is not None:
        return _named_tokens(arrays, trace, origin)
    if arrays.rows != trace.tokens:
        raise ForestageError(
            f"{origin}: {arrays.rows} rows, but the trace has {trace.tokens} tokens; name each row's token by the "
            "arrays sequence and position"
        )
    return np.arange(trace.tokens)


def _named_tokens(arrays: PredictionArrays, trace: RoutingTrace, origin: str | Path) -> NDArray[np.int64]:
    """The token of each (sequence, position)."""
    assert arrays.sequence is not None, "checked by the caller"
    sequence = np.asarray(arrays.sequence).astype(np.int64)
    position = np.asarray(arrays.position).astype(np.int64)
    strange = np.flatnonzero((sequence < 0) | (sequence >= trace.sequences))
    if len(strange):
        row = int(strange[0])
        raise ForestageError(
            f"{origin}: sequence[{row}]: {sequence[row]} is not in 0…{trace.sequences - 1}; sequences are numbered in "
            "the order of the trace"
        )
    # Positions ascend within a sequence, so these keys ascend over the trace.
    keys = trace.sequence_index() * _POSITIONS + np.asarray(trace.position).astype(np.int64)
    wanted = sequence * _POSITIONS + np.clip(position, 0, _POSITIONS - 1)
    tokens = np.minimum(np.searchsorted(keys, wanted), trace.tokens - 1)
    absent = np.flatnonzero((keys[tokens] != wanted) | (position < 0))
    if len(absent):
        row = int(absent[0])
        held = trace.position[trace.sequence_slice(int(sequence[row]))]
        raise ForestageError(
            f"{origin}: position[{row}]: sequence {sequence[row]} has no token at position {position[row]}; the trace "
            f"holds {len(held)} of its positions {held[0]}…{held[-1]}"
        )
    _refuse_twice(tokens, lambda row: f"sequence {sequence[row]}, position {position[row]}", origin)
    return tokens


def _refuse_twice(tokens: NDArray[np.int64], name: Callable[[int], str], origin: str | Path) -> None:
    """Raise if two rows are of the same token."""
    order = np.argsort(tokens, kind="stable")
    again = np.flatnonzero(np.diff(tokens[order]) == 0)
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        raise ForestageError(f"{origin}: rows {first} and {second} are both of {name(int(first))}; keep one of them")


def _check_hashes(
    hashes: NDArray[np.integer], tokens: NDArray[np.int64], trace: RoutingTrace, origin: str | Path
) -> None:
    assert trace.token_hash is not None, "checked by the caller"
    differs = np.flatnonzero(np.asarray(hashes).astype(np.int64) != trace.token_hash[tokens].astype(np.int64))
    if len(differs):
        row = int(differs[0])
        raise ForestageError(
            f"{origin}: token_hash[{row}]: {hashes[row]}, but token {tokens[row]} of the trace is "
            f"{trace.token_hash[tokens[row]]}; the rows are of other tokens (moved by one, or of another trace)"
        )
