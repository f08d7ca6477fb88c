"""A layer's experts as blocks of bytes, in place of those of a transformers model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gpu_reference.experts.compute import expert_kernel
from gpu_reference.experts.layout import ExpertLayout


class BlockExperts(nn.Module):
    """Experts in ``layout``, ``blocks`` u8 ``[experts, nbytes]``, computed by the kernel ``kernel``.

    Called as the experts of transformers' mixture-of-experts blocks are.
    """

    blocks: torch.Tensor

    def __init__(self, layout: ExpertLayout, blocks: torch.Tensor, kernel: str = "torch") -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("blocks", blocks)
        self._compute = expert_kernel(layout, blocks.device, kernel)

    @classmethod
    def of(cls, experts: Any, layout: ExpertLayout, kernel: str = "torch") -> BlockExperts:
        """Pack the experts of a transformers module: ``gate_up_proj [experts, 2I, H]``, ``down_proj [experts, H, I]``.

        Raises:
            ForestageError: they do not fit ``layout``, or the kernel cannot compute it.
        """
        pairs = zip(experts.gate_up_proj, experts.down_proj, strict=True)
        return cls(layout, torch.stack([layout.pack(gate_up, down) for gate_up, down in pairs]), kernel)

    def forward(self, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The gate-weighted sum of each token's experts, ``[tokens, hidden]``; ids and weights ``[tokens, top_k]``."""
        result = torch.zeros_like(x)
        for expert in torch.unique(ids).tolist():
            tokens, rank = torch.nonzero(ids == expert, as_tuple=True)
            output = self._compute(self.blocks[expert], x[tokens])
            result.index_add_(0, tokens, output * weights[tokens, rank, None].to(output.dtype))
        return result
