"""What is loaded into the memories of a net in hardware, and in which order it adds rows: a head's *program*.

A program is made for one lookahead, the ``distance``. A row of ``H`` hidden units is ``P`` words of ``lanes`` int8
lanes, padded with zeros (``limits.word_lanes``). With ``L`` layers, ``N`` experts, ``Q`` questions:

=============== ===================================== ============================================================
memory          word                                  address
=============== ===================================== ============================================================
rows            ``lanes`` · i8                        ``base + p · N + expert``, ``base`` being the operation's
output          ``lanes`` · i8: a column              ``output + answer · P + p``: ``output[:, answer]``
bias            ``lanes`` · i32                       ``bias + p``
output_bias     i32                                   ``answers + answer``, ``answer`` being ``question · N + expert``
chances         u16                                   ``chances + question · 256 + (score >> 4)``
gate_program    ``OPERATION``                         ``layer · OPERATIONS + place``
matched         ``MATCHED_SUM``                       ``layer · MATCHED_MAX + source``
records         8 bits                                record: bit ``s`` says that matched source ``s`` reads it
identity_shifts 5 bits                                ``layer · IDENTITIES_MAX + age``
layers          ``LAYER``                             layer
settings        ``SETTINGS``                          0
=============== ===================================== ============================================================

Sums of a head, for each slot and layer: a *ring* of ``ring`` sums, of age 0 (``NOW``: this token's), 1, … (those of the
coming tokens); at the end of a token each becomes one younger, and the youngest the oldest. For each decay ``d``: what
this token adds (``fresh``) and the decayed sum. And one *trail*: what all decayed sums contribute to a token, which is
added where its sum is asked for.

**A gate** of layer ``l``: place 0 of its program adds to ``NOW`` of the target ``l + distance``, which is then asked
for (the place is not used where there is no such target; it has no rows where no source feeds it at that distance). The
places from 1 to that with ``last`` follow. An operation adds, for every word, the rows of the gate's ranks, shifted
left by ``rank_shifts[rank] + shift``. Where the choice is not known (``NOW``: not recorded; others: never recorded in
this sequence) it adds nothing, but still begins and finishes:

* ``begins``: the sum counts as 0 before: 1: in every token; 2: in the sequence's first one.
* ``finishes``: of ``fresh``: nothing more is added in this token, so it enters the decayed sum (0 before the sequence's
  first token), which enters the next token's trail; ``starts``: as the first to do so: the trail counts as 0 before.

**The text**: record ``r`` of the log is, for ``r`` below the number ``T`` of n-gram tables, the token that table ``r``
names; after those, ``T + o``: the token ``o`` after the one that the longest match names. What layer ``l`` chose in it
is added to ``NOW`` of ``l`` by each matched source whose bit is set.

Words hold their fields from the lowest bit on. ``Contents`` are bytes, little-endian.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import CHANCE_BINS, NetworkTables
from predictor.row_network.kernels import distance_of
from predictor.row_network.limits import HeadLimits, NetLimits, check_limit, word_lanes
from predictor.row_network.sources import (
    DECAYED,
    LONGEST,
    MATCHED,
    SAME_TOKEN,
    feeding_layers,
    rank_shifts,
    sources,
)

Integers = TypeVar("Integers", np.int8, np.int32)

OPERATIONS = 64
"""Places of a layer's gate program."""
MATCHED_MAX = 8
IDENTITIES_MAX = 8
DECAYS_MAX = 8
RANKS_MAX = 8
LONGEST_SHIFT = 31

Fields = tuple[tuple[str, int], ...]
"""Names and bits of a word's fields, the lowest first."""

OPERATION: Fields = (
    ("last", 1),
    ("fresh", 1),
    ("index", 3),
    ("target", 8),
    ("rows", 1),
    ("base", 24),
    ("shift", 5),
    ("begins", 2),
    ("finishes", 1),
    ("starts", 1),
)
MATCHED_SUM: Fields = (("base", 24), ("shift", 5))
LAYER: Fields = (
    ("hidden_shift", 5),
    ("score_shift", 5),
    ("adaptation", 5),
    ("bias", 16),
    ("output", 24),
    ("answers", 16),
    ("chances", 24),
)
SETTINGS: Fields = (
    ("layers", 8),
    ("experts", 16),
    ("top_k", 4),
    ("questions", 4),
    ("answers", 16),
    ("words", 8),
    ("distance", 8),
    ("ring", 4),
    ("identities", 4),
    ("trails", 1),
    *((f"rank_shift{rank}", 2) for rank in range(RANKS_MAX)),
    *((f"decay{index}", 4) for index in range(DECAYS_MAX)),
)


class Memory(IntEnum):
    """The memories of a head; each one's number on the load bus and in the image."""

    ROWS = 0
    OUTPUT = 1
    BIAS = 2
    OUTPUT_BIAS = 3
    CHANCES = 4
    GATE_PROGRAM = 5
    MATCHED = 6
    RECORDS = 7
    IDENTITY_SHIFTS = 8
    LAYERS = 9
    SETTINGS = 10


class Begins(IntEnum):
    """When a sum counts as 0 before an operation."""

    NEVER = 0
    EVERY_TOKEN = 1
    FIRST_TOKEN = 2


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a gate program.

    Attributes:
        fresh: whether it adds to what this token adds to a decayed sum, and not to a sum of the ring.
        index: age in the ring, or the decay.
        target: layer of the sum.
        rows: whether there are rows to add.
        base: word of the memory of rows, of expert 0 and word 0.
        shift: left shift of all rows.
        begins, finishes, starts: as the module says.
    """

    fresh: bool
    index: int
    target: int
    rows: bool = False
    base: int = 0
    shift: int = 0
    begins: Begins = Begins.NEVER
    finishes: bool = False
    starts: bool = False


@dataclass(frozen=True, kw_only=True)
class MatchedSum:
    """What a matched source adds to its target: rows from word ``base`` on, shifted left by ``shift``."""

    base: int
    shift: int


@dataclass(frozen=True, kw_only=True)
class LayerBases:
    """A layer's shifts, and where its words begin (``LAYER``)."""

    hidden_shift: int
    score_shift: int
    adaptation: int
    bias: int
    output: int
    answers: int
    chances: int


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What a head's unit must know besides its memories.

    Attributes:
        layers, experts, top_k, questions: shape.
        words: of a row.
        distance: the lookahead that the program was made for.
        ring: sums of the ring.
        identities: tokens whose identity feeds a target.
        rank_shifts: left shift of each rank's row.
        decays: shift of each decayed sum.
    """

    layers: int
    experts: int
    top_k: int
    questions: int
    words: int
    distance: int
    ring: int
    identities: int
    rank_shifts: tuple[int, ...]
    decays: tuple[int, ...]

    @property
    def answers(self) -> int:
        """Answers of a layer."""
        return self.questions * self.experts

    def fields(self) -> dict[str, int]:
        """The fields of ``SETTINGS``."""
        simple = {name: getattr(self, name) for name, _ in SETTINGS[:9]}
        simple["trails"] = int(bool(self.decays))
        ranks = {f"rank_shift{rank}": shift for rank, shift in enumerate(self.rank_shifts)}
        return {**simple, **ranks, **{f"decay{index}": shift for index, shift in enumerate(self.decays)}}


@dataclass(frozen=True)
class Contents:
    """What a memory holds from address 0 on.

    Attributes:
        bits: of a word.
        data: u8 ``[words, ceil(bits / 8)]``, little-endian.
    """

    bits: int
    data: NDArray[np.uint8]

    def word(self, address: int) -> int:
        """The word at ``address``."""
        return int.from_bytes(self.data[address].tobytes(), "little")


@dataclass(frozen=True)
class HeadProgram:
    """A head, as it is loaded.

    Attributes:
        settings: what its unit must know.
        gates: operations of each layer; place 0 is used where ``layer + distance`` is a layer.
        matched: for each layer, of each matched source.
        records: for each record of the log, a bit for each matched source that reads it.
        identity_shifts: u8 ``[layers, identities]``.
        layers: of each layer.
        rows, output: i8 ``[words, lanes]``.
        bias: i32 ``[words, lanes]``.
        output_bias: i32 ``[layers · answers]``.
        chances: u16 ``[layers · questions · CHANCE_BINS]``.
    """

    settings: HeadSettings
    gates: tuple[tuple[Operation, ...], ...]
    matched: tuple[tuple[MatchedSum, ...], ...]
    records: tuple[int, ...]
    identity_shifts: NDArray[np.uint8]
    layers: tuple[LayerBases, ...]
    rows: NDArray[np.int8]
    output: NDArray[np.int8]
    bias: NDArray[np.int32]
    output_bias: NDArray[np.int32]
    chances: NDArray[np.uint16]

    @property
    def lanes(self) -> int:
        """Lanes of a word."""
        return self.rows.shape[1]

    def contents(self) -> dict[Memory, Contents]:
        """What every memory holds."""
        layers = self.settings.layers
        gates = np.zeros((layers, OPERATIONS, _bytes(OPERATION)), np.uint8)
        matched = np.zeros((layers, MATCHED_MAX, _bytes(MATCHED_SUM)), np.uint8)
        for layer in range(layers):
            for place, operation in enumerate(self.gates[layer]):
                fields = {**vars(operation), "last": place == len(self.gates[layer]) - 1}
                gates[layer, place] = pack(OPERATION, fields)
            for source, found in enumerate(self.matched[layer]):
                matched[layer, source] = pack(MATCHED_SUM, vars(found))
        shifts = np.zeros((layers, IDENTITIES_MAX), np.uint8)
        shifts[:, : self.identity_shifts.shape[1]] = self.identity_shifts
        return {
            Memory.ROWS: _contents(self.rows),
            Memory.OUTPUT: _contents(self.output),
            Memory.BIAS: _contents(self.bias),
            Memory.OUTPUT_BIAS: _contents(self.output_bias[:, None]),
            Memory.CHANCES: _contents(self.chances[:, None]),
            Memory.GATE_PROGRAM: Contents(_bits(OPERATION), gates.reshape(-1, gates.shape[-1])),
            Memory.MATCHED: Contents(_bits(MATCHED_SUM), matched.reshape(-1, matched.shape[-1])),
            Memory.RECORDS: Contents(MATCHED_MAX, np.array(self.records, np.uint8).reshape(-1, 1)),
            Memory.IDENTITY_SHIFTS: Contents(5, shifts.reshape(-1, 1)),
            Memory.LAYERS: Contents(_bits(LAYER), np.stack([pack(LAYER, vars(layer)) for layer in self.layers])),
            Memory.SETTINGS: Contents(_bits(SETTINGS), pack(SETTINGS, self.settings.fields())[None]),
        }

    def check_limits(self, limits: NetLimits, head: int, *, origin: str) -> None:
        """Raise unless a net of these ``limits`` holds this as its ``head``.

        Raises:
            ForestageError: naming the origin, what exceeds a limit, and the remedy.
        """
        own: HeadLimits = limits.heads[head]
        if self.lanes != limits.word_lanes(head):
            raise ForestageError(
                f"{origin}: words of {self.lanes} lanes, the generated net's have {limits.word_lanes(head)}; make the "
                "program for them"
            )
        settings = self.settings
        if head == 1 and settings.distance:
            raise ForestageError(
                f"{origin}: next-use is asked {settings.distance} layers ahead; the net asks it when its own gate is "
                "known: give one of lookahead 0"
            )
        if head == 1 and settings.identities:
            raise ForestageError(
                f"{origin}: next-use looks at rows of identity, which the net adds to next-layer's sums alone; train "
                "it with identities=0"
            )
        longest = max(max(map(len, self.gates)), 2)
        needed = (
            (settings.layers, limits.layers, "layers"),
            (settings.experts, limits.experts, "experts"),
            (settings.top_k, limits.top_k, "top_k"),
            (len(self.records), limits.records, "records of the log"),
            (settings.words * self.lanes, limits.words(head) * self.lanes, "hidden (in whole words)"),
            (settings.questions, own.questions, "questions"),
            (len(self.rows), own.row_words, "words of rows"),
            (longest, own.operations, "operations of a gate"),
            (settings.ring - 1, own.previous, "previous tokens"),
            (len(settings.decays), own.decays, "decays"),
            (settings.identities, own.identities, "identities"),
            (len(self.matched[0]), own.matched, "sources of the log"),
        )
        for value, limit, what in needed:
            check_limit(value, limit, what, origin=origin)


def head_program(
    tables: NetworkTables, config: NetworkConfig, *, top_k: int, ranked: bool, distance: int, lanes: int, origin: str
) -> HeadProgram:
    """The program of a network that is asked at ``distance``, for a net of so many ``lanes``.

    Raises:
        ForestageError: where the network does not serve the distance, or has more of something than the words hold.
    """
    config.check_serves(distance, origin)
    layers, experts, hidden, questions = tables.layers, tables.experts, tables.hidden, config.questions
    every = sources(config)
    ranks = rank_shifts(top_k, ranked)
    ring = max(1, len(config.previous)) + 1
    width = word_lanes(hidden, lanes)
    words = -(-hidden // width)
    matched = [index for index, source in enumerate(every) if source.age == MATCHED and config.looks_for_matches]
    for value, limit, what in (
        (top_k, RANKS_MAX, "top_k"),
        (ring, 8, "ring of sums"),
        (len(config.decays), DECAYS_MAX, "decays"),
        (len(matched), MATCHED_MAX, "sources of the log"),
        (int(tables.source_shifts.max(initial=0)) + max(ranks), LONGEST_SHIFT, "shift of a row"),
        (layers, 128, "layers"),
    ):
        check_limit(value, limit, what, origin=origin)
    bases, rows = _place_rows(tables, config, width, words)
    gates = tuple(
        _gate(tables, config, bases, layer=layer, distance=distance, ring=ring, origin=origin)
        for layer in range(layers)
    )
    asked = [distance_of(target, distance, config.nearest) for target in range(layers)]
    answers = questions * experts
    # [layers, answers, words, lanes]
    output = _padded(tables.output.transpose(0, 2, 1), width, words)
    return HeadProgram(
        settings=HeadSettings(
            layers=layers, experts=experts, top_k=top_k, questions=questions, words=words, distance=distance,
            ring=ring, identities=config.identities, rank_shifts=ranks,
            decays=tuple(shift for shift, _ in config.decays),
        ),
        gates=gates,
        matched=tuple(
            tuple(
                MatchedSum(base=bases[layer, index], shift=int(tables.source_shifts[layer, index])) for index in matched
            )
            for layer in range(layers)
        ),
        records=_records(config, matched),
        identity_shifts=tables.identity_shifts,
        layers=tuple(
            LayerBases(
                hidden_shift=int(tables.hidden_shifts[layer]),
                score_shift=int(tables.score_shifts[layer]),
                adaptation=int(tables.adaptations[layer]),
                bias=layer * words,
                output=layer * answers * words,
                answers=layer * answers,
                chances=layer * questions * CHANCE_BINS,
            )
            for layer in range(layers)
        ),
        rows=rows,
        output=output.reshape(-1, width),
        bias=_padded(tables.bias[np.arange(layers), asked], width, words).reshape(-1, width),
        output_bias=tables.output_bias.reshape(-1),
        chances=tables.chances[np.arange(layers), asked].reshape(-1),
    )  # fmt: skip


def pack(fields: Fields, values: dict[str, int]) -> NDArray[np.uint8]:
    """A word of ``fields`` as bytes; fields without a value are 0."""
    word, at = 0, 0
    for name, bits in fields:
        value = int(values.get(name, 0))
        if not 0 <= value < 1 << bits:
            raise AssertionError(f"{name} {value}: not of {bits} bits")
        word |= value << at
        at += bits
    return np.frombuffer(word.to_bytes(-(-at // 8), "little"), np.uint8)


def unpack(fields: Fields, word: int) -> dict[str, int]:
    """The fields of a word."""
    values = {}
    for name, bits in fields:
        values[name] = word & ((1 << bits) - 1)
        word >>= bits
    return values


def _place_rows(
    tables: NetworkTables, config: NetworkConfig, width: int, words: int
) -> tuple[dict[tuple[int, int], int], NDArray[np.int8]]:
    """Base of each (target, source) that exists, and all rows i8 ``[words, width]``."""
    present = feeding_layers(config, layers=tables.layers) >= 0
    bases, parts = {}, []
    at = 0
    for target, source in np.argwhere(present).tolist():
        bases[target, source] = at
        parts.append(_padded(tables.rows[target, source], width, words).swapaxes(0, 1).reshape(-1, width))
        at += len(parts[-1])
    return bases, np.concatenate(parts) if parts else np.zeros((0, width), np.int8)


def _padded(array: NDArray[Integers], width: int, words: int) -> NDArray[Integers]:
    """``[…, hidden]`` as ``[…, words, width]``, padded with zeros."""
    padded = np.zeros((*array.shape[:-1], words * width), array.dtype)
    padded[..., : array.shape[-1]] = array
    return padded.reshape(*array.shape[:-1], words, width)


def _gate(
    tables: NetworkTables,
    config: NetworkConfig,
    bases: dict[tuple[int, int], int],
    *,
    layer: int,
    distance: int,
    ring: int,
    origin: str,
) -> tuple[Operation, ...]:
    """The operations of one layer's gate: the one asked for, those that finish a decayed sum, all others.

    What finishes comes early, for a sum can be asked for only some cycles after its trail has changed (``cycles``).
    """
    layers = tables.layers
    asked = Operation(fresh=False, index=0, target=min(layer + distance, layers - 1))
    finishing: list[Operation] = []
    others: list[Operation] = []
    for index, source in enumerate(sources(config)):
        target = layer - source.offset
        if source.age == MATCHED or not 0 <= target < layers:
            continue
        own: dict[str, Any] = {
            "target": target,
            "rows": True,
            "base": bases[target, index],
            "shift": int(tables.source_shifts[target, index]),
        }
        if source.age == SAME_TOKEN:
            operation = Operation(fresh=False, index=0, **own)
            if target == layer + distance:
                asked = operation
            else:
                others.append(operation)
        elif source.age == DECAYED:
            reach = config.decays[source.index][1]
            begins = Begins.EVERY_TOKEN if layer == max(0, target - reach) else Begins.NEVER
            finishes = layer == _finished_at(target, reach, layers)
            starts = finishes and source.index == _first_to_finish(config, target, layers)
            operation = Operation(
                fresh=True, index=source.index, begins=begins, finishes=finishes, starts=starts, **own
            )
            (finishing if finishes else others).append(operation)
        else:
            below, _ = config.previous[source.age - 1]
            first = layer == max(0, target - below)
            oldest = source.age == ring - 1
            begins = Begins.NEVER if not first else Begins.EVERY_TOKEN if oldest else Begins.FIRST_TOKEN
            others.append(Operation(fresh=False, index=source.age, begins=begins, **own))
    if not config.previous:
        others.append(Operation(fresh=False, index=1, target=layer, begins=Begins.EVERY_TOKEN))
    gate = (asked, *sorted(finishing, key=lambda operation: operation.index), *others)
    check_limit(len(gate), OPERATIONS, f"operations of layer {layer}'s gate", origin=origin)
    return gate


def _finished_at(target: int, reach: int, layers: int) -> int:
    """The last gate of a token that feeds a decayed sum."""
    return min(layers - 1, target + reach)


def _first_to_finish(config: NetworkConfig, target: int, layers: int) -> int:
    """The decay whose sum of ``target`` is finished first in a token; those of one gate in their order."""
    order = [(_finished_at(target, reach, layers), index) for index, (_, reach) in enumerate(config.decays)]
    return min(order)[1]


def _records(config: NetworkConfig, matched: Sequence[int]) -> tuple[int, ...]:
    """For each record of the log, a bit for each matched source that reads it."""
    every = sources(config)
    tables = len(config.ngram_tables)
    found: dict[int, int] = {}
    for place, index in enumerate(matched):
        source = every[index]
        for after in range(source.first, source.last + 1):
            record = tables + after if source.index == LONGEST else source.index
            found[record] = found.get(record, 0) | 1 << place
    return tuple(found.get(record, 0) for record in range(max(found, default=0) + 1))


def _bits(fields: Fields) -> int:
    return sum(bits for _, bits in fields)


def _bytes(fields: Fields) -> int:
    return -(-_bits(fields) // 8)


def _contents(array: NDArray[Any]) -> Contents:
    """Words of ``[words, entries]``, the first entry lowest."""
    data = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).view(np.uint8)
    data = data.reshape(len(array), array.shape[1] * array.dtype.itemsize)
    return Contents(8 * data.shape[1], data)
