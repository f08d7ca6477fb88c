"""Read routing from a table: determine the token, layer and sequence of every row.

A row is one token's choice in one layer (a list of ids), one expert of such a choice (``expert``; the rows of a choice
are consecutive), or a token's choices in all layers (a list of lists, without a column for the layer).

Tokens are distinguished by the first of these that the table has: ``position`` or ``token``; the order of a layer's
rows within a sequence, if sequences are distinguished; or the layers, which start again with every forward pass. Rows
with none of the first two must come in whole passes: each has every layer of the first pass, all with as many rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.cells import ids, nested_ids, nested_numbers, number_lists, texts, whole
from traces.importers.assembly.multi_hot import MultiHot
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_format import LARGEST, LARGEST_ID, NO_TOKEN, UNRECORDED
from traces.importers.assembly.table_source import Batch
from traces.schema import DECODE, PREFILL

Array = npt.NDArray[Any]

PHASE_WORDS = {
    "prefill": PREFILL,
    "prompt": PREFILL,
    "context": PREFILL,
    "decode": DECODE,
    "decoding": DECODE,
    "generated": DECODE,
    "generation": DECODE,
}
"""Names of the phases, in any case."""

LARGEST_TOKEN = 2**32 - 1
"""Largest index of a token in a vocabulary: identities are u32."""


@dataclass(frozen=True, eq=False)
class Choices:
    """Rows of a batch; each is one token's choice in one layer.

    Attributes:
        batch: the batch from which they come.
        row: index in the batch of each row.
        layer: i64 ``[rows]``.
        ids: i64 ``[rows, k]``, ``UNRECORDED`` where none was recorded.
        weights: f64 ``[rows, k]`` or none.
        token: i64 ``[rows]``, the table's position or token number, or none.
        sequence: the table's name of each row's sequence, or none.
        phase: u8 ``[rows]`` or none.
        identity: i64 ``[rows]``, the token's index in the vocabulary, or none.
        labels: domain and dataset of each row, if the table has them.
    """

    batch: Batch
    row: Array
    layer: Array
    ids: Array
    weights: Array | None
    token: Array | None
    sequence: list[str] | None
    phase: Array | None
    identity: Array | None
    labels: Mapping[str, list[str]]

    def take(self, rows: Array | slice) -> "Choices":
        """Some of the rows."""

        def some(array: Array | None) -> Array | None:
            return None if array is None else array[rows]

        chosen = np.arange(len(self.layer))[rows].tolist()
        return Choices(
            self.batch,
            self.row[rows],
            self.layer[rows],
            self.ids[rows],
            some(self.weights),
            some(self.token),
            None if self.sequence is None else [self.sequence[row] for row in chosen],
            some(self.phase),
            some(self.identity),
            {name: [values[row] for row in chosen] for name, values in self.labels.items()},
        )

    def __len__(self) -> int:
        return len(self.layer)

    def place(self, row: int) -> str:
        """Names a row in an error."""
        return self.batch.row(int(self.row[row]))


def choices(batches: Iterator[Batch], layer: int | None, hot: MultiHot) -> Iterator[Choices]:
    """The choices in a table's rows.

    Args:
        batches: the table.
        layer: layer of all rows, if the file determines it; else a column does, or rows have all layers.
        hot: determines whether the ids are written as a 0 or 1 for every expert.

    Raises:
        ForestageError: naming the file, line and column of a cell that is not as described above.
    """
    held: Choices | None = None
    for batch in batches:
        if "expert" not in batch.cells:
            is_nested = layer is None and "layer" not in batch.cells
            yield _nested(batch, hot) if is_nested else _listed(batch, layer, hot)
            continue
        single = _listed(batch, layer, None)
        joined = single if held is None else _joined(held, single)
        starts = _group_starts(joined)
        last = int(starts[-1])
        if last:
            yield _grouped(joined.take(slice(0, last)), starts[:-1])
        held = joined.take(slice(last, None))
    if held is not None and len(held):
        yield _grouped(held, np.zeros(1, dtype=np.int64))


def _facts(batch: Batch) -> dict[str, Any]:
    """The facts in a batch's columns, beside layer, ids and weights."""
    cells = batch.cells

    def column(role: str, largest: int) -> Array | None:
        return whole(cells[role][0], batch.place(role), largest) if role in cells else None

    token = column("position", LARGEST)
    return {
        "token": token if token is not None else column("token", LARGEST),
        "sequence": texts(cells["sequence"][0], batch.place("sequence")) if "sequence" in cells else None,
        "phase": _phases(batch) if "phase" in cells else None,
        "identity": column("token_id", LARGEST_TOKEN),
        "labels": {role: texts(cells[role][0], batch.place(role)) for role in ("domain", "dataset") if role in cells},
    }


def _phases(batch: Batch) -> Array:
    """Phases ``[rows]``."""
    place = batch.place("phase")
    words = texts(batch.cells["phase"][0], place)
    for row, word in enumerate(words):
        if word.lower() not in PHASE_WORDS:
            raise ForestageError(f"{place(row)}: {word[:40]!r}; expected one of {', '.join(PHASE_WORDS)}")
    return np.array([PHASE_WORDS[word.lower()] for word in words], dtype=np.uint8)


def _listed(batch: Batch, layer: int | None, hot: MultiHot | None) -> Choices:
    """Choices from rows with a list of ids (perhaps ``hot``) or a single id each."""
    role = "expert" if hot is None else "ids"
    found = ids(batch.cells[role], batch.place(role), LARGEST_ID)
    if hot is not None:
        columns = batch.columns[role] if len(batch.cells[role]) > 1 else ()
        found = hot.chosen(found, batch.place(role), weighed="weights" in batch.cells, columns=columns)
    elif found.shape[1] != 1:
        raise ForestageError(f"{batch.place(role)(0)}: a list; name it with --column ids=")
    weights = None
    if "weights" in batch.cells:
        weights = number_lists(batch.cells["weights"], batch.place("weights"), "weights")
    if layer is not None:
        layers = np.full(len(batch), layer, dtype=np.int64)
    else:
        layers = whole(batch.cells["layer"][0], batch.place("layer"), LARGEST)
    return Choices(batch, np.arange(len(batch)), layers, _unrecorded(batch, role, found), weights, **_facts(batch))


def _nested(batch: Batch, hot: MultiHot) -> Choices:
    """Choices from rows with all layers; layers are counted from 0."""
    found = nested_ids(batch.cells["ids"][0], batch.place("ids"), LARGEST_ID)
    rows, layers, width = found.shape
    place = batch.place("ids")
    flat = hot.chosen(found.reshape(-1, width), lambda row: place(row // layers), weighed="weights" in batch.cells)
    top_k = flat.shape[1]
    weights = None
    if "weights" in batch.cells:
        weights = nested_numbers(batch.cells["weights"][0], batch.place("weights"))
        if weights.shape != found.shape:
            raise ForestageError(
                f"{batch.place('weights')(0)}: {list(weights.shape[1:])} for ids {list(found.shape[1:])}"
            )
        weights = weights.reshape(-1, top_k)
    at = np.repeat(np.arange(rows), layers)
    facts = _facts(batch)
    per_row = Choices(batch, np.arange(rows), np.zeros(rows, np.int64), np.zeros((rows, 1), np.int64), None, **facts)
    spread = per_row.take(at)
    for row in np.flatnonzero((flat == -1).any(axis=1) & ~(flat == -1).all(axis=1))[:1]:
        raise ForestageError(f"{batch.place('ids')(int(at[row]))}: {flat[row].tolist()}: some ids are -1, but not all")
    return Choices(
        batch,
        at,
        np.tile(np.arange(layers), rows),
        np.where(flat < 0, UNRECORDED, flat),
        weights,
        spread.token,
        spread.sequence,
        spread.phase,
        spread.identity,
        spread.labels,
    )


def _unrecorded(batch: Batch, role: str, found: Array) -> Array:
    """Ids with rows of −1 as ``UNRECORDED``."""
    missing = found == -1
    for row in np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1))[:1]:
        raise ForestageError(
            f"{batch.place(role)(int(row))}: {found[row].tolist()}: some ids are -1, but not all; a token that chose "
            "fewer experts has no place in a trace of top-k choices"
        )
    return np.where(missing, UNRECORDED, found)


def _group_starts(rows: Choices) -> Array:
    """Indices of the rows whose token or layer differs from the row before."""
    assert rows.token is not None
    changes = (np.diff(rows.token) != 0) | (np.diff(rows.layer) != 0)
    if rows.sequence is not None:
        changes |= np.array([a != b for a, b in zip(rows.sequence, rows.sequence[1:], strict=False)], dtype=np.bool_)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _joined(held: Choices, more: Choices) -> Choices:
    """The rows left from the batch before, and those of the next batch."""

    def both(name: str) -> Any:
        first, second = getattr(held, name), getattr(more, name)
        return None if first is None else first + second if isinstance(first, list) else np.concatenate([first, second])

    if held.batch.origin != more.batch.origin:
        raise ValueError("rows of two files")
    merged = Batch(
        more.batch.origin,
        more.batch.row_name,
        np.concatenate([held.batch.numbers[held.row], more.batch.numbers]),
        {},
        more.batch.names,
    )
    names = ("layer", "ids", "weights", "token", "sequence", "phase", "identity")
    labels = {name: held.labels[name] + more.labels[name] for name in more.labels}
    parts = {name: both(name) for name in names}
    return Choices(batch=merged, row=np.arange(len(merged)), labels=labels, **parts)


def _grouped(rows: Choices, starts: Array) -> Choices:
    """Rows of one expert each, joined by token and layer; each choice must have as many."""
    sizes = np.diff(starts, append=len(rows))
    bad = np.flatnonzero(sizes != sizes[0])
    if len(bad):
        at = int(starts[bad[0]])
        raise ForestageError(
            f"{rows.place(at)}: {sizes[bad[0]]} experts of one token and layer; those before have {sizes[0]}; rows of "
            "a token and layer must stand together"
        )
    first = rows.take(starts)
    for name in ("phase", "identity"):
        values = getattr(rows, name)
        differs = np.flatnonzero(values != np.repeat(values[starts], sizes)) if values is not None else starts[:0]
        if len(differs):
            raise ForestageError(f"{rows.place(int(differs[0]))}: {name}: differs within a token and layer")
    return Choices(
        first.batch,
        first.row,
        first.layer,
        rows.ids.reshape(len(starts), -1),
        None if rows.weights is None else rows.weights.reshape(len(starts), -1),
        first.token,
        first.sequence,
        first.phase,
        first.identity,
        first.labels,
    )


@dataclass
class Sequences:
    """Name of a sequence → its number; and the sequences' labels."""

    numbers: dict[Any, int] = field(default_factory=dict)
    labels: list[dict[str, str]] = field(default_factory=list)

    def number(self, key: Any) -> int:
        """The number of a sequence; a new one if it has not occurred before."""
        if key not in self.numbers:
            self.numbers[key] = len(self.numbers)
            self.labels.append({})
        return self.numbers[key]

    def label(self, part: Choices, sequence: Array) -> None:
        """Keep the labels of the sequences.

        Raises:
            ForestageError: if a sequence has two different labels.
        """
        for name, values in part.labels.items():
            for row, (number, value) in enumerate(zip(sequence.tolist(), values, strict=True)):
                known = self.labels[number].setdefault(name, value)
                if known != value:
                    raise ForestageError(
                        f"{part.place(row)}: {name}: {value[:40]}, but {known[:40]} before, of one sequence"
                    )


class TokenPlaces:
    """Determines the sequence and position of every choice in one file.

    Args:
        sequences: the sequences of the whole source.
        file_key: distinguishes the file's sequences from those of other files; ``None``: all files share sequences.
        one_sequence: whether the file is one sequence, unless a column states otherwise.
        absolute: whether the table's token numbers are positions.
        firsts: sequence → number of its first token, kept over files.
    """

    def __init__(
        self, sequences: Sequences, *, file_key: Any, one_sequence: bool, absolute: bool, firsts: dict[int, int]
    ) -> None:
        self._sequences = sequences
        self._file_key = file_key
        self._one_sequence = one_sequence
        self._absolute = absolute
        self._firsts = firsts
        self._start: tuple[int, int] | None = None
        self._counts: dict[tuple[int, int], int] = {}
        self.restarts = 0

    def place(self, part: Choices) -> tuple[Array, Array]:
        """Sequence and position ``[rows]``.

        Raises:
            ForestageError: if a token's number is below that of its sequence's first token.
        """
        sequence = self._sequence_of(part)
        if part.token is None:
            return sequence, self._counted(part, sequence)
        if self._absolute:
            return sequence, part.token
        numbers, first_rows, index = np.unique(sequence, return_index=True, return_inverse=True)
        for number, row in zip(numbers.tolist(), first_rows.tolist(), strict=True):
            self._firsts.setdefault(number, int(part.token[row]))
        position = part.token - np.array([self._firsts[number] for number in numbers.tolist()])[index]
        bad = np.flatnonzero(position < 0)
        if len(bad):
            row = int(bad[0])
            remedy = (
                "name the column that tells sequences apart (--column sequence=), or, where the numbers are positions, "
                "use --column position="
                if part.sequence is None
                else "where the numbers are positions, name them with --column position= in place of token=, and rows "
                "may come in any order; else sort the rows so that a sequence's first token comes first"
            )
            raise ForestageError(
                f"{part.place(row)}: token {part.token[row]} after {self._firsts[int(sequence[row])]}, the first of "
                f"its sequence; {remedy}"
            )
        return sequence, position

    def _sequence_of(self, part: Choices) -> Array:
        """Sequence ``[rows]``: by the table's name, or by how often the file's first token and layer have recurred."""
        if part.sequence is not None:
            return np.array([self._sequences.number((self._file_key, name)) for name in part.sequence])
        if part.token is None or self._one_sequence:
            return np.full(len(part), self._sequences.number((self._file_key, 0)))
        if self._start is None:
            self._start = int(part.token[0]), int(part.layer[0])
        begins = (part.token == self._start[0]) & (part.layer == self._start[1])
        run = np.cumsum(begins) + self.restarts
        self.restarts = int(run[-1])
        found, index = np.unique(run, return_inverse=True)
        numbers = np.array([self._sequences.number((self._file_key, int(value) - 1)) for value in found])
        return numbers[index]

    def _counted(self, part: Choices, sequence: Array) -> Array:
        """Position ``[rows]``: number of earlier rows with the same sequence and layer."""
        counts = self._counts
        position = np.empty(len(part), dtype=np.int64)
        for row, key in enumerate(zip(sequence.tolist(), part.layer.tolist(), strict=True)):
            position[row] = counts.get(key, 0)
            counts[key] = int(position[row]) + 1
        return position


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass: choices in the order of their layers, equally many per layer."""

    parts: Sequence[Choices]
    layers: Array
    tokens: int


def passes(parts: Iterator[Choices]) -> Iterator[Pass]:
    """The forward passes of choices without tokens or sequences: a layer below the one before begins another.

    Raises:
        ForestageError: naming the line where the choices do not make whole passes.
    """
    held: list[Choices] = []
    wanted: Array | None = None
    before = -1
    for part in parts:
        ends = np.flatnonzero(np.diff(part.layer, prepend=before) < 0)
        before = int(part.layer[-1])
        for first, last in zip([0, *ends], [*ends, len(part)], strict=True):
            if first in ends and held:
                done = _whole_pass(held, wanted)
                wanted = done.layers
                yield done
                held = []
            if last > first:
                held.append(part.take(slice(int(first), int(last))))
    if held:
        yield _whole_pass(held, wanted)


def _whole_pass(held: Sequence[Choices], wanted: Array | None) -> Pass:
    """Choices as one checked pass."""
    layer = np.concatenate([part.layer for part in held])
    layers, rows = np.unique(layer, return_counts=True)
    place = held[0].place(0)
    remedy = "name the column that tells tokens apart with --column token="
    if wanted is not None and not np.array_equal(layers, wanted):
        odd = min(set(layers.tolist()) ^ set(wanted.tolist()))
        state = "have" if odd in layers else "lack"
        raise ForestageError(
            f"{place}: the rows from here on {state} layer {odd}, unlike those before, in which layers begin anew; "
            f"{remedy}"
        )
    if rows.min() != rows.max():
        few, many = int(np.argmin(rows)), int(np.argmax(rows))
        raise ForestageError(
            f"{place}: from here on {rows[few]} rows of layer {layers[few]}, but {rows[many]} of layer {layers[many]}; "
            f"{remedy}"
        )
    return Pass(held, layers, int(rows[0]))


class PassPlaces:
    """Determines the sequences of a file's passes; requests run one at a time: a prompt, then single tokens."""

    def __init__(self, sequences: Sequences, file_key: Any) -> None:
        self._sequences = sequences
        self._file_key = file_key
        self._before = 0
        self._tokens = 0
        self._number = -1
        self._has_prompt = False
        self.passes = 0

    def place(self, run: Pass) -> tuple[int, int, int | None]:
        """Sequence, first position and phase (``None``: not stated) of a pass.

        Raises:
            ForestageError: if requests cannot have run one at a time.
        """
        if run.tokens > 1 and self._before > 1:
            raise ForestageError(
                f"{run.parts[0].place(0)}: {run.tokens} rows a layer after {self._before}: a batch, or several "
                "prompts; name the columns that tell tokens and sequences apart (--column token=, --column sequence=)"
            )
        if self._before == 0 or run.tokens > 1:
            self._number += 1
            self._tokens = 0
            self._has_prompt = run.tokens > 1
        self._before = run.tokens
        first = self._tokens
        self._tokens += run.tokens
        self.passes += 1
        phase = PREFILL if run.tokens > 1 else DECODE if self._has_prompt else None
        return self._sequences.number((self._file_key, self._number)), first, phase


def add_choices(rows: RoutingRows, part: Choices, sequence: Array | int, position: Array, phase: Array | int) -> None:
    """Add choices with known sequences and positions."""
    rows.add_block(
        part.batch.numbers[part.row],
        sequence=sequence,
        position=position,
        layer=part.layer,
        ids=part.ids,
        weights=part.weights,
        phase=phase,
        token=NO_TOKEN if part.identity is None else part.identity,
    )
