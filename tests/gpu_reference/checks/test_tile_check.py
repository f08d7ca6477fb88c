from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from catalog.errors import ForestageError
from gpu_reference.checks.tile_check import tile_reference_check, torch_gemv
from gpu_reference.small_moe import save_checkpoint
from pim_model import tile


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(tiny_model, tokenizer, folder)
    return folder


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 32, generator=torch.Generator().manual_seed(0))


def test_the_twin_gives_torchs_integers_and_is_near_the_float_expert(checkpoint: Path, x: torch.Tensor) -> None:
    check = tile_reference_check(checkpoint, 1, 3, x)
    assert check.integers_equal
    assert (check.tokens, check.products, check.elements) == (5, 15, 5 * (16 + 16 + 32))
    assert 1e-4 < check.relative_error <= check.worst_relative_error < 0.05


def test_one_wrong_bit_is_seen(checkpoint: Path, x: torch.Tensor) -> None:
    def faulty(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
        result = tile.gemv(weights, vector)
        result[7] ^= 1
        return result

    check = tile_reference_check(checkpoint, 1, 3, x, faulty)
    assert (check.integers_equal, check.mismatches) == (False, 15)


def test_torchs_product_is_exact_at_the_extremes() -> None:
    weights, vector = np.full((2, 4096), -128, dtype=np.int8), np.full(4096, -128, dtype=np.int8)
    assert torch_gemv(weights, vector).tolist() == [4096 * 128 * 128] * 2


def test_what_does_not_fit_is_one_line(checkpoint: Path, x: torch.Tensor) -> None:
    with pytest.raises(ForestageError, match="expert 8 is outside 0 to 7"):
        tile_reference_check(checkpoint, 1, 8, x)
    with pytest.raises(ForestageError, match=r"x: shape \[5, 31\] does not fit"):
        tile_reference_check(checkpoint, 1, 3, x[:, 1:])
    with pytest.raises(ForestageError, match=r"returned int64 \[16\], not int32"):
        tile_reference_check(checkpoint, 1, 3, x, lambda w, v: tile.gemv(w, v).astype(np.int64))  # type: ignore[arg-type,return-value]
