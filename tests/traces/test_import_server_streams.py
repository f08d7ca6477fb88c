"""Streams of servers, saved as they came: lines ``data: {…}``."""

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
from tests.traces.recorded_ids import random_ids
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"  # 32 layers, 8 experts, top-2
Ids = npt.NDArray[np.int64]


def npy(ids: Ids) -> str:
    stream = io.BytesIO()
    np.save(stream, ids.astype("u1"))
    return base64.b64encode(stream.getvalue()).decode()


def int32(ids: Ids) -> str:
    return base64.b64encode(ids.astype("<i4").tobytes()).decode()


def chunk(name: str, index: int = 0, **choice: Any) -> dict[str, Any]:
    """An event of vLLM's OpenAI interface."""
    return {
        "id": name,
        "object": "chat.completion.chunk",
        "model": MIXTRAL,
        "choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": None, **choice}],
    }


def usage(name: str, prompt: int, completion: int) -> dict[str, Any]:
    """The last event with ``stream_options.include_usage``."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"id": name, "object": "chat.completion.chunk", "model": MIXTRAL, "choices": [], "usage": counts}


def one_request(name: str, ids: Ids, prompt: int) -> list[dict[str, Any]]:
    """A token an event, the routing in the last."""
    generated = len(ids) - prompt + 1
    events = [chunk(name, token_ids=[100 + number]) for number in range(generated)]
    events[0]["prompt_token_ids"] = list(range(prompt))
    events[-1]["choices"][0] |= {"finish_reason": "stop", "routed_experts": npy(ids)}
    return [*events, usage(name, prompt, generated)]


def lines(*events: dict[str, Any] | None) -> str:
    """As a server sends them, ``None`` for the end of a stream."""
    return "".join(f"data: {'[DONE]' if event is None else json.dumps(event)}\n\n" for event in events)


def trace_in(path: Path, text: str, **options: Any) -> RoutingTrace:
    path.write_text(text, encoding="utf-8", newline="")
    return read(path, **options)


def read(path: Path, **options: Any) -> RoutingTrace:
    recording = import_recording(path, options=ImportOptions(**options)).recording
    assert isinstance(recording, RoutingTrace)
    return recording


def test_routing_in_the_last_event(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    path = tmp_path / "stream.log"
    trace = trace_in(path, lines(*one_request("a", ids, 4), None))
    assert sniff_format(path) == "vllm_response"
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [0, 1, 2, 3, 100, 101]
    assert trace.metadata.model == MIXTRAL


def test_a_stream_as_other_programs_save_it(tmp_path: Path) -> None:
    """A byte-order mark, CRLF, comments and other fields, no space after the colon, gzip."""
    ids = random_ids(6, 32, 2, 8)
    text = (
        lines(*one_request("a", ids, 4), None).replace("data: ", "event: message\nid: 7\ndata:").replace("\n", "\r\n")
    )
    path = tmp_path / "stream.bin"
    np.testing.assert_array_equal(trace_in(path, "\ufeff: ping\r\n\r\n" + text).expert_ids, ids)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read(path).expert_ids, ids)


def test_events_saved_as_json_are_put_together(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    events = one_request("a", ids, 4)
    for text in ("\n".join(map(json.dumps, events)), json.dumps(events)):
        np.testing.assert_array_equal(trace_in(tmp_path / "s.json", text).expert_ids, ids)


@pytest.mark.parametrize("cumulative", [True, False])
def test_routing_that_is_spread_over_the_events(cumulative: bool, tmp_path: Path) -> None:
    ids = random_ids(7, 32, 2, 8)
    events = [chunk("a", token_ids=[number]) for number in range(4)]
    for event, stop in zip(events, (4, 5, 6, 7), strict=True):
        first = 0 if cumulative or stop == 4 else stop - 1
        event["choices"][0]["routed_experts"] = npy(ids[first:stop])
    trace = trace_in(tmp_path / "s.txt", lines(*events, usage("a", 4, 4), None))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 3


def test_requests_and_choices_that_alternate(tmp_path: Path) -> None:
    ids = random_ids(14, 32, 2, 8)
    first, second = one_request("a", ids[:6], 4), one_request("b", ids[6:11], 3)
    mixed = [event for pair in zip(first, second, strict=True) for event in pair]
    trace = trace_in(tmp_path / "s.txt", lines(*mixed, None, None))
    np.testing.assert_array_equal(trace.expert_ids, ids[:11])
    assert trace.sequence_offsets.tolist() == [0, 6, 11]
    choices = [np.concatenate([ids[:4], ids[4:6]]), np.concatenate([ids[:4], ids[11:14]])]
    events = [chunk("c", index, token_ids=[9]) for _ in range(3) for index in (1, 0)] + [chunk("c", 1, token_ids=[9])]
    events += [chunk("c", index, routed_experts=npy(choices[index]), finish_reason="stop") for index in (1, 0)]
    trace = trace_in(tmp_path / "s.txt", lines(*events, usage("c", 4, 7), None))
    assert trace.sequence_offsets.tolist() == [0, 6, 9]
    np.testing.assert_array_equal(trace.expert_ids, np.concatenate([ids[:6], ids[11:14]]))


def test_a_stream_that_ends_while_others_go_on(tmp_path: Path) -> None:
    ids = random_ids(11, 32, 2, 8)
    first, second = one_request("a", ids[:6], 4), one_request("b", ids[6:], 3)
    trace = trace_in(tmp_path / "s.txt", lines(*first, second[0], None, *second[1:], None))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.sequence_offsets.tolist() == [0, 6, 11]


def test_an_id_that_comes_again_is_another_request(tmp_path: Path) -> None:
    ids = random_ids(11, 32, 2, 8)
    text = lines(*one_request("r", ids[:6], 4), None, *one_request("r", ids[6:], 3), None)
    assert trace_in(tmp_path / "s.txt", text).sequence_offsets.tolist() == [0, 6, 11]


def test_usage_in_every_event_and_an_error_at_the_end(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    events = one_request("a", ids, 4)[:-1]
    for number, event in enumerate(events):
        event["usage"] = {"prompt_tokens": 4, "completion_tokens": number + 1}
    path = tmp_path / "s.txt"
    path.write_text(lines(*events, None, {"error": {"message": "busy", "code": 503}}))
    imported = import_recording(path)
    assert isinstance(imported.recording, RoutingTrace)
    np.testing.assert_array_equal(imported.recording.expert_ids, ids)
    assert any("1 answers are errors" in warning for warning in imported.warnings)


def test_sglangs_native_stream(tmp_path: Path) -> None:
    """Each event has all of the request so far; the last has the routing."""
    ids = random_ids(6, 32, 2, 8)
    events = [
        {"text": "x" * n, "output_ids": [7] * n, "meta_info": {"id": "a", "prompt_tokens": 4, "completion_tokens": n,
         "cached_tokens": 0, "finish_reason": None}} for n in (1, 2, 3)
    ]  # fmt: skip
    events[-1]["meta_info"] |= {"routed_experts": int32(ids), "finish_reason": {"type": "length"}}  # type: ignore[operator]
    path = tmp_path / "s.txt"
    trace = trace_in(path, lines(*events, None), model=MIXTRAL)
    assert sniff_format(path) == "sglang_response"
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2


@pytest.mark.parametrize("holder", ["choice", "response"])
def test_sglangs_openai_stream(holder: str, tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    last = chunk("a", finish_reason="stop")
    (last["choices"][0] if holder == "choice" else last)["sglext"] = {"routed_experts": int32(ids)}
    path = tmp_path / "s.txt"
    trace = trace_in(path, lines(chunk("a"), chunk("a"), last, usage("a", 4, 3), None))
    assert sniff_format(path) == "sglang_response"
    np.testing.assert_array_equal(trace.expert_ids, ids)


FAULTS: dict[str, tuple[str, str]] = {
    "cut off": (lines(*one_request("a", random_ids(6, 32, 2, 8), 4))[:-40], "line 7: not valid JSON.*cut off"),
    "no routing": (lines(chunk("a"), usage("a", 4, 3), None), "no response has routed experts"),
    "text": ("data: {}\n<html>\n", "line 2: '<html>'; expected an event"),
    "list": ("data: [1]\n", r"line 1: a JSON list; expected a JSON object"),
    "choices": ('data: {"choices": 3}\n', "line 1: choices: 3; expected a list"),
    "comment": (': {"choices": []}\ndata: [DONE]\n', "line 1: .*; holds an object, but is no data of an event"),
    "index": ('data: {"choices": [{"index": "a"}]}\n', "line 1: choices: .*expected an object with its index"),
    "id": ('data: {"id": {}, "choices": []}\n', "line 1: id: .*expected a text"),
    "token ids": ('data: {"choices": [{"token_ids": 3}]}\n', "line 1: token_ids: 3; expected a list"),
    "model": (
        lines(chunk("a"), {**chunk("a"), "model": "another"}),
        "line 3: model: 'another', but '.*Mixtral.*' in earlier events of the same request",
    ),
    "one index twice": (
        lines({**chunk("a"), "choices": chunk("a")["choices"] * 2}),
        "line 1: choices: two have the index 0",
    ),
    "deep": ("data: " + "[" * 100_000 + "\n", "line 1: not valid JSON"),
    "shapes": (
        lines(*(chunk("a", routed_experts=npy(random_ids(2, layers, 2, 8))) for layers in (4, 5))),
        "response 1, choice 0: routed_experts: layers or ids a row differ between the events",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_stream_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    path = tmp_path / "s.txt"
    path.write_text(text)
    with pytest.raises(ForestageError, match=rf"s\.txt: .*{message}") as caught:
        import_recording(path, "vllm_response", ImportOptions(model=MIXTRAL))
    assert "\n" not in str(caught.value)


def test_answers_of_two_servers_in_one_file_are_told_apart(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    usage = {"prompt_tokens": 4, "completion_tokens": 3}
    of_vllm = {"model": MIXTRAL, "choices": [{"index": 0, "routed_experts": npy(ids)}], "usage": usage}
    of_sglang = {"model": MIXTRAL, "choices": [{"index": 0, "sgl_ext": {"routed_experts": int32(ids)}}], "usage": usage}
    path = tmp_path / "r.jsonl"
    for first, second, other in ((of_vllm, of_sglang, "SGLang"), (of_sglang, of_vllm, "vLLM")):
        path.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
        with pytest.raises(ForestageError, match=f"response 2: .*an answer of {other} among those of"):
            read(path)
