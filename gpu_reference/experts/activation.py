"""What runs between an expert's matrices."""

from __future__ import annotations

import torch
from torch.nn import functional

from gpu_reference.experts.shape import GATED, ExpertShape

GPT_OSS_ALPHA = 1.702
"""gpt-oss's SwiGLU: gate · σ(1.702 · gate) (transformers 5.23, ``GptOssExperts``, ``config.swiglu_alpha``)."""

GPT_OSS_LIMIT = 7.0
"""gpt-oss's SwiGLU clamps gate to at most 7 and up to ±7 (``config.swiglu_limit``)."""


def activate(shape: ExpertShape, inner: torch.Tensor) -> torch.Tensor:
    """The second matrix's input ``[n, intermediate]``, of the first one's output ``inner [n, inner_rows]``.

    GELU is the tanh approximation, as in Gemma (``gelu_pytorch_tanh``), whose models are the catalogue's only ones
    with ``geglu``.
    """
    if shape.activation not in GATED:
        positive = functional.relu(inner)
        return positive if shape.activation == "relu" else positive * positive
    gate, up = inner.chunk(2, dim=-1)
    if shape.activation == "swiglu":
        return functional.silu(gate) * up
    if shape.activation == "geglu":
        return functional.gelu(gate, approximate="tanh") * up
    gate = gate.clamp(max=GPT_OSS_LIMIT)
    up = up.clamp(min=-GPT_OSS_LIMIT, max=GPT_OSS_LIMIT)
    return (up + 1) * (gate * torch.sigmoid(gate * GPT_OSS_ALPHA))
