"""Rotary position embedding: frequencies (plain and YaRN's), tables of cosines and sines, the rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """YaRN's stretching of the context (arXiv 2309.00071), as `transformers.modeling_rope_utils` computes it.

    Attributes:
        factor: by how much the context is stretched.
        original_context: positions that the model was trained with before.
        truncate: round the borders of the ramp between the two kinds of frequencies to whole dimensions.
        fast: rotations over the original context above which a frequency stays as it is.
        slow: rotations below which a frequency is divided by ``factor``.
        scale: DeepSeek's ``mscale``; ``None``: the rotation itself is scaled as in the paper.
        scale_all: DeepSeek's ``mscale_all_dim``, which scales the attention's scores.
    """

    factor: float
    original_context: int
    truncate: bool = True
    fast: float = 32.0
    slow: float = 1.0
    scale: float | None = None
    scale_all: float | None = None

    def magnitude(self, scale: float = 1.0) -> float:
        """``1 + 0.1 · scale · ln(factor)``, the paper's temperature."""
        return 0.1 * scale * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """A rotary embedding (arXiv 2104.09864).

    Attributes:
        base: the longest wavelength is about ``2π · base``.
        pairs: dimensions 2i and 2i + 1 are rotated together (DeepSeek); else i and i + half the width.
        yarn: the context is stretched.
    """

    base: float
    pairs: bool = False
    yarn: Yarn | None = None

    def frequencies(self, width: int) -> torch.Tensor:
        """Angle by position ``[width / 2]``, float32."""
        wavelengths = self.base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
        yarn = self.yarn
        if yarn is None:
            return 1.0 / wavelengths

        def dimension(rotations: float) -> float:
            turns = yarn.original_context / (rotations * 2 * math.pi)
            return width * math.log(turns) / (2 * math.log(self.base))

        low, high = dimension(yarn.fast), dimension(yarn.slow)
        if yarn.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        ramp = (torch.arange(width // 2, dtype=torch.float32) - low) / (high - low if high > low else 0.001)
        kept = 1 - ramp.clamp(0, 1)
        return 1.0 / (yarn.factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept

    @property
    def magnitude(self) -> float:
        """Factor of the rotated queries and keys."""
        yarn = self.yarn
        if yarn is None:
            return 1.0
        if yarn.scale and yarn.scale_all:
            return yarn.magnitude(yarn.scale) / yarn.magnitude(yarn.scale_all)
        return yarn.magnitude()

    @property
    def score_scale(self) -> float:
        """Factor of the attention's scores (DeepSeek's ``mscale_all_dim``, squared)."""
        return self.yarn.magnitude(self.yarn.scale_all) ** 2 if self.yarn and self.yarn.scale_all else 1.0

    def table(self, width: int, positions: int, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Cosines, and sines with the signs that ``rotate`` needs: ``[positions, 2, width]``."""
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * self.frequencies(width)
        cosines, sines = angles.cos() * self.magnitude, angles.sin() * self.magnitude
        if self.pairs:
            both = (cosines.repeat_interleave(2, dim=-1), torch.stack((-sines, sines), dim=-1).flatten(-2))
        else:
            both = (torch.cat((cosines, cosines), dim=-1), torch.cat((-sines, sines), dim=-1))
        return torch.stack(both, dim=1).to(device=device, dtype=dtype)

    def rotate(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Rotate ``x [n, heads, width]``; ``rows [n, 2, width]`` of ``table`` are those of its positions."""
        swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if self.pairs else x.roll(x.shape[-1] // 2, -1)
        return torch.addcmul(x * rows[:, None, 0], swapped, rows[:, None, 1])
