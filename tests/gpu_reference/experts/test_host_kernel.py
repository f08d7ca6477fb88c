"""The host's kernel against float64, its bits under every condition, and its parts."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import torch

from gpu_reference.checks.error import relative_error
from gpu_reference.experts import host_products
from gpu_reference.experts.compute import expert_kernel, fastest_host_kernel, kernels, reference_output
from gpu_reference.experts.host_kernel import FORMATS
from gpu_reference.experts.host_vectors import LARGEST, quantise
from gpu_reference.experts.layout import ExpertLayout, Format
from gpu_reference.experts.shape import ExpertShape

# The second and third fill no step, and end inside a group.
SHAPES = {
    "whole steps": ExpertShape(hidden=192, intermediate=64, matrices=3, activation="swiglu"),
    "swiglu": ExpertShape(hidden=144, intermediate=68, matrices=3, activation="swiglu"),
    "gpt_oss": ExpertShape(hidden=264, intermediate=36, matrices=3, activation="gpt_oss_swiglu", bias=True),
}
ERRORS = {"bf16": 1e-6, "int8": 2e-4, "mxfp4": 2e-4}


def expert(shape: ExpertShape, format: Format) -> tuple[ExpertLayout, torch.Tensor]:
    layout = ExpertLayout(shape, format)
    return layout, layout.random(2, seed=1)[1]


def rows(shape: ExpertShape, count: int, size: float = 4.0) -> torch.Tensor:
    """So large that gpt-oss's clamp is reached."""
    return torch.randn(count, shape.hidden, generator=torch.Generator().manual_seed(count)) * size


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_output_is_the_float64_experts(shape: ExpertShape, format: Format) -> None:
    layout, block = expert(shape, format)
    run = expert_kernel(layout, "cpu", "host")
    for tokens in (1, 3, 4, 6, 17):
        x = rows(shape, tokens)
        wanted = reference_output(layout, block, x)
        assert relative_error(run(block, x).double(), wanted) < ERRORS[format]
        output = run(block, x.bfloat16())
        assert output.dtype == torch.bfloat16
        assert relative_error(output.double(), reference_output(layout, block, x.bfloat16())) < 3e-3


@pytest.mark.parametrize("format", FORMATS)
def test_a_tokens_bits_depend_on_nothing_beside_it(format: Format) -> None:
    layout, block = expert(SHAPES["gpt_oss"], format)
    run = expert_kernel(layout, "cpu", "host")
    x = rows(layout.shape, 7)
    together = run(block, x)
    for part in (slice(0, 1), slice(1, 3), slice(2, 7)):
        assert torch.equal(run(block, x[part]), together[part])
    assert torch.equal(run(block, x.T.contiguous().T), together)  # strided rows
    room = torch.full((layout.nbytes + 80,), 255, dtype=torch.uint8)  # what lies around the block is not read
    room[16 : 16 + layout.nbytes] = block
    assert torch.equal(run(room[16 : 16 + layout.nbytes], x), together)


@pytest.mark.parametrize("format", FORMATS)
def test_bits_do_not_depend_on_threads_and_pytorchs_number_stays(format: Format) -> None:
    layout, block = expert(SHAPES["swiglu"], format)
    run, x = expert_kernel(layout, "cpu", "host"), rows(SHAPES["swiglu"], 5)
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(run(block, x))
            assert torch.get_num_threads() == threads
            assert numba.get_num_threads() == min(threads, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_threads_that_call_it_at_once_get_the_same_bits() -> None:
    layout, block = expert(SHAPES["swiglu"], "mxfp4")
    run, x = expert_kernel(layout, "cpu", "host"), rows(SHAPES["swiglu"], 2)
    wanted = run(block, x)
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(output, wanted) for output in pool.map(lambda _: run(block, x), range(30)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_does_not_become_finite(format: Format, value: float) -> None:
    layout, block = expert(SHAPES["swiglu"], format)
    x = rows(layout.shape, 2)
    x[1, 5] = value
    output = expert_kernel(layout, "cpu", "host")(block, x)
    assert torch.isfinite(output[0]).all()
    assert not torch.isfinite(output[1]).any()


def test_vectors_of_extreme_sizes_keep_their_accuracy() -> None:
    for format in FORMATS:
        layout, block = expert(SHAPES["swiglu"], format)
        for size in (1e-9, 1e9):
            x = rows(layout.shape, 1, size)
            output = expert_kernel(layout, "cpu", "host")(block, x)
            assert relative_error(output.double(), reference_output(layout, block, x)) < ERRORS[format]


def quantised(x: np.ndarray, *, interleaved: bool = False) -> tuple[np.ndarray, np.ndarray]:
    wide = -(-len(x) // 64) * 64
    codes, scales = np.full(wide, 99, np.int16), np.full(wide // 32, 99, np.float32)
    quantise(x.astype(np.float32), 1.0, interleaved, codes, scales)
    return codes, scales


def test_a_groups_scale_is_the_least_power_of_two_that_holds_it() -> None:
    x = np.random.default_rng(1).normal(size=80).astype(np.float32)
    x[0], x[32:64] = 4.0, 0.0
    codes, scales = quantised(x)
    assert scales[0] == 8 / 2**15
    assert (codes[32:64] == 0).all()
    assert (codes[80:] == 0).all()
    values = (codes.reshape(-1, 32) * scales[:, None]).reshape(-1)[:80]
    for first in (0, 32, 64):
        here = slice(first, min(first + 32, 80))
        assert np.abs(values[here] - x[here]).max() <= scales[first // 32]
    assert quantised(np.float32([1 - 2**-24]))[0][0] == LARGEST


def test_bfloat16_within_two_to_the_seventh_of_the_largest_is_kept_exactly() -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(2)).sign() * torch.linspace(1 / 64, 1.99, 64)
    x = x.bfloat16().float().numpy()
    codes, scales = quantised(x)
    assert ((codes.reshape(-1, 32) * scales[:, None]).reshape(-1) == x).all()


def test_interleaved_vectors_hold_every_fourth_element_together() -> None:
    x = np.arange(1, 101, dtype=np.float32)
    plain, _ = quantised(x)
    mixed, _ = quantised(x, interleaved=True)
    assert (mixed.reshape(-1, 4, 16) == plain.reshape(-1, 16, 4).transpose(0, 2, 1)).all()


def test_elements_are_the_same_with_and_without_a_processors_byte_shuffle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_products, "HAS_BYTE_SHUFFLE", False)
    product: Any = host_products._product(host_products._Mxfp4(), 1)

    @numba.njit
    def run(row: int, scales: int, x: int, x_scales: int) -> float:
        return product(row, scales, 32, x, 0, x_scales, 0)[0]  # type: ignore[no-any-return]

    scales, x_scales = np.full(2, 127, np.uint8), np.full(2, 2.0**-9, np.float32)
    for code, doubled in enumerate(host_products.DOUBLED):
        for upper in (0, 4):
            row, x = np.zeros(32, np.uint8), np.zeros(64, np.int16)
            row[7] = code << upper
            x[(14 % 4 + (upper > 0)) * 16 + 14 // 4] = 10  # element 14 or 15
            assert run(*(array.ctypes.data for array in (row, scales, x, x_scales))) == 5 * doubled


def test_it_is_offered_on_a_cpu_for_what_it_decodes_and_named_as_the_fastest() -> None:
    for format, names in {"fp32": (), **dict.fromkeys(FORMATS, ("host",))}.items():
        layout = ExpertLayout(SHAPES["gpt_oss"], format)  # type: ignore[arg-type]
        assert kernels(layout, "cpu") == ("torch", *names)
        assert "host" not in kernels(layout, "cuda")
        assert fastest_host_kernel(layout) == ("host" if names else "torch")
    other = ExpertLayout(ExpertShape(hidden=64, intermediate=32, matrices=3, activation="geglu"), "bf16")
    assert kernels(other, "cpu") == ("torch",)
