"""An expert of a checkpoint for the PIM unit: tokens that chose it, its weights in the unit's formats, and what PyTorch
says of it in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.errors import SettingError
from gpu_reference.checks.error import relative_error
from gpu_reference.checks.model_replay import layer_inputs
from gpu_reference.moe_layer import ReplayMoELayer, checkpoint_layers
from pim_model.numerics.expert import Expert
from pim_model.numerics.floats import Bits16, bf16_from_float
from pim_model.numerics.formats import MATRICES
from pim_model.unit.program import ExpertKind, WeightFormat
from traces import RoutingTrace


@dataclass(frozen=True, eq=False)
class UnitExpert:
    """A SwiGLU expert without biases, and inputs.

    Attributes:
        expert: Its number in its layer.
        gate_up: float32 ``[2 · intermediate, hidden]``, gate rows, then up rows.
        down: float32 ``[hidden, intermediate]``.
        x: float32 ``[tokens, hidden]``.
    """

    expert: int
    gate_up: torch.Tensor
    down: torch.Tensor
    x: torch.Tensor

    def inputs(self) -> Bits16:
        """``x`` as the unit takes it, BF16 bits."""
        return bf16_from_float(self.x.numpy())

    def weights(self, weight_format: WeightFormat) -> Expert:
        """The expert as the unit holds it.

        Raises:
            ForestageError: a weight is not finite, or beyond the format.
        """
        gate, up, down = (MATRICES[weight_format].of(part.numpy()) for part in (*self.gate_up.chunk(2), self.down))
        return Expert.of(ExpertKind.SWIGLU, gate, up, down)

    def exact(self) -> NDArray[np.float64]:
        """The output ``[tokens, hidden]`` in PyTorch: weights and inputs as the checkpoint has them, all in float64."""
        layer = ReplayMoELayer(self.gate_up[None].double(), self.down[None].double())
        return layer.expert(0, self.x.double()).numpy()

    def errors(self, y: NDArray[np.float32]) -> NDArray[np.float64]:
        """Relative error of ``y`` ``[tokens, hidden]`` against `exact`: of all tokens together, then of each."""
        exact = self.exact()
        each = [relative_error(row, wanted) for row, wanted in zip(y, exact, strict=True)]
        return np.array([relative_error(y, exact), *each])


def most_used_expert(
    checkpoint: Path, trace: RoutingTrace, sequences: Sequence[int], layer: int, tokens: int
) -> UnitExpert:
    """The expert of ``layer`` that most tokens of the first of ``sequences`` chose, and the first ``tokens`` that did.

    Raises:
        ForestageError: the checkpoint is missing, lacks the layer or is not the trace's; fewer tokens chose the expert.
    """
    layers = checkpoint_layers(checkpoint)
    if not 0 <= layer < layers:
        raise SettingError("layer", f"is not in the shipped checkpoint; choose 0 to {layers - 1}", value=layer)
    if tokens < 1:
        raise SettingError("tokens", "give 1 or more", value=tokens)
    expert, found, parts = -1, 0, []
    for sequence in sequences:
        seen = layer_inputs(checkpoint, trace.sequence(sequence), layer)
        if expert < 0:
            expert = int(torch.bincount(seen.ids.flatten(), minlength=trace.experts).argmax())
        parts.append(seen.x[(seen.ids == expert).any(dim=1)])
        found += len(parts[-1])
        if found >= tokens:
            break
    if found < tokens:
        raise SettingError(
            "tokens", f"{found} tokens of the test sequences chose expert {expert}; give no more", value=tokens
        )
    moe = ReplayMoELayer.from_checkpoint(checkpoint, layer)
    x = torch.cat(parts)[:tokens].float()
    return UnitExpert(expert, moe.gate_up[expert], moe.down[expert], x)
