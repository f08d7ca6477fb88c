"""The expert twin against its own steps, transformers' GptOssExperts in float64, and its corners."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.errors import ForestageError
from gpu_reference.checks.error import relative_error
from pim_model.numerics import activation, floats
from pim_model.numerics.activation import Activation
from pim_model.numerics.expert import (
    LIMIT,
    Expert,
    Layer,
    gated,
    interleaved,
    run_expert,
    run_gemv,
    slice_bounds,
    sum_of_slices,
)
from pim_model.numerics.formats import MATRICES, Bf16Matrix, Int8Matrix, Mxfp4Matrix
from pim_model.unit.program import ExpertKind, WeightFormat

SWIGLU, GPT_OSS = ExpertKind.SWIGLU, ExpertKind.GPT_OSS
INFINITY, NAN = 0x7F80, floats.BF16_NAN

INSTALLED = "transformers' module is the truth"

formats = pytest.mark.parametrize("weight_format", WeightFormat)
kinds = pytest.mark.parametrize("kind", [SWIGLU, GPT_OSS])


def bf16(values: object) -> NDArray[np.uint16]:
    return floats.bf16_from_float(np.array(values, np.float32))


def random_expert(
    weight_format: WeightFormat, kind: ExpertKind, hidden: int = 96, intermediate: int = 64, seed: int = 0
) -> Expert:
    """With biases on both, as gpt-oss has."""
    generator = np.random.default_rng(seed)
    matrix = MATRICES[weight_format]
    gate_up = generator.normal(0, 2 * hidden**-0.5, (2 * intermediate, hidden))
    down = generator.normal(0, intermediate**-0.5, (hidden, intermediate))
    gate_up_bias, down_bias = (generator.normal(size=n).astype(np.float32) for n in (2 * intermediate, hidden))
    return Expert(kind, Layer(matrix.of(gate_up), gate_up_bias), Layer(matrix.of(down), down_bias))


def random_x(tokens: int = 4, hidden: int = 96, seed: int = 1) -> NDArray[np.uint16]:
    return bf16(np.random.default_rng(seed).normal(size=(tokens, hidden)))


def transformers_experts(hidden: int, intermediate: int) -> Any:
    """transformers' module of one gpt-oss expert."""
    pytest.importorskip("transformers", reason=INSTALLED)
    from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    return GptOssExperts(
        GptOssConfig(hidden_size=hidden, intermediate_size=intermediate, num_local_experts=1, num_experts_per_tok=1)
    )


def transformers_output(expert: Expert, x: NDArray[np.uint16]) -> NDArray[np.float64]:
    """The output of transformers' own module in float64, with the weights as they are after rounding."""
    torch = pytest.importorskip("torch", reason=INSTALLED)
    assert expert.gate_up.bias is not None
    assert expert.down.bias is not None
    module = transformers_experts(expert.hidden, expert.intermediate).double()
    with torch.no_grad():
        module.gate_up_proj[0] = torch.from_numpy(expert.gate_up.matrix.values().T)
        module.gate_up_proj_bias[0] = torch.from_numpy(expert.gate_up.bias)
        module.down_proj[0] = torch.from_numpy(expert.down.matrix.values().T)
        module.down_proj_bias[0] = torch.from_numpy(expert.down.bias)
        assert (module.alpha, module.limit) == (float(Activation.GPT_OSS.alpha), LIMIT)
        given = torch.from_numpy(floats.float_from_bf16(x)).double()
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        return module(given, torch.zeros(len(x), 1, dtype=torch.int64), ones).numpy()


@formats
def test_a_gpt_oss_expert_is_that_of_transformers(weight_format: WeightFormat) -> None:
    # Inputs large enough that many gates and ups are clamped.
    expert = random_expert(weight_format, GPT_OSS)
    x = bf16(3 * floats.float_from_bf16(random_x()))
    result = run_expert(expert, x)
    gates = run_gemv(expert.gate_up, x).values
    assert (gates[:, 0::2] > LIMIT).any()
    assert (gates[:, 1::2] > LIMIT).any()
    assert (gates[:, 1::2] < -LIMIT).any()
    # INT8 rounds its inputs to 7 bits, twice.
    assert relative_error(result.values, transformers_output(expert, x)) <= (
        2.0**-5 if weight_format is WeightFormat.INT8 else 2.0**-7
    )
    assert not result.nonfinite


@settings(deadline=None)  # the first call computes the tables
@given(st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=2))
def test_the_gate_of_gpt_oss_is_that_of_transformers_for_any_patterns(patterns: list[int]) -> None:
    g, u = floats.float_from_bf16(patterns).astype(np.float64)
    torch = pytest.importorskip("torch", reason=INSTALLED)
    expected = float(transformers_experts(1, 1)._apply_gate(torch.tensor([[g, u]], dtype=torch.float64))[0, 0])
    found = float(floats.float_from_bf16(gated(GPT_OSS, *np.array([patterns], np.uint16).T))[0])
    if np.isnan(expected):
        # transformers computes −∞ · σ(−∞) = −∞ · 0; the unit gives the limit, and the flag, as y was infinite.
        assert np.isnan(found) or g == -np.inf
    else:
        # The activation's deviation, the rounding of u + 1, of the product and of h; A below 2⁻¹²⁶ is 0, times up to 8.
        assert abs(found - expected) <= (0.5 + 0.02 + activation.TOLERANCE) * 2.0**-7 * abs(expected) + 2.0**-123


@settings(deadline=None)
@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
def test_h_is_the_stated_steps(g: int, u: int) -> None:
    pair = np.array([g], np.uint16), np.array([u], np.uint16)
    up = floats.float_from_bf16(pair[1])
    swiglu = floats.multiply(activation.activate(Activation.SWIGLU, pair[0]), up)
    assert gated(SWIGLU, *pair) == floats.bf16_from_float(swiglu)
    gate = floats.float_from_bf16(pair[0])
    clamped = bf16([gate[0] if np.isnan(gate[0]) else min(gate[0], np.float32(7))])
    up = np.clip(up, np.float32(-7), np.float32(7))
    product = floats.multiply(activation.activate(Activation.GPT_OSS, clamped), floats.add(up, 1))
    assert gated(GPT_OSS, *pair) == floats.bf16_from_float(product)


def test_the_product_of_swiglu_is_rounded_once() -> None:
    generator = np.random.default_rng(0)
    g, u = (generator.integers(0x3800, 0x4100, 4000).astype(np.uint16) for _ in range(2))
    exact = activation.activate(Activation.SWIGLU, g).astype(np.float64) * floats.float_from_bf16(u)
    np.testing.assert_array_equal(
        floats.multiply(activation.activate(Activation.SWIGLU, g), floats.float_from_bf16(u)), exact
    )


@kinds
def test_the_corners_between_the_phases(kind: ExpertKind) -> None:
    def h(g: int, u: int) -> int:
        return int(gated(kind, np.array([g], np.uint16), np.array([u], np.uint16))[0])

    one, minus = 0x3F80, 0xBF80
    assert h(NAN, one) == h(one, NAN) == h(0xFFFF, 0) == NAN
    assert h(INFINITY | 0x8000, one) == 0x8000  # A(−∞) = −0
    assert h(0x8000, one) == 0x8000
    if kind is SWIGLU:
        assert h(INFINITY, one) == INFINITY
        assert h(INFINITY, 0) == NAN
        assert h(0, INFINITY) == NAN
        assert h(0x7F7F, 0x7F7F) == INFINITY
        assert h(0x8000, minus) == 0
    else:
        assert h(INFINITY, one) == h(0x40E0, one)  # 7
        assert h(0x4100, INFINITY) == h(0x40E0, 0x40E0)
        assert h(0x40E0, 0xFF80) == h(0x40E0, 0xC0E0)  # −7
        assert h(one, minus) == 0  # u + 1 = +0


@formats
@kinds
def test_an_expert_is_its_phases(weight_format: WeightFormat, kind: ExpertKind) -> None:
    expert, x = random_expert(weight_format, kind), random_x()
    y = run_gemv(expert.gate_up, x).values
    h = gated(kind, floats.bf16_from_float(y[:, 0::2]), floats.bf16_from_float(y[:, 1::2]))
    result = run_expert(expert, x)
    np.testing.assert_array_equal(result.hidden_inputs, h)
    np.testing.assert_array_equal(result.bits, run_gemv(expert.down, h).bits)
    one_by_one = np.concatenate([run_expert(expert, x[token : token + 1]).bits for token in range(4)])
    np.testing.assert_array_equal(result.bits, one_by_one)


@formats
def test_the_bias_is_added_last(weight_format: WeightFormat) -> None:
    layer, x = random_expert(weight_format, GPT_OSS).gate_up, random_x()
    without = run_gemv(Layer(layer.matrix), x).values
    assert layer.bias is not None
    np.testing.assert_array_equal(run_gemv(layer, x).values, floats.add(without, layer.bias))


@formats
def test_gate_and_up_rows_are_interleaved(weight_format: WeightFormat) -> None:
    expert = random_expert(weight_format, SWIGLU)
    gate_up = expert.gate_up.matrix
    assert isinstance(gate_up, Bf16Matrix | Int8Matrix | Mxfp4Matrix)
    assert expert.gate_up.bias is not None
    gate, up = (gate_up.take_rows(np.arange(first, 128, 2)) for first in (0, 1))
    gate_bias, up_bias = expert.gate_up.bias[0::2], expert.gate_up.bias[1::2]
    again = Expert.of(
        SWIGLU, gate, up, expert.down.matrix, gate_bias=gate_bias, up_bias=up_bias, down_bias=expert.down.bias
    )
    np.testing.assert_array_equal(run_expert(again, random_x()).bits, run_expert(expert, random_x()).bits)
    assert interleaved(3).tolist() == [0, 3, 1, 4, 2, 5]


@formats
def test_the_flag_says_that_something_was_not_finite(weight_format: WeightFormat) -> None:
    expert, x = random_expert(weight_format, SWIGLU), random_x()
    assert not run_expert(expert, x).nonfinite
    for pattern in (INFINITY, NAN, 0xFF80):
        bad = x.copy()
        bad[2, 5] = pattern
        assert run_gemv(expert.gate_up, bad).nonfinite
        assert run_expert(expert, bad).nonfinite
    weights = expert.down.matrix.values()
    huge = Expert(SWIGLU, expert.gate_up, Layer(MATRICES[weight_format].of(weights * 1e38)))
    assert run_expert(huge, x).nonfinite
    # An infinite y of a gate row gives A(−∞) = −0 and finite results, but not unseen.
    bias = np.zeros(128, np.float32)
    bias[0] = -np.inf
    assert run_expert(Expert(SWIGLU, Layer(expert.gate_up.matrix, bias), expert.down), x).nonfinite


def test_the_flag_is_set_by_h_alone() -> None:
    # y of 2¹²⁰ is finite, h = y² is not; down's weights are zero, so INT8's codes 0 would give a finite result.
    zeros, large = np.zeros((1, 1)), np.full((1, 1), 2.0**120)
    for weight_format in (WeightFormat.BF16, WeightFormat.INT8):
        of = MATRICES[weight_format].of
        expert = Expert.of(SWIGLU, of(large), of(large), of(zeros))
        result = run_expert(expert, bf16([[1]]))
        assert result.hidden_inputs is not None
        assert result.hidden_inputs.tolist() == [[INFINITY]]
        assert result.nonfinite


@formats
@pytest.mark.parametrize("slices", [1, 2])
def test_slices_add_up_to_the_expert(weight_format: WeightFormat, slices: int) -> None:
    expert, x = random_expert(weight_format, GPT_OSS), random_x()
    bounds = slice_bounds(expert.intermediate, slices, weight_format)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 64
    parts = [run_expert(expert.sliced(a, b, bias_of_down=a == 0), x) for a, b in bounds]
    whole = run_expert(expert, x)
    assert whole.hidden_inputs is not None
    np.testing.assert_array_equal(np.concatenate([p.hidden_inputs for p in parts], axis=1), whole.hidden_inputs)
    total = sum_of_slices([part.values for part in parts])
    if slices == 1:
        np.testing.assert_array_equal(floats.float_bits(total), whole.bits)
    # FP32 sums in another order; INT8's slices have exponents of their own.
    assert relative_error(total, whole.values) <= (0.01 if weight_format is WeightFormat.INT8 else 1e-6)


def test_partial_outputs_are_added_in_order() -> None:
    parts = [np.array([[v]], np.float32) for v in (1, 2.0**-24, 2.0**-24)]
    assert sum_of_slices(parts).tolist() == [[1]]
    assert sum_of_slices(parts[::-1]).tolist() == [[1 + 2.0**-23]]
    with pytest.raises(ForestageError, match="at least one"):
        sum_of_slices([])


def test_slices_begin_where_nothing_must_be_filled_up() -> None:
    assert slice_bounds(2880, 4, WeightFormat.MXFP4) == [(0, 704), (704, 1440), (1440, 2144), (2144, 2880)]
    assert slice_bounds(50, 3, WeightFormat.BF16) == [(0, 16), (16, 32), (32, 50)]
    assert slice_bounds(50, 1, WeightFormat.MXFP4) == [(0, 50)]
    with pytest.raises(ForestageError, match="allows 1 to 2"):
        slice_bounds(50, 3, WeightFormat.MXFP4)


def test_what_does_not_fit_is_refused() -> None:
    matrix = Bf16Matrix.of(np.ones((4, 3)))
    with pytest.raises(ForestageError, match="2·intermediate, hidden"):
        Expert(SWIGLU, Layer(matrix), Layer(matrix))
    with pytest.raises(ForestageError, match="kind is none"):
        Expert(ExpertKind.NONE, Layer(matrix), Layer(matrix))
    with pytest.raises(ForestageError, match="in one format"):
        Expert(SWIGLU, Layer(matrix), Layer(Int8Matrix.of(np.ones((3, 2)))))
    with pytest.raises(ForestageError, match="give alike"):
        Expert.of(SWIGLU, matrix, Bf16Matrix.of(np.ones((5, 3))), matrix)
    with pytest.raises(ForestageError, match=r"give float32 \[4\]"):
        Layer(matrix, np.zeros(3, np.float32))
    expert = random_expert(WeightFormat.MXFP4, SWIGLU)
    with pytest.raises(ForestageError, match="within the 64"):
        expert.sliced(32, 65, bias_of_down=True)
    with pytest.raises(ForestageError, match="start at a multiple"):
        expert.sliced(16, 64, bias_of_down=True)


def test_the_guides_example_runs() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "pim-numerics.md"
    (example,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["result"].bits.shape == (1, 96)
    assert not names["result"].nonfinite
