"""The integers of a next-use predictor, and what they mean.

For target layer ``l`` (symbols as in the arrays below, all sums exact in 32 bits):

    history[g] ← history[g] − (history[g] >> shift_g) + Σ rows of the sources of group g << FRACTION_BITS
    z = bias + Σ rows of the sources without a group + Σ_g (history[g] >> (FRACTION_BITS + shift_g − gain_g))
    a = min(255, max(0, z) >> activation_shift)
    score = clip((output · a + output_bias) >> output_shift, −128, 127), a logit in units of 1 / SCORE_UNITS
    chance = CHANCES[score + 128], 255 being certainty
    priority = Σ over the horizons of chance

``>>`` rounds down. ``history`` starts a sequence at 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.learned.tables import BEAT_BYTES, id_bytes
from predictor.next_use.parameters import NextUseParameters
from predictor.next_use.sources import as_arrays, sources_of

FRACTION_BITS = 8
ENTRY_BYTES = 16
"""Of a context table's entry: key, position, and the number of the slot's sequence that wrote it, u32 each, in a power
of two."""
MAX_GAIN = 8
SCORE_UNITS = 16
CERTAIN = 255

CHANCES: NDArray[np.int32] = np.round(CERTAIN / (1 + np.exp(-np.arange(-128, 128) / SCORE_UNITS))).astype(np.int32)
"""Chance of each score, the logistic function: i32 ``[256]``."""

ARRAYS = {
    "rows": np.int8,
    "bias": np.int32,
    "gain": np.int8,
    "activation_shift": np.int8,
    "output": np.int8,
    "output_bias": np.int32,
    "output_shift": np.int8,
}
"""Names and dtypes, as in the file."""


def check_histories(parameters: NextUseParameters, top_k: int) -> None:
    """Raise unless every history fits 32 bits, whatever the rows.

    Raises:
        ForestageError: naming the shift.
    """
    groups = as_arrays(sources_of(parameters))
    for group, shift in enumerate(groups.shifts):
        chosen = int((groups.group == group).sum()) * top_k
        if chosen * 128 << (FRACTION_BITS + int(shift)) >= 1 << 31:
            raise ForestageError(
                f"history shift {shift}: rows of {chosen} experts a token overflow 32 bits; choose a smaller one"
            )


@dataclass(frozen=True)
class FarMemory:
    """Far memory for what followed, in whole beats where it is moved.

    Attributes:
        held_bytes: context tables and log of one sequence.
        read_bytes: a token, at most: an entry of each context table, and the records after the match.
        written_bytes: a token: an entry of each context table, and its own record.
    """

    held_bytes: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class NextUseTables:
    """The integers of all layers.

    Attributes:
        parameters: the shape.
        layers, experts, top_k: of the model.
        rows: i8 ``[layers, sources, experts, hidden]``.
        bias: i32 ``[layers, hidden]``.
        gain: i8 ``[layers, groups]``, at most ``MAX_GAIN``.
        activation_shift: i8 ``[layers]``.
        output: i8 ``[layers, horizons · experts, hidden]``, all experts of the first horizon first.
        output_bias: i32 ``[layers, horizons · experts]``.
        output_shift: i8 ``[layers]``.

    Raises:
        ForestageError: for an array of another shape or dtype, or a shift or sum out of range.
    """

    parameters: NextUseParameters
    layers: int
    experts: int
    top_k: int
    rows: NDArray[np.int8]
    bias: NDArray[np.int32]
    gain: NDArray[np.int8]
    activation_shift: NDArray[np.int8]
    output: NDArray[np.int8]
    output_bias: NDArray[np.int32]
    output_shift: NDArray[np.int8]

    def __post_init__(self) -> None:
        for name, shape in self.shapes(self.parameters, self.layers, self.experts).items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != ARRAYS[name]:
                raise ForestageError(
                    f"{name}: {array.dtype} {list(array.shape)}, not {np.dtype(ARRAYS[name])} {list(shape)}; train anew"
                )
        for name, low, high in (
            ("gain", -16, MAX_GAIN),
            ("activation_shift", 0, 24),
            ("output_shift", 0, 30),
        ):
            array = getattr(self, name)
            if array.size and not low <= array.min() <= array.max() <= high:
                raise ForestageError(f"{name}: outside {low}…{high}; train anew")
        for bias in ("bias", "output_bias"):
            if np.abs(getattr(self, bias).astype(np.int64)).max() > 1 << 29:
                raise ForestageError(f"{bias}: outside ±2^29; train anew")
        check_histories(self.parameters, self.top_k)

    @staticmethod
    def shapes(parameters: NextUseParameters, layers: int, experts: int) -> dict[str, tuple[int, ...]]:
        """Shape of every array."""
        sources = sources_of(parameters)
        hidden, scores = parameters.hidden, len(parameters.horizons) * experts
        return {
            "rows": (layers, len(sources), experts, hidden),
            "bias": (layers, hidden),
            "gain": (layers, len(as_arrays(sources).shifts)),
            "activation_shift": (layers,),
            "output": (layers, scores, hidden),
            "output_bias": (layers, scores),
            "output_shift": (layers,),
        }

    @property
    def layer_bytes(self) -> int:
        """SRAM of one layer: tables, and of one sequence the histories' 32-bit state and what followed."""
        tables = sum(getattr(self, name).nbytes for name in ARRAYS) // self.layers
        followed = self._records * self.top_k * id_bytes(self.experts)
        return tables + 4 * self.gain.shape[1] * self.parameters.hidden + followed

    @property
    def far_memory(self) -> FarMemory:
        """What one sequence takes of it."""
        contexts = len(self.parameters.contexts) if self.parameters.looks_at_identity else 0
        beats = -(-self.layers * self.top_k * id_bytes(self.experts) // BEAT_BYTES)
        record = beats * BEAT_BYTES * (contexts > 0)
        return FarMemory(
            held_bytes=contexts * self.parameters.context_entries * ENTRY_BYTES + self.parameters.log_tokens * record,
            read_bytes=contexts * BEAT_BYTES + self._records * record,
            written_bytes=contexts * BEAT_BYTES + record,
        )

    @property
    def _records(self) -> int:
        """Tokens after the match that are read: one run, from the first of any window to the last of any."""
        windows = self.parameters.follow if self.parameters.looks_at_identity else ()
        return max(last for _, last in windows) - min(first for first, _ in windows) + 1 if windows else 0
