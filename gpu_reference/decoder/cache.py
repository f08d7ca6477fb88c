"""The key-value cache: what each layer keeps of each sequence, and how many tokens of it."""

from __future__ import annotations

import torch

from gpu_reference.decoder.shape import BlockShape
from gpu_reference.decoder.step import Step


class LayerCache:
    """Keys and values of one layer: ``[slots, heads, capacity, width]``.

    A layer with a window keeps only the window, as a ring: position p lies in row ``p mod capacity``. Once a sequence
    is as long as the window, every row is one of the last ``capacity`` tokens, and their order does not matter, because
    keys are rotated before they are kept. Other layers keep every position in its own row.

    Attributes:
        capacity: tokens of a sequence that the layer keeps.
        keys: ``[slots, heads, capacity, key width]``.
        values: ``[slots, heads, capacity, value width]``; the width is 0 where values are a part of the keys.
        lengths: tokens that each slot's sequence has had.
    """

    def __init__(
        self, block: BlockShape, *, slots: int, max_context: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.capacity = min(block.window or max_context, max_context)
        size = (slots, block.key_heads, self.capacity)
        key_width, value_width = block.cache_widths
        # Zeros: rows that no token was written to are read with a weight of zero, which cancels any finite number.
        self.keys = torch.zeros((*size, key_width), device=device, dtype=dtype)
        self.values = torch.zeros((*size, value_width), device=device, dtype=dtype)
        self.lengths = [0] * slots
        self._heads = torch.arange(block.key_heads, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.keys.nbytes + self.values.nbytes

    def fill(self, slot: int, length: int, generator: torch.Generator) -> None:
        """Make the slot's sequence ``length`` tokens of random keys and values long."""
        for kept in (self.keys, self.values):
            kept[slot, :, : min(length, self.capacity)].normal_(generator=generator)
        self.lengths[slot] = length

    def decode(
        self, step: Step, keys: torch.Tensor, values: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keep one token of each of the step's slots (``[n, heads, width]``).

        Returns:
            Keys and values ``[n, heads, rows, width]`` to attend to, the new ones among them, and which rows hold no
            token of their sequence: ``[n, 1, 1, 1, rows]``.
        """
        where = (step.slot_rows[:, None], self._heads, step.rows[self.capacity][:, None])
        self.keys[where] = keys
        if values is not None:
            self.values[where] = values
        rows = min(self.capacity, step.bucket)
        read = [kept[:, :, :rows] for kept in (self.keys, self.values)]
        if step.slot_range is not None:
            read = [kept[step.slot_range] for kept in read]
        else:
            read = [kept.index_select(0, step.slot_rows) for kept in read]
        return read[0], read[1], step.empty[:, None, None, None, :rows]

    def prefill(
        self, step: Step, keys: torch.Tensor, values: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Keep the tokens of a prefill (``[n, heads, width]``).

        Returns:
            Keys and values ``[heads, t, width]`` that any of these tokens attends to, the new ones at the end, in the
            order of positions, and the position of the first.
        """
        slot, first, count = step.slots[0], step.positions[0], len(step.positions)
        if values is None:
            values = keys[..., :0]
        new = [keys.transpose(0, 1), values.transpose(0, 1)]
        kept = [self.keys[slot], self.values[slot]]
        if first + count <= self.capacity:
            for rows, tokens in zip(kept, new, strict=True):
                rows[:, first : first + count] = tokens
            return kept[0][:, : first + count], kept[1][:, : first + count], 0
        before = min(first, self.capacity - 1)
        positions = torch.arange(first - before, first + count, device=self.keys.device)
        old_rows = positions[:before] % self.capacity
        read = [torch.cat((rows[:, old_rows], tokens), dim=1) for rows, tokens in zip(kept, new, strict=True)]
        last = min(count, self.capacity)
        new_rows = positions[-last:] % self.capacity
        for rows, tokens in zip(kept, new, strict=True):
            rows[:, new_rows] = tokens[:, count - last :]
        return read[0], read[1], first - before
