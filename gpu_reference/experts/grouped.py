"""Several experts in one call: grouped matrix products (``torch.nn.functional.grouped_mm``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from catalog.errors import ForestageError
from gpu_reference.experts.activation import activate
from gpu_reference.experts.compute import TYPES
from gpu_reference.experts.layout import ExpertLayout, dequantised_matrix


def grouped_output(layout: ExpertLayout, blocks: torch.Tensor, x: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """The outputs of several experts, each for tokens of its own.

    The experts' matrices are dequantised side by side, to x's type, and multiplied by one grouped product each; sums
    are in float32. No weight is rounded, except FP32's and INT8's where x is in bfloat16.

    Args:
        layout: of every block.
        blocks: u8 ``[experts, nbytes]``.
        x: f32 or bf16 ``[tokens, hidden]`` on the blocks' device: the first expert's tokens, then the second's, …
        counts: how many tokens each expert has, 0 or more.

    Returns:
        ``[tokens, hidden]`` in x's type, unweighted, in the order of x.

    Raises:
        ForestageError: the sizes do not fit together.
    """
    shape = layout.shape
    if blocks.shape[1:] != (layout.nbytes,) or x.shape != (sum(counts), shape.hidden) or x.dtype not in TYPES:
        raise ForestageError(
            f"grouped experts: blocks {list(blocks.shape)}, x {x.dtype} {list(x.shape)}; give [experts, "
            f"{layout.nbytes}] and float32 or bfloat16 [{sum(counts)}, {shape.hidden}]"
        )
    if len(blocks) != len(counts) or min(counts, default=0) < 0:
        raise ForestageError(f"grouped experts: {len(counts)} counts for {len(blocks)} experts; give each 0 or more")
    if not len(x):
        return torch.empty_like(x)
    # The host does not wait: from memory that is not pinned the driver copies before it returns.
    ends = torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32).to(x.device, non_blocking=True)
    inner = _product(layout, blocks, "gate_up", x, counts, ends)
    raised = activate(shape, inner.to(torch.float32)).to(x.dtype)
    return _product(layout, blocks, "down", raised, counts, ends)


def _product(
    layout: ExpertLayout, blocks: torch.Tensor, name: str, x: torch.Tensor, counts: Sequence[int], ends: torch.Tensor
) -> torch.Tensor:
    """One matrix of every expert, times its tokens, plus its bias."""
    parts = [layout.views(block) for block in blocks]
    matrices = torch.stack(
        [dequantised_matrix(getattr(part, name), getattr(part, f"{name}_scales"), x.dtype) for part in parts]
    )
    product = functional.grouped_mm(x, matrices.transpose(1, 2), offs=ends)
    if not layout.shape.bias:
        return product
    biases = torch.stack([getattr(part, f"{name}_bias") for part in parts])
    each = torch.tensor(counts).to(x.device, non_blocking=True)
    of_rows = biases.to(torch.float32).repeat_interleave(each, 0, output_size=len(x))  # else the host asks the device
    return (product.to(torch.float32) + of_rows).to(x.dtype)
