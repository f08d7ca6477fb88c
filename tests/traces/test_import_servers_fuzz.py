"""Damaged answers of servers are refused in one line, or what they now say is imported; nothing in between.

Every answer is of one text whose rows are all different, so that a row in the trace names its token: positions and
phases are compared with those that the text's numbers give.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import changed, fuzz
from tests.traces.recorded_ids import random_ids
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording

LAYERS, TOP_K, EXPERTS = 3, 2, 9
FUZZ = fuzz()

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.sampled_from([2**31, 2**63, 1.0, float("inf"), "int8", "uint8", "int32", "base85", "", "AAAA"]),
    st.lists(st.integers(-2, 9), max_size=3),
    st.just({}),
)

Ids = npt.NDArray[np.int64]


def options(format: str) -> ImportOptions:
    """A model of one's own; SGLang's rows have no shape."""
    shape = {"layers": (0, 1, 2), "top_k": TOP_K} if format == "sglang_response" else {}
    return ImportOptions.parse({"model": "our/own", "experts": EXPERTS, **shape}, origin="test")


def attempt(path: Path, format: str) -> Imported | None:
    """The import, or ``None`` where it is refused in one line that names the source."""
    try:
        return import_recording(path, format, options(format))
    except ForestageError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert path.name in refusal
    return None


def distinct(tokens: int) -> Ids:
    """Rows that are all different."""
    ids = random_ids(tokens, LAYERS, TOP_K, EXPERTS)
    assert len({row.tobytes() for row in ids}) == tokens
    return ids


def npy(ids: Ids, dtype: str) -> str:
    stream = io.BytesIO()
    np.save(stream, ids.astype(dtype))
    return base64.b64encode(stream.getvalue()).decode()


@st.composite
def payloads(draw: st.DrawFn, ids: Ids, start: int) -> Any:
    """``ids`` in one of vLLM's forms; an object may state the position ``start`` of the first."""
    width = draw(st.sampled_from(["|u1", "<i2", "<i4", "<i8"]))
    kind = draw(st.sampled_from(["lists", "npy", "base64", "base85"]))
    if kind == "lists":
        return ids.tolist()
    if kind == "npy":
        return npy(ids, width)
    encode = base64.b64encode if kind == "base64" else base64.b85encode
    made: dict[str, Any] = {"data": encode(ids.astype(width).tobytes()).decode(), "shape": list(ids.shape)}
    if draw(st.booleans()):
        made["dtype"] = np.dtype(width).name
    if (kind == "base85" and width != "<i4") or draw(st.booleans()):
        made["encoding"] = kind
    if draw(st.booleans()):
        made["start"] = start
    return made


@st.composite
def vllm_texts(draw: st.DrawFn) -> tuple[dict[str, Any], Ids, int, int]:
    """A response, the rows of its text from position 0 on, the first position that has a row, and the prompt."""
    prompt, generated = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    ids = distinct(prompt + generated - 1)
    first = draw(st.sampled_from([0, 0, prompt, draw(st.integers(0, prompt))]))
    made: dict[str, Any] = {"id": "a", "choices": [{"index": 0, "token_ids": list(range(generated))}]}
    made["usage"] = {"prompt_tokens": prompt, "completion_tokens": generated}
    if draw(st.booleans()):
        made["usage"]["prompt_tokens_details"] = {"cached_tokens": first}
    if draw(st.booleans()):
        made["prompt_token_ids"] = list(range(prompt))
    if draw(st.booleans()) and first < prompt:
        made["prompt_routed_experts"] = draw(payloads(ids[first:prompt], first))
        made["choices"][0]["routed_experts"] = draw(payloads(ids[prompt:], prompt))
    else:
        made["choices"][0]["routed_experts"] = draw(payloads(ids[first:], first))
    return made, ids, first, prompt


def as_stream(draw: Callable[..., Any], response: dict[str, Any]) -> str:
    """The response as events: tokens one by one, everything else in some event."""
    choice = response["choices"][0]
    tokens = choice.get("token_ids") or []
    events: list[dict[str, Any]] = [{"id": "a", "choices": [{"index": 0, "token_ids": [token]}]} for token in tokens]
    events = events or [{"id": "a", "choices": [{"index": 0}]}]
    for name, value in response.items():
        if name not in ("choices", "id"):
            draw(st.sampled_from(events))[name] = value
    for name, value in choice.items():
        if name not in ("index", "token_ids"):
            draw(st.sampled_from(events))["choices"][0][name] = value
    end = draw(st.sampled_from(["data: [DONE]\n\n", "", ": end\n"]))
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end


def check(trace: RoutingTrace, ids: Ids, prompt: int) -> None:
    """Every row of the trace is that of its position."""
    for token in range(trace.tokens):
        position = int(trace.position[token])
        assert trace.expert_ids[token].tolist() == ids[position].tolist()
        assert trace.phase[token] == (PREFILL if position < prompt else DECODE)


@FUZZ
@given(st.data())
def test_every_row_of_a_whole_text_has_its_position(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    made, ids, first, prompt = data.draw(vllm_texts())
    path = tmp_path_factory.getbasetemp() / "text.json"
    path.write_text(as_stream(data.draw, made) if data.draw(st.booleans()) else json.dumps(made))
    imported = attempt(path, "vllm_response")
    if imported is None:
        # As many rows as generated tokens: of the prompt's last token on, or with the last generated one.
        assert "prompt_routed_experts" not in made
        assert first == prompt - 1
        return
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    check(trace, ids, prompt)
    assert trace.tokens == len(ids) - first


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a JSON value but single ids."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if not (at and at[-1] in ("routed_experts", "prompt_routed_experts") and isinstance(child, list)):
            yield from places(child, (*at, key))


@FUZZ
@given(st.data())
def test_a_changed_field_gives_no_row_another_position(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of a text with all of its rows, one field changed: whatever is imported still starts at the first token.

    A changed number of prompt tokens may only be believed where it agrees with the rows, and a changed count of cached
    tokens leaves out nothing that stands nowhere else.
    """
    prompt, generated = 4, 4
    ids = distinct(prompt + generated - 1)
    made = {
        "choices": [{"index": 0, "routed_experts": data.draw(payloads(ids, 0)), "token_ids": [1, 2, 3, 4]}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "prompt_token_ids": [5, 6, 7, 8],
    }
    at = data.draw(st.sampled_from(list(places(made))))
    path = tmp_path_factory.getbasetemp() / "field.json"
    path.write_text(json.dumps(changed(made, at, data.draw(VALUES))))
    imported = attempt(path, "vllm_response")
    if imported is None:
        return
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    if at[-1:] == ("start",) and trace.position[0] == 1:
        return  # seven rows from 1 on are those of all eight tokens but the first: another recording
    check(trace, ids, prompt)


@FUZZ
@given(st.data())
def test_a_damaged_stream(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes cut off or changed: refused, or each imported row stands in the rows that were sent."""
    made, ids, _, _ = data.draw(vllm_texts())
    text = bytearray(as_stream(data.draw, made).encode())
    if data.draw(st.booleans()):
        del text[data.draw(st.integers(0, len(text) - 1)) :]
    else:
        where = data.draw(st.integers(0, len(text) - 1))
        text[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=2))
    path = tmp_path_factory.getbasetemp() / "stream.txt"
    path.write_bytes(bytes(text))
    imported = attempt(path, "vllm_response")
    if imported is not None:
        assert isinstance(imported.recording, RoutingTrace)
        assert imported.recording.tokens <= len(ids)


@FUZZ
@given(st.data())
def test_turns_of_sglang_count_every_row_once(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A conversation whose turns return any part of what went before, in any order."""
    lengths = data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(2, 4)), min_size=1, max_size=4))
    ids = distinct(sum(more + generated for more, generated in lengths))
    turns, stop = [], 0
    for more, generated in lengths:
        prompt = stop + more
        # A turn finds all that was processed before in the cache: all but the last generated token.
        cached = max(0, stop - 1)
        stop = prompt + generated
        start = data.draw(st.integers(0, cached))
        numbers = {"prompt_tokens": prompt, "completion_tokens": generated, "cached_tokens": cached}
        rows = base64.b64encode(ids[start : stop - 1].astype("<i4").tobytes()).decode()
        meta = {**numbers, "routed_experts": rows, "routed_experts_start_len": start}
        turns.append({"text": "x", "meta_info": meta})
    order = data.draw(st.permutations(range(len(turns))))
    path = tmp_path_factory.getbasetemp() / "turns.jsonl"
    path.write_text("".join(json.dumps(turns[n]) + "\n" for n in order))
    imported = attempt(path, "sglang_response")
    assert imported is not None
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert sorted(trace.position.tolist()) == list(range(len(ids) - 1))
    np.testing.assert_array_equal(trace.expert_ids[np.argsort(trace.position)], ids[:-1])


@FUZZ
@given(st.data())
def test_a_changed_number_of_sglangs_gives_no_row_another_position(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ids = distinct(7)
    meta: dict[str, Any] = {
        "prompt_tokens": 4,
        "completion_tokens": 4,
        "cached_tokens": 0,
        "routed_experts_start_len": 0,
    }
    meta["routed_experts"] = base64.b64encode(ids.astype("<i4").tobytes()).decode()
    meta[data.draw(st.sampled_from(list(meta)))] = data.draw(VALUES)
    path = tmp_path_factory.getbasetemp() / "meta.json"
    path.write_text(json.dumps({"text": "x", "meta_info": meta}))
    imported = attempt(path, "sglang_response")
    if imported is not None:
        assert isinstance(imported.recording, RoutingTrace)
        check(imported.recording, ids, 4)
