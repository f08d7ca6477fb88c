"""Servers' answers as they were met in the field, each with what it must give."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording

QWEN = "Qwen/Qwen3-30B-A3B"  # 48 layers, 128 experts, top-8
FieldCase = Callable[[str], Path]


def imported(path: Path) -> tuple[RoutingTrace, Imported]:
    found = import_recording(path, options=ImportOptions(model=QWEN))
    assert isinstance(found.recording, RoutingTrace)
    return found.recording, found


def told(found: Imported, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


@pytest.mark.parametrize("name", ["vllm_data_shape.json", "vllm_data_dtype_shape.json", "vllm_stream.txt"])
def test_every_form_of_vllm_gives_the_same_rows(name: str, field_case: FieldCase) -> None:
    base, _ = imported(field_case("vllm_base.json"))
    trace, _ = imported(field_case(name))
    np.testing.assert_array_equal(trace.expert_ids, base.expert_ids)
    assert trace.position.tolist() == list(range(15))
    assert trace.phase.tolist() == [PREFILL] * 12 + [DECODE] * 3


@pytest.mark.parametrize("name", ["vllm_cached_prefix.json", "vllm_prompt_start.json"])
def test_a_prompt_without_its_first_rows_begins_after_them(name: str, field_case: FieldCase) -> None:
    base, _ = imported(field_case("vllm_base.json"))
    trace, found = imported(field_case(name))
    assert trace.position.tolist() == list(range(8, 15))
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE] * 3
    np.testing.assert_array_equal(trace.expert_ids, base.expert_ids[8:])
    assert told(found, "8 cached tokens at the beginning of 1 sequences have no rows")


def test_a_folder_of_vllms_offline_outputs(field_case: FieldCase) -> None:
    folder = field_case("vllm_offline")
    trace, found = imported(folder)
    assert found.format == "vllm_offline"
    assert trace.sequences == 4
    assert trace.token_hash is not None
    for number in range(4):
        part = trace.sequence_slice(number)
        with np.load(folder / f"request_{number}.npz") as request:
            np.testing.assert_array_equal(trace.expert_ids[part], request["routed_experts"])
            ids = np.concatenate([request["prompt_token_ids"], request["output_token_ids"]])
        assert trace.token_hash[part].tolist() == ids[:-1].tolist()
        assert int((trace.phase[part] == PREFILL).sum()) == 10 + number
    assert told(found, "the last token of 4 sequences")


def sglang_rows(response: dict[str, Any]) -> npt.NDArray[np.int32]:
    data = base64.b64decode(response["meta_info"]["routed_experts"])
    return np.frombuffer(data, "<i4").reshape(-1, 48, 8)


def test_sglangs_prefill_alone_one_row_short(field_case: FieldCase) -> None:
    path = field_case("sglang_prefill_short.json")
    trace, found = imported(path)
    np.testing.assert_array_equal(trace.expert_ids, sglang_rows(json.loads(path.read_text())))
    assert (trace.tokens, trace.phase.tolist()) == (11, [PREFILL] * 11)
    assert told(found, "the last row of the prompt is missing in 1 sequences")
    assert not told(found, "it was generated")


def test_sglangs_prefill_alone_complete(field_case: FieldCase) -> None:
    trace, found = imported(field_case("sglang_prefill_complete.json"))
    assert (trace.tokens, trace.phase.tolist()) == (12, [PREFILL] * 12)
    assert not found.warnings


def test_cached_tokens_of_a_later_turn_count_once(field_case: FieldCase) -> None:
    path = field_case("sglang_turns.jsonl")
    trace, found = imported(path)
    rows = [sglang_rows(json.loads(line)) for line in path.read_text().splitlines()]
    assert trace.sequence_offsets.tolist() == [0, 15, 22]
    assert trace.position.tolist() == list(range(22))
    np.testing.assert_array_equal(trace.expert_ids, np.concatenate([rows[0], rows[1][15:]]))
    assert told(found, "15 cached tokens have their rows in another answer of the file too")
