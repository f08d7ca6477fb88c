"""Rows of bytes, one expert's block each, that start where kernels like them."""

import torch

ALIGNMENT = 256
"""Bytes; an expert's kernel copies a block that lies elsewhere first (`gpu_reference.experts.compute`)."""


def aligned_blocks(count: int, nbytes: int, device: torch.device) -> torch.Tensor:
    """Room for ``count`` blocks of ``nbytes``, u8 ``[count, nbytes]``; each starts at a multiple of ``ALIGNMENT``.

    What is in them is undefined.
    """
    stride = -(-nbytes // ALIGNMENT) * ALIGNMENT
    room = torch.empty(count * stride + ALIGNMENT, dtype=torch.uint8, device=device)
    start = -room.data_ptr() % ALIGNMENT
    return room[start : start + count * stride].view(count, stride)[:, :nbytes]
