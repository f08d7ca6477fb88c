"""The integers of a row network: what the hardware holds, in which units, how wide and how many bytes.

All of a layer's sums are in the layer's own unit. With ``A`` the accumulator ``[hidden]`` of a target layer, and ``d``
the lookahead at which it is asked:

    A = Σ_sources (Σ_ranks row[expert] << rank_shift) << source_shift + Σ_identities row[token] << identity_shift
    h = min(255, max(0, A + bias[d] + half) >> hidden_shift)              u8 [hidden]
    score = clip((h · output + output_bias + half) >> score_shift + 2048 + a >> adaptation, 1, 4095)
    chance = chances[d, question, score >> CHANCE_SHIFT]                  u16, 65535 being certainty

where a decayed source enters as its state ``D`` of the end of the previous token (``FRACTION_BITS`` fractional bits):

    x = Σ_offsets (Σ_ranks row[expert] << rank_shift) << source_shift
    D += ((x << FRACTION_BITS) − D + half) >> decay           after each token; 0 at the start of a sequence
    A += (D + half) >> (FRACTION_BITS − decay // 2)

``half`` rounds: it is half of what the shift that follows removes. No accumulator saturates (``check_widths``). A sum
fills as gates become known, so a target may be asked at any lookahead that the network serves: the rows of gates that
are not known yet are not in ``A`` yet. Before layer 0 no gate is known, which is lookahead ``l + 1`` of layer ``l``.

The memory of the text lies in far memory, for each sequence: *n-gram tables* and a *log*. With ``t`` the tokens'
identities (u32), this one's being ``t[0]``, the table of ``n`` tokens is read and written at

    key = 0;  for age = n − 1 … 0:  key = rotate_left(key, KEY_ROTATION) ^ t[age]
    entry = key mod ngram_entries

An entry holds a key and the position, in the sequence, of the latest token that had it. If it was written in this
sequence under this very key, it *names* that token; then this token takes the entry. A sequence of fewer than n tokens,
or with one of unknown identity among the last n, looks nothing up and writes nothing. The log is a ring of the choices
of the newest ``log_tokens`` tokens, this one being one of them. A matched source adds the rows of what the target layer
chose in the tokens ``first … last`` after the named one that are older than this token and still in the log, an expert
twice where it was chosen twice. Where ``ngram_by`` is ``routing``, layer 0's choice stands for the identity, as
``XOR over its ids of (id + 1) · TOKEN_MULTIPLIER mod 2^32``: all of this happens when that gate is known, and a target
asked before knows nothing of it.

What was not recorded feeds nothing in its own token, nor from the log; as a layer of a previous token, and in the
decayed sums, the last recorded choice stands in.

A layer that adapts while decoding (``adaptation`` > 0) moves each expert's ``a`` by how wrong its chance was:

    a = clip(a + 65535 · [chosen] − chance, ± ADAPTED_LIMIT)              0 at the start of a sequence
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.row_network.config import NetworkConfig
from predictor.row_network.sources import DECAYED, feeding_layers, log_window, rank_shifts, sources

FRACTION_BITS = 8
KEY_ROTATION = 7
TOKEN_MULTIPLIER = 0x9E3779B1
"""2^32 over the golden ratio, made odd: spreads small numbers over 32 bits (Knuth's multiplicative hashing)."""
BEAT_BYTES = 64
"""Far memory is read and written in beats of 512 bits; a record of the log begins on one."""
ENTRY_BYTES = 16
"""Of an n-gram table's entry: key, position, and the number of the slot's sequence that wrote it, u32 each, in a power
of two."""
HIDDEN_MAX = 255
SCORE_ZERO = 2048
"""The score of even odds before calibration: a log-odds of 0."""
SCORE_STEPS = 128.0
"""Steps of the score a unit of log-odds has, up to the rounding of a shift: the scale spans ± 16."""
SCORE_MIN, SCORE_MAX = 1, 4095
CHANCE_BINS = 256
CHANCE_SHIFT = 4
"""A score's entry in the table of chances is ``score >> CHANCE_SHIFT``."""
CERTAIN = 65535
ADAPTED_LIMIT = 2**24 - 1

ACCUMULATOR_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class NetworkTables:
    """Every integer of a network; ``L`` layers, ``S`` sources, ``N`` experts, ``H`` hidden, ``I`` identities, ``D``
    lookaheads served, ``Q`` questions.

    Attributes:
        rows: i8 ``[L, S, N, H]``; zero where the source's layer does not exist.
        source_shifts: u8 ``[L, S]``.
        bias: i32 ``[L, D, H]``.
        identity_rows: i8 ``[R, I, L, H]``: all rows of one token lie together, one burst of far memory.
        identity_shifts: u8 ``[L, I]``.
        identity_tokens: u32 ``[R − 1]`` ascending: the token hash of each row but the last, which is for all others.
        hidden_shifts: u8 ``[L]``.
        output: i8 ``[L, H, Q · N]``, all experts of the first question first.
        output_bias: i32 ``[L, Q · N]``.
        score_shifts: u8 ``[L]``.
        adaptations: u8 ``[L]``; 0: the layer does not adapt.
        chances: u16 ``[L, D, Q, CHANCE_BINS]``, in units of 1/65535.
    """

    rows: NDArray[np.int8]
    source_shifts: NDArray[np.uint8]
    bias: NDArray[np.int32]
    identity_rows: NDArray[np.int8]
    identity_shifts: NDArray[np.uint8]
    identity_tokens: NDArray[np.uint32]
    hidden_shifts: NDArray[np.uint8]
    output: NDArray[np.int8]
    output_bias: NDArray[np.int32]
    score_shifts: NDArray[np.uint8]
    adaptations: NDArray[np.uint8]
    chances: NDArray[np.uint16]

    @property
    def layers(self) -> int:
        """Number of target layers."""
        return self.rows.shape[0]

    @property
    def hidden(self) -> int:
        """Width of the sums."""
        return self.rows.shape[3]

    @property
    def experts(self) -> int:
        """Experts a layer."""
        return self.rows.shape[2]


NAMES = tuple(NetworkTables.__dataclass_fields__)


def expected_shapes(
    config: NetworkConfig, *, layers: int, experts: int, questions: int | None = None
) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """dtype and shape of every table of a network of this configuration; ``questions``: where it does not say."""
    questions = config.questions if questions is None else questions
    count, hidden, rows, identities = len(sources(config)), config.hidden, config.identity_rows, config.identities
    outputs = questions * experts
    return {
        "rows": (np.int8, (layers, count, experts, hidden)),
        "source_shifts": (np.uint8, (layers, count)),
        "bias": (np.int32, (layers, config.distances, hidden)),
        "identity_rows": (np.int8, (rows, identities, layers, hidden)),
        "identity_shifts": (np.uint8, (layers, identities)),
        "identity_tokens": (np.uint32, (max(0, rows - 1),)),
        "hidden_shifts": (np.uint8, (layers,)),
        "output": (np.int8, (layers, hidden, outputs)),
        "output_bias": (np.int32, (layers, outputs)),
        "score_shifts": (np.uint8, (layers,)),
        "adaptations": (np.uint8, (layers,)),
        "chances": (np.uint16, (layers, config.distances, questions, CHANCE_BINS)),
    }


def check_shapes(tables: NetworkTables, config: NetworkConfig, *, origin: str) -> None:
    """Raise unless every table has the shape that the configuration says, and every shift is one.

    Raises:
        ForestageError: naming the origin and the table.
    """
    if tables.rows.ndim != 4:
        raise ForestageError(f"{origin}: rows: not [layers, sources, experts, hidden]; train it anew")
    for name, (dtype, shape) in expected_shapes(config, layers=tables.layers, experts=tables.experts).items():
        array = getattr(tables, name)
        if array.dtype != dtype or array.shape != shape:
            raise ForestageError(
                f"{origin}: {name}: {array.dtype} {list(array.shape)} where its configuration says "
                f"{np.dtype(dtype)} {list(shape)}; export or train it anew"
            )
    if np.any(np.diff(tables.identity_tokens.astype(np.int64)) <= 0):
        raise ForestageError(f"{origin}: identity_tokens: not ascending; export or train it anew")
    for name in ("source_shifts", "identity_shifts", "hidden_shifts", "score_shifts", "adaptations"):
        if getattr(tables, name).max(initial=0) > 30:
            raise ForestageError(f"{origin}: {name}: a shift beyond 30; export or train it anew")
    if config.questions > 1 and tables.adaptations.any():
        raise ForestageError(f"{origin}: adaptations: not 0 where several questions are asked; train it anew")


def check_widths(tables: NetworkTables, config: NetworkConfig, *, top_k: int, ranked: bool, origin: str) -> int:
    """Bits of the widest accumulator, sign included; what the hardware must provide.

    Raises:
        ForestageError: if an accumulator could exceed 32 bits.
    """
    per_event = sum(1 << shift for shift in rank_shifts(top_k, ranked))
    every = sources(config)
    sums = _magnitude(tables.rows, 2).astype(object) * per_event  # [L, S, H]
    sums = sums * (1 << tables.source_shifts.astype(np.int64))[:, :, None]
    total = np.abs(tables.bias.astype(np.int64)).max(axis=1).astype(object)
    widest = 0
    for index, source in enumerate(every):
        gain = source.last - source.first + 1
        if source.age == DECAYED:
            decay, reach = config.decays[source.index]
            gain = 1 << (decay // 2)
            widest = max(widest, int(sums[:, index].max(initial=0)) * (1 + 2 * reach) << (FRACTION_BITS + 1))
        total = total + sums[:, index] * gain
    if config.identities:
        identity = _magnitude(tables.identity_rows, 0).transpose(1, 0, 2)  # [L, I, H]
        total = total + (identity << tables.identity_shifts.astype(np.int64)[:, :, None]).sum(axis=1)
    widest = max(widest, int(total.max(initial=0)) + (1 << int(tables.hidden_shifts.max())))
    outputs = np.abs(tables.output.astype(np.int64)).sum(axis=1) * HIDDEN_MAX + np.abs(
        tables.output_bias.astype(np.int64)
    )
    widest = max(widest, int(outputs.max()) + (1 << int(tables.score_shifts.max())))
    if widest > ACCUMULATOR_LIMIT:
        raise ForestageError(
            f"{origin}: an accumulator may reach {widest}, beyond 32 bits; use less context or a smaller shift"
        )
    return widest.bit_length() + 1


def _magnitude(rows: NDArray[np.int8], axis: int) -> NDArray[np.int64]:
    """Largest magnitude along an axis, without a wider copy of all rows."""
    return np.maximum(rows.max(axis=axis).astype(np.int64), -rows.min(axis=axis).astype(np.int64))


@dataclass(frozen=True)
class TableBytes:
    """Memory of a network.

    Attributes:
        sram_per_layer: bytes on chip for each layer: rows of sources that exist, output matrix, biases, shifts and
            chances; the largest is what a bank must hold.
        state_per_slot_layer: bytes of accumulators and decayed sums (32-bit words), of identity rows and records of the
            log that were read, and of adapted biases (where ``adapts``), for one sequence and layer.
        identity_bytes: far memory for the rows of token identity, each of whole beats.
        burst_bytes: of them, what is fetched for each token.
        record_bytes: of one token in the log, whole beats, an id of ``id_bytes`` for each choice.
        text_per_slot: far memory for the memory of the text of one sequence: n-gram tables and log.
        text_read: of it, read for each token at most: an entry of each table (a beat each), and the records after the
            match (at the match: one for each table).
        text_written: an entry of each table and this token's record.
    """

    sram_per_layer: tuple[int, ...]
    state_per_slot_layer: int
    identity_bytes: int
    burst_bytes: int
    record_bytes: int
    text_per_slot: int
    text_read: int
    text_written: int

    @property
    def sram_largest(self) -> int:
        """Bytes of the largest layer."""
        return max(self.sram_per_layer)

    @property
    def far_per_token(self) -> int:
        """Read from and written to far memory for each token, at most."""
        return self.burst_bytes + self.text_read + self.text_written


def id_bytes(experts: int) -> int:
    """Bytes of an id in the log; the largest value of so many stands for *not recorded*."""
    return 1 if experts < 256 else 2


def table_bytes(config: NetworkConfig, *, layers: int, experts: int, top_k: int, adapts: bool) -> TableBytes:
    """Memory that tables of this configuration take."""
    present = (feeding_layers(config, layers=layers) >= 0).sum(axis=1)
    hidden, outputs = config.hidden, config.questions * experts
    every = sources(config)
    fixed = hidden * outputs + 4 * hidden * config.distances + 4 * outputs
    fixed += 2 * CHANCE_BINS * config.distances * config.questions + len(every) + config.identities + 3
    burst = config.identities * layers * -(-hidden // BEAT_BYTES) * BEAT_BYTES * bool(config.identity_rows)
    sums = 1 + len(config.previous) + 2 * len(config.decays)
    tables = len(config.ngram_tables) * config.looks_for_matches
    beats = -(-layers * top_k * id_bytes(experts) // BEAT_BYTES)
    record = beats * BEAT_BYTES * bool(tables)
    records = _records(config) * bool(tables)
    held = records * top_k * id_bytes(experts)
    return TableBytes(
        sram_per_layer=tuple(int(count) * experts * hidden + fixed for count in present),
        state_per_slot_layer=4 * hidden * sums + max(0, config.identities - 1) * hidden + held + 4 * experts * adapts,
        identity_bytes=config.identity_rows * burst,
        burst_bytes=burst,
        record_bytes=record,
        text_per_slot=-(-tables * config.ngram_entries * ENTRY_BYTES // BEAT_BYTES) * BEAT_BYTES
        + config.log_tokens * record,
        text_read=tables * BEAT_BYTES + records * record,
        text_written=tables * BEAT_BYTES + record,
    )


def _records(config: NetworkConfig) -> int:
    """Records of the log that a token reads at most: one run after the longest match, and one at each other match."""
    first, last = log_window(config)
    if last < first:
        return 0
    if not config.continuation_windows:
        return len(config.ngram_tables)
    return last - first + 1 + (len(config.ngram_tables) - 1) * config.at_match
