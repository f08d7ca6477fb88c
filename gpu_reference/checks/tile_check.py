"""Compare the PIM tile with PyTorch on an expert of a checkpoint: equal integers, and int8's error against float."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.errors import ForestageError
from gpu_reference.moe_layer import ReplayMoELayer
from pim_model import tile
from pim_model.quantise import Gemv, QuantisedExpert, relative_error


@dataclass(frozen=True, kw_only=True)
class TileCheck:
    """The result of `tile_reference_check`."""

    layer: int
    expert: int
    tokens: int
    products: int
    """Number of matrix-vector products compared: gate, up and down of every token."""
    elements: int
    """Number of integers compared."""
    mismatches: int
    """Number of integers that differ."""
    relative_error: float
    """Euclidean error of all outputs against the float32 expert in PyTorch, divided by the norm of its outputs."""
    worst_relative_error: float
    """The same for the worst token."""

    @property
    def integers_equal(self) -> bool:
        """Whether all of the tile's integers are PyTorch's."""
        return self.mismatches == 0


def torch_gemv(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
    """``weights @ vector`` in int32, by PyTorch's integer matrix product on the CPU."""
    product = torch.from_numpy(weights).to(torch.int32) @ torch.from_numpy(vector).to(torch.int32)
    return product.numpy()


def tile_reference_check(
    checkpoint: Path, layer: int, expert: int, x: torch.Tensor, tile_gemv: Gemv = tile.gemv
) -> TileCheck:
    """Run one expert on ``x [tokens, hidden]`` with the tile's products, and compare every product with PyTorch's.

    Weights are quantised by rows and activations by vectors, as in `pim_model.quantise`; the error is against
    `ReplayMoELayer.expert` in float32, which shares no code with it. ``tile_gemv`` is the twin or the hardware.

    Raises:
        ForestageError: if the checkpoint has no such layer or expert, ``x`` does not fit, or ``tile_gemv`` returns
            another type or shape than int32 ``[rows]``.
    """
    moe = ReplayMoELayer.from_checkpoint(checkpoint, layer)
    if not 0 <= expert < moe.experts:
        raise ForestageError(f"{checkpoint}: layer {layer}: expert {expert} is outside 0 to {moe.experts - 1}")
    if x.ndim != 2 or x.shape[1] != moe.hidden or not len(x):
        raise ForestageError(f"x: shape {list(x.shape)} does not fit; give [tokens, {moe.hidden}], at least one token")
    gate, up = moe.gate_up[expert].chunk(2)
    quantised = QuantisedExpert.of(gate.numpy(), up.numpy(), moe.down[expert].numpy())
    counts = {"products": 0, "elements": 0, "mismatches": 0}

    def compared(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
        found, expected = tile_gemv(weights, vector), torch_gemv(weights, vector)
        if found.dtype != np.int32 or found.shape != expected.shape:
            raise ForestageError(f"tile: returned {found.dtype} {list(found.shape)}, not int32 {list(expected.shape)}")
        counts["products"] += 1
        counts["elements"] += expected.size
        counts["mismatches"] += int((found != expected).sum())
        return found

    inputs = x.detach().float().cpu()
    outputs = np.stack([quantised.run(row, compared) for row in inputs.numpy()])
    reference = moe.expert(expert, inputs).numpy()
    errors = [relative_error(output, exact) for output, exact in zip(outputs, reference, strict=True)]
    return TileCheck(
        layer=layer,
        expert=expert,
        tokens=len(x),
        **counts,
        relative_error=relative_error(outputs, reference),
        worst_relative_error=max(errors),
    )
