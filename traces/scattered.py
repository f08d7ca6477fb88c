"""Ids of tokens that are scattered over a trace, as a batch's are: read part by part in the order of the file, so that
few pages of a mapped trace are in memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from traces.trace import CHUNK_TOKENS, RoutingTrace


class GroupedIds(NamedTuple):
    """Some consecutive groups of tokens.

    Attributes:
        first, last: the groups are ``first … last − 1``.
        ids: ``[tokens, layers, top_k]``, a copy.
        offsets: i64 ``[last − first + 1]``, the first token of each group in ``ids``.
    """

    first: int
    last: int
    ids: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]


def parts_with(
    trace: RoutingTrace, tokens: npt.NDArray[np.int64]
) -> Iterator[tuple[RoutingTrace, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """The parts of ``trace`` that hold ``tokens``: (part, indices into ``tokens``, places in the part)."""
    order = np.argsort(tokens, kind="stable")
    chunk = tokens[order] // CHUNK_TOKENS
    for wanted in np.split(order, np.flatnonzero(np.diff(chunk)) + 1):
        start = int(tokens[wanted[0]]) // CHUNK_TOKENS * CHUNK_TOKENS
        yield trace.token_range(start, min(start + CHUNK_TOKENS, trace.tokens)), wanted, tokens[wanted] - start


def gather_ids(trace: RoutingTrace, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """Ids ``[tokens, layers, top_k]`` of scattered ``tokens``, copied."""
    ids = np.empty((len(tokens), trace.layers, trace.top_k), trace.expert_ids.dtype)
    for part, wanted, places in parts_with(trace, tokens):
        ids[wanted] = part.expert_ids[places]
    return ids


def gather_groups(
    trace: RoutingTrace, tokens: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
) -> Iterator[GroupedIds]:
    """The ids of groups of tokens, whole groups of up to ``CHUNK_TOKENS`` tokens at a time; a larger group is alone.

    Args:
        trace: the routing.
        tokens: i64, the tokens of each group, concatenated.
        offsets: i64 ``[groups + 1]`` into ``tokens``; no group is empty.
    """
    first, groups = 0, len(offsets) - 1
    while first < groups:
        last = int(np.searchsorted(offsets, offsets[first] + CHUNK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), groups)
        ids = gather_ids(trace, tokens[offsets[first] : offsets[last]])
        yield GroupedIds(first, last, ids, offsets[first : last + 1] - offsets[first])
        first = last
