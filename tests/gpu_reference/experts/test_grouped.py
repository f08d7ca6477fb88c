"""Several experts in one call against each by itself."""

import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.checks.error import relative_error
from gpu_reference.experts.compute import reference_output
from gpu_reference.experts.grouped import grouped_output
from gpu_reference.experts.layout import FORMATS, ExpertLayout, Format
from gpu_reference.experts.shape import ExpertShape

SHAPES = {
    "swiglu": ExpertShape(hidden=64, intermediate=96, matrices=3, activation="swiglu"),
    "gpt_oss_swiglu": ExpertShape(hidden=96, intermediate=64, matrices=3, activation="gpt_oss_swiglu", bias=True),
}
COUNTS = (3, 0, 1, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_experts_tokens_get_its_output(shape: ExpertShape, format: Format, dtype: torch.dtype) -> None:
    layout = ExpertLayout(shape, format)
    blocks = layout.random(len(COUNTS), seed=1)
    x = torch.randn(sum(COUNTS), shape.hidden, generator=torch.Generator().manual_seed(2)).to(dtype)
    output = grouped_output(layout, blocks, x, COUNTS)
    assert output.dtype == dtype
    first = 0
    for block, count in zip(blocks, COUNTS, strict=True):
        part = slice(first, first + count)
        if count:
            error = relative_error(output[part].double(), reference_output(layout, block, x[part]))
            assert error < (1e-6 if dtype == torch.float32 else 8e-3)
        first += count


def test_sizes_that_do_not_fit_are_refused() -> None:
    layout = ExpertLayout(SHAPES["swiglu"], "bf16")
    blocks = layout.random(2, seed=0)
    with pytest.raises(ForestageError, match=r"bfloat16 \[5, 64\]"):
        grouped_output(layout, blocks, torch.zeros(4, 64), (2, 3))
    with pytest.raises(ForestageError, match="3 counts for 2 experts"):
        grouped_output(layout, blocks, torch.zeros(4, 64), (2, 1, 1))
    with pytest.raises(ForestageError, match="give each 0 or more"):
        grouped_output(layout, blocks, torch.zeros(4, 64), (-1, 5))
    assert grouped_output(layout, blocks, torch.zeros(0, 64), (0, 0)).shape == (0, 64)
