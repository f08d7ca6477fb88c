"""The integer tables of a learned predictor: what the hardware holds, in which units, and how many bytes.

All of a layer's sums are in the layer's own unit. With ``A`` the accumulator ``[hidden]`` of a target layer:

    A = bias + Σ_sources (Σ_ranks row[expert] << rank_shift) << source_shift + Σ_identities row[token] << identity_shift
    h = min(255, max(0, A + half) >> hidden_shift)                        u8 [hidden]
    score = clip((h · output + output_bias + half) >> score_shift + 2048 + a >> adaptation, 1, 4095)

where a decayed source enters as its state ``D`` of the end of the previous token (``FRACTION_BITS`` fractional bits):

    x = Σ_offsets (Σ_ranks row[expert] << rank_shift) << source_shift
    D += ((x << FRACTION_BITS) − D + half) >> decay           after each token; 0 at the start of a sequence
    A += (D + half) >> (FRACTION_BITS − decay // 2)

A tagged source is a row sum like any other. Which token's choice it adds, a direct-mapped table in far memory says,
one of ``tagged_entries`` entries for each slot. With ``t`` the tokens' identities (u32), this one's being ``t[0]``:

    key = 0;  for age = n − 1 … 0:  key = rotate_left(key, KEY_ROTATION) ^ t[age]
    entry = key mod tagged_entries

If the entry was written in this sequence and under this key, what it holds of layer ``l`` feeds target ``l``; then
this token's key and choices take the entry. A sequence of fewer than n tokens, or with one of unknown identity among
the last n, looks nothing up and writes nothing. Where ``tagged_by`` is ``routing``, layer 0's choice stands for the
identity, as ``XOR over its ids of (id + 1) · TOKEN_MULTIPLIER mod 2^32``, and feeds targets at or above the lookahead.

A layer that adapts while decoding (``adaptation`` > 0) moves each expert's ``a`` by how wrong its probability was:

    a = clip(a + 65535 · [chosen] − probabilities[score >> PROBABILITY_SHIFT], ± ADAPTED_LIMIT)    0 at the start

``half`` rounds: it is half of what the shift that follows removes. No accumulator saturates (``check_widths``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.learned.config import LearnedConfig
from predictor.learned.context import DECAYED, rank_shifts, sources

FRACTION_BITS = 8
KEY_ROTATION = 7
TOKEN_MULTIPLIER = 0x9E3779B1
"""2^32 over the golden ratio, made odd: spreads small numbers over 32 bits (Knuth's multiplicative hashing)."""
BEAT_BYTES = 64
"""Far memory is read and written in beats of 512 bits; an entry of a tagged table begins on one."""
ENTRY_HEAD_BYTES = 8
"""Of an entry of a tagged table: its key and the number of the slot's sequence that wrote it, u32 each."""
HIDDEN_MAX = 255
SCORE_ZERO = 2048
"""The score of even odds before calibration: a log-odds of 0."""
SCORE_MIN, SCORE_MAX = 1, 4095
PROBABILITY_BINS = 128
PROBABILITY_SHIFT = 5
"""A score's entry in the table of probabilities is ``score >> PROBABILITY_SHIFT``."""
PROBABILITY_ONE = 65535
ADAPTED_LIMIT = 2**24 - 1

ACCUMULATOR_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class LearnedTables:
    """Every integer of a predictor; ``L`` layers, ``S`` sources, ``N`` experts, ``H`` hidden, ``I`` identities.

    Attributes:
        rows: i8 ``[L, S, N, H]``; zero where the source's layer does not exist.
        source_shifts: u8 ``[L, S]``.
        bias: i32 ``[L, H]``.
        identity_rows: i8 ``[R, I, L, H]``: all rows of one token lie together, one burst of far memory.
        identity_shifts: u8 ``[L, I]``.
        identity_tokens: u32 ``[R − 1]`` ascending: the token hash of each row but the last, which is for all others.
        hidden_shifts: u8 ``[L]``.
        output: i8 ``[L, H, N]``.
        output_bias: i32 ``[L, N]``.
        score_shifts: u8 ``[L]``.
        adaptations: u8 ``[L]``; 0: the layer does not adapt.
        probabilities: u16 ``[L, PROBABILITY_BINS]``, in units of 1/65535.
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
    probabilities: NDArray[np.uint16]

    @property
    def layers(self) -> int:
        """Number of target layers."""
        return self.output.shape[0]

    @property
    def hidden(self) -> int:
        """Width of the sums."""
        return self.output.shape[1]

    @property
    def experts(self) -> int:
        """Experts a layer."""
        return self.output.shape[2]


NAMES = tuple(LearnedTables.__dataclass_fields__)


def expected_shapes(
    config: LearnedConfig, *, layers: int, experts: int, lookahead: int
) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """dtype and shape of every table of a predictor of this configuration."""
    count, hidden, rows, identities = (
        len(sources(config, lookahead)), config.hidden, config.identity_rows, config.identities,
    )  # fmt: skip
    return {
        "rows": (np.int8, (layers, count, experts, hidden)),
        "source_shifts": (np.uint8, (layers, count)),
        "bias": (np.int32, (layers, hidden)),
        "identity_rows": (np.int8, (rows, identities, layers, hidden)),
        "identity_shifts": (np.uint8, (layers, identities)),
        "identity_tokens": (np.uint32, (max(0, rows - 1),)),
        "hidden_shifts": (np.uint8, (layers,)),
        "output": (np.int8, (layers, hidden, experts)),
        "output_bias": (np.int32, (layers, experts)),
        "score_shifts": (np.uint8, (layers,)),
        "adaptations": (np.uint8, (layers,)),
        "probabilities": (np.uint16, (layers, PROBABILITY_BINS)),
    }


def check_shapes(
    tables: LearnedTables, config: LearnedConfig, *, layers: int, experts: int, lookahead: int, origin: str
) -> None:
    """Raise unless every table has the shape that the configuration says.

    Raises:
        ForestageError: naming the origin and the table.
    """
    for name, (dtype, shape) in expected_shapes(config, layers=layers, experts=experts, lookahead=lookahead).items():
        array = getattr(tables, name)
        if array.dtype != dtype or array.shape != shape:
            raise ForestageError(
                f"{origin}: {name}: {array.dtype} {list(array.shape)} where its configuration says "
                f"{np.dtype(dtype)} {list(shape)}; export or train it anew"
            )
    if np.any(np.diff(tables.identity_tokens.astype(np.int64)) <= 0):
        raise ForestageError(f"{origin}: identity_tokens: not ascending; export or train it anew")


def feeding_layers(config: LearnedConfig, *, layers: int, lookahead: int) -> NDArray[np.int64]:
    """i64 ``[L, S]``: the layer that feeds each source of each target, −1 where the model has no such layer."""
    layer = np.arange(layers)[:, None] + np.array([source.offset for source in sources(config, lookahead)], np.int64)
    return np.where((layer >= 0) & (layer < layers), layer, -1)


def check_widths(
    tables: LearnedTables, config: LearnedConfig, *, top_k: int, ranked: bool, lookahead: int, origin: str
) -> int:
    """Bits of the widest accumulator, sign included; what the hardware must provide.

    Raises:
        ForestageError: if an accumulator could exceed 32 bits.
    """
    per_event = sum(1 << shift for shift in rank_shifts(top_k, ranked))
    every = sources(config, lookahead)
    sums = _magnitude(tables.rows, 2).astype(object) * per_event  # [L, S, H]
    sums = sums * (1 << tables.source_shifts.astype(np.int64))[:, :, None]
    gains = [1 << (config.decays[source.index] // 2) if source.age == DECAYED else 1 for source in every]
    total = np.abs(tables.bias.astype(object))
    for index, gain in enumerate(gains):
        total = total + sums[:, index] * gain
    if config.identities:
        identity = _magnitude(tables.identity_rows, 0).transpose(1, 0, 2)  # [L, I, H]
        total = total + (identity << tables.identity_shifts.astype(np.int64)[:, :, None]).sum(axis=1)
    widest = int(total.max(initial=0)) + (1 << int(tables.hidden_shifts.max()))
    for index, source in enumerate(every):
        if source.age == DECAYED:
            widest = max(
                widest, int(sums[:, index].max(initial=0)) * (1 + 2 * config.decay_reach) << (FRACTION_BITS + 1)
            )
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
    """Memory of a predictor.

    Attributes:
        sram_per_layer: bytes on chip for each layer: rows of sources that exist, output matrix, biases, shifts and
            probabilities; the largest is what a bank must hold.
        state_per_slot_layer: bytes of accumulators, decayed sums and adapted biases (32-bit words) for one sequence
            and layer.
        identity_bytes: far memory for the rows of token identity.
        burst_bytes: of them, what is fetched for each token.
        entry_bytes: of an entry of a tagged table, whole beats: its head, then an id of ``id_bytes`` for each choice.
        tagged_per_slot: far memory for the tagged tables of one sequence.
        far_per_token: read from and written to far memory for each token: identity rows, an entry of each tagged table
            read and one written.
    """

    sram_per_layer: tuple[int, ...]
    state_per_slot_layer: int
    identity_bytes: int
    burst_bytes: int
    entry_bytes: int
    tagged_per_slot: int
    far_per_token: int

    @property
    def sram_largest(self) -> int:
        """Bytes of the largest layer."""
        return max(self.sram_per_layer)


def id_bytes(experts: int) -> int:
    """Bytes of an id in an entry of a tagged table; the largest value of so many stands for *not recorded*."""
    return 1 if experts < 256 else 2


def table_bytes(config: LearnedConfig, *, layers: int, experts: int, top_k: int, lookahead: int) -> TableBytes:
    """Memory that tables of this configuration take."""
    present = (feeding_layers(config, layers=layers, lookahead=lookahead) >= 0).sum(axis=1)
    hidden = config.hidden
    fixed = hidden * experts + 4 * hidden + 4 * experts + 2 * PROBABILITY_BINS
    fixed += len(sources(config, lookahead)) + config.identities + 3
    burst = config.identities * layers * hidden
    burst *= bool(config.identity_rows)
    sums = 1 + len(config.previous) + 2 * len(config.decays)
    entry = -(-(ENTRY_HEAD_BYTES + layers * top_k * id_bytes(experts)) // BEAT_BYTES) * BEAT_BYTES
    entry *= bool(config.tagged)
    return TableBytes(
        sram_per_layer=tuple(int(count) * experts * hidden + fixed for count in present),
        state_per_slot_layer=4 * hidden * sums + max(0, config.identities - 1) * hidden + 4 * experts,
        identity_bytes=config.identity_rows * burst,
        burst_bytes=burst,
        entry_bytes=entry,
        tagged_per_slot=len(config.tagged) * config.tagged_entries * entry,
        far_per_token=burst + 2 * len(config.tagged) * entry,
    )
