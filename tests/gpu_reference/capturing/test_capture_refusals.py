"""A capture that is refused leaves everything as it was, whatever it is refused for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from catalog.errors import ForestageError
from gpu_reference.capturing import model as module
from gpu_reference.capturing import sequences as capture_sequences
from gpu_reference.capturing.model import ModelCaptureOptions, capture_model
from gpu_reference.capturing.prompts import CapturePrompt
from tests.gpu_reference.current_models import save
from traces import RoutingTrace

PROMPTS = [CapturePrompt(prompt="The quick brown fox jumps over the lazy dog.", domain="prose")]
OPTIONS: dict[str, Any] = {"new_tokens": 6, "max_prompt": 9, "dtype": "float32", "temperature": 1.0}


@pytest.fixture
def folder(tokenizer: Any, tmp_path: Path) -> Path:
    save("qwen2_moe", tokenizer, tmp_path / "model")
    return tmp_path / "model"


def tree(folder: Path) -> dict[str, tuple[bool, bytes]]:
    return {
        str(path.relative_to(folder)): (path.is_dir(), b"" if path.is_dir() else path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def change_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def make_dense(folder: Path) -> None:
    small = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**small, num_attention_heads=2, num_key_value_heads=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def shrink_vocabulary(folder: Path) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(40)
    model.save_pretrained(folder)


def leave(_: Path) -> None:
    """Damage nothing: an option is at fault."""


@pytest.mark.parametrize(
    ("damage", "options", "out", "message"),
    [
        (leave, {"device": "abacus"}, "t", "'abacus' is none that PyTorch knows"),
        (leave, {"device": "cuda:77"}, "t", "is not on this machine"),
        (leave, {"adapters": ("no_such:Thing",)}, "t", "--adapter no_such:Thing: cannot be imported"),
        (leave, {"early_gate": (4,)}, "t", "lookahead 4 reaches no layer of 4 with routers; give less"),
        (leave, {}, "file/t", "cannot write"),
        (leave, {}, "model", "is a folder"),
        (leave, {}, "begun", "is no folder; unfinished sequences are kept there"),
        (lambda folder: (folder / "tokenizer.json").unlink(), {}, "t", "no such file"),
        (change_config(model_type="abacus"), {}, "t", "the model cannot be loaded"),
        (change_config(is_encoder_decoder=True), {}, "t", "is an encoder-decoder; a trace holds one stack"),
        (make_dense, {}, "t", "no router of a known class.*it may be a dense model"),
        (shrink_vocabulary, {}, "t", r"gives token \d+, the model has 40; they do not belong together"),
    ],
)
def test_nothing_is_left_behind(
    damage: Callable[[Path], None], options: dict[str, Any], out: str, message: str, folder: Path, tmp_path: Path
) -> None:
    damage(folder)
    (tmp_path / "file").touch()
    (tmp_path / "begun.parts").touch()
    before = tree(tmp_path)
    with pytest.raises(ForestageError, match=message) as caught:
        capture_model(folder, PROMPTS, tmp_path / out, options=ModelCaptureOptions(**OPTIONS, **options))
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_prompt_without_a_token_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": "~+"}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    before = tree(tmp_path)
    prompts = [*PROMPTS, CapturePrompt(prompt="~~~", domain="prose")]
    with pytest.raises(ForestageError, match=r"prompt 2 \('~~~'\) has no token; leave it out"):
        capture_model(folder, prompts, tmp_path / "t", options=ModelCaptureOptions(**OPTIONS))
    assert tree(tmp_path) == before


def test_a_choice_that_its_logits_deny_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = transformers.models.qwen2_moe.modeling_qwen2_moe.Qwen2MoeTopKRouter
    honest = router.forward

    def lying(self: Any, hidden: torch.Tensor) -> Any:
        logits, weights, ids = honest(self, hidden)
        return logits, weights, (ids + 1) % 8

    monkeypatch.setattr(router, "forward", lying)
    before = tree(tmp_path)
    with pytest.raises(ForestageError, match=r"layers\.0\.mlp\.gate, row 0: the router chose"):
        capture_model(folder, PROMPTS, tmp_path / "t", options=ModelCaptureOptions(**OPTIONS))
    assert tree(tmp_path) == before


def test_a_sequence_that_cannot_be_kept_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, path: Path) -> None:
        raise ForestageError(f"{path}: cannot write (No space left on device)")

    monkeypatch.setattr(RoutingTrace, "save", full)
    before = tree(tmp_path)
    options = ModelCaptureOptions(**OPTIONS, early_gate=(1,))
    with pytest.raises(ForestageError, match="No space left"):
        capture_model(folder, PROMPTS, tmp_path / "t", options=options)
    assert tree(tmp_path) == before


def test_a_cache_that_does_not_work_is_told_and_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decode steps that forget the prompt choose other experts than one pass over everything."""
    load = module.ModelFolder.load_model

    def forgetful(self: Any, **options: Any) -> Any:
        model = load(self, **options)
        forward = model.forward

        def forget(*, past_key_values: Any = None, **inputs: Any) -> Any:
            return forward(**inputs)

        monkeypatch.setattr(model, "forward", forget)
        return model

    monkeypatch.setattr(module.ModelFolder, "load_model", forgetful)
    monkeypatch.setattr(capture_sequences, "_last_only", lambda model: {})
    before = tree(tmp_path)
    options = ModelCaptureOptions(**{**OPTIONS, "new_tokens": 40})
    with pytest.raises(ForestageError, match=r"decode steps chose other experts than one pass .*--new-tokens 0"):
        capture_model(folder, PROMPTS, tmp_path / "t", options=options)
    assert tree(tmp_path) == before
    capture_model(folder, PROMPTS, tmp_path / "t", options=ModelCaptureOptions(**{**OPTIONS, "new_tokens": 0}))
    assert (tmp_path / "t").is_file()
