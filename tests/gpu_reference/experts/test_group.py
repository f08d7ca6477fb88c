"""Groups of experts: what is launched together, and what is refused."""

import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.experts.compute import expert_kernel, kernels
from gpu_reference.experts.group import expert_group
from gpu_reference.experts.layout import FORMATS, ExpertLayout, Format
from gpu_reference.experts.piece import Piece
from gpu_reference.experts.shape import ExpertShape

SHAPE = ExpertShape(hidden=144, intermediate=64, matrices=3, activation="swiglu")


@pytest.mark.parametrize("format", FORMATS)
def test_a_group_has_the_bits_of_its_experts_alone(format: Format) -> None:
    layout = ExpertLayout(SHAPE, format)
    blocks = layout.random(3, seed=1)
    x = torch.randn(7, SHAPE.hidden, generator=torch.Generator().manual_seed(1))
    pieces = [
        Piece(blocks[2], 0, 1, 9),
        Piece(blocks[0], 2, 5, 3),
        Piece(blocks[1], 0, 0, 1),
        Piece(blocks[1], 0, 1, 1),
    ]
    for name in kernels(layout, "cpu"):
        output = torch.full((10, SHAPE.hidden), 7.0)
        expert_group(layout, "cpu", name)(pieces, x, output)
        run = expert_kernel(layout, "cpu", name)
        assert torch.equal(output[9], run(blocks[2], x[:1])[0])
        assert torch.equal(output[3:8], run(blocks[0], x[2:7]))
        assert torch.equal(output[1], run(blocks[1], x[:1])[0])
        assert (output[[0, 2, 8]] == 7).all()


def test_rows_that_do_not_exist_are_refused() -> None:
    layout = ExpertLayout(SHAPE, "bf16")
    block, x, output = layout.random(1, seed=1)[0], torch.zeros(3, SHAPE.hidden), torch.zeros(4, SHAPE.hidden)
    run = expert_group(layout, "cpu")
    with pytest.raises(ForestageError, match=r"rows 2 \+ 2 of 3 rows of x"):
        run([Piece(block, 2, 2, 0)], x, output)
    with pytest.raises(ForestageError, match=r"rows 3 \+ 2 of 4 rows of the output"):
        run([Piece(block, 0, 2, 3)], x, output)
    with pytest.raises(ForestageError, match=r"rows -1 \+ 2 of 3"):
        run([Piece(block, -1, 2, 0)], x, output)
    with pytest.raises(ForestageError, match="output is torch"):
        run([Piece(block, 0, 1, 0)], x, output.bfloat16())
    with pytest.raises(ForestageError, match="'triton': not for bf16 swiglu experts"):
        expert_group(layout, "cpu", "triton")
