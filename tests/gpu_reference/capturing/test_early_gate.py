"""The next gate run early: against plain routing of an earlier layer's hidden states, and the file it goes to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from catalog.errors import ForestageError
from gpu_reference.capturing.model import ModelCaptureOptions, capture_model
from gpu_reference.capturing.prompts import CapturePrompt
from gpu_reference.routers import EarlyGates, RoutingRecorder
from gpu_reference.trace_tokens import token_hashes
from tests.gpu_reference.current_models import CURRENT, blocks, build, entering, save
from traces import RoutingTrace

PROMPTS = [CapturePrompt(prompt=f"Prompt number {n} of the lot.", domain="prose") for n in range(3)]
OPTIONS = ModelCaptureOptions(new_tokens=6, max_prompt=9, dtype="float32", temperature=1.0, early_gate=(1, 2))


def read(path: Path, trace: RoutingTrace | None = None) -> tuple[np.ndarray, dict[str, str]]:
    with safe_open(path, "numpy") as file:
        if trace is not None:
            assert np.array_equal(file.get_tensor("sequence"), trace.sequence_index())
            assert np.array_equal(file.get_tensor("position"), trace.position)
        return file.get_tensor("ids"), file.metadata()


@pytest.mark.parametrize("name", ["qwen2_moe", "glm4_moe", "minimax_m2", "lfm2_moe", "ernie4_5_moe", "llama4_text"])
def test_a_gate_run_early_ranks_what_its_rule_chooses_from_an_earlier_hidden_state(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = save(name, tokenizer, tmp_path / name)
    layers = CURRENT[name].layers
    far = len(layers) - 1
    options = OPTIONS.model_copy(update={"early_gate": tuple(sorted({1, far}))})
    written = capture_model(tmp_path / name, PROMPTS, tmp_path / "t.safetensors", options=options)
    assert written[-1] == tmp_path / f"t.early-gate-{far}.safetensors"
    trace = RoutingTrace.load(tmp_path / "t.safetensors")
    ids, metadata = read(written[0], trace)
    farthest, _ = read(written[-1])
    assert ids.shape == (trace.tokens, trace.layers, min(8, 4 * trace.top_k))
    assert ids.dtype == np.uint16
    assert (ids[:, 0] == 0xFFFF).all()
    assert (farthest[:, :far] == 0xFFFF).all()
    assert (metadata["format"], metadata["lookahead"], metadata["experts"]) == ("forestage-predictions", "1", "8")
    assert metadata["model"] == trace.metadata.model
    assert trace.token_hash is not None
    token_of = {value: token for token, value in enumerate(token_hashes(tokenizer).tolist())}
    for index in range(trace.sequences):
        part = trace.sequence_slice(index)
        hidden = entering(model, [token_of[value] for value in trace.token_hash[part].tolist()])
        with torch.no_grad():
            early, _ = CURRENT[name].rule(blocks(model)[layers[-1]], hidden[layers[0]])
        assert np.array_equal(farthest[part][:, -1, : trace.top_k], early.numpy())
        for place in range(1, len(layers)):
            with torch.no_grad():
                early, _ = CURRENT[name].rule(blocks(model)[layers[place]], hidden[layers[place - 1]])
            assert np.array_equal(ids[part][:, place, : trace.top_k], early.numpy())
            assert (early.numpy() != trace.expert_ids[part][:, place]).any(), "or it tests nothing"


def test_experts_that_a_rule_bars_are_not_ranked() -> None:
    model = build("glm4_moe")  # one of two groups of four is open
    with RoutingRecorder(model, early=EarlyGates((1,), width=8)) as recorder, torch.no_grad():
        model(input_ids=torch.arange(1, 20)[None])
        early = recorder.take().early[1]
    assert (early[:, 1:, :4] < 8).all()
    assert (early[:, 1:, 4:] == 0xFFFF).all()


def test_an_interrupted_capture_goes_on_with_its_early_gates(tokenizer: Any, tmp_path: Path) -> None:
    save("qwen2_moe", tokenizer, tmp_path / "model")
    whole = capture_model(tmp_path / "model", PROMPTS, tmp_path / "whole.safetensors", options=OPTIONS)

    def interrupt(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    out = tmp_path / "out.safetensors"
    with pytest.raises(KeyboardInterrupt):
        capture_model(tmp_path / "model", PROMPTS, out, options=OPTIONS, progress=interrupt)
    with pytest.raises(ForestageError, match=r"another early_gate \(\(1, 2\), now \(1,\)\)"):
        capture_model(tmp_path / "model", PROMPTS, out, options=OPTIONS.model_copy(update={"early_gate": (1,)}))
    resumed = capture_model(tmp_path / "model", PROMPTS, out, options=OPTIONS)
    assert [path.read_bytes() for path in resumed] == [path.read_bytes() for path in whole]
    assert len(whole) == 2
    assert (read(whole[1])[0][:, :2] == 0xFFFF).all()


def test_early_gates_change_nothing_of_the_trace(tokenizer: Any, tmp_path: Path) -> None:
    save("minimax_m2", tokenizer, tmp_path / "model")
    for name, lookaheads in (("with", (1, 3)), ("without", ())):
        options = OPTIONS.model_copy(update={"early_gate": lookaheads})
        capture_model(tmp_path / "model", PROMPTS, tmp_path / name, options=options)
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


def test_a_lookahead_that_reaches_no_layer_is_refused() -> None:
    with pytest.raises(ForestageError, match="lookahead 2 reaches no layer of 2 with routers; give less"):
        RoutingRecorder(build("jamba"), early=EarlyGates((1, 2)))
