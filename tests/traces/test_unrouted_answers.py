"""Answers of servers that were not told to record: recognised, and refused with what turns the recording on."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

VLLM_FLAG = "start vLLM with --enable-return-routed-experts"
SGLANG_FLAGS = "start SGLang with --enable-return-routed-experts and request them with return_routed_experts"

CHUNKS: list[dict[str, Any]] = [
    {
        "id": "a",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}],
    }
] * 2
CHUNKS.append({**CHUNKS[0], "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
COMPLETION = {
    "id": "b",
    "object": "text_completion",
    "model": "m",
    "choices": [{"index": 0, "text": "x", "finish_reason": "length"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
META = {"id": "c", "prompt_tokens": 3, "completion_tokens": 1, "finish_reason": {"type": "length"}}
GENERATED = {"text": "x", "meta_info": META}


def stream(events: list[dict[str, Any]]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


FILES = {
    "stream.txt": stream(CHUNKS),
    "response.json": json.dumps(COMPLETION),
    "array.json": json.dumps([COMPLETION, COMPLETION]),
    "responses.jsonl": f"{json.dumps(COMPLETION)}\n" * 2,
    "batch.jsonl": json.dumps({"id": "x", "response": {"status_code": 200, "body": COMPLETION}}) + "\n",
    "generated.json": json.dumps(GENERATED),
    "generated_stream.txt": stream([GENERATED, GENERATED]),
}


@pytest.mark.parametrize("name", FILES)
def test_the_remedy_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    with pytest.raises(ForestageError, match=rf"{name}: \d answers of a server, none with routed experts; s") as caught:
        sniff_format(tmp_path / name)
    assert SGLANG_FLAGS in str(caught.value)
    assert (VLLM_FLAG in str(caught.value)) == ("generated" not in name)


@pytest.mark.parametrize("name", FILES)
def test_and_with_the_format_forced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    with pytest.raises(ForestageError, match=f"no response has routed experts; {SGLANG_FLAGS}"):
        import_recording(tmp_path / name, "sglang_response")
    if "generated" not in name:
        with pytest.raises(ForestageError, match=f"no response has routed experts; {VLLM_FLAG}"):
            import_recording(tmp_path / name, "vllm_response")


def test_a_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(FILES["response.json"], encoding="utf-8")
    with pytest.raises(ForestageError, match=r"1\.json: 1 answers .*if other files of the folder have them, import it"):
        sniff_format(tmp_path)


def test_damage_is_told_first(tmp_path: Path) -> None:
    whole = gzip.compress((stream(CHUNKS) * 2000).encode())
    (tmp_path / "cut.gz").write_bytes(whole[:-400])
    with pytest.raises(ForestageError, match=r"cut\.gz: .*(damaged|cut|end)"):
        sniff_format(tmp_path / "cut.gz")


@pytest.mark.parametrize(
    "error", [{"error": {"message": "no", "code": 400}}, {"object": "error", "message": "no", "code": 4}]
)
def test_errors_alone_are_called_so(error: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(error), encoding="utf-8")
    with pytest.raises(
        ForestageError, match=r"e\.json: 1 answers are errors of the server .first: no., and there is no answer"
    ):
        sniff_format(tmp_path / "e.json")


def test_a_stream_that_was_cut_off_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(stream(CHUNKS[:2]).replace("data: [DONE]", ""), encoding="utf-8")
    with pytest.raises(
        ForestageError, match=r"1 of them were cut off before their end, where a stream has its routing"
    ):
        sniff_format(tmp_path / "s.txt")


def test_a_stream_that_ended_in_an_error_says_what_the_server_said(tmp_path: Path) -> None:
    text = stream(CHUNKS[:2]).replace("data: [DONE]", 'data: {"error": {"message": "EngineDead", "code": 500}}')
    (tmp_path / "s.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ForestageError, match=r"cut off before their end.*first: EngineDead") as caught:
        sniff_format(tmp_path / "s.txt")
    assert VLLM_FLAG not in str(caught.value)


def test_choices_of_a_questionnaire_are_none(tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text(json.dumps({"question": "?", "choices": ["a", "b"]}), encoding="utf-8")
    with pytest.raises(ForestageError, match="no known trace format"):
        sniff_format(tmp_path / "questions.json")


def test_an_offline_request_saved_without_routing(tmp_path: Path) -> None:
    """``out.outputs[0].routed_experts`` is None where the LLM was made without the option."""
    tokens = {"prompt_token_ids": np.arange(4), "output_token_ids": np.arange(3)}
    np.savez(tmp_path / "r.npz", routed_experts=np.array(None), **tokens)
    with pytest.raises(ForestageError, match=r"r\.npz: routed_experts: None.*enable_return_routed_experts=True"):
        import_recording(tmp_path / "r.npz")
    np.savez(tmp_path / "s.npz", **tokens)
    with pytest.raises(ForestageError, match=r"s\.npz: routed_experts: missing.*enable_return_routed_experts=True"):
        import_recording(tmp_path / "s.npz")


def test_what_offline_requests_say_of_the_cache_may_be_none(tmp_path: Path) -> None:
    """``out.num_cached_tokens`` is None where vLLM does not know it."""
    ids = np.stack([np.random.default_rng(1).permutation(64)[:6] for _ in range(6 * 26)]).reshape(6, 26, 6)
    np.savez(
        tmp_path / "r.npz",
        routed_experts=ids,
        prompt_token_ids=np.arange(4),
        output_token_ids=np.arange(3),
        num_cached_tokens=np.array(None),
    )
    options = ImportOptions(model="deepseek-ai/DeepSeek-V2-Lite")
    trace = import_recording(tmp_path / "r.npz", options=options).recording
    assert isinstance(trace, RoutingTrace)
    np.testing.assert_array_equal(trace.expert_ids, ids)
