"""How far the unit's experts are from PyTorch in float64: the table of docs/pim-numerics.md, remade."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from gpu_reference.checks.error import relative_error
from pim_model.numerics import floats
from pim_model.numerics.expert import Expert, Layer, run_expert
from pim_model.numerics.formats import MATRICES
from pim_model.unit.program import ExpertKind, WeightFormat
from traces import RoutingTrace

torch = pytest.importorskip("torch", reason="PyTorch is the reference")

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "pim-numerics.md"
SHIPPED_LAYERS = (3, 7)


class FloatExpert(NamedTuple):
    """Float weights ``[output, input]``, gate and up rows interleaved, and inputs ``[tokens, hidden]``."""

    kind: ExpertKind
    gate_up: NDArray[np.float64]
    down: NDArray[np.float64]
    gate_up_bias: NDArray[np.float32] | None
    down_bias: NDArray[np.float32] | None
    x: NDArray[np.float64]

    def quantised(self, weight_format: WeightFormat) -> Expert:
        of = MATRICES[weight_format].of
        return Expert(self.kind, Layer(of(self.gate_up), self.gate_up_bias), Layer(of(self.down), self.down_bias))

    def output(self, gate_up: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
        """In float64 in PyTorch, by the formulas of transformers' Qwen3MoeMLP and GptOssExperts."""
        x, first, second = (torch.from_numpy(array) for array in (self.x, gate_up, down))
        y = x @ first.T
        y = y if self.gate_up_bias is None else y + torch.from_numpy(self.gate_up_bias)
        gate, up = y[:, 0::2], y[:, 1::2]
        if self.kind is ExpertKind.SWIGLU:
            h = torch.nn.functional.silu(gate) * up
        else:
            gate, up = gate.clamp(max=7.0), up.clamp(min=-7.0, max=7.0)
            h = (up + 1) * (gate * torch.sigmoid(gate * 1.702))
        y = h @ second.T
        return (y if self.down_bias is None else y + torch.from_numpy(self.down_bias)).numpy()

    def errors(self, weight_format: WeightFormat) -> tuple[float, float]:
        """‖y − ŷ‖₂ / ‖ŷ‖₂ against the float weights, and against the same weights after rounding to the format."""
        expert = self.quantised(weight_format)
        y = run_expert(expert, floats.bf16_from_float(self.x)).values
        exact = self.output(self.gate_up, self.down)
        as_stored = self.output(expert.gate_up.matrix.values(), expert.down.matrix.values())
        return relative_error(y, exact), relative_error(y, as_stored)


def shipped_experts(trace: RoutingTrace) -> Iterator[tuple[str, FloatExpert]]:
    """The expert that most tokens of the first sequence chose in some layers, and those tokens."""
    from gpu_reference.checks.model_replay import layer_inputs
    from gpu_reference.files import SHIPPED_CHECKPOINT
    from gpu_reference.moe_layer import ReplayMoELayer

    for number in SHIPPED_LAYERS:
        seen = layer_inputs(SHIPPED_CHECKPOINT, trace.sequence(0), number)
        chosen = int(torch.bincount(seen.ids.flatten()).argmax())
        layer = ReplayMoELayer.from_checkpoint(SHIPPED_CHECKPOINT, number)
        gate, up = (part.double().numpy() for part in layer.gate_up[chosen].chunk(2))
        gate_up = np.stack([gate, up], axis=1).reshape(-1, gate.shape[1])
        x = seen.x[(seen.ids == chosen).any(dim=1)].double().numpy()
        yield (
            f"shipped checkpoint, layer {number}, expert {chosen}",
            FloatExpert(ExpertKind.SWIGLU, gate_up, layer.down[chosen].double().numpy(), None, None, x),
        )


def random_expert(kind: ExpertKind, hidden: int, intermediate: int) -> FloatExpert:
    """Normal weights of variance 1 / inputs, normal inputs, four tokens; gpt-oss's with normal biases."""
    generator = np.random.default_rng(0)
    gate_up = generator.normal(0, hidden**-0.5, (2 * intermediate, hidden))
    down = generator.normal(0, intermediate**-0.5, (hidden, intermediate))
    x = generator.normal(size=(4, hidden))
    if kind is ExpertKind.SWIGLU:
        return FloatExpert(kind, gate_up, down, None, None, x)
    biases = (generator.normal(size=rows).astype(np.float32) for rows in (2 * intermediate, hidden))
    return FloatExpert(kind, gate_up, down, *biases, x)


def experts(trace: RoutingTrace) -> Iterator[tuple[str, FloatExpert]]:
    yield from shipped_experts(trace)
    yield "random, SwiGLU, 2048 × 768", random_expert(ExpertKind.SWIGLU, 2048, 768)
    yield "random, gpt-oss, 2880 × 360 (an eighth)", random_expert(ExpertKind.GPT_OSS, 2880, 360)


def test_the_guides_errors_are_the_units(shipped_trace: Path) -> None:
    rows = {}
    for name, expert in experts(RoutingTrace.load(shipped_trace)):
        errors = [expert.errors(weight_format) for weight_format in WeightFormat]
        assert errors[WeightFormat.BF16][0] <= 2.0**-7
        # MXFP4 computes with BF16 inputs, so that its own arithmetic is as exact as BF16's.
        assert errors[WeightFormat.MXFP4][1] <= 2.0**-7
        rows[name] = [100 * error for pair in errors for error in pair]
    shown = "\n".join(
        f"| {name} | " + " | ".join(f"{a:.2f} %, {b:.2f} %" for a, b in zip(row[0::2], row[1::2], strict=True)) + " |"
        for name, row in rows.items()
    )
    documented = {
        cells[0].strip(): [float(figure) for cell in cells[1:] for figure in re.findall(r"[\d.]+", cell)]
        for cells in (line.strip("| \n").split("|") for line in GUIDE.read_text(encoding="utf-8").splitlines())
        if cells[0].strip() in rows
    }
    assert documented.keys() == rows.keys(), f"the table is now\n{shown}"
    for name, row in rows.items():
        # Rounding to two places, and what another machine's PyTorch may change in the inputs.
        assert documented[name] == pytest.approx(row, rel=0.01, abs=0.006), f"the table is now\n{shown}"
