"""How the correlation table lies in the engine's memory: a row's bits, its words on the bus, its address.

A row holds ``candidates_max`` entries, entry 0 in the lowest bits; an entry is an expert id (``expert_bits``) below a
confidence (``CONFIDENCE_BITS``). A row is padded with zeros to whole 32-bit words, low word first. The row of
``(layer, domain, expert)``, ``layer`` being the *source* layer and ``domain`` the bank, lies at address
``(layer << bank_bits | domain) << expert_bits | expert``; where there is one bank, ``bank_bits`` is 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.st_moe.parameters import CONFIDENCE_BITS, CONFIDENCE_MAX, EngineLimits

WORD_BITS = 32


class RowFormat:
    """Packing of rows for an engine's limits.

    Attributes:
        entry_bits: bits of one entry.
        words: 32-bit words of a row.
        bits: bits of a row, padding included.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self.entry_bits = limits.expert_bits + CONFIDENCE_BITS
        self.words = -(-self.entry_bits * limits.candidates_max // WORD_BITS)
        self.bits = self.words * WORD_BITS

    @property
    def address_bits(self) -> int:
        """Bits of a row's address."""
        return self.limits.layer_bits + self.limits.bank_bits + self.limits.expert_bits

    def address(self, layer: int, expert: int, domain: int = 0) -> int:
        """Address of the row of ``expert`` of source ``layer``, in the bank of ``domain``."""
        return (layer << self.limits.bank_bits | domain) << self.limits.expert_bits | expert

    def pack(self, candidates: NDArray[np.integer[Any]], confidences: NDArray[np.integer[Any]]) -> int:
        """One row ``[candidates_max]`` as an integer of ``bits`` bits."""
        row = 0
        for entry, (expert, confidence) in enumerate(zip(candidates.tolist(), confidences.tolist(), strict=True)):
            row |= (confidence << self.limits.expert_bits | expert) << entry * self.entry_bits
        return row

    def unpack(self, row: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
        """Candidates and confidences ``[candidates_max]`` of a row."""
        entries = [row >> entry * self.entry_bits for entry in range(self.limits.candidates_max)]
        candidates = [entry & (self.limits.experts_max - 1) for entry in entries]
        confidences = [entry >> self.limits.expert_bits & CONFIDENCE_MAX for entry in entries]
        return np.array(candidates, np.int16), np.array(confidences, np.int8)

    def tables(self, image: NDArray[np.uint32]) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
        """Candidates and confidences ``[layers_max, domains_max, experts_max, candidates_max]``; undoes ``image``."""
        limits = self.limits
        bits = np.unpackbits(image.astype("<u4").view(np.uint8), axis=1, bitorder="little")
        entries = bits[:, : self.entry_bits * limits.candidates_max].reshape(*self._shape, self.entry_bits)
        values = entries.astype(np.int32) @ (1 << np.arange(self.entry_bits))
        return (values & (limits.experts_max - 1)).astype(np.int16), (values >> limits.expert_bits).astype(np.int8)

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        limits = self.limits
        return limits.layers_max, limits.domains_max, limits.experts_max, limits.candidates_max

    def image(self, candidates: NDArray[np.integer[Any]], confidences: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
        """All rows ``[layers_max, domains_max, experts_max, candidates_max]`` as words u32 ``[rows, words]``."""
        entries = candidates.astype(np.uint64) | confidences.astype(np.uint64) << np.uint64(self.limits.expert_bits)
        bits = (entries[..., None] >> np.arange(self.entry_bits, dtype=np.uint64)) & np.uint64(1)
        flat = np.zeros((self.limits.rows, self.bits), np.uint8)
        flat[:, : self.entry_bits * self.limits.candidates_max] = bits.reshape(self.limits.rows, -1)
        return np.packbits(flat, axis=1, bitorder="little").view("<u4").astype(np.uint32)
