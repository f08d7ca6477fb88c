"""How the correlation table lies in the engine's memory: a row's bits, its words on the bus, its address.

A row holds ``candidates_max`` slots, slot 0 in the lowest bits; a slot is an expert id (``expert_bits``) below a
confidence (``CONFIDENCE_BITS``). A row is padded with zeros to whole 32-bit words, low word first. The row of
``(layer, expert)``, ``layer`` being the *source* layer, lies at address ``layer << expert_bits | expert``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.st_moe.parameters import CONFIDENCE_BITS, CONFIDENCE_MAX, EngineLimits

WORD_BITS = 32


class RowFormat:
    """Packing of rows for an engine's limits.

    Attributes:
        slot_bits: bits of one slot.
        words: 32-bit words of a row.
        bits: bits of a row, padding included.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self.slot_bits = limits.expert_bits + CONFIDENCE_BITS
        self.words = -(-self.slot_bits * limits.candidates_max // WORD_BITS)
        self.bits = self.words * WORD_BITS

    def address(self, layer: int, expert: int) -> int:
        """Address of the row of ``expert`` of source ``layer``."""
        return layer << self.limits.expert_bits | expert

    def pack(self, candidates: NDArray[np.integer[Any]], confidences: NDArray[np.integer[Any]]) -> int:
        """One row ``[candidates_max]`` as an integer of ``bits`` bits."""
        row = 0
        for slot, (expert, confidence) in enumerate(zip(candidates.tolist(), confidences.tolist(), strict=True)):
            row |= (confidence << self.limits.expert_bits | expert) << slot * self.slot_bits
        return row

    def unpack(self, row: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
        """Candidates and confidences ``[candidates_max]`` of a row."""
        slots = [row >> slot * self.slot_bits for slot in range(self.limits.candidates_max)]
        candidates = [slot & (self.limits.experts_max - 1) for slot in slots]
        confidences = [slot >> self.limits.expert_bits & CONFIDENCE_MAX for slot in slots]
        return np.array(candidates, np.int16), np.array(confidences, np.int8)

    def tables(self, image: NDArray[np.uint32]) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
        """Candidates and confidences ``[layers_max, experts_max, candidates_max]`` of an image; undoes ``image``."""
        limits = self.limits
        bits = np.unpackbits(image.astype("<u4").view(np.uint8), axis=1, bitorder="little")
        slots = bits[:, : self.slot_bits * limits.candidates_max].reshape(*self._shape, self.slot_bits)
        values = slots.astype(np.int32) @ (1 << np.arange(self.slot_bits))
        return (values & (limits.experts_max - 1)).astype(np.int16), (values >> limits.expert_bits).astype(np.int8)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.limits.layers_max, self.limits.experts_max, self.limits.candidates_max

    def image(self, candidates: NDArray[np.integer[Any]], confidences: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
        """All rows ``[layers_max, experts_max, candidates_max]`` as words u32 ``[rows, words]``."""
        slots = candidates.astype(np.uint64) | confidences.astype(np.uint64) << np.uint64(self.limits.expert_bits)
        bits = (slots[..., None] >> np.arange(self.slot_bits, dtype=np.uint64)) & np.uint64(1)
        flat = np.zeros((self.limits.rows, self.bits), np.uint8)
        flat[:, : self.slot_bits * self.limits.candidates_max] = bits.reshape(self.limits.rows, -1)
        return np.packbits(flat, axis=1, bitorder="little").view("<u4").astype(np.uint32)
