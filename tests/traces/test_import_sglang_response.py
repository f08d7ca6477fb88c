"""SGLang's responses, written here as the server sends them."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from catalog.errors import ForestageError
from tests.traces.recorded_ids import random_ids, with_dense
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"  # 32 layers, 8 experts, top-2
LITE = "deepseek-ai/DeepSeek-V2-Lite"  # 27 layers, the first dense; 64 experts, top-6
Ids = npt.NDArray[np.int64]


def encoded(ids: Ids) -> str:
    return base64.b64encode(ids.astype("<i4").tobytes()).decode()


def response(choices: list[Ids], prompt: int, completion: int, *, model: str = MIXTRAL) -> dict[str, Any]:
    return {
        "id": "1",
        "model": model,
        "choices": [
            {"index": i, "message": {"content": "text"}, "sgl_ext": {"routed_experts": encoded(ids)}}
            for i, ids in enumerate(choices)
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def write(folder: Path, *responses: dict[str, Any]) -> Path:
    path = folder / "responses.jsonl"
    path.write_text("\n".join(json.dumps(part) for part in responses))
    return path


def trace_in(path: Path, **options: Any) -> tuple[RoutingTrace, Imported]:
    imported = import_recording(path, options=ImportOptions(**options))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


def test_rows_cover_all_but_the_last_token(tmp_path: Path) -> None:
    ids = random_ids(11, 32, 2, 8)
    path = write(tmp_path, response([ids[:6]], 4, 3), response([ids[6:]], 2, 4))
    assert sniff_format(path) == "sglang_response"
    trace, imported = trace_in(path)
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.position.tolist() == [*range(6), *range(5)]
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2 + [PREFILL] * 2 + [DECODE] * 3
    assert trace.metadata.model == MIXTRAL
    assert any("last token of 2 sequences" in warning for warning in imported.warnings)


@pytest.mark.parametrize("dense", [0, 1])
def test_both_conventions_of_the_layer_axis(dense: int, tmp_path: Path) -> None:
    ids = random_ids(6, 26, 6, 64)
    trace, _ = trace_in(write(tmp_path, response([with_dense(ids, dense)], 4, 3, model=LITE)))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.metadata.layer_map == tuple(range(1, 27))


def test_a_start_within_the_prompt_follows_from_the_lengths(tmp_path: Path) -> None:
    ids = random_ids(5, 32, 2, 8)
    trace, imported = trace_in(write(tmp_path, response([ids], 10, 3)))
    assert any("no routed_experts_start_len says so" in warning for warning in imported.warnings)
    assert not any("(routed_experts_start_len)" in warning for warning in imported.warnings)
    assert trace.position.tolist() == [7, 8, 9, 10, 11]
    assert trace.phase.tolist() == [PREFILL] * 3 + [DECODE] * 2
    made = response([ids], 10, 3)
    made["choices"][0]["sgl_ext"]["routed_experts_start_len"] = 7
    assert trace_in(write(tmp_path, made))[0].equals(trace)
    made["choices"][0]["sgl_ext"]["routed_experts_start_len"] = 6
    with pytest.raises(ForestageError, match="fit no start"):
        trace_in(write(tmp_path, made))


def test_several_choices_share_the_lengths(tmp_path: Path) -> None:
    ids = random_ids(9, 32, 2, 8)
    trace, _ = trace_in(write(tmp_path, response([ids[:4], ids[4:]], 3, 5)))
    assert trace.sequence_offsets.tolist() == [0, 4, 9]
    assert trace.position.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_the_native_interface(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    meta = {"prompt_tokens": 4, "completion_tokens": 3, "routed_experts": encoded(ids)}
    path = write(tmp_path, {"text": "…", "meta_info": meta})
    with pytest.raises(ForestageError, match="comes without its shape"):
        trace_in(path)
    trace, _ = trace_in(path, model=MIXTRAL)
    np.testing.assert_array_equal(trace.expert_ids, ids)


def test_a_model_of_ones_own_needs_its_shape(tmp_path: Path) -> None:
    ids = random_ids(6, 3, 2, 16)
    path = write(tmp_path, response([ids], 4, 3, model="our/own"))
    with pytest.raises(ForestageError, match="does not know our/own"):
        trace_in(path)
    trace, _ = trace_in(path, layers=(1, 2, 3), top_k=2, experts=16)
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert (trace.metadata.model, trace.metadata.layer_map) == ("our/own", (1, 2, 3))


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no usage": ({"usage": None}, "usage: missing"),
    "cut off": ({"choices": [{"sgl_ext": {"routed_experts": "AAAAAAA"}}]}, "not base64"),
    "no int32": ({"choices": [{"sgl_ext": {"routed_experts": "AAAA"}}]}, "3 bytes are no int32"),
    "no extension": ({"choices": [{}]}, "no response has routed experts; start SGLang with"),
    "null": ({"choices": [{"sgl_ext": {"routed_experts": None}}]}, "no response has routed experts; start SGLang with"),
    "list": ({"choices": [{"sgl_ext": {"routed_experts": [1]}}]}, "expected base64"),
    "extension": ({"choices": [{"sgl_ext": [1]}]}, "sgl_ext: .*expected an object"),
    "rows": ({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, "fit no start"),
    "start beyond the prompt": ({"usage": {"prompt_tokens": 1, "completion_tokens": 20}}, "fit no start"),
    "completion": ({"usage": {"prompt_tokens": 4, "completion_tokens": True}}, "usage.completion_tokens: True"),
    "id": (
        {"choices": [{"sgl_ext": {"routed_experts": encoded(np.full((6, 32, 2), 9) + np.arange(2))}}]},
        "id 9; .*has experts 0 to 7",
    ),
    "negative": (
        {"choices": [{"sgl_ext": {"routed_experts": encoded(np.full((6, 32, 2), -2))}}]},
        "ids.*: -2; expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_response_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    path = write(tmp_path, {**response([random_ids(6, 32, 2, 8)], 4, 3), **change})
    with pytest.raises(ForestageError, match=rf"responses\.jsonl: .*{message}") as caught:
        import_recording(path, "sglang_response")
    assert "\n" not in str(caught.value)
