"""An INT8 expert as the PIM unit computes it: `pim_model.quantise.QuantisedExpert.run` for many rows, in PyTorch."""

from __future__ import annotations

import torch
from torch.nn import functional

from gpu_reference.experts.layout import ExpertLayout
from pim_model.quantise import LARGEST


def integer_output(layout: ExpertLayout, block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The output of a SwiGLU expert without biases for ``x [n, hidden]``, in x's type.

    Every row is quantised by itself; the activation is computed in float64 and rounded once to float32, as there.
    """
    weights = layout.views(block)
    assert weights.gate_up_scales is not None
    assert weights.down_scales is not None
    inner = integer_product(weights.gate_up, weights.gate_up_scales, x.to(torch.float32))
    gate, up = inner.to(torch.float64).chunk(2, dim=-1)
    raised = (functional.silu(gate) * up).to(torch.float32)
    return integer_product(weights.down, weights.down_scales, raised).to(x.dtype)


def integer_product(codes: torch.Tensor, scales: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """f32 ``[n, rows]``: i8 ``codes [rows, width]`` with f32 ``scales [rows]``, times each row of ``x``, quantised.

    The sums are those of int32 exactly: float64 holds every integer up to 2⁵³, whatever the order of the sum.
    """
    quantised, factor = quantise_rows(x)
    sums = functional.linear(quantised.to(torch.float64), codes.to(torch.float64))
    return sums.to(torch.float32) * (scales[None, :] * factor[:, None])


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rule of `pim_model.quantise` for each row of f32 ``x [n, width]``: i8 ``[n, width]`` and f32 ``[n]``."""
    scales = x.abs().amax(dim=1) / LARGEST
    divisors = torch.where(scales == 0, 1.0, scales)[:, None]
    # Where a scale is 0, so are all codes: the row is zeros, or numbers so small that they round to 0.
    return torch.round(x / divisors).clamp(-LARGEST, LARGEST).to(torch.int8), scales
