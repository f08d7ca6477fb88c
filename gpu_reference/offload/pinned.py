"""Host memory through which small tensors pass between device and host, used again and again."""

import math
from collections.abc import Sequence

import torch


class PinnedBuffer:
    """As large as the largest tensor so far.

    Args:
        dtype: of its elements.
        pinned: page-locked, so that copies to and from a GPU do not hold up the host.

    Attributes:
        latest: the tensor that was asked for last.
    """

    def __init__(self, dtype: torch.dtype, *, pinned: bool) -> None:
        self._dtype = dtype
        self._pinned = pinned
        self._memory = torch.empty(0, dtype=dtype)
        self.latest = self._memory

    def view(self, shape: Sequence[int]) -> torch.Tensor:
        """A tensor of ``shape`` in it, contents undefined; the one before must not be in use any more."""
        count = math.prod(shape)
        if count > self._memory.numel():
            self._memory = torch.empty(count, dtype=self._dtype, pin_memory=self._pinned)
        if self.latest.shape != torch.Size(shape) or self.latest.data_ptr() != self._memory.data_ptr():
            self.latest = self._memory[:count].view(tuple(shape))
        return self.latest
