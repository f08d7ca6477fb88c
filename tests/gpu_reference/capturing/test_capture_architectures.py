"""Capture from current architectures: prefill and decode against plain routing, unknown routers, gates run early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gpu_reference.capturing.model import ModelCaptureOptions, capture_model
from gpu_reference.capturing.prompts import CapturePrompt
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


def test_a_table_of_token_ids_chooses_in_deepseek_v4(tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8}
    attention = {"num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4}
    index = {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 64}
    experts = {"num_local_experts": 8, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = transformers.DeepseekV4Config(
        **shape, **attention, **index, **experts, mlp_layer_types=["hash_moe", "moe", "moe"], eos_token_id=0
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    table = torch.stack([torch.randperm(8)[:2] for _ in range(320)])
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() >= 2:
                value.normal_(std=0.2)
        model.model.layers[0].mlp.gate.tid2eid.copy_(table)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    capture_model(tmp_path / "model", PROMPTS, tmp_path / "t.safetensors", options=OPTIONS)
    trace = RoutingTrace.load(tmp_path / "t.safetensors")
    token_of = {value: token for token, value in enumerate(token_hashes(tokenizer).tolist())}
    assert trace.token_hash is not None
    named = table[[token_of[value] for value in trace.token_hash.tolist()]].numpy()
    assert np.array_equal(np.sort(trace.expert_ids[:, 0]), np.sort(named))
    assert (trace.phase == 1).any()


def test_a_model_that_comes_with_an_image_encoder_is_given_text(tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "head_dim": 8,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2,
            "moe_intermediate_size": 16, "pad_token_id": None}  # fmt: skip
    image = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
             "deepstack_visual_indexes": [0]}  # fmt: skip
    config = transformers.Qwen3VLMoeConfig(text_config=text, vision_config=image)
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    capture_model(tmp_path / "model", PROMPTS, tmp_path / "t.safetensors", options=OPTIONS)
    trace = RoutingTrace.load(tmp_path / "t.safetensors")
    assert (trace.metadata.layer_map, trace.experts, trace.top_k) == ((0, 1, 2), 8, 2)
    assert (trace.phase == 1).any()


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
