"""vLLM's responses, written here as the server sends them."""

import base64
import gzip
import io
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


def response(
    prompt: Ids | None,
    generated: list[Ids],
    *,
    model: str = MIXTRAL,
    prompt_tokens: int,
    last: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """A response whose choices have one generated token more than rows where ``last`` (as the server has it)."""
    completion = sum(len(ids) + last for ids in generated)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": model,
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": "text"}, "finish_reason": "stop",
             "routed_experts": ids.tolist()}
            for i, ids in enumerate(generated)
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion,
                  "total_tokens": prompt_tokens + completion},
        "prompt_routed_experts": None if prompt is None else prompt.tolist(),
        **more,
    }  # fmt: skip


def encoded(ids: Ids, dtype: str) -> str:
    """A NumPy file in base64, as later versions send it."""
    stream = io.BytesIO()
    np.save(stream, ids.astype(dtype))
    return base64.b64encode(stream.getvalue()).decode()


def write(folder: Path, *responses: dict[str, Any], name: str = "responses.jsonl") -> Path:
    path = folder / name
    text = "\n".join(json.dumps(part) for part in responses) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def trace_in(path: Path, **options: Any) -> tuple[RoutingTrace, Imported]:
    imported = import_recording(path, options=ImportOptions(**options))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


@pytest.mark.parametrize("name", ["responses.jsonl", "responses.jsonl.gz", "one.json"])
def test_prompt_and_generated_rows_become_a_sequence(name: str, tmp_path: Path) -> None:
    ids = random_ids(9, 32, 2, 8)
    first, second = ids[:5], ids[5:]
    path = write(
        tmp_path,
        response(first[:3], [first[3:]], prompt_tokens=3),
        *([] if name == "one.json" else [response(second[:1], [second[1:]], prompt_tokens=1)]),
        name=name,
    )
    assert sniff_format(path) == "vllm_response"
    trace, imported = trace_in(path)
    expected = ids[:5] if name == "one.json" else ids
    np.testing.assert_array_equal(trace.expert_ids, expected)
    assert trace.position.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3][: len(expected)]
    assert trace.phase.tolist() == ([PREFILL] * 3 + [DECODE] * 2 + [PREFILL] + [DECODE] * 3)[: len(expected)]
    assert trace.sequence_offsets.tolist() == [0, 5, 9][: 2 if name == "one.json" else 3]
    assert trace.metadata.model == MIXTRAL
    assert (trace.experts, trace.metadata.layer_map, trace.metadata.ranked) == (8, tuple(range(32)), False)
    assert any("last token of" in warning for warning in imported.warnings)


def test_an_array_of_responses_and_a_pretty_one(tmp_path: Path) -> None:
    ids = random_ids(8, 32, 2, 8)
    parts = [response(ids[:2], [ids[2:4]], prompt_tokens=2), response(ids[4:6], [ids[6:]], prompt_tokens=2)]
    path = tmp_path / "array.json"
    for indent in (None, 1):
        path.write_text(json.dumps(parts, indent=indent))
        np.testing.assert_array_equal(trace_in(path)[0].expert_ids, ids)


@pytest.mark.parametrize("dense", [0, 1])
def test_both_conventions_of_the_layer_axis(dense: int, tmp_path: Path) -> None:
    ids = random_ids(6, 26, 6, 64)
    rows = with_dense(ids, dense)
    trace, _ = trace_in(write(tmp_path, response(rows[:4], [rows[4:]], model=LITE, prompt_tokens=4)))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.metadata.layer_map == tuple(range(1, 27))


def test_dense_layers_of_a_model_that_the_catalogue_does_not_know(tmp_path: Path) -> None:
    ids = random_ids(6, 4, 2, 16)
    rows = with_dense(ids, 2)
    path = write(tmp_path, response(rows[:4], [rows[4:]], model="our/own", prompt_tokens=4))
    with pytest.raises(ForestageError, match="import it with --experts"):
        trace_in(path)
    trace, _ = trace_in(path, experts=16)
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.metadata.layer_map == (2, 3, 4, 5)
    assert trace_in(path, experts=16, layers=(1, 3, 5, 7))[0].metadata.layer_map == (1, 3, 5, 7)
    with pytest.raises(ForestageError, match="--layers names 3"):
        trace_in(path, experts=16, layers=(1, 3, 5))


def test_routing_in_a_layer_that_the_model_has_dense_is_refused(tmp_path: Path) -> None:
    rows = random_ids(6, 27, 6, 64)
    path = write(tmp_path, response(rows[:4], [rows[4:]], model=LITE, prompt_tokens=4))
    with pytest.raises(ForestageError, match="layer 0 holds routing, but it is dense in DeepSeek-V2-Lite"):
        trace_in(path)


@pytest.mark.parametrize("dtype", ["<i2", "<u1", "<i4"])
def test_base64_of_a_numpy_file(dtype: str, tmp_path: Path) -> None:
    ids = random_ids(7, 32, 2, 8)
    whole = response(None, [ids], prompt_tokens=5)
    whole["usage"] |= {
        "completion_tokens": 3,
        "total_tokens": 8,
    }  # seven rows: the prompt's five, and all but the last generated
    whole["choices"][0]["routed_experts"] = encoded(ids, dtype)
    trace, imported = trace_in(write(tmp_path, whole))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.phase.tolist() == [PREFILL] * 5 + [DECODE] * 2
    assert any("last token of 1 sequences" in warning for warning in imported.warnings)


def test_generated_rows_alone_begin_after_the_prompt(tmp_path: Path) -> None:
    ids = random_ids(3, 32, 2, 8)
    trace, _ = trace_in(write(tmp_path, response(None, [ids], prompt_tokens=10)))
    assert trace.position.tolist() == [10, 11, 12]
    assert np.all(trace.phase == DECODE)


def test_rows_that_may_begin_with_the_prompt_or_after_it_are_refused(tmp_path: Path) -> None:
    ids = random_ids(3, 32, 2, 8)
    with pytest.raises(ForestageError, match="rows may be of the positions from"):
        trace_in(write(tmp_path, response(None, [ids], prompt_tokens=1, last=False)))


def test_a_row_of_zeros_for_the_last_token_is_dropped(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    padded = np.concatenate([ids[4:], np.zeros((1, 32, 2), np.int64)])
    trace, imported = trace_in(write(tmp_path, response(ids[:4], [padded], prompt_tokens=4, last=False)))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert not trace.metadata.has_unrecorded
    assert any("last token of 1 sequences" in warning for warning in imported.warnings)


def test_the_prompt_belongs_to_the_first_choice(tmp_path: Path) -> None:
    ids = random_ids(8, 32, 2, 8)
    trace, _ = trace_in(write(tmp_path, response(ids[:3], [ids[3:5], ids[5:]], prompt_tokens=3)))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.sequence_offsets.tolist() == [0, 5, 8]
    assert trace.position.tolist() == [0, 1, 2, 3, 4, 3, 4, 5]


@pytest.mark.parametrize("nothing", [None, []])
def test_a_choice_without_its_own_rows_is_told(nothing: Any, tmp_path: Path) -> None:
    ids = random_ids(8, 32, 2, 8)
    made = response(ids[:3], [ids[3:]], prompt_tokens=3)
    made["choices"][0]["routed_experts"] = nothing
    trace, imported = trace_in(write(tmp_path, made))
    np.testing.assert_array_equal(trace.expert_ids, ids[:3])
    assert any("1 choices have no routed_experts" in warning for warning in imported.warnings)


def test_a_single_generated_token_is_the_last_and_has_no_rows(tmp_path: Path) -> None:
    ids = random_ids(3, 32, 2, 8)
    trace, imported = trace_in(write(tmp_path, response(ids, [ids[:0]], prompt_tokens=3)))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert [warning.split(": ", 1)[1][:31] for warning in imported.warnings] == ["the last token of 1 sequences h"]


def test_rows_of_minus_one_are_not_recorded_and_told(tmp_path: Path) -> None:
    ids = random_ids(5, 32, 2, 8)
    ids[1] = -1
    trace, imported = trace_in(write(tmp_path, response(ids[:3], [ids[3:]], prompt_tokens=3)))
    assert np.flatnonzero(~trace.recorded()[:, 0]).tolist() == [1]
    assert any("32 rows (token, layer) hold only -1" in warning for warning in imported.warnings)


def test_ids_beyond_the_experts_are_refused_without_an_option_that_is_not_taken(tmp_path: Path) -> None:
    ids = random_ids(5, 32, 2, 8)
    ids[1, 0, 0] = 8
    with pytest.raises(ForestageError, match=r"token 1, layer 0: id 8; .* has experts 0 to 7$"):
        trace_in(write(tmp_path, response(ids[:3], [ids[3:]], prompt_tokens=3)))


def test_token_ids_become_the_identity_of_the_processed_token(tmp_path: Path) -> None:
    ids = random_ids(5, 32, 2, 8)
    made = response(ids[:3], [ids[3:]], prompt_tokens=3, prompt_token_ids=[7, 8, 9])
    made["choices"][0]["token_ids"] = [10, 11, 12]
    trace, _ = trace_in(write(tmp_path, made))
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [7, 8, 9, 10, 11]
    made["choices"][0]["token_ids"] = [10, 11]
    with pytest.raises(ForestageError, match=r"usage\.completion_tokens is 3"):
        trace_in(write(tmp_path, made))


def test_labels_come_from_the_options(tmp_path: Path) -> None:
    ids = random_ids(4, 32, 2, 8)
    path = write(tmp_path, response(ids[:2], [ids[2:]], prompt_tokens=2))
    trace, _ = trace_in(path, domain="law", dataset="mine")
    assert (trace.domains, trace.datasets) == (("law",), ("mine",))


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no choices": ({"choices": None}, r"response 1: choices: expected a list"),
    "no routing": ({"prompt_routed_experts": None, "choices": [{}]}, "no response has routed experts"),
    "three levels": ({"prompt_routed_experts": [[1, 2]]}, r"expected lists \[tokens\]"),
    "ragged": ({"prompt_routed_experts": [[[1, 2]], [[1, 2], [1, 2]]]}, "differ in length"),
    "true": ({"prompt_routed_experts": [[[True, 2]] * 32] * 3}, "expected whole numbers"),
    "fraction": ({"prompt_routed_experts": [[[1.0, 2]] * 32] * 3}, "expected whole numbers"),
    "huge": ({"prompt_routed_experts": [[[10**30, 2]] * 32] * 3}, "expected whole numbers"),
    "id": ({"prompt_routed_experts": [[[8, 2]] * 32] * 3}, "id 8; .*has experts 0 to 7"),
    "half unrecorded": ({"prompt_routed_experts": [[[-1, 2]] * 32] * 3}, "or a row of -1"),
    "shape": ({"prompt_routed_experts": [[[1, 2, 3]] * 32] * 3}, "layers and ids, but"),
    "prompt length": ({"prompt_routed_experts": [[[1, 2]] * 32] * 4}, "prompt's length differs"),
    "usage": ({"usage": [1]}, "usage: .*expected an object"),
    "completion": ({"usage": {"prompt_tokens": 3, "completion_tokens": 9}}, "2 rows for 9 generated tokens"),
    "negative": ({"usage": {"prompt_tokens": -3}}, "usage.prompt_tokens: -3"),
    "model": ({"model": 3}, "model: 3; expected a name"),
    "text": ({"prompt_routed_experts": "AAAA"}, "not of a NumPy array"),
    "base64": ({"prompt_routed_experts": "A*"}, "not base64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_response_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    ids = random_ids(5, 32, 2, 8)
    path = write(tmp_path, {**response(ids[:3], [ids[3:]], prompt_tokens=3), **change})
    with pytest.raises(ForestageError, match=rf"responses\.jsonl: .*{message}") as caught:
        import_recording(path, "vllm_response")
    assert "\n" not in str(caught.value)


def test_an_expert_named_twice_is_not_recorded_and_told(tmp_path: Path) -> None:
    ids = random_ids(5, 32, 2, 8)
    ids[1, 4] = 3
    trace, imported = trace_in(write(tmp_path, response(ids[:3], [ids[3:]], prompt_tokens=3)))
    assert np.argwhere(~trace.recorded()).tolist() == [[1, 4]]
    assert any("name an expert twice" in w and "token 1, layer 4: [3, 3]" in w for w in imported.warnings)


def test_a_dummy_run_is_told(tmp_path: Path) -> None:
    ids = random_ids(24, 32, 2, 8)
    ids[:12] = ids[0]
    parts = [response(part[:3], [part[3:]], prompt_tokens=3) for part in (ids[:12], ids[12:])]
    _, imported = trace_in(write(tmp_path, *parts))
    assert any("within rows 0–11 the experts are the same" in warning for warning in imported.warnings)
    ids[:, 5] = ids[0, 5]
    parts = [response(part[:3], [part[3:]], prompt_tokens=3) for part in (ids[:12], ids[12:])]
    _, imported = trace_in(write(tmp_path, *parts))
    assert any("every token of layer 5 has the same" in warning for warning in imported.warnings)


def test_numbers_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    whole = response(None, [ids], prompt_tokens=4)
    whole["usage"]["total_tokens"] = 8
    with pytest.raises(ForestageError, match=r"response 1: usage\.total_tokens is 8, but prompt_tokens 4"):
        trace_in(write(tmp_path, whole))
    with pytest.raises(ForestageError, match="prompt_token_ids: expected a list of whole numbers from 0 to 2147483647"):
        trace_in(write(tmp_path, response(None, [ids], prompt_tokens=4, prompt_token_ids=[2**32, 1, 2, 3])))
    whole = response(None, [ids, ids], prompt_tokens=4)
    for choice in whole["choices"]:
        choice["index"] = 0
    with pytest.raises(ForestageError, match="choices: two have the index 0"):
        trace_in(write(tmp_path, whole))


def test_a_served_name_that_no_catalogue_knows_is_refused_with_every_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, response(None, [random_ids(6, 32, 2, 8)], model="my-alias", prompt_tokens=4))
    with pytest.raises(ForestageError, match=r"my-alias; import it with --experts, .*name the model with --model"):
        trace_in(path)
    assert trace_in(path, model=MIXTRAL)[0].metadata.model == MIXTRAL


def test_no_number_of_rows_below_zero_is_expected(tmp_path: Path) -> None:
    whole = response(None, [random_ids(6, 32, 2, 8)], prompt_tokens=3)
    whole["usage"] = {"prompt_tokens": 3, "completion_tokens": 0}
    with pytest.raises(
        ForestageError, match="6 rows for 0 generated tokens after a prompt of 3; expected 0 to 3: rows"
    ):
        trace_in(write(tmp_path, whole))


ONE_BY_ONE = "request token_ids (return_token_ids), or send prompts one by one"
WITH_USAGE = ", or usage (of a stream: stream_options include_usage), or send prompts one by one"


@pytest.mark.parametrize(
    ("choices", "usage", "ending"),
    [
        (1, {"prompt_tokens": 4}, f" 4 and usage.completion_tokens None; {ONE_BY_ONE}"),
        (2, {"prompt_tokens": 4}, f" 4 and usage.completion_tokens None of one prompt; {ONE_BY_ONE}"),
        (2, {"prompt_tokens": 4, "completion_tokens": 99}, f"_tokens 99 of one prompt; {ONE_BY_ONE}"),
        (2, {"completion_tokens": 6}, WITH_USAGE),
        (2, {}, WITH_USAGE),
    ],
)  # fmt: skip
def test_rows_of_no_known_number_of_tokens_are_refused_with_what_to_ask_for(
    choices: int, usage: dict[str, int], ending: str, tmp_path: Path
) -> None:
    made = response(None, [random_ids(3, 32, 2, 8)] * choices, prompt_tokens=4)
    with pytest.raises(ForestageError) as caught:
        trace_in(write(tmp_path, {**made, "usage": usage}))
    assert str(caught.value).endswith(ending)


def test_a_prompt_of_more_rows_than_tokens_is_refused(tmp_path: Path) -> None:
    made = response(random_ids(5, 32, 2, 8), [random_ids(2, 32, 2, 8)], prompt_tokens=4)
    with pytest.raises(ForestageError, match=r"differs: prompt_routed_experts 5, prompt tokens 4$"):
        trace_in(write(tmp_path, made))
