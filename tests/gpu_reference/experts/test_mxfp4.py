"""MXFP4 against the definition of the OCP Microscaling formats 1.0, and against ``ml_dtypes`` where it is installed."""

import math

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.experts import mxfp4

# Table 5 of the specification (E2M1): exponent bias 1, one bit of significand, subnormals where the exponent is 0.
E2M1 = [
    (-1) ** (code >> 3) * (1 + (code & 1) / 2) * 2.0 ** ((code >> 1 & 3) - 1)
    if code >> 1 & 3
    else (-1) ** (code >> 3) * (code & 1) / 2
    for code in range(16)
]


def codes_of(packed: torch.Tensor) -> np.ndarray:
    """The 4-bit codes ``[rows, width]`` of packed ones."""
    bytes_ = packed.numpy()
    return np.stack((bytes_ & 15, bytes_ >> 4), axis=2).reshape(len(bytes_), -1)


def nearest_code(value: float) -> int:
    """The code nearest to ``value``, searched through all of them; of two as near, the even one."""
    sign = 8 if math.copysign(1, value) < 0 else 0
    return min(range(8), key=lambda code: (abs(E2M1[code] - abs(value)), code & 1)) | sign


def test_every_element_and_scale_stands_for_what_the_specification_says() -> None:
    assert mxfp4.element_values(torch.float32, torch.device("cpu")).tolist() == E2M1
    scales = mxfp4.scale_values(torch.float32, torch.device("cpu")).tolist()
    assert scales[:255] == [2.0 ** (byte - 127) for byte in range(255)]
    assert math.isnan(scales[255])


@pytest.mark.parametrize("width", [32, 64, 144, 4])
def test_quantising_follows_the_rule_element_by_element(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    sizes = torch.exp2(torch.randint(-20, 20, (6, 1), generator=generator).float())
    matrix = torch.randn(6, width, generator=generator) * sizes
    matrix[0, :2] = torch.tensor([-0.0, 0.0])
    codes, scales = mxfp4.quantise(matrix)
    found = codes_of(codes)
    for row in range(6):
        for group in range(mxfp4.groups(width)):
            part = matrix[row, 32 * group : 32 * group + 32].double().tolist()
            exponent = math.floor(math.log2(max(map(abs, part)))) - 2
            assert scales[row, group] == exponent + 127
            expected = [nearest_code(value / 2.0**exponent) for value in part]
            assert found[row, 32 * group : 32 * group + 32].tolist() == expected


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.25, 0), (0.75, 2), (1.25, 2), (1.75, 4), (2.5, 4), (3.5, 6), (5.0, 6), (5.01, 7), (7.99, 7), (0.26, 1)],
)
def test_ties_go_to_the_even_code_and_what_is_too_large_saturates(value: float, code: int) -> None:
    group = torch.zeros(1, 32)
    group[0, 0], group[0, 1], group[0, 2] = 4.0 if value < 4 else value, value, -value  # the first sets the scale to 1
    codes, scales = mxfp4.quantise(group)
    assert scales.tolist() == [[127]]
    assert codes_of(codes)[0, 1:3].tolist() == [code, code | 8]


def test_values_that_the_format_has_come_back_exactly() -> None:
    generator = torch.Generator().manual_seed(5)
    elements = torch.tensor(E2M1)[torch.randint(0, 16, (40, 96), generator=generator)]
    elements[:, ::32] = 6.0  # so that each group keeps its scale
    powers = torch.exp2(torch.randint(-120, 100, (40, 3), generator=generator).float())
    matrix = (elements.view(40, 3, 32) * powers[:, :, None]).view(40, 96)
    again = mxfp4.dequantise(*mxfp4.quantise(matrix))
    assert torch.equal(again, matrix)


def test_dequantising_is_exact_in_bfloat16_too() -> None:
    generator = torch.Generator().manual_seed(6)
    codes = torch.randint(0, 256, (8, 72), generator=generator, dtype=torch.uint8)
    scales = torch.randint(90, 140, (8, 5), generator=generator, dtype=torch.uint8)
    exact = mxfp4.dequantise(codes, scales)
    assert torch.equal(mxfp4.dequantise(codes, scales, torch.bfloat16).float(), exact)
    # By hand: the last group is 16 wide, its elements are those of bytes 64 to 71.
    value = E2M1[int(codes[3, 71]) >> 4] * 2.0 ** (int(scales[3, 4]) - 127)
    assert float(exact[3, 143]) == value


def test_a_group_of_zeros_and_the_smallest_numbers() -> None:
    matrix = torch.zeros(1, 64)
    matrix[0, 32] = 2.0**-126
    codes, scales = mxfp4.quantise(matrix)
    assert scales.tolist() == [[0, 0]]
    assert codes_of(codes)[0, 32] == nearest_code(2.0)
    assert torch.equal(mxfp4.dequantise(codes, scales), matrix)


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(ForestageError, match="width of 3 is odd"):
        mxfp4.quantise(torch.ones(1, 3))
    with pytest.raises(ForestageError, match="not finite"):
        mxfp4.quantise(torch.tensor([[1.0, math.inf]]))


def test_bit_for_bit_equal_to_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    generator = torch.Generator().manual_seed(9)
    matrix = torch.randn(64, 256, generator=generator) * torch.exp2(torch.randn(64, 256, generator=generator) * 3)
    codes, scales = mxfp4.quantise(matrix)
    powers = scales.numpy().view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    groups = matrix.numpy().reshape(64, 8, 32)
    exponents = np.floor(np.log2(np.abs(groups).max(axis=2).astype(np.float64))) - 2
    assert (powers == (2.0**exponents).astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)).all()
    scaled = np.clip(groups / powers[:, :, None], -6, 6)  # ml_dtypes saturates too, but says nothing of it
    expected = scaled.astype(ml_dtypes.float4_e2m1fn)
    found = codes_of(codes).reshape(64, 8, 32)
    assert (found == expected.view(np.uint8)).all()
    values = expected.astype(np.float32) * powers[:, :, None]
    assert (mxfp4.dequantise(codes, scales).numpy() == values.reshape(64, 256)).all()


def test_dequantising_takes_no_list_to_the_device_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, scales = torch.zeros((2, 16), dtype=torch.uint8), torch.full((2, 1), 127, dtype=torch.uint8)
    with torch.inference_mode():
        first = mxfp4.dequantise(codes, scales, torch.bfloat16)
    monkeypatch.setattr(torch, "tensor", None)
    assert torch.equal(mxfp4.dequantise(codes, scales, torch.bfloat16), first)
