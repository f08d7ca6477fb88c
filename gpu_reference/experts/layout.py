"""An expert's block of bytes: how its parts lie, for each format of its weights.

The parts, in this order, each as wide as its rows and columns say and in row-major order:

1. the first matrix ``[inner_rows, hidden]``: gate rows, then up rows (gpt-oss's checkpoint interleaves them);
2. its scales;
3. the second matrix, down, ``[hidden, intermediate]``;
4. its scales;
5. the first matrix's bias, BF16 ``[inner_rows]``, and down's, BF16 ``[hidden]``, where the shape has biases.

Formats: ``fp32`` and ``bf16`` have no scales; ``int8`` has a float32 scale a row, by the rule of
`pim_model.numerics.formats`; ``mxfp4`` has those of `gpu_reference.experts.mxfp4`. A part starts at a multiple of 16
bytes, and a block's size is one too. Of the catalogue's shapes, no part needs padding for that in any format (tested),
so a block has the size that the catalogue states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import torch

from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.experts import mxfp4
from gpu_reference.experts.random_blocks import fill
from gpu_reference.experts.shape import ExpertShape
from pim_model.numerics.formats import Int8Matrix

Format = Literal["fp32", "bf16", "int8", "mxfp4"]
FORMATS: tuple[Format, ...] = get_args(Format)

ALIGNMENT = 16
"""Bytes; the widest load of a GPU's thread."""


class Span(NamedTuple):
    """Where a part lies in the block: from byte ``start`` on, elements of ``dtype``, shaped ``shape``."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The byte after the part."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ExpertWeights:
    """The parts of a block, as tensors that alias it.

    Attributes:
        gate_up: f32, bf16 or i8 ``[inner_rows, hidden]``, or codes, u8 ``[inner_rows, hidden / 2]``.
        gate_up_scales: f32 ``[inner_rows]`` (int8), u8 ``[inner_rows, groups]`` (mxfp4), or ``None``.
        down: likewise, ``[hidden, intermediate]``.
        down_scales: likewise.
        gate_up_bias: bf16 ``[inner_rows]`` or ``None``.
        down_bias: bf16 ``[hidden]`` or ``None``.
    """

    gate_up: torch.Tensor
    gate_up_scales: torch.Tensor | None
    down: torch.Tensor
    down_scales: torch.Tensor | None
    gate_up_bias: torch.Tensor | None
    down_bias: torch.Tensor | None


@dataclass(frozen=True)
class ExpertLayout:
    """How experts of ``shape`` lie in a block with their weights in ``format``.

    Raises:
        ForestageError: an unknown format, or MXFP4 of an odd width.
    """

    shape: ExpertShape
    format: Format

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ForestageError(f"expert format '{self.format}' is none of {', '.join(FORMATS)}")
        if self.format == "mxfp4":
            for name in ("hidden", "intermediate"):
                if getattr(self.shape, name) % 2:
                    raise ForestageError(
                        f"expert: {name}: {getattr(self.shape, name)} is odd, and two MXFP4 elements share a byte; "
                        "choose another format"
                    )

    @classmethod
    def of(cls, model: ModelRecord, format: Format | None = None, *, intermediate: int | None = None) -> ExpertLayout:
        """The layout of ``model``'s routed experts, in the model's own format unless another is given.

        Raises:
            ForestageError: the model's own format is none of these, and no other is given.
        """
        chosen = model.expert_weight_format if format is None else format
        if chosen not in FORMATS:
            raise ForestageError(
                f"{model.name}: experts in {chosen} cannot be computed here; choose one of {', '.join(FORMATS)}"
            )
        return cls(ExpertShape.of(model, intermediate=intermediate), chosen)

    @cached_property
    def spans(self) -> dict[str, Span]:
        """Where each part of `ExpertWeights` lies; parts that the format or shape does not have are left out."""
        shape = self.shape
        matrices = {"gate_up": (shape.inner_rows, shape.hidden), "down": (shape.hidden, shape.intermediate)}
        wanted: list[tuple[str, torch.dtype, tuple[int, ...]]] = []
        for name, (rows, width) in matrices.items():
            if self.format == "mxfp4":
                wanted += [
                    (name, torch.uint8, (rows, width // 2)),
                    (f"{name}_scales", torch.uint8, (rows, mxfp4.groups(width))),
                ]
            elif self.format == "int8":
                wanted += [(name, torch.int8, (rows, width)), (f"{name}_scales", torch.float32, (rows,))]
            else:
                wanted.append((name, {"fp32": torch.float32, "bf16": torch.bfloat16}[self.format], (rows, width)))
        if shape.bias:
            wanted += [(f"{name}_bias", torch.bfloat16, (rows,)) for name, (rows, _) in matrices.items()]
        spans: dict[str, Span] = {}
        end = 0
        for name, dtype, sizes in wanted:
            spans[name] = Span(_aligned(end), dtype, sizes)
            end = spans[name].end
        return spans

    @cached_property
    def nbytes(self) -> int:
        """Bytes of one expert's block."""
        return _aligned(max(span.end for span in self.spans.values()))

    @cached_property
    def padding(self) -> int:
        """Bytes of a block that hold nothing; 0 for every shape of the catalogue."""
        return self.nbytes - sum(span.end - span.start for span in self.spans.values())

    def pack(
        self,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        gate_up_bias: torch.Tensor | None = None,
        down_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Quantise an expert's weights and put them into a block.

        Args:
            gate_up: ``[inner_rows, hidden]``, any floating type.
            down: ``[hidden, intermediate]``.
            gate_up_bias: ``[inner_rows]``, if the shape has biases.
            down_bias: ``[hidden]``, likewise.

        Returns:
            u8 ``[nbytes]`` on the CPU.

        Raises:
            ForestageError: a part is missing, too many, of another shape, or not finite in the block's format.
        """
        given = {"gate_up": gate_up, "down": down, "gate_up_bias": gate_up_bias, "down_bias": down_bias}
        block = torch.zeros(self.nbytes, dtype=torch.uint8)
        weights = self.views(block)
        sizes = {
            "gate_up": (self.shape.inner_rows, self.shape.hidden),
            "down": (self.shape.hidden, self.shape.intermediate),
            "gate_up_bias": (self.shape.inner_rows,) if self.shape.bias else None,
            "down_bias": (self.shape.hidden,) if self.shape.bias else None,
        }
        for name, value in given.items():
            found = None if value is None else tuple(value.shape)
            if found != sizes[name]:
                raise ForestageError(f"expert: {name} has shape {found}; give {sizes[name]}")
            if value is not None:
                self._store(weights, name, value.detach().cpu())
        return block

    def _store(self, weights: ExpertWeights, name: str, value: torch.Tensor) -> None:
        """Put one part, quantised, into the block that ``weights`` aliases."""
        target, scales = getattr(weights, name), getattr(weights, f"{name}_scales", None)
        if scales is None:
            target.copy_(value)
        elif self.format == "mxfp4":
            codes, powers = mxfp4.quantise(value)
            target.copy_(codes)
            scales.copy_(powers)
        else:
            quantised = Int8Matrix.of(value.to(torch.float32).numpy())
            target.copy_(torch.from_numpy(quantised.codes))
            scales.copy_(torch.from_numpy(quantised.scales))
        if target.is_floating_point() and not bool(torch.isfinite(target).all()):
            raise ForestageError(f"expert: {name} is not finite in {self.format}; give finite weights")

    def views(self, block: torch.Tensor) -> ExpertWeights:
        """The parts of ``block`` u8 ``[nbytes]``, as tensors that alias it, on its device.

        Raises:
            ForestageError: the block has another type or size, has gaps, or does not lie at a multiple of 16 bytes of
                its storage.
        """
        if block.dtype != torch.uint8 or block.shape != (self.nbytes,):
            raise ForestageError(f"expert block: {block.dtype} {list(block.shape)}; give uint8 [{self.nbytes}]")
        if block.stride(0) != 1 or block.storage_offset() % ALIGNMENT:
            raise ForestageError(
                f"expert block: at byte {block.storage_offset()} of its storage, stride {block.stride(0)}; give bytes "
                f"that follow each other from a multiple of {ALIGNMENT}"
            )
        parts = {
            name: block[span.start : span.end].view(span.dtype).view(span.shape) for name, span in self.spans.items()
        }
        return ExpertWeights(
            gate_up=parts["gate_up"],
            gate_up_scales=parts.get("gate_up_scales"),
            down=parts["down"],
            down_scales=parts.get("down_scales"),
            gate_up_bias=parts.get("gate_up_bias"),
            down_bias=parts.get("down_bias"),
        )

    def dequantised(
        self, block: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The weights that ``block`` stands for, f32: gate_up, down, gate_up_bias, down_bias.

        Raises:
            ForestageError: as `views`.
        """
        weights = self.views(block)
        gate_up_bias, down_bias = weights.gate_up_bias, weights.down_bias
        return (
            dequantised_matrix(weights.gate_up, weights.gate_up_scales),
            dequantised_matrix(weights.down, weights.down_scales),
            None if gate_up_bias is None else gate_up_bias.to(torch.float32),
            None if down_bias is None else down_bias.to(torch.float32),
        )

    def random(self, count: int, *, seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """``count`` valid experts, u8 ``[count, nbytes]``, made on ``device`` in place (no copy of them is held).

        Weights have both signs and lie around 0 with a root mean square of about 1/√width of their matrix's input, so
        that outputs are as large as inputs. The same seed gives the same bytes on the same kind of device.
        """
        blocks = torch.empty((count, self.nbytes), dtype=torch.uint8, device=device)
        generator = torch.Generator(device=blocks.device).manual_seed(seed)
        fill(blocks, self.spans, generator)
        return blocks


def dequantised_matrix(
    values: torch.Tensor, scales: torch.Tensor | None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """A matrix of `ExpertWeights` in ``dtype`` (f32 or bf16): copied only where it is of another type."""
    if scales is None:
        return values.to(dtype)
    if scales.dtype == torch.uint8:
        return mxfp4.dequantise(values, scales, dtype)
    return (values.to(torch.float32) * scales[:, None]).to(dtype)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
