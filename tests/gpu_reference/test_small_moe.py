from pathlib import Path
from typing import Any

import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.small_moe import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    SmallMoEShape,
    build_model,
    load_model,
    load_tokenizer,
    save_checkpoint,
)


def test_the_shipped_shape_has_eight_million_parameters() -> None:
    from transformers import Qwen3MoeForCausalLM

    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(SmallMoEShape().config())
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_149_904
    assert sum("Qwen3MoeSparseMoeBlock" in type(module).__name__ for module in model.modules()) == 8


def test_the_seed_decides_the_weights(tiny_shape: SmallMoEShape) -> None:
    first, same, other = (build_model(tiny_shape, seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_checkpoint_comes_back_in_bfloat16(tiny_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    save_checkpoint(tiny_model, tokenizer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE}
    loaded = load_model(tmp_path)
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(torch.bfloat16).float()), name
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    text = "def f_1(x):\n    return 12 — é"
    assert load_tokenizer(tmp_path).decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_or_broken_file_is_one_line(tiny_model: Any, tokenizer: Any, tmp_path: Path, name: str) -> None:
    save_checkpoint(tiny_model, tokenizer, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(ForestageError, match="checkpoint cannot be read") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(ForestageError, match="no such file"):
        load_model(tmp_path)


def test_weights_of_another_shape_are_refused(tiny_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    save_checkpoint(tiny_model, tokenizer, tmp_path)
    text = (tmp_path / CONFIG_FILE).read_text()
    (tmp_path / CONFIG_FILE).write_text(text.replace('"num_local_experts": 8', '"num_local_experts": 9'))
    with pytest.raises(ForestageError, match=r"tensors do not fit config\.json"):
        load_model(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(text.replace('"num_hidden_layers": 3', '"num_hidden_layers": 2'))
    with pytest.raises(ForestageError, match=r"do not fit config\.json \(first: model\.layers\.2"):
        load_model(tmp_path)


def test_a_broken_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / TOKENIZER_FILE).write_text("{}")
    with pytest.raises(ForestageError, match="not a tokenizer"):
        load_tokenizer(tmp_path)
