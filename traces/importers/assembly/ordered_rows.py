"""Rows that came by sequence, position and layer: walked in pieces, however many they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.expert_map import ExpertMap
from traces.importers.assembly.row_format import Array, RowPlaces, ascend, columns
from traces.importers.assembly.sorted_rows import Rows, SortedRows
from traces.mapping import release

PIECE_ROWS = 1 << 18
"""So many rows are looked at at a time."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OrderedRows(Rows):
    """Rows that came by sequence, position and layer: the same as ``SortedRows``, in pieces.

    Attributes:
        cuts: first row of each piece, which begins a token, and the number of rows.
        tokens: how many.
        gaps: how often positions are skipped within a sequence.
    """

    cuts: tuple[int, ...]
    tokens: int
    gaps: int

    @classmethod
    def of(cls, places: RowPlaces, facts: Array, ids: Array, weights: Array | None) -> "OrderedRows | None":
        """The rows, or ``None`` where they did not come in order.

        Raises:
            ForestageError: as ``RoutingRows.sort``.
        """
        layers: set[int] = set()
        cuts, tokens, gaps = [0], 0, 0
        while cuts[-1] < len(facts):
            begin, end = cuts[-1], min(cuts[-1] + PIECE_ROWS, len(facts))
            while True:  # up to where a token begins, or the end
                sequence, position, layer = columns(facts, begin, min(end + 1, len(facts)))
                if not ascend(sequence, position, layer):
                    return None
                new = (np.diff(sequence) != 0) | (np.diff(position) != 0)
                starts = np.flatnonzero(new) + 1
                if end == len(facts) or len(starts):
                    break
                end = min(end + PIECE_ROWS, len(facts))
            stop = end if end == len(facts) else begin + int(starts[-1])
            rows = slice(0, stop - begin)
            layers |= set(np.unique(layer[rows]).tolist())
            within = starts[starts < stop - begin]
            same = sequence[within] == sequence[within - 1]
            gaps += int((same & (position[within] > position[within - 1] + 1)).sum())
            if begin:
                before = facts[begin - 1]
                gaps += int(before["sequence"] == sequence[0] and position[0] > before["position"] + 1)
            tokens += len(within) + 1
            cuts.append(stop)
            release(facts)
        made = cls(
            places=places,
            facts=facts,
            ids=ids,
            weights=weights,
            layers=tuple(sorted(layers)),
            cuts=tuple(cuts),
            tokens=tokens,
            gaps=gaps,
        )
        made._check()
        return made

    @property
    def missing(self) -> int:
        """Rows (token, layer) that no row was given for."""
        return self.tokens * len(self.layers) - len(self.facts)

    def skipped_positions(self) -> int:
        """As ``SortedRows.skipped_positions``."""
        return self.gaps

    def feed(
        self,
        builder: TraceBuilder,
        labels: Sequence[tuple[str, str]],
        experts: int,
        expert_map: ExpertMap | None = None,
    ) -> None:
        """As ``SortedRows.feed``."""
        for piece, _, _ in self._pieces():
            piece.feed(builder, labels, experts, expert_map)
            for array in (self.facts, self.ids, self.weights):
                if array is not None:
                    release(array)

    def _pieces(self) -> Iterator[tuple[SortedRows, npt.NDArray[np.bool_], npt.NDArray[np.int32]]]:
        """The rows by pieces; whether each is of the same token as the one before, and its layer."""
        for begin, stop in pairwise(self.cuts):
            sequence, position, layer = columns(self.facts, begin, stop)
            same = (sequence[1:] == sequence[:-1]) & (position[1:] == position[:-1])
            ends = stop == len(self.facts) or self.facts["sequence"][stop] != sequence[-1]
            piece = SortedRows(
                places=self.places,
                facts=self.facts[begin:stop],
                ids=self.ids[begin:stop],
                weights=None if self.weights is None else self.weights[begin:stop],
                order=np.arange(stop - begin),
                starts=np.concatenate([[0], np.flatnonzero(~same) + 1]),
                column=np.searchsorted(self.layers, layer).astype(np.int32),
                layers=self.layers,
                ends=bool(ends),
            )
            yield piece, same, layer

    def _check(self) -> None:
        """As ``SortedRows.check``."""
        for piece, same, layer in self._pieces():
            if piece.has_tokens != self.has_tokens:
                odd = piece.facts[0] if self.has_tokens else self.facts[0]
                raise ForestageError(f"{self.places.of(odd)}: names no token, but other rows do")
            piece.check(same, layer)
            release(self.facts)
