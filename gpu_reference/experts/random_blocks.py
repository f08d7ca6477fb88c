"""Random experts, made in place: random bytes first, then the bits that make each part a valid, realistic weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch

from gpu_reference.experts import mxfp4

_CHUNK_BYTES = 1 << 26  # what a step works on, so that temporaries stay small beside the blocks
_OCTAVES = 4  # random floats spread over so many powers of two
_BIAS_SIZE = 1 / 16


class Part(Protocol):
    """Where a part lies (`gpu_reference.experts.layout.Span`)."""

    @property
    def start(self) -> int:
        """First byte."""

    @property
    def end(self) -> int:
        """The byte after the last."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of an element."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""


def fill(blocks: torch.Tensor, spans: Mapping[str, Part], generator: torch.Generator) -> None:
    """Make ``blocks`` u8 ``[count, nbytes]`` random experts whose parts lie at ``spans``; bytes between them too."""
    step = max(1, _CHUNK_BYTES // max(blocks.shape[1], 1))
    for first in range(0, len(blocks), step):
        chunk = blocks[first : first + step]
        chunk.view(torch.int64).random_(-(2**63), None, generator=generator)
        for name, part in spans.items():
            _make_valid(chunk[:, part.start : part.end].view(part.dtype), name, spans)


def _make_valid(bits: torch.Tensor, name: str, spans: Mapping[str, Part]) -> None:
    """Turn the random bits of one part into weights, scales or biases."""
    part = spans[name]
    matrix = name.removesuffix("_scales")
    size = _BIAS_SIZE if name.endswith("_bias") else 1 / math.sqrt(_width(spans[matrix]))
    if name.endswith("_scales") and part.dtype == torch.uint8:
        # One of two neighbouring powers of two: together with the elements' root mean square, about ``size``.
        elements = math.sqrt(sum(value**2 for value in mxfp4.MAGNITUDES) / len(mxfp4.MAGNITUDES)) * math.sqrt(2.5)
        bits.bitwise_and_(1).add_(mxfp4.SCALE_BIAS + round(math.log2(size / elements)))
    elif name.endswith("_scales"):
        _floats(bits, size / (127 / math.sqrt(3)), signed=False)  # 127/√3: of codes from −127 to 127
    elif part.dtype == torch.int8:
        bits.clamp_(min=-127)
    elif part.dtype.is_floating_point:
        _floats(bits, size, signed=True)


def _width(matrix: Part) -> int:
    """Columns of a matrix, whose codes may lie two a byte."""
    return matrix.shape[-1] * (2 if matrix.dtype == torch.uint8 else 1)


def _floats(bits: torch.Tensor, size: float, *, signed: bool) -> None:
    """Keep sign and significand of random floats, and give them exponents such that their size is about ``size``."""
    # Root mean square of 1 ≤ m < 2 times 2^−j, j = 0 … 3, each equally likely: 0.88.
    spread = math.sqrt(7 / 3 * sum(4.0**-octave for octave in range(_OCTAVES)) / _OCTAVES)
    top = 127 + round(math.log2(size / spread))
    whole, shift = {torch.bfloat16: (torch.int16, 7), torch.float32: (torch.int32, 23)}[bits.dtype]
    raw = bits.view(whole)
    exponents = (raw >> shift).bitwise_and_(_OCTAVES - 1).neg_().add_(top).bitwise_left_shift_(shift)
    kept = (1 << shift) - 1
    # The sign bit is the lowest negative number of the whole type.
    raw.bitwise_and_(kept + torch.iinfo(whole).min if signed else kept).bitwise_or_(exponents)
