"""An expert's kernels against float64, the model's own code and the PIM unit's arithmetic."""

import pytest
import torch
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

from catalog.errors import ForestageError
from gpu_reference.checks.error import relative_error
from gpu_reference.experts.compute import expert_kernel, kernels, reference_output
from gpu_reference.experts.layout import FORMATS, ExpertLayout, Format
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.moe_layer import ReplayMoELayer
from pim_model.numerics.expert import Expert, run_expert
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.formats import Int8Matrix
from pim_model.unit.program import ExpertKind

SHAPES = {
    "swiglu": ExpertShape(hidden=144, intermediate=64, matrices=3, activation="swiglu"),
    "gpt_oss_swiglu": ExpertShape(hidden=96, intermediate=64, matrices=3, activation="gpt_oss_swiglu", bias=True),
    "geglu": ExpertShape(hidden=64, intermediate=96, matrices=3, activation="geglu"),
    "relu": ExpertShape(hidden=64, intermediate=96, matrices=2, activation="relu"),
    "relu2": ExpertShape(hidden=64, intermediate=96, matrices=2, activation="relu2", bias=True),
}


def rows(shape: ExpertShape, count: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> torch.Tensor:
    """Random inputs."""
    return (torch.randn(count, shape.hidden, generator=torch.Generator().manual_seed(count)) * size).to(dtype)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_torch_kernel_is_the_float64_expert(shape: ExpertShape, format: Format) -> None:
    layout = ExpertLayout(shape, format)
    for block in layout.random(2, seed=1):
        for dtype, largest in ((torch.float32, 1e-6), (torch.bfloat16, 6e-3)):
            x = rows(shape, 5, dtype, size=4)
            output = expert_kernel(layout, "cpu")(block, x)
            assert output.dtype == dtype
            assert relative_error(output.double(), reference_output(layout, block, x)) < largest


def test_the_float64_reference_is_gpt_oss_own_expert() -> None:
    shape = SHAPES["gpt_oss_swiglu"]
    layout = ExpertLayout(shape, "bf16")
    blocks = layout.random(1, seed=2)
    gate_up, down, gate_up_bias, down_bias = layout.dequantised(blocks[0])
    config = GptOssConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_local_experts=1, num_experts_per_tok=1
    )
    theirs = GptOssExperts(config).double()
    gate, up = gate_up.chunk(2)
    with torch.no_grad():
        theirs.gate_up_proj.copy_(torch.stack((gate, up), dim=1).reshape(-1, shape.hidden).T[None])
        assert gate_up_bias is not None
        assert down_bias is not None
        theirs.gate_up_proj_bias.copy_(torch.stack(gate_up_bias.chunk(2), dim=1).reshape(1, -1))
        theirs.down_proj.copy_(down.T[None])
        theirs.down_proj_bias.copy_(down_bias[None])
        x = rows(shape, 6, size=6)  # so large that gate and up reach their limits
        inner = x @ gate_up.T + gate_up_bias
        assert (inner.chunk(2, dim=1)[0] > 7).any()
        assert (inner.chunk(2, dim=1)[1] < -7).any()
        expected = theirs(x.double(), torch.zeros(6, 1, dtype=torch.int64), torch.ones(6, 1, dtype=torch.float64))
    assert relative_error(reference_output(layout, blocks[0], x), expected) < 1e-12


def test_swiglu_in_float32_is_the_replay_layers_expert() -> None:
    layout = ExpertLayout(SHAPES["swiglu"], "fp32")
    block = layout.random(1, seed=3)[0]
    gate_up, down, *_ = layout.dequantised(block)
    x = rows(layout.shape, 4)
    assert torch.equal(expert_kernel(layout, "cpu")(block, x), ReplayMoELayer(gate_up[None], down[None]).expert(0, x))


def test_the_pim_kernel_is_the_pim_units_expert_bit_for_bit() -> None:
    layout = ExpertLayout(SHAPES["swiglu"], "int8")
    gate_up = torch.randn(128, 144, generator=torch.Generator().manual_seed(1)) / 12
    down = torch.randn(144, 64, generator=torch.Generator().manual_seed(2)) / 8
    block = layout.pack(gate_up, down)
    gate, up, second = (Int8Matrix.of(part.numpy()) for part in (*gate_up.chunk(2), down))
    expert = Expert.of(ExpertKind.SWIGLU, gate, up, second)
    x = rows(layout.shape, 20, size=3)
    x[4] = 0
    found = expert_kernel(layout, "cpu", "pim")(block, x)
    expected = run_expert(expert, bf16_from_float(x.numpy())).values
    assert (found.numpy() == expected).all()
    assert 0.003 < relative_error(found, reference_output(layout, block, x)) < 0.03


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_wherever_the_block_and_the_rows_lie(format: Format, dtype: torch.dtype) -> None:
    layout = ExpertLayout(SHAPES["swiglu"], format)
    block = layout.random(1, seed=7)[0]
    x = rows(layout.shape, 3, dtype)
    for kernel in kernels(layout, "cpu"):
        run = expert_kernel(layout, "cpu", kernel)
        expected = run(block, x)
        assert torch.equal(run(block, x), expected)
        for start in (16, 48, 80, 256):
            room = torch.zeros(layout.nbytes + start, dtype=torch.uint8)
            room[start:] = block
            around = torch.zeros(x.numel() + start // 16, dtype=dtype)
            around[start // 16 :] = x.flatten()
            assert torch.equal(run(room[start:], around[start // 16 :].view(x.shape)), expected)


def test_no_rows_give_no_rows() -> None:
    layout = ExpertLayout(SHAPES["swiglu"], "mxfp4")
    output = expert_kernel(layout, "cpu")(layout.random(1, seed=0)[0], torch.empty(0, 144, dtype=torch.bfloat16))
    assert output.shape == (0, 144)
    assert output.dtype == torch.bfloat16


def test_what_cannot_be_computed_is_refused_in_one_line() -> None:
    layout = ExpertLayout(SHAPES["gpt_oss_swiglu"], "int8")
    with pytest.raises(
        ForestageError,
        match="'pim': not for int8 gpt_oss_swiglu experts with biases on cpu; choose one of torch, h",
    ):
        expert_kernel(layout, "cpu", "pim")
    with pytest.raises(ForestageError, match="'fast': not for int8 gpt_oss_swiglu"):
        expert_kernel(layout, "cpu", "fast")
    run, block = expert_kernel(layout, "cpu"), layout.random(1, seed=0)[0]
    with pytest.raises(ForestageError, match=r"x is torch.float32 \[2, 95\]; give float32 or bfloat16 \[n, 96\]"):
        run(block, torch.zeros(2, 95))
    with pytest.raises(ForestageError, match=r"x is torch.float16 \[2, 96\]"):
        run(block, torch.zeros(2, 96, dtype=torch.float16))
    with pytest.raises(ForestageError, match="block on cpu, x on meta"):
        run(block, torch.zeros(2, 96, device="meta"))
    with pytest.raises(ForestageError, match="block on cpu, x on cpu; give both on cuda"):
        expert_kernel(layout, "cuda")(block, torch.zeros(2, 96))
