"""An INT8 expert as the PIM unit computes it: `pim_model.numerics`, from a block of bytes, on a CPU."""

from __future__ import annotations

import torch

from gpu_reference.experts.layout import ExpertLayout
from pim_model.numerics.expert import Expert, Layer, interleaved, run_expert
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.formats import Int8Matrix
from pim_model.unit.program import ExpertKind


def unit_output(layout: ExpertLayout, block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The output of a SwiGLU expert without biases for ``x [n, hidden]``, in x's type; the unit takes x in BF16."""
    weights = layout.views(block)
    assert weights.gate_up_scales is not None
    assert weights.down_scales is not None
    gate_up = Int8Matrix(weights.gate_up.numpy(), weights.gate_up_scales.numpy())
    down = Int8Matrix(weights.down.numpy(), weights.down_scales.numpy())
    rows = interleaved(layout.shape.intermediate)
    expert = Expert(ExpertKind.SWIGLU, Layer(gate_up.take_rows(rows)), Layer(down))
    result = run_expert(expert, bf16_from_float(x.detach().to(torch.float32).numpy()))
    return torch.from_numpy(result.values).to(x.dtype)
