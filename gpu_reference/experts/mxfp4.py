"""MXFP4 of the OCP Microscaling formats (MX) specification 1.0: E2M1 elements, one E8M0 scale for each 32 of them.

The 32 elements of a scale follow each other along the input axis (a matrix's columns); where the width is no multiple
of 32, a row's last group is shorter. The rule of quantisation, that of the specification's section 6.3 with the type's
rounding made explicit: with ``m`` the largest magnitude of a group, its scale is ``2^(floor(log2 m) − 2)`` (2 is the
exponent of E2M1's largest power of two), at least 2^−127; each element is divided by it, rounded to the nearest of
0, ½, 1, 1½, 2, 3, 4, 6, half to even codes, and saturates at 6. A group of zeros has the scale 2^−127.

Two elements share a byte, the earlier in the low half, as in the checkpoints of gpt-oss.
"""

from __future__ import annotations

from functools import cache

import torch

from catalog.errors import ForestageError

GROUP = 32
"""Elements that share a scale."""

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What the low three bits of an element stand for; the fourth is the sign."""

SCALE_BIAS = 127
"""A scale's byte ``b`` stands for ``2^(b − 127)``; 255 would be NaN and never occurs."""

_LARGEST_EXPONENT = 2


def groups(width: int) -> int:
    """Scales of a row of ``width`` elements."""
    return -(-width // GROUP)


def quantise(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise ``matrix [rows, width]`` by the module's rule.

    Returns:
        Codes, u8 ``[rows, width / 2]``, and scales, u8 ``[rows, groups(width)]``.

    Raises:
        ForestageError: the width is odd, or a value is not finite.
    """
    rows, width = matrix.shape
    if width % 2:
        raise ForestageError(f"mxfp4: a width of {width} is odd, and two elements share a byte; give an even width")
    values = matrix.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise ForestageError("mxfp4: a weight is not finite; give finite weights")
    padded = torch.nn.functional.pad(values, (0, groups(width) * GROUP - width)).view(rows, groups(width), GROUP)
    largest = padded.abs().amax(dim=2)
    # frexp: largest = f · 2^e with ½ ≤ f < 1, so that floor(log2 largest) = e − 1, exactly.
    exponents = torch.frexp(largest).exponent - 1 - _LARGEST_EXPONENT
    exponents = torch.where(largest == 0, -SCALE_BIAS, exponents.clamp(min=-SCALE_BIAS))
    scaled = padded * _power_of_two(-exponents)[:, :, None]
    nibbles = _nearest(scaled).view(rows, -1)[:, :width]
    codes = nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
    return codes, (exponents + SCALE_BIAS).to(torch.uint8)


def dequantise(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What ``codes [rows, width / 2]`` and ``scales [rows, groups]`` stand for, ``[rows, width]``, f32 or bf16.

    Exact in float32 and bfloat16: an element has 2 significant bits and a scale is a power of two.
    """
    rows, half = codes.shape
    pairs = _pairs(dtype, codes.device)
    values = pairs.index_select(0, codes.reshape(-1).to(torch.int32)).view(dtype).view(rows, 2 * half)
    powers = scale_values(dtype, codes.device).index_select(0, scales.reshape(-1).to(torch.int32)).view(scales.shape)
    whole = 2 * half // GROUP
    values[:, : whole * GROUP].unflatten(1, (whole, GROUP)).mul_(powers[:, :whole, None])
    if 2 * half > whole * GROUP:
        values[:, whole * GROUP :].mul_(powers[:, whole:])
    return values


# The tables are made once for each device, on the host: a list that goes to a GPU makes the host wait for the device,
# and cannot be captured in a CUDA graph.


@cache
@torch.inference_mode(False)  # wherever they are made first: they are read inside and outside that mode
def scale_values(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each byte of a scale stands for, ``[256]``; not to be written to."""
    exponents = range(-SCALE_BIAS, 255 - SCALE_BIAS)
    return torch.tensor([*(2.0**exponent for exponent in exponents), float("nan")], dtype=dtype).to(device)


@cache
@torch.inference_mode(False)
def element_values(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each code of an element stands for, ``[16]``; not to be written to."""
    return torch.tensor([*MAGNITUDES, *(-value for value in MAGNITUDES)], dtype=dtype).to(device)


def _nearest(scaled: torch.Tensor) -> torch.Tensor:
    """The u8 codes of ``scaled``: to the nearest, half to the even code, more than 6 to 6."""
    size = scaled.abs()
    code = torch.zeros_like(scaled, dtype=torch.uint8)
    # A code is as large as the midpoints that the size has passed; a midpoint itself goes to the even code.
    for number in range(1, len(MAGNITUDES)):
        middle = (MAGNITUDES[number - 1] + MAGNITUDES[number]) / 2
        code += size >= middle if number % 2 == 0 else size > middle
    return code | (torch.signbit(scaled).to(torch.uint8) << 3)


def _power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """``2^exponents``, exact, f32; the exponents lie within those of normal numbers (−126 to 127)."""
    return ((exponents.to(torch.int32) + 127) << 23).view(torch.float32)


@cache
@torch.inference_mode(False)
def _pairs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The two elements of each byte, as one item of twice the size, ``[256]``."""
    elements = element_values(dtype, torch.device("cpu"))
    byte = torch.arange(256)
    both = torch.stack((elements[byte & 15], elements[byte >> 4]), dim=1)
    return both.view({2: torch.int32, 4: torch.int64}[elements.element_size()]).view(256).to(device)
