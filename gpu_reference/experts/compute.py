"""Compute an expert from its block of bytes.

Kernels, by name:

* ``torch``: the matrices are dequantised into tensors, then multiplied by PyTorch; on every device, for every format.
  No weight is rounded: with x in bfloat16, BF16 and MXFP4 weights are multiplied in bfloat16 (sums in float32), FP32
  and INT8 weights in float32.
* ``triton``: on a GPU with Triton, BF16 and MXFP4, SwiGLU and gpt-oss's: weights are decoded inside the product
  (`gpu_reference.experts.triton_kernels`); made for few tokens.
* ``host``: on a CPU, BF16, INT8 and MXFP4, SwiGLU and gpt-oss's: weights are decoded inside the product, in registers
  (`gpu_reference.experts.host_kernel`); made for few tokens. With INT8 and MXFP4 weights the vectors are 16-bit
  integers, one scale for each 32 of them; with BF16 weights float32.
* ``pim``: on a CPU, INT8 and SwiGLU without biases, as the PIM unit computes it, bit for bit (`pim_model.numerics`):
  activations in int8 as well, a power of two a vector, sums in int32.

A kernel gives the same bits for the same block and rows wherever the block lies: matrix libraries may choose by
alignment how they sum, so a block or rows that do not lie at a multiple of 256 bytes are copied first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from catalog.errors import ForestageError
from gpu_reference.experts.activation import GPT_OSS_ALPHA, GPT_OSS_LIMIT, activate
from gpu_reference.experts.host_kernel import can_compute, host_kernel
from gpu_reference.experts.layout import ExpertLayout, dequantised_matrix
from gpu_reference.experts.pim_unit import unit_output
from gpu_reference.experts.shape import GATED, ExpertShape

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a block u8 ``[nbytes]`` and x ``[n, hidden]``, f32 or bf16 on the same device, the unweighted output
``[n, hidden]`` in x's type."""

DECODED = {
    "torch": "dequantised before the product",
    "triton": "decoded in the kernel",
    "host": "decoded in the product",
    "pim": "int8 weights and activations, int32 sums",
}
"""What each kernel does, in words."""

TYPES = (torch.float32, torch.bfloat16)
"""Types of x."""

_PLACE = 256  # bytes: cuBLAS's largest alignment class; more than a CPU's cache line


def kernels(layout: ExpertLayout, device: torch.device | str) -> tuple[str, ...]:
    """Names of the kernels that can compute ``layout``'s experts on ``device``; ``torch`` is the first, always."""
    shape, names = layout.shape, ["torch"]
    can_decode = layout.format in ("bf16", "mxfp4") and shape.activation in ("swiglu", "gpt_oss_swiglu")
    if can_decode and torch.device(device).type == "cuda" and find_spec("triton") is not None:
        names.append("triton")
    if torch.device(device).type == "cpu" and can_compute(layout):
        names.append("host")
    is_plain = layout.format == "int8" and shape.activation == "swiglu" and not shape.bias
    if is_plain and torch.device(device).type == "cpu":
        names.append("pim")
    return tuple(names)


def expert_kernel(layout: ExpertLayout, device: torch.device | str, name: str | None = None) -> Kernel:
    """The kernel ``name`` (``torch``, if none is given) for ``layout``'s experts on ``device``.

    Raises:
        ForestageError: the kernel is unknown, or cannot compute these experts there; from the kernel itself: block or
            rows do not fit, or are not on the device.
    """
    where = torch.device(device)
    chosen = "torch" if name is None else name
    there = kernels(layout, where)
    if chosen not in there:
        shape = layout.shape
        raise ForestageError(
            f"expert kernel '{chosen}': not for {layout.format} {shape.activation} experts "
            f"{'with' if shape.bias else 'without'} biases on {where.type}; choose one of {', '.join(there)}"
        )
    compute = _computation(layout, chosen)

    def run(block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_rows(layout, block, x, where)
        if not len(x):
            return torch.empty_like(x)
        if chosen == "host":  # sums in its own order, wherever block and rows lie: a copy would only take time
            return compute(block, x)
        return compute(placed(block), placed(x.contiguous()))

    return run


def fastest_host_kernel(layout: ExpertLayout) -> str:
    """The kernel for experts that a CPU computes for few tokens.

    It is ``host`` where that is there: reading the block is all that it asks of memory, where ``torch`` writes a
    dequantised matrix of 2 to 8 times the block's size and reads it again. Of FP32 ``torch`` reads the block alone.
    """
    return "host" if "host" in kernels(layout, "cpu") else "torch"


def reference_output(layout: ExpertLayout, block: torch.Tensor, x: torch.Tensor) -> NDArray[np.float64]:
    """The expert's output f64 ``[n, hidden]`` in NumPy, from the weights that the block stands for.

    It shares nothing with the kernels but the dequantised weights.

    Raises:
        ForestageError: block or rows do not fit.
    """
    check_rows(layout, block, x, block.device)
    gate_up, down, gate_up_bias, down_bias = (
        None if part is None else part.cpu().numpy().astype(np.float64) for part in layout.dequantised(block)
    )
    assert gate_up is not None
    assert down is not None
    rows = x.detach().cpu().to(torch.float64).numpy()
    inner = rows @ gate_up.T + (0 if gate_up_bias is None else gate_up_bias)
    return _exact_activation(layout.shape, inner) @ down.T + (0 if down_bias is None else down_bias)


def check_rows(layout: ExpertLayout, block: torch.Tensor, x: torch.Tensor, device: torch.device) -> None:
    """Refuse a block or rows that do not fit ``layout``, or are not on the device.

    Raises:
        ForestageError: naming what does not fit.
    """
    if x.ndim != 2 or x.shape[1] != layout.shape.hidden or x.dtype not in TYPES:
        raise ForestageError(
            f"expert: x is {x.dtype} {list(x.shape)}; give float32 or bfloat16 [n, {layout.shape.hidden}]"
        )
    if block.dtype != torch.uint8 or block.shape != (layout.nbytes,):
        raise ForestageError(f"expert block: {block.dtype} {list(block.shape)}; give uint8 [{layout.nbytes}]")
    if x.device != block.device or block.device.type != device.type:
        raise ForestageError(f"expert: block on {block.device}, x on {x.device}; give both on {device}")


def _computation(layout: ExpertLayout, name: str) -> Kernel:
    """What kernel ``name`` runs once block and rows are known to fit."""
    if name == "triton":
        from gpu_reference.experts.triton_kernels import triton_kernel  # Triton is not on every machine

        return triton_kernel(layout)
    if name == "host":
        return host_kernel(layout)
    return partial({"torch": torch_output, "pim": unit_output}[name], layout)


def torch_output(layout: ExpertLayout, block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The kernel ``torch``: the output of the expert in ``block`` for ``x [n, hidden]``."""
    weights = layout.views(block)
    exact = x.dtype == torch.float32 or layout.format in ("bf16", "mxfp4")
    dtype = x.dtype if exact else torch.float32
    biases = (None if b is None else b.to(dtype) for b in (weights.gate_up_bias, weights.down_bias))
    gate_up_bias, down_bias = biases
    gate_up = dequantised_matrix(weights.gate_up, weights.gate_up_scales, dtype)
    inner = functional.linear(x.to(dtype), gate_up, gate_up_bias)
    # In float32 whatever x's type: an activation rounds at each step, and the product takes its result once.
    raised = activate(layout.shape, inner.to(torch.float32)).to(dtype)
    down = dequantised_matrix(weights.down, weights.down_scales, dtype)
    return functional.linear(raised, down, down_bias).to(x.dtype)


def placed(tensor: torch.Tensor) -> torch.Tensor:
    """The contiguous tensor, copied to where an allocator puts it unless it lies as well already."""
    return tensor if tensor.data_ptr() % _PLACE == 0 else _copied(tensor)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy at a multiple of ``_PLACE`` bytes (a CPU's allocator promises only 64)."""
    size = tensor.numel() * tensor.element_size()
    room = torch.empty(size + _PLACE, dtype=torch.uint8, device=tensor.device)
    start = -room.data_ptr() % _PLACE
    return room[start : start + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def _exact_activation(shape: ExpertShape, inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """`activate`, in float64."""
    if shape.activation not in GATED:
        return np.maximum(inner, 0) ** (1 if shape.activation == "relu" else 2)
    gate, up = np.split(inner, 2, axis=1)
    if shape.activation == "geglu":
        return gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
    with np.errstate(over="ignore"):  # of a very negative gate exp is infinite, and the quotient 0, as intended
        if shape.activation == "swiglu":
            return gate / (1 + np.exp(-gate)) * up
        gate, up = np.minimum(gate, GPT_OSS_LIMIT), np.clip(up, -GPT_OSS_LIMIT, GPT_OSS_LIMIT)
        return gate / (1 + np.exp(-GPT_OSS_ALPHA * gate)) * (up + 1)
