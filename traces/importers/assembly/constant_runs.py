"""Find runs of identical rows within sequences, which warm-up, profiling and padding leave in a recording.

Two rows are identical if the layers recorded in both have the same experts in any order (equal scores make the order
random); a row without any recorded layer is identical to none.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from catalog.errors import ForestageError
from traces.gather import gather_in_file
from traces.trace import RoutingTrace

COPIED_TOKENS = 1 << 14
"""Most tokens copied at a time."""


@dataclass(frozen=True, eq=False)
class ConstantRuns:
    """Runs of identical rows.

    Attributes:
        least: tokens of the shortest run looked for.
        spans: i64 ``[runs, 2]``, first token of each run and one past its last, ascending.
    """

    least: int
    spans: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Number of tokens in all runs."""
        return int(np.diff(self.spans, axis=1).sum())

    def at_least(self, tokens: int) -> "ConstantRuns":
        """The runs of at least ``tokens`` tokens."""
        long = np.diff(self.spans, axis=1)[:, 0] >= tokens
        return ConstantRuns(max(tokens, self.least), self.spans[long])


def constant_runs(trace: RoutingTrace, least: int) -> ConstantRuns:
    """Every run of at least ``least`` (2 or more) identical rows; reads the trace once, in chunks.

    If a model uses all of its experts, or has only one, rows cannot differ, and no runs are returned.
    """
    if trace.experts == trace.top_k:
        return ConstantRuns(least, np.empty((0, 2), np.int64))
    first = np.full((trace.layers, trace.top_k), trace.experts, np.int64)
    begun = np.zeros(1, np.int64)
    spans = array("q")
    done = 0
    for part in trace.chunks():
        begins = np.zeros(part.tokens, np.bool_)
        inside = slice(*np.searchsorted(trace.sequence_offsets, (done, done + part.tokens)))
        begins[trace.sequence_offsets[inside] - done] = True
        found = np.empty((part.tokens // least + 1, 2), np.int64)
        count = _find(part.expert_ids, begins, trace.experts, done, least, first, begun, found)
        spans.extend(found[:count].ravel().tolist())
        done += part.tokens
    if trace.tokens - begun[0] >= least:
        spans.extend((int(begun[0]), trace.tokens))
    return ConstantRuns(least, np.array(spans, np.int64).reshape(-1, 2))


def without(trace: RoutingTrace, runs: ConstantRuns) -> RoutingTrace:
    """``trace`` without the tokens of ``runs``, in a temporary file.

    The rest of a sequence stays one sequence, with its tokens at their positions: if it became two, they could be on
    both sides of a split, and would count as two in bootstrap intervals. Sequences without remaining tokens are
    dropped.

    Raises:
        ForestageError: if nothing is left of the trace.
    """
    if not len(runs.spans):
        return trace
    if runs.tokens == trace.tokens:
        raise ForestageError(
            f"{trace.origin}: nothing is left: every token is in a run of at least {runs.least} identical rows; it "
            "holds no routing of text, or give a larger --drop-constant"
        )
    return gather_in_file(_kept(trace, runs.spans), trace)


def _kept(trace: RoutingTrace, spans: npt.NDArray[np.int64]) -> Iterator[tuple[RoutingTrace, bool]]:
    """The tokens outside ``spans`` in pieces, each with whether it continues the last sequence of the piece before."""
    last_sequence = -1
    begins, ends = [0, *spans[:, 1].tolist()], [*spans[:, 0].tolist(), trace.tokens]
    for begin, end in zip(begins, ends, strict=True):
        for start in range(begin, end, COPIED_TOKENS):
            stop = min(start + COPIED_TOKENS, end)
            sequence, reached = np.searchsorted(trace.sequence_offsets, (start, stop - 1), side="right") - 1
            yield trace.token_range(start, stop), bool(sequence == last_sequence)
            last_sequence = reached


@njit()
def _find(
    ids: npt.NDArray[np.unsignedinteger],
    begins: npt.NDArray[np.bool_],
    experts: int,
    offset: int,
    least: int,
    first: npt.NDArray[np.int64],
    begun: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> int:
    """Write the runs of at least ``least`` tokens that end within ``ids`` to ``found``; returns their number.

    ``first [layers, top_k]`` has each layer's first recorded row in the open run (``experts`` if there is none yet),
    and ``begun [1]`` the run's first token; both are kept from chunk to chunk. An id ≥ experts marks an unrecorded row;
    ``offset`` is the first token of ``ids`` in the trace.
    """
    tokens, layers, top_k = ids.shape
    count = 0
    for token in range(tokens):
        goes_on = False
        if not begins[token]:
            for layer in range(layers):
                if ids[token, layer, 0] >= experts or first[layer, 0] >= experts:
                    continue
                goes_on = True
                for i in range(top_k):
                    there = False
                    for j in range(top_k):
                        if ids[token, layer, j] == first[layer, i]:
                            there = True
                            break
                    if not there:
                        goes_on = False
                        break
                if not goes_on:
                    break
        if not goes_on:
            if offset + token - begun[0] >= least:
                found[count, 0], found[count, 1] = begun[0], offset + token
                count += 1
            begun[0] = offset + token
            first[:] = experts
        for layer in range(layers):
            if first[layer, 0] >= experts and ids[token, layer, 0] < experts:
                for i in range(top_k):
                    first[layer, i] = ids[token, layer, i]
    return count
