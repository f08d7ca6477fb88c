import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.decoder import Decoder
from gpu_reference.small_moe import load_model, load_tokenizer
from tests.conftest import SHIPPED
from tests.gpu_reference.decoder.whole_models import experts_of, forward

CHECKPOINT = SHIPPED / "checkpoint"
PROMPTS = {
    "code": "def count_words(text):\n    words = {}\n    for word in text.split():\n",
    "prose": "The old man walked slowly down to the river, and when he came to the bridge",
}
NEW_TOKENS = 40


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(CHECKPOINT)


def prompt_ids(domain: str) -> list[int]:
    return load_tokenizer(CHECKPOINT).encode(PROMPTS[domain]).ids


@pytest.mark.parametrize("domain", PROMPTS)
def test_greedy_text_router_ids_and_logits_are_those_of_transformers(model: Any, domain: str) -> None:
    prompt = prompt_ids(domain)
    with torch.no_grad():
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1)
        routed = model(input_ids=expected, output_router_logits=True)
    expected_ids = [layer.reshape(expected.shape[1], -1).topk(4).indices for layer in routed.router_logits]

    decoder = Decoder.shipped(CHECKPOINT, device="cpu", dtype=torch.float32, slots=2, max_context=512)
    experts = experts_of(model, range(8))
    text, ids, logits = list(prompt), [[] for _ in range(8)], []  # type: ignore[var-annotated]
    ends = [0, len(prompt), *range(len(prompt) + 1, len(prompt) + NEW_TOKENS)]
    for start, end in itertools.pairwise(ends):
        seen: list[torch.Tensor] = []
        logits.append(forward(decoder, text[start:end], range(start, end), [1] * (end - start), experts, seen))
        for layer, chosen in enumerate(seen):
            ids[layer].append(chosen)
        text.append(int(logits[-1][-1].argmax()))
    assert text == expected[0].tolist()
    difference = (torch.cat(logits) - routed.logits[0, :-1]).abs().max()
    assert float(difference) < 1e-5 * float(routed.logits.abs().max())
    for found, chosen in zip(ids, expected_ids, strict=True):
        assert torch.equal(torch.cat(found), chosen[:-1])


def test_bf16_stays_near_float32(model: Any) -> None:
    prompt = prompt_ids("code")
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([prompt])).logits[0]
    decoder = Decoder.shipped(CHECKPOINT, device="cpu", dtype=torch.bfloat16, max_context=512)
    half = load_model(CHECKPOINT, dtype="bfloat16")
    found = forward(decoder, prompt, range(len(prompt)), [0] * len(prompt), experts_of(half, range(8))).float()
    error = float((found - expected).norm() / expected.norm())
    assert 1e-4 < error < 0.05
    assert (
        decoder.fixed_bytes
        < Decoder.shipped(CHECKPOINT, device="cpu", dtype=torch.float32, max_context=512).fixed_bytes
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model_type", "mixtral", "model_type: 'mixtral'"),
        ("hidden_act", "gelu", "hidden_act"),
        ("use_sliding_window", True, "use_sliding_window"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "rope_type: 'yarn'"),
        ("rope_parameters", {"rope_type": "default"}, "rope_theta: None"),
        ("rms_norm_eps", "small", "rms_norm_eps"),
        ("norm_topk_prob", None, "norm_topk_prob"),
        ("num_attention_heads", 8, "layer 0: qkv is"),
    ],
)
def test_a_configuration_that_the_decoder_would_compute_wrongly_is_refused(
    broken: Path, key: str, value: object, told: str
) -> None:
    config = json.loads((broken / "config.json").read_text())
    config[key] = value
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ForestageError, match=told) as caught:
        Decoder.shipped(broken, device="cpu", dtype=torch.float32, max_context=8)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_a_file_or_with_a_damaged_one_is_refused(broken: Path) -> None:
    (broken / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ForestageError, match=r"model\.safetensors: cannot be read"):
        Decoder.shipped(broken, device="cpu", dtype=torch.float32, max_context=8)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ForestageError, match=r"model\.safetensors: no such file"):
        Decoder.shipped(broken, device="cpu", dtype=torch.float32, max_context=8)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ForestageError, match="dtype"):
        Decoder.shipped(CHECKPOINT, device="cpu", dtype=torch.float16, max_context=8)
    with pytest.raises(ForestageError, match="max_context"):
        Decoder.shipped(CHECKPOINT, device="cpu", dtype=torch.float32, max_context=0)
    with pytest.raises(ForestageError, match="device"):
        Decoder.shipped(CHECKPOINT, device="nowhere", dtype=torch.float32, max_context=8)
