"""Collecting the rows of a foreign file (one token's choice in one layer) and handing them on token by token.

Rows may come in any order: by token, by layer or mixed. They wait as NumPy rows, on disk where they are many. Those
that came by sequence, position and layer are walked in pieces, however many they are; sorting the others needs 44
bytes of memory a row.

What cannot be a whole recording is refused: a row that comes twice, and a sequence whose last token lacks a layer. The
last token passes through every layer, so a file that was cut off, or a stray layer, position or sequence, shows there.
Any other missing row becomes *not recorded*.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.builder import CHUNK_TOKENS, TraceBuilder
from traces.importers.assembly.expert_map import ExpertMap
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.values import LARGEST_WEIGHT
from traces.mapping import release
from traces.schema import PREFILL
from traces.validation import counted_from_one, names_first

PIECE_ROWS = 1 << 18
"""Of rows that came in order: so many are looked at at a time."""

BUFFERED_ROWS = 1 << 14
"""Rows held as Python numbers before they become arrays."""

LARGEST = 2**31 - 1
"""Of a position, a layer or a sequence: they are kept as i32."""

LARGEST_ID = 65_534
"""Of an expert: 65,535 marks an unrecorded row."""

UNRECORDED = LARGEST_ID + 1
"""Every id of a row that the file has, but that says of no expert that it was chosen."""

NO_TOKEN = -1
"""As a token's identity: the file does not say."""

ROW = np.dtype(
    [
        ("sequence", np.int32),
        ("position", np.int32),
        ("layer", np.int32),
        ("phase", np.uint8),
        ("token", np.int64),
        ("line", np.int64),
        ("origin", np.int32),
    ]
)
"""What is kept of a row beside its ids and weights."""

Array = npt.NDArray[Any]


class RoutingRows:
    """Rows on their way into a trace; ``begin`` names where the following ones come from.

    Args:
        position_name: what the file calls a token's place, for errors.
        line_name: what ``line`` counts, for errors.
        whole: every token has a row in every layer; without, only the last of a sequence must.
        copies: what is wrong with two rows of one token and layer that name other experts, for the error; rows that
            come twice are then left out where they name the same. ``None``: a row that comes twice is refused.
    """

    def __init__(
        self, position_name: str, *, line_name: str = "line", whole: bool = False, copies: str | None = None
    ) -> None:
        self.position_name = position_name
        self.line_name = line_name
        self.whole = whole
        self.copies = copies
        self.unrecorded = 0
        self.origins: list[str] = []
        self.facts = Spool(ROW)
        self.ids: Spool | None = None
        self.weights: Spool | None = None
        self._buffer: list[tuple[int, ...]] = []
        self._buffered_ids: list[list[int]] = []
        self._buffered_weights: list[list[float]] = []

    def begin(self, origin: Path | str) -> None:
        """Following rows come from ``origin``: a file, or a part of one."""
        self._flush()
        self.origins.append(str(origin))

    def add(
        self,
        line: int,
        *,
        sequence: int,
        position: int,
        layer: int,
        ids: list[int],
        weights: list[float] | None = None,
        phase: int = PREFILL,
        token: int = NO_TOKEN,
    ) -> None:
        """One row; sequence, position and layer must be within 0 and ``LARGEST``, ids within 0 and ``LARGEST_ID``.

        Raises:
            ForestageError: if it has another number of ids or weights than the first row, or a weight is none.
        """
        self._check_widths(line, len(ids), None if weights is None else len(weights))
        self._buffer.append((sequence, position, layer, phase, token, line, len(self.origins) - 1))
        self._buffered_ids.append(ids)
        if weights is not None:
            self._buffered_weights.append(weights)
        if len(self._buffer) >= BUFFERED_ROWS:
            self._flush()

    def add_unrecorded(
        self, line: int, *, sequence: int, position: int, layer: int, phase: int = PREFILL, token: int = NO_TOKEN
    ) -> None:
        """A row of a token that no expert was recorded for, which the file says itself; limits as for ``add``."""
        self.unrecorded += 1
        self._buffer.append((sequence, position, layer, phase, token, line, len(self.origins) - 1))
        self._buffered_ids.append([])  # becomes as wide as the others
        if self.ids is None or self.weights is not None:
            self._buffered_weights.append([])
        if len(self._buffer) >= BUFFERED_ROWS and self.ids is not None:
            self._flush()

    def add_block(
        self,
        line: Array,
        *,
        sequence: int | Array,
        position: Array,
        layer: Array,
        ids: Array,
        weights: Array | None,
        phase: int | Array = PREFILL,
        token: int | Array = NO_TOKEN,
    ) -> None:
        """Rows: ``line``, ``position`` and ``layer [rows]``, ``ids [rows, top_k]``, limits as above.

        Sequence, phase and token are of all, or ``[rows]``; a row whose ids are all ``UNRECORDED`` has none.

        Raises:
            ForestageError: as ``add``.
        """
        if not len(ids):
            return
        self._check_widths(int(line[0]), ids.shape[1], None if weights is None else weights.shape[1])
        self._flush()
        facts = np.zeros(len(ids), dtype=ROW)
        facts["sequence"], facts["position"], facts["layer"], facts["phase"] = sequence, position, layer, phase
        facts["token"], facts["line"], facts["origin"] = token, line, len(self.origins) - 1
        self.unrecorded += int((ids[:, 0] == UNRECORDED).sum())
        self._append(facts, ids, weights)

    def sort(self) -> "SortedRows | OrderedRows":
        """All rows by sequence, position and layer; nothing may be added after.

        Raises:
            ForestageError: naming the file and line of a row that comes twice or differs within its token, or of a
                sequence's last token that lacks a layer.
        """
        self._flush()
        if self.ids is None:
            raise ForestageError(f"{self.origins[-1]}: no routing rows in it")
        facts = self.facts.array()
        if len(facts) > PIECE_ROWS and self.copies is None:
            weights = None if self.weights is None else self.weights.array()
            ordered = OrderedRows.of(self, facts, self.ids.array(), weights)
            if ordered is not None:
                return ordered
        sequence, position, layer = (np.ascontiguousarray(facts[name]) for name in ("sequence", "position", "layer"))
        if _ascend(sequence, position, layer):
            order = np.arange(len(facts))
        else:
            order = np.lexsort((layer, position, sequence))
            sequence, position, layer = sequence[order], position[order], layer[order]
        ids = self.ids.array()
        left_out = 0
        if self.copies is not None:
            kept = self._without_copies(facts, ids, order, sequence, position, layer)
            left_out = len(order) - int(kept.sum())
            order, sequence, position, layer = order[kept], sequence[kept], position[kept], layer[kept]
        same = (sequence[1:] == sequence[:-1]) & (position[1:] == position[:-1])
        layers = np.unique(layer)
        rows = SortedRows(
            source=self,
            facts=facts,
            ids=ids,
            weights=None if self.weights is None else self.weights.array(),
            order=order,
            starts=np.concatenate([[0], np.flatnonzero(~same) + 1]),
            column=np.searchsorted(layers, layer).astype(np.int32),
            layers=tuple(layers.tolist()),
            left_out=left_out,
        )
        rows.check(same, layer)
        return rows

    def place(self, row: Any) -> str:
        """Where a row of ``facts`` comes from."""
        return f"{self.origins[row['origin']]}: {self.line_name} {row['line']}"

    def _without_copies(
        self, facts: Array, ids: Array, order: Array, sequence: Array, position: Array, layer: Array
    ) -> npt.NDArray[np.bool_]:
        """Which sorted rows are the first of their token and layer; the others must name the same experts."""
        repeats = (sequence[1:] == sequence[:-1]) & (position[1:] == position[:-1]) & (layer[1:] == layer[:-1])
        places = np.flatnonzero(repeats) + 1
        differs = places[(ids[order[places]] != ids[order[places - 1]]).any(axis=1)]
        if len(differs):
            place = int(differs[0])
            first, second = facts[order[place - 1]], facts[order[place]]
            raise ForestageError(
                f"{self.place(second)}: {self.position_name} {second['position']}, layer {second['layer']}: other "
                f"experts than in {self.place(first)}; {self.copies}"
            )
        return np.concatenate([[True], ~repeats])

    def _check_widths(self, line: int, ids: int, weights: int | None) -> None:
        """Every row is as the first: so many ids, as many weights or none."""
        if self.ids is None:
            self.ids = Spool(np.uint16, (ids,))
            self.weights = None if weights is None else Spool(np.float32, (ids,))
        top_k = self.ids.row_shape[0]
        if ids == top_k and weights == (top_k if self.weights is not None else None):
            return
        place = f"{self.origins[-1]}: {self.line_name} {line}"
        if ids != top_k:
            raise ForestageError(f"{place}: {ids} expert ids; the rows before have {top_k}")
        if weights is not None and self.weights is not None:
            raise ForestageError(f"{place}: {weights} weights for {ids} expert ids")
        raise ForestageError(
            f"{place}: {'no weights' if weights is None else 'weights'}, but the rows before have "
            f"{'some' if weights is None else 'none'}"
        )

    def _flush(self) -> None:
        """Turn the buffered rows into arrays."""
        if not self._buffer or self.ids is None:
            return
        top_k = self.ids.row_shape[0]
        empty, nothing = [UNRECORDED] * top_k, [0.0] * top_k
        ids = np.array([row or empty for row in self._buffered_ids])
        weights = None
        if self.weights is not None:
            weights = np.array([row or nothing for row in self._buffered_weights])
        self._append(np.array(self._buffer, dtype=ROW), ids, weights)
        self._buffer, self._buffered_ids, self._buffered_weights = [], [], []

    def _append(self, facts: Array, ids: Array, weights: Array | None) -> None:
        """Keep a chunk of checked width."""
        assert self.ids is not None
        self.facts.append(facts)
        self.ids.append(ids.astype(np.uint16))
        if weights is not None and self.weights is not None:
            bad = np.flatnonzero(~((weights >= 0) & (weights <= LARGEST_WEIGHT)).all(axis=1))
            if len(bad):
                row = int(bad[0])
                raise ForestageError(
                    f"{self.place(facts[row])}: weights {weights[row].tolist()}: expected numbers from 0 to "
                    f"{LARGEST_WEIGHT:g}"
                )
            self.weights.append(weights.astype(np.float32))


def _ascend(sequence: Array, position: Array, layer: Array) -> bool:
    """Whether rows stand by sequence, position and layer already."""
    later = sequence[1:] > sequence[:-1]
    same = sequence[1:] == sequence[:-1]
    later |= same & (position[1:] > position[:-1])
    same &= position[1:] == position[:-1]
    return bool((later | (same & (layer[1:] >= layer[:-1]))).all())


@dataclass(frozen=True, eq=False)
class SortedRows:
    """Rows by sequence, position and layer.

    Attributes:
        source: where they were collected.
        facts: ``ROW [rows]``, as collected, like ``ids`` and ``weights [rows, top_k]``.
        order: the collected row that stands at each sorted place.
        starts: sorted place of each token's first row.
        column: index into ``layers`` of each sorted row.
        layers: the file's layer numbers, ascending.
        left_out: rows that repeat another.
        ends: the last token is the last of its sequence (it may not be, of a piece of the rows).
    """

    source: RoutingRows
    facts: Array
    ids: Array
    weights: Array | None
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    column: npt.NDArray[np.int32]
    layers: tuple[int, ...]
    left_out: int = 0
    ends: bool = True

    @property
    def missing(self) -> int:
        """Rows (token, layer) that no row was given for."""
        return len(self.starts) * len(self.layers) - len(self.order)

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
                f"{self.source.place(self.facts[rows[row]])}: expert ids {ids[row].tolist()}: {whose} 0 to {limit - 1}"
                + counted_from_one(int(self.ids[self.ids != UNRECORDED].max()), limit, has_first=names_first(self.ids))
            )
        shape = (end - begin, len(self.layers), self.top_k)
        grid = np.full(shape, -1, dtype=np.int32)
        grid[token, column] = np.where(unrecorded[:, None], -1, ids.astype(np.int32))
        if expert_map is not None:
            grid = expert_map.apply(grid, self.source.origins[0])
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
            where=f"{self.source.line_name} {facts['line'][0]}",
        )

    def check(self, same_token: npt.NDArray[np.bool_], layer: npt.NDArray[np.int32]) -> None:
        """No row twice, one phase and identity a token, and the last token of a sequence in every layer.

        Args:
            same_token: whether a sorted row is of the same token as the one before.
            layer: of each sorted row.

        Raises:
            ForestageError: naming the file and line.
        """
        source = self.source
        repeats = np.flatnonzero(same_token & (layer[1:] == layer[:-1]))
        if len(repeats):
            first, second = self._facts_at(int(repeats[0])), self._facts_at(int(repeats[0]) + 1)
            raise ForestageError(
                f"{source.place(second)}: {source.position_name} {second['position']}, layer {second['layer']}: came "
                f"before, in {source.line_name} {first['line']}; a token has one row a layer"
            )
        for name in ("phase", "token"):
            values = self.facts[name][self.order]
            differs = np.flatnonzero(same_token & (values[1:] != values[:-1]))
            if len(differs):
                first, second = self._facts_at(int(differs[0])), self._facts_at(int(differs[0]) + 1)
                raise ForestageError(
                    f"{source.place(second)}: {name}: differs from {source.line_name} {first['line']}, which is of the "
                    f"same token ({source.position_name} {second['position']})"
                )
        tokens = self.facts["token"]
        if self.has_tokens != bool((tokens != NO_TOKEN).any()) or (self.has_tokens and (tokens == NO_TOKEN).any()):
            row = self.facts[int(np.argmin(tokens))]
            raise ForestageError(f"{self.source.place(row)}: names no token, but other rows do")
        self._check_layers()

    def _check_layers(self) -> None:
        """The last token of every sequence (or every token, where rows are ``whole``) has a row in every layer."""
        sequence = self.facts["sequence"][self.order[self.starts]]
        rows = np.diff(self.starts, append=len(self.order))
        is_last = np.diff(sequence, append=-1 if self.ends else sequence[-1]) != 0
        bad = np.flatnonzero((is_last | self.source.whole) & (rows < len(self.layers)))
        if not len(bad):
            return
        start = int(self.starts[bad[0]])
        present = {self.layers[column] for column in self.column[start : start + int(rows[bad[0]])]}
        missing = next(layer for layer in self.layers if layer not in present)
        fact = self._facts_at(start)
        which = "" if self.source.whole else ", the last of its sequence,"
        raise ForestageError(
            f"{self.source.place(fact)}: {self.source.position_name} {fact['position']}{which} lacks layer {missing}; "
            "if the recording was cut off, remove that token's rows"
        )

    def _facts_at(self, place: int) -> Any:
        """The facts of the row at a sorted place."""
        return self.facts[self.order[place]]


@dataclass(frozen=True, eq=False)
class OrderedRows:
    """Rows that came by sequence, position and layer: the same as ``SortedRows``, in pieces.

    Attributes:
        source: where they were collected.
        facts: ``ROW [rows]``, like ``ids`` and ``weights [rows, top_k]``.
        cuts: first row of each piece, which begins a token, and the number of rows.
        layers: the file's layer numbers, ascending.
        tokens: how many.
        gaps: how often positions are skipped within a sequence.
        left_out: no rows.
    """

    source: RoutingRows
    facts: Array
    ids: Array
    weights: Array | None
    cuts: tuple[int, ...]
    layers: tuple[int, ...]
    tokens: int
    gaps: int
    left_out: int = 0

    @classmethod
    def of(cls, source: RoutingRows, facts: Array, ids: Array, weights: Array | None) -> "OrderedRows | None":
        """The rows, or ``None`` where they did not come in order.

        Raises:
            ForestageError: as ``RoutingRows.sort``.
        """
        layers: set[int] = set()
        cuts, tokens, gaps = [0], 0, 0
        while cuts[-1] < len(facts):
            begin, end = cuts[-1], min(cuts[-1] + PIECE_ROWS, len(facts))
            while True:  # up to where a token begins, or the end
                sequence, position, layer = _columns(facts, begin, min(end + 1, len(facts)))
                if not _ascend(sequence, position, layer):
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
        made = cls(source, facts, ids, weights, tuple(cuts), tuple(sorted(layers)), tokens, gaps)
        made._check()
        return made

    @property
    def top_k(self) -> int:
        """Ids a row."""
        return int(self.ids.shape[1])

    @property
    def has_tokens(self) -> bool:
        """Whether the rows name their tokens."""
        return bool(self.facts["token"][0] != NO_TOKEN)

    @property
    def has_weights(self) -> bool:
        """Whether the rows have gate weights."""
        return self.weights is not None

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
            sequence, position, layer = _columns(self.facts, begin, stop)
            same = (sequence[1:] == sequence[:-1]) & (position[1:] == position[:-1])
            ends = stop == len(self.facts) or self.facts["sequence"][stop] != sequence[-1]
            piece = SortedRows(
                source=self.source,
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
                raise ForestageError(f"{self.source.place(odd)}: names no token, but other rows do")
            piece.check(same, layer)
            release(self.facts)


def _columns(facts: Array, begin: int, stop: int) -> tuple[Array, Array, Array]:
    """Sequence, position and layer of some rows."""
    part = facts[begin:stop]
    sequence, position, layer = (np.ascontiguousarray(part[name]) for name in ("sequence", "position", "layer"))
    return sequence, position, layer
