"""A whole expert slice, and a single matrix, as the unit computes them: the twin of `rtl/pim`.

Epilogue, each step rounded to FP32: y = accumulator (INT8: scaled, see `dot_products`), + bias where the matrix has
one. Between the phases, for each pair of a gate row and the up row after it,

* g = BF16(y of gate), u = BF16(y of up);
* SwiGLU: h = BF16(A(g) · u); the product is exact in FP32;
* gpt-oss: g = min(g, 7), u = max(min(u, 7), −7), h = BF16(A(g) · (u + 1)), sum and product rounded to FP32; NaN stays;

A is the function of `activation`. h are the inputs of ``down``. The flag NONFINITE says that some y or h of a token
was infinite or NaN, or with INT8 weights an input: then the results need not be those of PyTorch. (An h that is not
finite makes every y of ``down`` infinite or NaN, or is such an input of INT8, so that h needs no look of its own.)
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model.numerics.activation import Activation, activate
from pim_model.numerics.dot_products import dot_products
from pim_model.numerics.floats import (
    Bits16,
    Bits32,
    Floats,
    add,
    bf16_from_float,
    float_bits,
    float_from_bf16,
    from_float_bits,
    multiply,
)
from pim_model.numerics.formats import WeightMatrix
from pim_model.unit.program import ExpertKind, WeightFormat

LIMIT = 7.0
"""Of gpt-oss's gate and up: ``swiglu_limit`` of its configuration."""

ACTIVATIONS = {ExpertKind.SWIGLU: Activation.SWIGLU, ExpertKind.GPT_OSS: Activation.GPT_OSS}


@dataclass(frozen=True, eq=False)
class Layer:
    """A matrix and, where it has one, its bias.

    Attributes:
        matrix: ``[rows, inputs]``.
        bias: float32 ``[rows]``.
    """

    matrix: WeightMatrix
    bias: Floats | None = None

    def __post_init__(self) -> None:
        rows = self.matrix.shape[0]
        if self.bias is not None and (self.bias.dtype != np.float32 or self.bias.shape != (rows,)):
            raise ForestageError(
                f"PIM numerics: bias is {self.bias.dtype} of shape {list(self.bias.shape)}; give float32 [{rows}]"
            )


@dataclass(frozen=True, eq=False)
class Expert:
    """An expert, or its slice over some of the intermediate rows.

    Attributes:
        kind: SwiGLU or gpt-oss.
        gate_up: ``[2 · intermediate, hidden]``: gate 0, up 0, gate 1, up 1, …
        down: ``[hidden, intermediate]``.
    """

    kind: ExpertKind
    gate_up: Layer
    down: Layer

    def __post_init__(self) -> None:
        if self.kind is ExpertKind.NONE:
            raise ForestageError("PIM expert: kind is none; an expert has one: swiglu or gpt-oss")
        first, second = self.gate_up.matrix, self.down.matrix
        if first.format is not second.format:
            raise ForestageError(
                f"PIM expert: gate_up is {first.format.name}, down {second.format.name}; give both in one format"
            )
        if first.shape != (2 * second.shape[1], second.shape[0]):
            raise ForestageError(
                f"PIM expert: gate_up is {list(first.shape)}, down {list(second.shape)}; give [2·intermediate, hidden] "
                "and [hidden, intermediate]"
            )

    @classmethod
    def of(
        cls,
        kind: ExpertKind,
        gate: WeightMatrix,
        up: WeightMatrix,
        down: WeightMatrix,
        *,
        gate_bias: Floats | None = None,
        up_bias: Floats | None = None,
        down_bias: Floats | None = None,
    ) -> "Expert":
        """From separate matrices of gate and up, each ``[intermediate, hidden]``.

        Raises:
            ForestageError: they do not fit together.
        """
        if gate.shape != up.shape or gate.format is not up.format or (gate_bias is None) != (up_bias is None):
            raise ForestageError("PIM expert: gate and up differ in shape, in format, or in having a bias; give alike")
        order = interleaved(gate.shape[0])
        bias = None if gate_bias is None or up_bias is None else np.concatenate([gate_bias, up_bias])[order]
        return cls(kind, Layer(gate.above(up).take_rows(order), bias), Layer(down, down_bias))

    @property
    def format(self) -> WeightFormat:
        """Of its weights."""
        return self.down.matrix.format

    @property
    def hidden(self) -> int:
        """Inputs and outputs."""
        return self.down.matrix.shape[0]

    @property
    def intermediate(self) -> int:
        """Rows of gate, and of up."""
        return self.down.matrix.shape[1]

    def sliced(self, start: int, stop: int, *, bias_of_down: bool) -> "Expert":
        """The slice of intermediate rows ``start`` to ``stop``; the bias of ``down`` must be in one slice only.

        Raises:
            ForestageError: the weights cannot be cut there.
        """
        if not 0 <= start < stop <= self.intermediate:
            raise ForestageError(
                f"PIM expert: slice {start} to {stop}; give rows within the {self.intermediate} of gate and up"
            )
        rows = np.arange(2 * start, 2 * stop)
        bias = None if self.gate_up.bias is None else self.gate_up.bias[rows]
        return Expert(
            self.kind,
            Layer(self.gate_up.matrix.take_rows(rows), bias),
            Layer(self.down.matrix.take_inputs(start, stop), self.down.bias if bias_of_down else None),
        )


@dataclass(frozen=True, eq=False)
class Result:
    """What the unit gives back.

    Attributes:
        bits: FP32 bits, uint32 ``[tokens, rows]``.
        nonfinite: The flag NONFINITE.
        hidden_inputs: BF16 bits h ``[tokens, intermediate]`` between an expert's phases; of a GEMV ``None``.
    """

    bits: Bits32
    nonfinite: bool
    hidden_inputs: Bits16 | None = None

    @property
    def values(self) -> Floats:
        """The results, float32 ``[tokens, rows]``."""
        return from_float_bits(self.bits)


def interleaved(intermediate: int) -> NDArray[np.int64]:
    """Where gate 0, up 0, gate 1, … lie in gate's rows with up's after them."""
    return np.arange(2 * intermediate).reshape(2, intermediate).T.ravel()


def run_gemv(layer: Layer, x: Bits16) -> Result:
    """A matrix times BF16 vectors ``x`` ``[tokens, inputs]``.

    Raises:
        ForestageError: shapes do not fit.
    """
    y, nonfinite = _outputs(layer, x)
    return Result(float_bits(y), nonfinite)


def run_expert(expert: Expert, x: Bits16) -> Result:
    """An expert's output for BF16 vectors ``x`` ``[tokens, hidden]``.

    Raises:
        ForestageError: shapes do not fit.
    """
    y, nonfinite_y = _outputs(expert.gate_up, x)
    h = gated(expert.kind, bf16_from_float(y[:, 0::2]), bf16_from_float(y[:, 1::2]))
    result, nonfinite = _outputs(expert.down, h)
    return Result(float_bits(result), nonfinite_y or nonfinite, h)


def gated(kind: ExpertKind, g: Bits16, u: Bits16) -> Bits16:
    """h for BF16 outputs of gate and up rows."""
    function, up = ACTIVATIONS[kind], float_from_bf16(u)
    if kind is ExpertKind.SWIGLU:
        return bf16_from_float(multiply(activate(function, g), up))
    limit = np.float32(LIMIT)
    gate = np.minimum(float_from_bf16(g), limit)  # NumPy's minimum and maximum keep NaN
    up = np.maximum(np.minimum(up, limit), -limit)
    return bf16_from_float(multiply(activate(function, bf16_from_float(gate)), add(up, np.float32(1))))


def sum_of_slices(partials: list[Floats]) -> Floats:
    """The output of an expert whose slices gave ``partials``: added in FP32 one after the other, slice 0 first.

    Raises:
        ForestageError: there is none.
    """
    if not partials:
        raise ForestageError("PIM expert: no slices to add; give at least one")
    total = from_float_bits(float_bits(partials[0]))
    for partial in partials[1:]:
        total = add(total, partial)
    return total


def slice_bounds(intermediate: int, slices: int, weight_format: WeightFormat) -> list[tuple[int, int]]:
    """Bounds of ``slices`` nearly equal slices: multiples of the format's ``input_unit``, so that nothing is filled up.

    Raises:
        ForestageError: more slices than such units.
    """
    units = -(-intermediate // weight_format.input_unit)
    if not 1 <= slices <= units:
        raise ForestageError(
            f"PIM expert: {slices} slices of {intermediate} intermediate rows; {weight_format.name} allows 1 to {units}"
        )
    edges = [min(units * i // slices * weight_format.input_unit, intermediate) for i in range(slices + 1)]
    return list(pairwise(edges))


def _outputs(layer: Layer, x: Bits16) -> tuple[Floats, bool]:
    """The epilogue's y, float32 ``[tokens, rows]``, and whether one of them, or an INT8 input, is not finite."""
    y, nonfinite = dot_products(layer.matrix, x)
    if layer.bias is not None:
        y = add(y, layer.bias)
    return y, nonfinite or not np.isfinite(y).all()
