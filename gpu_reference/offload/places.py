"""Room for experts on the device."""

from __future__ import annotations

import torch

from catalog.errors import ForestageError
from gpu_reference.offload.blocks import ALIGNMENT, aligned_blocks
from gpu_reference.offload.queues import Mark

LANDING = 2
"""Blocks for what has no place (``NO_PLACE``): the layer computes it as it comes, while the next one comes."""

LEFT_FREE = 0.05
"""Of the device's memory, for what computing needs, when a budget that would fit is named."""


class Places:
    """Blocks on the device: the stager's places first (``places`` and ``spare``), then the landing.

    Args:
        places: that experts are kept in, spare ones included.
        nbytes: of an expert.
        device: where.

    Attributes:
        blocks: one tensor for each, u8 ``[nbytes]``.
        last_read: for each block, the mark after the last launched work that reads it; ``None``: none did.
        landing: indices of the landing's blocks.

    Raises:
        ForestageError: if the device's memory does not suffice; it names how many would fit.
    """

    def __init__(self, places: int, nbytes: int, device: torch.device) -> None:
        count = places + LANDING
        try:
            rows = aligned_blocks(count, nbytes, device)
        except torch.OutOfMemoryError as error:
            raise too_little_memory(places, nbytes, torch.cuda.mem_get_info(device)) from error
        except RuntimeError as error:  # what a CPU's allocator raises
            if "allocate" not in str(error):
                raise
            raise ForestageError(f"memory: {_budget(places, nbytes)} cannot be had; give a smaller capacity") from error
        self.blocks: list[torch.Tensor] = list(rows.unbind())
        self.last_read: list[Mark | None] = [None] * count
        self.landing = range(places, count)


def too_little_memory(places: int, nbytes: int, memory: tuple[int, int]) -> ForestageError:
    """What to say where ``places`` experts do not fit into ``memory``: bytes (free, in all)."""
    free, total = memory
    stride = -(-nbytes // ALIGNMENT) * ALIGNMENT
    fits = max(0, int(free - LEFT_FREE * total) // stride - LANDING)
    return ForestageError(
        f"device memory: {_budget(places, nbytes)} do not fit, {free / 1e9:.1f} GB are free; give a capacity of at "
        f"most {_budget(fits, nbytes)}, spare places included"
    )


def _budget(places: int, nbytes: int) -> str:
    return f"{places} experts ({places * nbytes / 1e9:.1f} GB)"
