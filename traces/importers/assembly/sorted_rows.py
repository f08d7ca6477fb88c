"""Rows by sequence, position and layer, checked, and handed on token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.builder import CHUNK_TOKENS, TraceBuilder
from traces.importers.assembly.expert_map import ExpertMap
from traces.importers.assembly.row_format import NO_TOKEN, UNRECORDED, Array, RowPlaces
from traces.validation import counted_from_one, names_first


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Collected rows, in whatever order.

    Attributes:
        places: where they come from.
        facts: ``ROW [rows]``, as collected, like ``ids`` and ``weights [rows, top_k]``.
        layers: the file's layer numbers, ascending.
        left_out: rows that repeat another.
    """

    places: RowPlaces
    facts: Array
    ids: Array
    weights: Array | None
    layers: tuple[int, ...]
    left_out: int = 0

    @property
    def has_weights(self) -> bool:
        """Whether the rows have gate weights."""
        return self.weights is not None

    @property
    def top_k(self) -> int:
        """Ids a row."""
        return int(self.ids.shape[1])

    @property
    def has_tokens(self) -> bool:
        """Whether the rows name their tokens."""
        return bool(self.facts["token"][0] != NO_TOKEN)


@dataclass(frozen=True, eq=False, kw_only=True)
class SortedRows(Rows):
    """Rows by sequence, position and layer.

    Attributes:
        order: the collected row that stands at each sorted place.
        starts: sorted place of each token's first row.
        column: index into ``layers`` of each sorted row.
        ends: the last token is the last of its sequence (it may not be, of a piece of the rows).
    """

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    column: npt.NDArray[np.int32]
    ends: bool = True

    @property
    def missing(self) -> int:
        """Rows (token, layer) that no row was given for."""
        return len(self.starts) * len(self.layers) - len(self.order)

    def skipped_positions(self) -> int:
        """How often a token's position exceeds that of the token before it, in the same sequence, by more than one."""
        tokens = self.facts[self.order[self.starts]]
        same = tokens["sequence"][1:] == tokens["sequence"][:-1]
        return int((same & (tokens["position"][1:] > tokens["position"][:-1] + 1)).sum())

    def feed(
        self,
        builder: TraceBuilder,
        labels: Sequence[tuple[str, str]],
        experts: int,
        expert_map: ExpertMap | None = None,
    ) -> None:
        """Append every sequence to ``builder``, which was made with this object's layers, top-k, weights and tokens.

        Args:
            builder: takes the tokens.
            labels: domain and dataset of each sequence, by its number.
            experts: of a layer.
            expert_map: of the rows' ids, where they are of physical experts.

        Raises:
            ForestageError: naming the file and line of a row with an id that the model (or the map) lacks.
        """
        sequence = self.facts["sequence"][self.order[self.starts]]
        cuts = np.flatnonzero(np.diff(sequence, prepend=-1))
        for first, last in zip(cuts, np.append(cuts[1:], len(sequence)), strict=True):
            for begin in range(int(first), int(last), CHUNK_TOKENS):
                self._feed_tokens(builder, begin, min(begin + CHUNK_TOKENS, int(last)), experts, expert_map)
            if self.ends or last < len(sequence):
                builder.end_sequence(*labels[sequence[first]])

    def _feed_tokens(
        self, builder: TraceBuilder, begin: int, end: int, experts: int, expert_map: ExpertMap | None
    ) -> None:
        """Tokens ``[begin, end)`` of one sequence."""
        stop = self.starts[end] if end < len(self.starts) else len(self.order)
        places = slice(self.starts[begin], stop)
        rows, column = self.order[places], self.column[places]
        token = np.repeat(np.arange(end - begin), np.diff(self.starts[begin:end], append=stop))
        ids = self.ids[rows]
        unrecorded = (ids == UNRECORDED).all(axis=1)
        limit = experts if expert_map is None else expert_map.physical
        beyond = np.flatnonzero((ids >= limit).any(axis=1) & ~unrecorded)
        if len(beyond):
            row = int(beyond[0])
            whose = "the model has experts" if expert_map is None else "the expert map has physical experts"
            raise ForestageError(
                f"{self.places.of(self.facts[rows[row]])}: expert ids {ids[row].tolist()}: {whose} 0 to {limit - 1}"
                + counted_from_one(int(self.ids[self.ids != UNRECORDED].max()), limit, has_first=names_first(self.ids))
            )
        shape = (end - begin, len(self.layers), self.top_k)
        grid = np.full(shape, -1, dtype=np.int32)
        grid[token, column] = np.where(unrecorded[:, None], -1, ids.astype(np.int32))
        if expert_map is not None:
            grid = expert_map.apply(grid, self.places.origins[0])
        weights = None
        if self.weights is not None:
            weights = np.zeros(shape, dtype=np.float32)
            weights[token, column] = self.weights[rows]
        facts = self.facts[self.order[self.starts[begin:end]]]
        builder.append(
            grid,
            position=facts["position"],
            phase=facts["phase"],
            weights=weights,
            token_hash=facts["token"].astype(np.uint32) if self.has_tokens else None,
            where=f"{self.places.line_name} {facts['line'][0]}",
        )

    def check(self, same_token: npt.NDArray[np.bool_], layer: npt.NDArray[np.int32]) -> None:
        """No row twice, one phase and identity a token, and the last token of a sequence in every layer.

        Args:
            same_token: whether a sorted row is of the same token as the one before.
            layer: of each sorted row.

        Raises:
            ForestageError: naming the file and line.
        """
        places = self.places
        repeats = np.flatnonzero(same_token & (layer[1:] == layer[:-1]))
        if len(repeats):
            first, second = self._facts_at(int(repeats[0])), self._facts_at(int(repeats[0]) + 1)
            raise ForestageError(
                f"{places.of(second)}: {places.position_name} {second['position']}, layer {second['layer']}: came "
                f"before, in {places.line_name} {first['line']}; a token has one row a layer"
            )
        for name in ("phase", "token"):
            values = self.facts[name][self.order]
            differs = np.flatnonzero(same_token & (values[1:] != values[:-1]))
            if len(differs):
                first, second = self._facts_at(int(differs[0])), self._facts_at(int(differs[0]) + 1)
                raise ForestageError(
                    f"{places.of(second)}: {name}: differs from {places.line_name} {first['line']}, which is of the "
                    f"same token ({places.position_name} {second['position']})"
                )
        tokens = self.facts["token"]
        if self.has_tokens != bool((tokens != NO_TOKEN).any()) or (self.has_tokens and (tokens == NO_TOKEN).any()):
            row = self.facts[int(np.argmin(tokens))]
            raise ForestageError(f"{self.places.of(row)}: names no token, but other rows do")
        self._check_layers()

    def _check_layers(self) -> None:
        """The last token of every sequence (or every token, where rows are ``whole``) has a row in every layer."""
        sequence = self.facts["sequence"][self.order[self.starts]]
        rows = np.diff(self.starts, append=len(self.order))
        is_last = np.diff(sequence, append=-1 if self.ends else sequence[-1]) != 0
        bad = np.flatnonzero((is_last | self.places.whole) & (rows < len(self.layers)))
        if not len(bad):
            return
        start = int(self.starts[bad[0]])
        present = {self.layers[column] for column in self.column[start : start + int(rows[bad[0]])]}
        missing = next(layer for layer in self.layers if layer not in present)
        fact = self._facts_at(start)
        which = "" if self.places.whole else ", the last of its sequence,"
        raise ForestageError(
            f"{self.places.of(fact)}: {self.places.position_name} {fact['position']}{which} lacks layer {missing}; "
            "if the recording was cut off, remove that token's rows"
        )

    def _facts_at(self, place: int) -> Any:
        """The facts of the row at a sorted place."""
        return self.facts[self.order[place]]
