"""What vLLM's servers send beyond the first layout: raw arrays, prompts in front, cached prefixes, several prompts."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from catalog.errors import ForestageError
from tests.traces.recorded_ids import random_ids
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"  # 32 layers, 8 experts, top-2
Ids = npt.NDArray[np.int64]


def npy(ids: Ids, dtype: str = "u1") -> str:
    stream = io.BytesIO()
    np.save(stream, ids.astype(dtype))
    return base64.b64encode(stream.getvalue()).decode()


def raw(ids: Ids, width: str, **fields: Any) -> dict[str, Any]:
    """As prime-rl and dynamo send them."""
    data = base64.b64encode(ids.astype(width).tobytes()).decode()
    return {"data": data, "shape": list(ids.shape), **fields}


def response(
    routed: list[Any], prompt: int | None, generated: int | None, cached: int | None = None, **more: Any
) -> dict[str, Any]:
    """A response whose choices hold ``routed``; ``generated`` tokens in all."""
    made: dict[str, Any] = {
        "id": "cmpl-1",
        "model": MIXTRAL,
        "choices": [
            {"index": i, "finish_reason": "stop", "logprobs": None, "routed_experts": value}
            for i, value in enumerate(routed)
        ],
        "prompt_logprobs": None,
        **more,
    }
    if prompt is not None:
        details = None if cached is None else {"cached_tokens": cached}
        made["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "prompt_tokens_details": details,
        }
    return made


def write(folder: Path, *responses: dict[str, Any]) -> Path:
    path = folder / "responses.jsonl"
    path.write_text("".join(json.dumps(part) + "\n" for part in responses))
    return path


def trace_in(path: Path, **options: Any) -> tuple[RoutingTrace, Imported]:
    imported = import_recording(path, "vllm_response", ImportOptions(**options))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


def told(imported: Imported, words: str) -> bool:
    return any(words in warning for warning in imported.warnings)


def refused(path: Path, match: str) -> None:
    with pytest.raises(ForestageError, match=match) as caught:
        trace_in(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


# The forms of the ids


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<i4", "<i8"])
def test_raw_bytes_are_as_wide_as_their_shape_tells(dtype: str, tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    path = write(tmp_path, response([raw(ids, dtype)], 4, 3))
    assert sniff_format(path) == "vllm_response"
    np.testing.assert_array_equal(trace_in(path)[0].expert_ids, ids)


def test_single_bytes_are_unsigned(tmp_path: Path) -> None:
    ids = random_ids(6, 4, 2, 250)
    assert ids.max() > 127
    path = write(tmp_path, {**response([raw(ids, "u1")], 4, 3), "model": "our/own"})
    np.testing.assert_array_equal(trace_in(path, experts=256)[0].expert_ids, ids)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "torch.int32", "<i2", "|u1"])
def test_a_stated_dtype_is_believed(dtype: str, tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    name = np.dtype(dtype.removeprefix("torch.")).str
    made = raw(ids, name, dtype=dtype, encoding="base64")
    np.testing.assert_array_equal(trace_in(write(tmp_path, response([made], 4, 3)))[0].expert_ids, ids)
    made["dtype"] = "int64"
    refused(
        write(tmp_path, response([made], 4, 3)), r"routed_experts: data of \d+ bytes, but shape \[6, 32, 2\] of <i8"
    )


def test_base85_of_prime_rls_first_version(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    made = {"data": base64.b85encode(ids.astype("<i4").tobytes()).decode(), "shape": [6, 32, 2]}
    np.testing.assert_array_equal(trace_in(write(tmp_path, response([made], 4, 3)))[0].expert_ids, ids)


def test_a_stated_start_is_the_first_position(tmp_path: Path) -> None:
    ids = random_ids(4, 32, 2, 8)
    trace, imported = trace_in(write(tmp_path, response([raw(ids, "u1", dtype="uint8", start=2)], 4, 3)))
    assert trace.position.tolist() == [2, 3, 4, 5]
    assert told(imported, "2 cached tokens at the beginning of 1 sequences")
    refused(write(tmp_path, response([raw(ids, "u1", start=1)], 4, 3)), "4 rows from 1 on for 3 generated tokens")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": 3}, "routed_experts.data: 3; expected a text"),
        ({"data": "A*"}, r"routed_experts: data of|routed_experts.data: not base64"),
        ({"data": "AAAA"}, r"data of 3( or \d+)? bytes, but shape \[6, 32, 2\] needs another number"),
        ({"shape": [6, 64]}, "routed_experts.shape: .*expected .tokens, layers, top_k"),
        ({"shape": [6, 32, -2]}, "routed_experts.shape"),
        ({"shape": [6, 32, True]}, "routed_experts.shape"),
        ({"dtype": "float16"}, "routed_experts.dtype: 'float16'; expected an integer type"),
        ({"dtype": 7}, "routed_experts.dtype: 7"),
        ({"encoding": "hex"}, "routed_experts.encoding: 'hex'; read are base64, base85"),
        ({"start": -1}, "routed_experts.start: -1"),
    ],
)
def test_an_object_that_contradicts_itself_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = {**raw(random_ids(6, 32, 2, 8), "u1"), **change}
    refused(write(tmp_path, response([made], 4, 3)), message)


@pytest.mark.parametrize("dtype", ["u1", "i1"])
def test_integers_too_narrow_for_the_models_experts_are_refused(dtype: str, tmp_path: Path) -> None:
    ids = random_ids(6, 4, 2, 100)
    path = write(tmp_path, {**response([npy(ids, dtype)], 4, 3), "model": "our/own"})
    assert trace_in(path, experts=128)[0].experts == 128
    with pytest.raises(ForestageError, match=r"ids in u?int8, which cannot hold those of 257 experts \(our/own\)"):
        trace_in(path, experts=257)


# Which tokens have rows


def test_rows_of_a_cached_prefix_may_be_left_out(tmp_path: Path) -> None:
    ids = random_ids(7, 32, 2, 8)
    trace, imported = trace_in(write(tmp_path, response([npy(ids)], 12, 4, cached=8)))
    assert trace.position.tolist() == list(range(8, 15))
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 3
    assert told(imported, "8 cached tokens at the beginning of 1 sequences have no rows")
    assert not told(imported, "nothing but the number of rows")


def test_rows_left_out_are_told_without_a_count_of_cached_tokens(tmp_path: Path) -> None:
    ids = random_ids(7, 32, 2, 8)
    trace, imported = trace_in(write(tmp_path, response([npy(ids)], 12, 4)))
    assert trace.position.tolist() == list(range(8, 15))
    assert told(imported, "of 1 of these sequences nothing but the number of rows says so")


def test_as_many_rows_as_generated_tokens_are_of_the_prompts_end_only_where_the_cache_says_so(tmp_path: Path) -> None:
    ids = random_ids(4, 32, 2, 8)
    refused(
        write(tmp_path, response([npy(ids)], 12, 4)),
        "4 rows may be of the positions from 11 on or the positions from 12 on, the last generated",
    )
    trace, _ = trace_in(write(tmp_path, response([npy(ids)], 12, 4, cached=11)))
    assert trace.position.tolist() == [11, 12, 13, 14]
    assert trace.phase.tolist() == [PREFILL] + [DECODE] * 3


def test_more_cached_tokens_than_the_prompt_has_are_refused(tmp_path: Path) -> None:
    refused(
        write(tmp_path, response([npy(random_ids(6, 32, 2, 8))], 4, 3, cached=5)),
        "cached_tokens is 5, but the prompt has 4 tokens",
    )


def test_cached_rows_of_an_earlier_turn_count_once(tmp_path: Path) -> None:
    ids = random_ids(20, 32, 2, 8)
    turns = [response([npy(ids[:15])], 12, 4), response([npy(ids)], 18, 3, cached=15)]
    trace, imported = trace_in(write(tmp_path, *turns))
    assert trace.sequence_offsets.tolist() == [0, 15, 20]
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.position.tolist() == list(range(20))
    assert told(imported, "15 cached tokens have their rows in another answer")
    # Whichever answer came first.
    trace, _ = trace_in(write(tmp_path, *reversed(turns)))
    assert trace.sequence_offsets.tolist() == [0, 5, 20]
    assert trace.position.tolist() == [*range(15, 20), *range(15)]


def test_cached_rows_that_stand_nowhere_else_are_kept_once_and_told(tmp_path: Path) -> None:
    ids = random_ids(15, 32, 2, 8)
    made = response([npy(ids)], 12, 4, cached=8)
    trace, imported = trace_in(write(tmp_path, made))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert told(imported, "8 cached tokens have rows that no other answer of the file has: kept")
    other = np.concatenate([ids[:8], random_ids(7, 32, 2, 8, seed=1)])
    trace, imported = trace_in(write(tmp_path, made, response([npy(other)], 12, 4, cached=8)))
    assert trace.sequence_offsets.tolist() == [0, 15, 22]
    np.testing.assert_array_equal(trace.expert_ids, np.concatenate([ids, other[8:]]))
    assert told(imported, "8 cached tokens have their rows in another answer")
    assert told(imported, "8 cached tokens have rows that no other answer")


def test_a_repeated_row_is_the_same_in_every_layer_and_at_the_same_position(tmp_path: Path) -> None:
    ids = random_ids(15, 32, 2, 8)
    other = ids.copy()
    other[3, 31] = (other[3, 31] + 1) % 8
    path = write(tmp_path, response([npy(ids)], 12, 4), response([npy(other)], 12, 4, cached=8))
    trace, _ = trace_in(path)
    assert trace.sequence_offsets.tolist() == [0, 15, 27]
    assert trace.position[15:].tolist() == list(range(3, 15))
    path = write(tmp_path, response([npy(ids)], 12, 4), response([npy(ids[1:])], 11, 4, cached=8))
    assert trace_in(path)[0].sequence_offsets.tolist() == [0, 15, 29]


def test_a_prompt_that_several_choices_share_counts_once(tmp_path: Path) -> None:
    ids = random_ids(9, 32, 2, 8)
    choices = [ids[:6], np.concatenate([ids[:4], ids[6:]])]
    trace, imported = trace_in(write(tmp_path, response([npy(part) for part in choices], 4, 7)))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.sequence_offsets.tolist() == [0, 6, 9]
    assert trace.position.tolist() == [*range(6), 4, 5, 6]
    assert told(imported, "4 rows of prompts are repeated for each of a request's texts")


def test_prompts_that_begin_alike_are_told_where_nothing_says_what_was_cached(tmp_path: Path) -> None:
    """Then nothing tells whether they were processed again."""
    ids = random_ids(40, 32, 2, 8)
    again = np.concatenate([ids[:20], random_ids(4, 32, 2, 8, seed=1)])
    turns = [
        response([npy(part)], prompt, len(part) - prompt + 1)
        for part, prompt in ((ids[:24], 20), (ids, 30), (again, 20))
    ]
    trace, imported = trace_in(write(tmp_path, *turns))
    assert trace.tokens == 24 + 40 + 24
    assert told(imported, "2 prompts begin with the rows of another answer (44 tokens in all) and count them again")
    assert not told(trace_in(write(tmp_path, turns[0]))[1], "begin with the rows of another answer")
    for turn in turns:
        turn["usage"]["prompt_tokens_details"] = {"cached_tokens": 0}
    assert not told(trace_in(write(tmp_path, *turns))[1], "begin with the rows of another answer")


def test_choices_whose_rows_do_not_add_up_are_refused(tmp_path: Path) -> None:
    ids = random_ids(12, 32, 2, 8)
    # Two prompts of 4 and 3 tokens in one request: usage has their sum.
    made = response([npy(ids[:6]), npy(ids[6:10])], 7, 5)
    refused(write(tmp_path, made), r"\[6, 4\] rows do not fit usage.prompt_tokens 7 .*send prompts one by one")


def test_several_prompts_are_told_apart_by_their_token_ids(tmp_path: Path) -> None:
    ids = random_ids(10, 32, 2, 8)
    made = response([npy(ids[:6]), npy(ids[6:])], 7, 5)
    for choice, prompt, generated in zip(
        made["choices"], ([1, 2, 3, 4], [5, 6, 7]), ([8, 9, 10], [11, 12]), strict=True
    ):
        choice |= {"prompt_token_ids": prompt, "token_ids": generated}
    trace, _ = trace_in(write(tmp_path, made))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.position.tolist() == [*range(6), *range(4)]
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2 + [PREFILL] * 3 + [DECODE]
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [1, 2, 3, 4, 8, 9, 5, 6, 7, 11]
    made["usage"]["prompt_tokens"] = 6
    refused(write(tmp_path, made), r"prompt_token_ids are \[4, 3\] tokens, but usage.prompt_tokens is 6")


def test_token_ids_that_do_not_add_up_to_the_usage_are_refused(tmp_path: Path) -> None:
    ids = random_ids(9, 32, 2, 8)
    made = response([npy(ids[:6]), npy(ids[:6])], 4, 9)
    for choice in made["choices"]:
        choice["token_ids"] = [1, 2, 3]
    refused(write(tmp_path, made), "the choices generated 6 tokens, but usage.completion_tokens is 9")


def test_a_response_without_usage_has_its_tokens_counted(tmp_path: Path) -> None:
    """vLLM's ``/inference/v1/generate``."""
    ids = random_ids(6, 32, 2, 8)
    made = response([npy(ids)], None, None)
    made["choices"][0]["token_ids"] = [1, 2, 3]
    trace, imported = trace_in(write(tmp_path, made))
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2
    assert told(imported, "1 responses do not say how long their prompt is")
    made["prompt_logprobs"] = [None, {}, {}, {}]
    assert not told(trace_in(write(tmp_path, made))[1], "do not say how long")
    made["prompt_logprobs"] = [None, {}]
    refused(write(tmp_path, made), "6 rows for 3 generated tokens after a prompt of 2")


def test_a_request_that_was_aborted_is_told(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    aborted = response([None], 4, 2)
    aborted["choices"][0]["finish_reason"] = "abort"
    trace, imported = trace_in(write(tmp_path, response([npy(ids)], 4, 3), aborted))
    assert trace.sequences == 1
    assert told(imported, "1 choices have no routed_experts")


def test_a_cache_that_another_server_filled_is_told(tmp_path: Path) -> None:
    made = response([npy(random_ids(6, 32, 2, 8))], 4, 3, kv_transfer_params={"remote_host": "a"})
    assert told(trace_in(write(tmp_path, made))[1], "1 responses have kv_transfer_params")


def test_token_ids_of_some_responses_alone_give_no_identity(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    known = response([npy(ids)], 4, 3, prompt_token_ids=[1, 2, 3, 4])
    known["choices"][0]["token_ids"] = [5, 6, 7]
    trace, imported = trace_in(write(tmp_path, known, response([npy(ids)], 4, 3)))
    assert trace.token_hash is None
    assert told(imported, "1 of 2 sequences have no token ids")


def test_answers_that_are_errors_are_left_out_and_told(tmp_path: Path) -> None:
    """A line a request, as ``vllm run-batch`` writes them."""
    ids = random_ids(6, 32, 2, 8)
    lines = [
        {"id": "b1", "custom_id": "1", "error": None, "response": {"status_code": 200, "request_id": "r", "body": part}}
        for part in (response([npy(ids)], 4, 3), {"object": "error", "message": "too long", "code": 400})
    ]
    path = write(tmp_path, *lines, {"error": {"message": "busy"}})
    assert sniff_format(path) == "vllm_response"
    trace, imported = trace_in(path)
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert told(imported, "2 answers are errors of the server")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_format_is_told_however_long_the_text_before_the_routing(mark: str, tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    made = response([npy(ids)], 4, 3)
    made["choices"][0] = {"message": {"content": "word " * 30_000}, **made["choices"][0]}
    path = tmp_path / "r.json"
    path.write_text(mark + json.dumps(made, indent=1).replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert sniff_format(path) == "vllm_response"
    np.testing.assert_array_equal(trace_in(path)[0].expert_ids, ids)
    path.write_text(json.dumps({"choices": [{"message": {"content": "word " * 30_000}}]}))
    with pytest.raises(ForestageError, match="no known trace format"):
        sniff_format(path)


def test_a_folder_of_answers_is_one_recording(tmp_path: Path) -> None:
    ids = random_ids(20, 32, 2, 8)
    for number, (rows, prompt, cached) in {10: (ids, 18, 15), 9: (ids[:15], 12, 0)}.items():
        write(tmp_path, response([npy(rows)], prompt, len(rows) - prompt + 1, cached=cached))
        (tmp_path / "responses.jsonl").rename(tmp_path / f"answer_{number}.json")
    (tmp_path / "README").write_text("what this is")
    assert sniff_format(tmp_path) == "vllm_response"
    trace, imported = trace_in(tmp_path)
    assert trace.sequence_offsets.tolist() == [0, 15, 20]
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert told(imported, "1 files are no such responses")
    write(tmp_path, {**response([npy(ids)], 18, 3), "model": "other"})
    with pytest.raises(ForestageError, match=r"responses\.jsonl: response 1: model: 'other', but"):
        trace_in(tmp_path)


def test_prompts_apart_from_several_choices_must_agree_with_the_usage(tmp_path: Path) -> None:
    ids = random_ids(10, 32, 2, 8)
    made = response([npy(ids[4:6]), npy(ids[6:9])], 4, 9, prompt_routed_experts=npy(ids[:4]))
    refused(write(tmp_path, made), "5 rows for 9 generated tokens .usage.completion_tokens.")
    # The rows of one of two prompts of 4 tokens, whose sum the usage has.
    made["usage"] = {"prompt_tokens": 8, "completion_tokens": 7}
    refused(write(tmp_path, made), "prompt_routed_experts: 4 rows of 8 prompt tokens, which may be those of several")
    made["usage"]["prompt_tokens"] = 4
    assert trace_in(write(tmp_path, made))[0].position.tolist() == [*range(6), 4, 5, 6]


def test_rows_that_fit_two_beginnings_are_read_as_the_remedy_says(tmp_path: Path) -> None:
    """As many rows as generated tokens: from the prompt's last token on, or with the last generated token's."""
    ids = random_ids(4, 32, 2, 8)
    with pytest.raises(ForestageError, match=r"details\.cached_tokens 11, if .*an object \{data, shape, start\} with"):
        trace_in(write(tmp_path, response([npy(ids)], 12, 4)))
    cached, _ = trace_in(write(tmp_path, response([npy(ids)], 12, 4, cached=11)))
    assert cached.position.tolist() == [11, 12, 13, 14]
    for start in (11, 12):
        trace, _ = trace_in(write(tmp_path, response([raw(ids, "<i2", start=start)], 12, 4)))
        assert trace.position.tolist() == list(range(start, start + 4))
        np.testing.assert_array_equal(trace.expert_ids, ids)


def test_rows_that_fit_nothing_are_refused_with_how_many_would(tmp_path: Path) -> None:
    ids = random_ids(30, 32, 2, 8)
    refused(
        write(tmp_path, response([npy(ids)], 12, 4)), "30 rows .* of 12; expected 3 to 16: .* leave the response out"
    )
    made = response([raw(ids, "<i2", start=8)], 12, 4)
    refused(write(tmp_path, made), "30 rows from 8 on for 4 generated tokens .*; expected 7 or 8: ")
    for rows in (7, 8):
        made = response([raw(ids[:rows], "<i2", start=8)], 12, 4)
        assert trace_in(write(tmp_path, made))[0].position.tolist() == list(range(8, 8 + rows))
