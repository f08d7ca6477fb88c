"""One call of the decoder: which tokens of which sequences, and what all layers need to know of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from catalog.errors import ForestageError

SMALLEST_BUCKET = 256
"""Rows of the cache that a decode step reads at least."""


def context_buckets(max_context: int) -> tuple[int, ...]:
    """How many rows of the cache a decode step may read: 256, 512, 1024 … and ``max_context``, ascending."""
    buckets = []
    size = SMALLEST_BUCKET
    while size < max_context:
        buckets.append(size)
        size *= 2
    return (*buckets, max_context)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a call, on the host.

    Attributes:
        positions: of each token in its sequence, from 0.
        slots: the sequence of each token.
        prefill: several tokens of one sequence; else one token of each of several sequences.
    """

    positions: tuple[int, ...]
    slots: tuple[int, ...]
    prefill: bool

    @classmethod
    def of(
        cls, positions: Iterable[int] | torch.Tensor, slots: Iterable[int] | torch.Tensor, *, max_context: int, of: int
    ) -> Tokens:
        """Check the tokens of a call to a decoder of ``of`` slots.

        Raises:
            ForestageError: if a position or slot is outside the decoder, or the call is neither decode nor prefill.
        """
        where, whose = _integers(positions), _integers(slots)
        if not where or len(where) != len(whose):
            raise ForestageError(f"positions: {len(where)} for {len(whose)} slots; give one of each for every token")
        if max(where) >= max_context:
            raise ForestageError(
                f"position {max(where)} exceeds max_context ({max_context}); make the decoder with a larger max_context"
            )
        if min(where) < 0 or not 0 <= min(whose) <= max(whose) < of:
            raise ForestageError(f"positions and slots: give positions from 0 and slots of 0 to {of - 1}")
        prefill = len(whose) > 1 and len(set(whose)) == 1
        if prefill and where != tuple(range(where[0], where[0] + len(where))):
            raise ForestageError("positions: tokens of one sequence must follow each other without a gap")
        if not prefill and len(set(whose)) != len(whose):
            raise ForestageError("slots: give tokens of one sequence (prefill), or one token a sequence (decode)")
        return cls(where, whose, prefill)


def _integers(values: Iterable[int] | torch.Tensor) -> tuple[int, ...]:
    return tuple(values.tolist()) if isinstance(values, torch.Tensor) else tuple(int(value) for value in values)


@dataclass(frozen=True)
class Step:
    """A call's tokens, with what all layers share, on the device.

    Attributes:
        positions: as in `Tokens`.
        slots: as in `Tokens`.
        prefill: as in `Tokens`.
        bucket: rows of a cache without a window that a decode step reads.
        slot_rows: ``slots``, int64 ``[n]``.
        slot_range: ``slots`` as a slice, where they follow each other.
        rows: capacity of a cache → the row of each token in it, int64 ``[n]``.
        rotary: rows of the rotary table, ``[n, 2, width]``.
        empty: ``[n, bucket]``: the first rows of a cache that hold no token of the sequence (decode only).
    """

    positions: tuple[int, ...]
    slots: tuple[int, ...]
    prefill: bool
    bucket: int
    slot_rows: torch.Tensor
    slot_range: slice | None
    rows: dict[int, torch.Tensor]
    rotary: torch.Tensor
    empty: torch.Tensor

    @classmethod
    def of(cls, tokens: Tokens, *, bucket: int, capacities: Iterable[int], table: torch.Tensor) -> Step:
        """Copy what the layers need to the device of ``table``, the rotary table."""
        device = table.device
        # From memory that is not pinned the driver copies before it returns, so nothing here may change under it.
        host = torch.tensor([tokens.positions, tokens.slots], dtype=torch.int64)
        positions, slots = host.to(device, non_blocking=True).unbind()
        first = tokens.slots[0]
        following = tokens.slots == tuple(range(first, first + len(tokens.slots)))
        read = 0 if tokens.prefill else bucket
        return cls(
            positions=tokens.positions,
            slots=tokens.slots,
            prefill=tokens.prefill,
            bucket=bucket,
            slot_rows=slots,
            slot_range=slice(first, first + len(tokens.slots)) if following else None,
            rows={capacity: positions % capacity for capacity in capacities},
            rotary=table[positions],
            empty=torch.arange(read, device=device) > positions[:, None],
        )
