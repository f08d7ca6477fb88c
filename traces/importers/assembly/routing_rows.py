"""Collects the rows of a foreign file (one token's choice in one layer) on their way into a trace.

Rows may come in any order: by token, by layer or mixed. They wait as NumPy rows, on disk where they are many. Those
that came by sequence, position and layer are walked in pieces, however many they are; sorting the others needs 44
bytes of memory a row.

What cannot be a whole recording is refused: a row that comes twice, and a sequence whose last token lacks a layer. The
last token passes through every layer, so a file that was cut off, or a stray layer, position or sequence, shows there.
Any other missing row becomes *not recorded*.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly import ordered_rows
from traces.importers.assembly.row_format import NO_TOKEN, ROW, UNRECORDED, Array, RowPlaces, ascend
from traces.importers.assembly.sorted_rows import SortedRows
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.values import LARGEST_WEIGHT
from traces.schema import PREFILL

BUFFERED_ROWS = 1 << 14
"""Rows held as Python numbers before they become arrays."""


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
        self.places = RowPlaces(position_name, line_name, whole)
        self.copies = copies
        self.unrecorded = 0
        self.facts = Spool(ROW)
        self.ids: Spool | None = None
        self.weights: Spool | None = None
        self._buffer: list[tuple[int, ...]] = []
        self._buffered_ids: list[list[int]] = []
        self._buffered_weights: list[list[float]] = []

    def begin(self, origin: Path | str) -> None:
        """Following rows come from ``origin``: a file, or a part of one."""
        self._flush()
        self.places.origins.append(str(origin))

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
        self._buffer.append((sequence, position, layer, phase, token, line, len(self.places.origins) - 1))
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
        self._buffer.append((sequence, position, layer, phase, token, line, len(self.places.origins) - 1))
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
        facts["token"], facts["line"], facts["origin"] = token, line, len(self.places.origins) - 1
        self.unrecorded += int((ids[:, 0] == UNRECORDED).sum())
        self._append(facts, ids, weights)

    def sort(self) -> SortedRows | ordered_rows.OrderedRows:
        """All rows by sequence, position and layer; nothing may be added after.

        Raises:
            ForestageError: naming the file and line of a row that comes twice or differs within its token, or of a
                sequence's last token that lacks a layer.
        """
        self._flush()
        if self.ids is None:
            raise ForestageError(f"{self.places.origins[-1]}: no routing rows in it")
        facts = self.facts.array()
        if len(facts) > ordered_rows.PIECE_ROWS and self.copies is None:
            weights = None if self.weights is None else self.weights.array()
            ordered = ordered_rows.OrderedRows.of(self.places, facts, self.ids.array(), weights)
            if ordered is not None:
                return ordered
        sequence, position, layer = (np.ascontiguousarray(facts[name]) for name in ("sequence", "position", "layer"))
        if ascend(sequence, position, layer):
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
            places=self.places,
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
                f"{self.places.of(second)}: {self.places.position_name} {second['position']}, layer "
                f"{second['layer']}: other experts than in {self.places.of(first)}; {self.copies}"
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
        place = f"{self.places.origins[-1]}: {self.places.line_name} {line}"
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
                    f"{self.places.of(facts[row])}: weights {weights[row].tolist()}: expected numbers from 0 to "
                    f"{LARGEST_WEIGHT:g}"
                )
            self.weights.append(weights.astype(np.float32))
