"""Capture from current architectures: prefill and decode against plain routing, unknown routers, gates run early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu_reference.capture_model import ModelCaptureOptions, capture_model
from gpu_reference.capture_prompts import CapturePrompt
from gpu_reference.routers import RoutingRecorder
from gpu_reference.trace_tokens import token_hashes
from tests.gpu_reference.current_models import CURRENT, build, plain_routing, save
from traces import RoutingTrace

PROMPTS = [CapturePrompt(prompt="The quick brown fox jumps over the lazy dog.", domain="prose")]
OPTIONS = ModelCaptureOptions(new_tokens=8, max_prompt=9, dtype="float32", temperature=1.0)
FIELD_MODELS = [name for name in CURRENT if name in {
    "qwen2_moe", "qwen3_next", "qwen3_5_moe_text", "glm4_moe", "dots1", "minimax_m2", "granitemoe", "phimoe",
    "lfm2_moe", "ernie4_5_moe", "hunyuan_v1_moe", "flex_olmo", "llama4_text", "jamba",
}]  # fmt: skip


@pytest.mark.parametrize("name", CURRENT)
def test_prefill_and_decode_are_those_of_one_plain_pass(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = save(name, tokenizer, tmp_path / name)
    capture_model(tmp_path / name, PROMPTS, tmp_path / "t.safetensors", options=OPTIONS)
    trace = RoutingTrace.load(tmp_path / "t.safetensors")
    current = CURRENT[name]
    assert (trace.metadata.layer_map, trace.metadata.gate_weight_kind) == (current.layers, current.kind)
    assert trace.token_hash is not None
    assert trace.gate_weights is not None
    assert (trace.phase == 1).sum() > 2, "choose a seed that generates, or decode is not tested"
    token_of = {value: token for token, value in enumerate(token_hashes(tokenizer).tolist())}
    plain = plain_routing(name, model, [token_of[value] for value in trace.token_hash.tolist()])
    for place, layer in enumerate(current.layers):
        ids, weights = plain[layer]
        order = weights.argsort(dim=-1, descending=True, stable=True)
        assert np.array_equal(trace.expert_ids[:, place], ids.gather(1, order).numpy())
        recorded = trace.gate_weights[:, place].astype(float)
        np.testing.assert_allclose(recorded, weights.gather(1, order).numpy(), rtol=3e-3, atol=1e-4)


@pytest.mark.parametrize("name", CURRENT)
def test_half_precision_is_read_and_what_experts_are_given_agrees(name: str) -> None:
    model = build(name).to(torch.bfloat16)
    with RoutingRecorder(model) as recorder, torch.no_grad():
        model(input_ids=torch.arange(1, 200)[None], use_cache=False)
        assert recorder.take().ids.shape[:2] == (199, len(CURRENT[name].layers))
    assert recorder.seen_by_experts == (True,) * len(CURRENT[name].layers)
    assert recorder.notes == []


@pytest.mark.parametrize("name", FIELD_MODELS)
def test_models_met_in_the_field_are_captured(
    name: str, field_case: Callable[[str], Path], tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in field_case(f"models/{name}").iterdir():
        (folder / file.name).symlink_to(file)
    tokenizer.save(str(folder / "tokenizer.json"))
    capture_model(folder, PROMPTS, tmp_path / "t.safetensors", options=OPTIONS)
    trace = RoutingTrace.load(tmp_path / "t.safetensors")
    assert (trace.experts, trace.top_k) == (8, 1 if name == "llama4_text" else 2)
    assert (trace.phase == 1).any()
