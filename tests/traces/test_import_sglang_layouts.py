"""What SGLang's servers send beyond one response a text: prefill alone, turns, several texts, other places."""

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


def native(ids: Ids | None, prompt: int, completion: int, cached: int = 0, **meta: Any) -> dict[str, Any]:
    """A response of ``/generate``."""
    routing = {} if ids is None else {"routed_experts": encoded(ids)}
    numbers = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}
    return {"text": "x", "meta_info": {"id": "a", **numbers, **routing, **meta}}


def completion(choices: list[dict[str, Any]], prompt: int, generated: int, **more: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "model": MIXTRAL,
        "choices": [{"index": i, "message": {"content": "x"}, **choice} for i, choice in enumerate(choices)],
        "usage": {"prompt_tokens": prompt, "completion_tokens": generated, "prompt_tokens_details": None},
        **more,
    }


def trace_in(folder: Path, *responses: dict[str, Any], model: str = MIXTRAL) -> tuple[RoutingTrace, Imported]:
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(part) + "\n" for part in responses))
    assert sniff_format(path) == "sglang_response"
    imported = import_recording(path, options=ImportOptions(model=model))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


def refused(folder: Path, *responses: dict[str, Any], match: str) -> None:
    with pytest.raises(ForestageError, match=rf"r\.jsonl: .*{match}") as caught:
        trace_in(folder, *responses)
    assert "\n" not in str(caught.value)


def told(imported: Imported, words: str) -> bool:
    return any(words in warning for warning in imported.warnings)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_prompt_alone_may_lack_its_last_row(missing: int, tmp_path: Path) -> None:
    ids = random_ids(12 - missing, 32, 2, 8)
    trace, imported = trace_in(tmp_path, native(ids, 12, 0))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert (trace.position.tolist(), set(trace.phase.tolist())) == (list(range(12 - missing)), {PREFILL})
    assert told(imported, "the last row of the prompt is missing in 1 sequences") == bool(missing)
    assert not told(imported, "it was generated")


def test_a_prompt_alone_from_a_stated_start(tmp_path: Path) -> None:
    ids = random_ids(4, 32, 2, 8)
    for start, short in ((8, False), (7, True)):
        trace, imported = trace_in(tmp_path, native(ids, 12, 0, routed_experts_start_len=start))
        assert trace.position.tolist() == [start, start + 1, start + 2, start + 3]
        assert told(imported, "last row of the prompt") == short
    refused(
        tmp_path,
        native(ids, 12, 0),
        match=r"fit no start with 32 layers of top-2 .*\(meta_info: prompt_tokens 12, completion_tokens 0\)",
    )


def test_cached_tokens_count_once_whichever_turn_comes_first(tmp_path: Path) -> None:
    ids = random_ids(22, 32, 2, 8)
    turns = [native(ids[:15], 12, 4), native(ids, 18, 5, cached=15)]
    trace, imported = trace_in(tmp_path, *turns)
    assert trace.sequence_offsets.tolist() == [0, 15, 22]
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert told(imported, "15 cached tokens have their rows in another answer")
    trace, _ = trace_in(tmp_path, *reversed(turns))
    assert trace.position.tolist() == [*range(15, 22), *range(15)]
    trace, imported = trace_in(tmp_path, turns[1])
    assert trace.tokens == 22
    assert told(imported, "15 cached tokens have rows that no other answer of the file has: kept")


def test_rows_that_were_not_asked_for_are_not_counted_but_told(tmp_path: Path) -> None:
    ids = random_ids(22, 32, 2, 8)
    trace, imported = trace_in(
        tmp_path, native(ids[:15], 12, 4), native(ids[15:], 18, 5, cached=15, routed_experts_start_len=15)
    )
    assert trace.position.tolist() == list(range(22))
    assert not told(imported, "cached tokens have")
    assert told(imported, "the first 15 tokens of 1 sequences have no rows")


def test_more_cached_tokens_than_the_prompt_has_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, native(random_ids(6, 32, 2, 8), 4, 3, cached=5), match="cached_tokens is 5, but prompt_tokens 4")


def test_several_texts_for_one_prompt_count_it_once(tmp_path: Path) -> None:
    ids = random_ids(9, 32, 2, 8)
    texts = [ids[:6], np.concatenate([ids[:4], ids[6:]])]
    made = completion([{"sgl_ext": {"routed_experts": encoded(part)}} for part in texts], 4, 7)
    trace, imported = trace_in(tmp_path, made)
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.sequence_offsets.tolist() == [0, 6, 9]
    assert told(imported, "4 rows of prompts are repeated")
    # As /generate gives them: a response each, the prompt found in the cache by both.
    trace, _ = trace_in(tmp_path, *(native(part, 4, len(part) - 3, cached=3) for part in texts))
    np.testing.assert_array_equal(trace.expert_ids, np.concatenate([ids[:6], ids[3:4], ids[6:]]))


def test_several_prompts_whose_tokens_usage_adds_up_are_refused(tmp_path: Path) -> None:
    """Their sum was once taken for each one's, which gave every position wrong."""
    ids = random_ids(11, 32, 2, 8)
    made = completion([{"sgl_ext": {"routed_experts": encoded(part)}} for part in (ids[:6], ids[6:])], 8, 5)
    refused(tmp_path, made, match=r"fit no start.*prompt_tokens 8, .*of 2 choices.*send prompts one by one")


def test_choices_with_numbers_of_their_own(tmp_path: Path) -> None:
    ids = random_ids(11, 32, 2, 8)
    metas = [native(part, prompt, 3)["meta_info"] for part, prompt in ((ids[:6], 4), (ids[6:], 3))]
    trace, _ = trace_in(tmp_path, completion([{"meta_info": meta} for meta in metas], 7, 6))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 2 + [PREFILL] * 3 + [DECODE] * 2


@pytest.mark.parametrize("name", ["sgl_ext", "sglext"])
def test_the_extension_may_stand_beside_the_choices(name: str, tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    extension = {name: {"routed_experts": encoded(ids)}}
    np.testing.assert_array_equal(trace_in(tmp_path, completion([{}], 4, 3, **extension))[0].expert_ids, ids)
    np.testing.assert_array_equal(trace_in(tmp_path, completion([extension], 4, 3))[0].expert_ids, ids)


def test_texts_without_routing_are_left_out_and_told(tmp_path: Path) -> None:
    ids = random_ids(6, 32, 2, 8)
    aborted = native(None, 9, 0, finish_reason={"type": "abort"})
    trace, imported = trace_in(tmp_path, aborted, native(ids, 4, 3), native(None, 9, 2, routed_experts=None))
    np.testing.assert_array_equal(trace.expert_ids, ids)
    assert told(imported, "2 choices have no routed_experts")


def test_empty_layers_tell_the_axis_where_the_length_does_not(tmp_path: Path) -> None:
    """26 tokens of 27 layers are as many numbers as 27 of 26."""
    for layers, tokens in ((27, 26), (26, 27)):
        ids = random_ids(tokens, 26, 6, 64)
        rows = with_dense(ids, layers - 26)
        trace, _ = trace_in(tmp_path, native(rows, 28, 0, routed_experts_start_len=28 - tokens), model=LITE)
        np.testing.assert_array_equal(trace.expert_ids, ids)
    ids = random_ids(27, 26, 6, 64)
    trace, _ = trace_in(tmp_path, native(ids, 25, 3), model=LITE)
    np.testing.assert_array_equal(trace.expert_ids, ids)
