"""The Triton kernels against float64: on a GPU compiled, else by Triton's interpreter where that is there."""

import importlib.util
import os
from types import ModuleType

import pytest
import torch

from gpu_reference.checks.error import relative_error
from gpu_reference.experts.compute import expert_kernel, kernels, reference_output
from gpu_reference.experts.layout import ExpertLayout, Format
from gpu_reference.experts.piece import Piece
from gpu_reference.experts.shape import ExpertShape

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Widths that fill no step, and row counts that fill no tile.
SHAPES = {
    "swiglu": ExpertShape(hidden=144, intermediate=68, matrices=3, activation="swiglu"),
    "gpt_oss_swiglu": ExpertShape(hidden=264, intermediate=36, matrices=3, activation="gpt_oss_swiglu", bias=True),
}
TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def kernel_module() -> ModuleType:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":  # read when Triton is first imported
        pytest.skip("PyTorch finds no GPU; TRITON_INTERPRET=1 runs this in Triton's interpreter, some minutes")
    return importlib.import_module("gpu_reference.experts.triton_kernels")


def experts(shape: ExpertShape, format: Format) -> tuple[ExpertLayout, torch.Tensor]:
    layout = ExpertLayout(shape, format)
    return layout, layout.random(2, seed=1, device=DEVICE)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 16, 19])
@pytest.mark.parametrize("format", ["bf16", "mxfp4"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_output_is_the_float64_experts(
    kernel_module: ModuleType, shape: ExpertShape, format: Format, tokens: int, dtype: torch.dtype
) -> None:
    if DEVICE == "cpu" and dtype == torch.bfloat16 and tokens > 1:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as integers")
    layout, blocks = experts(shape, format)
    x = (torch.randn(tokens, shape.hidden, generator=torch.Generator().manual_seed(3)) * 4).to(DEVICE, dtype)
    output = kernel_module.triton_kernel(layout)(blocks[1], x)
    assert output.dtype == dtype
    # The interpreter cuts bfloat16 off where a GPU rounds.
    largest = 1e-6 if dtype == torch.float32 else 6e-3 if DEVICE == "cuda" else 12e-3
    assert relative_error(output.double().cpu(), reference_output(layout, blocks[1], x)) < largest


@pytest.mark.parametrize("format", ["bf16", "mxfp4"])
def test_a_tokens_output_does_not_depend_on_what_runs_beside_it(kernel_module: ModuleType, format: Format) -> None:
    layout, blocks = experts(SHAPES["swiglu"], format)
    run = kernel_module.triton_kernel(layout)
    x = torch.randn(18, layout.shape.hidden, generator=torch.Generator().manual_seed(4)).to(DEVICE)
    together = run(blocks[0], x)
    for part in (slice(3, 5), slice(16, 18), slice(0, 16)):
        run(blocks[1], x[part])
        assert torch.equal(run(blocks[0], x[part]), together[part])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("format", ["bf16", "mxfp4"])
def test_experts_launched_together_have_the_bits_that_they_have_alone(
    kernel_module: ModuleType, format: Format, dtype: torch.dtype
) -> None:
    layout, blocks = experts(SHAPES["gpt_oss_swiglu"], format)
    other = layout.random(10, seed=6, device=DEVICE)  # another allocation
    x = torch.randn(24, layout.shape.hidden, generator=torch.Generator().manual_seed(7)).to(DEVICE, dtype)
    several = 1 if DEVICE == "cpu" and dtype == torch.bfloat16 else 18  # see above
    pieces = [Piece(block, 3 + at, 1, 2 * at) for at, block in enumerate((*other, *blocks))]  # more than a launch takes
    pieces[3:3] = [Piece(blocks[0], 2, several, 40), Piece(blocks[1], 0, 0, 39), Piece(other[7], 9, several // 6, 60)]
    group, alone = kernel_module.TritonGroup(layout), kernel_module.triton_kernel(layout)
    written = torch.zeros(64, dtype=torch.bool)
    output = torch.full((64, layout.shape.hidden), 77.0, dtype=dtype, device=DEVICE)
    for _ in range(2):  # the second finds the buffer of the first
        group(pieces, x, output)
        for piece in pieces:
            here = slice(piece.at, piece.at + piece.rows)
            written[here] = True
            if piece.rows:
                expected = alone(piece.block, x[piece.first : piece.first + piece.rows].clone())
                assert torch.equal(output[here], expected)
        assert (output[~written] == 77).all()
        pieces.reverse()


def test_the_kernel_is_offered_on_a_gpu_alone() -> None:
    offered = {
        format: "triton" in kernels(ExpertLayout(SHAPES["swiglu"], format), "cuda") for format in ("bf16", "int8")
    }
    assert offered == {"bf16": importlib.util.find_spec("triton") is not None, "int8": False}
    assert "triton" not in kernels(ExpertLayout(SHAPES["swiglu"], "bf16"), "cpu")


@pytest.mark.skipif(DEVICE == "cpu", reason="this machine has no GPU")
def test_on_a_gpu_the_kernel_runs_by_name_wherever_the_block_lies(kernel_module: ModuleType) -> None:
    layout, blocks = experts(SHAPES["gpt_oss_swiglu"], "mxfp4")
    run = expert_kernel(layout, "cuda", "triton")
    x = torch.randn(1, layout.shape.hidden, generator=torch.Generator().manual_seed(5)).to(DEVICE, torch.bfloat16)
    expected = run(blocks[1], x)
    for start in (16, 48, 256):
        room = torch.zeros(layout.nbytes + start, dtype=torch.uint8, device=DEVICE)
        room[start:] = blocks[1]
        assert torch.equal(run(room[start:], x), expected)
