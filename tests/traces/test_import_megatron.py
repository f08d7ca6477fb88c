"""The importer of Megatron-Core's router trace, on small files in its layout."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

Line = dict[str, Any]
EXPERTS, LAYERS = 16, (1, 2, 5)
STEPS = (3, 1, 1, 2, 1)
"""Tokens of each step: two prompts, the first with two decode steps, the second with one."""


def ids_of(rank: int, step: int, layer: int, row: int) -> list[int]:
    """Three ids of no particular order."""
    base = 5 * rank + 7 * step + 3 * layer + row
    return [(base + 9) % EXPERTS, base % EXPERTS, (base + 4) % EXPERTS]


def calls(rank: int = 0, layers: tuple[int, ...] = LAYERS, steps: tuple[int, ...] = STEPS, seed: int = 0) -> list[Line]:
    return [
        {
            "step": step,
            "stage": "pre_dispatch",
            "block": "decoder",
            "layer": layer,
            "rank": rank,
            "num_tokens": tokens,
            "topk": 3,
            "top_indices": [ids_of(seed, step, layer, row) for row in range(tokens)],
        }
        for step, tokens in enumerate(steps)
        for layer in layers
    ]


def text_of(lines: list[Line]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def write(folder: Path, lines: list[Line] | str, rank: int = 0) -> Path:
    path = folder / f"router_trace_rank{rank}.jsonl"
    path.write_text(lines if isinstance(lines, str) else text_of(lines))
    return path


def load(source: Path) -> tuple[RoutingTrace, tuple[str, ...]]:
    imported = import_recording(source, None, ImportOptions(model="toy", experts=EXPERTS))
    assert imported.format == "megatron"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported.warnings


def test_a_prompt_and_its_decode_steps_are_a_sequence(tmp_path: Path) -> None:
    trace, warnings = load(write(tmp_path, calls()))
    assert trace.sequence_offsets.tolist() == [0, 5, 8]
    assert trace.position.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert trace.phase.tolist() == [PREFILL] * 3 + [DECODE] * 2 + [PREFILL] * 2 + [DECODE]
    assert trace.metadata.layer_map == LAYERS
    rows = [(step, row) for step, tokens in enumerate(STEPS) for row in range(tokens)]
    for token, (step, row) in enumerate(rows):
        for column, layer in enumerate(LAYERS):
            assert trace.expert_ids[token, column].tolist() == ids_of(0, step, layer, row)
    assert trace.metadata.ranked
    assert (trace.gate_weights, trace.metadata.gate_weight_kind) == (None, "none")
    assert warnings == ()


def test_ids_from_a_map_ascend_and_are_not_ranked(tmp_path: Path) -> None:
    lines = calls()
    for line in lines:
        line["top_indices"] = [sorted(row) for row in line["top_indices"]]
    trace, _ = load(write(tmp_path, lines))
    assert not trace.metadata.ranked
    for line in lines:
        line["topk"], line["top_indices"] = 1, [row[:1] for row in line["top_indices"]]
    assert load(write(tmp_path, lines))[0].metadata.ranked, "one id is the best one"


def test_calls_of_another_block_are_left_out(tmp_path: Path) -> None:
    lines = calls()
    lines[3:3] = [{**line, "block": "mtp", "mtp_idx": 0} for line in calls(steps=(3,))]
    trace, warnings = load(write(tmp_path, lines))
    assert trace.equals(load(write(tmp_path, calls()))[0])
    assert any("3 calls outside the decoder" in warning for warning in warnings)


def test_ranks_with_the_same_layers_have_tokens_of_their_own(tmp_path: Path) -> None:
    for rank in (10, 2):
        write(tmp_path, calls(rank, seed=rank), rank)
    (tmp_path / "logits_rank2.bin").write_bytes(b"\x00" * 8)
    assert sniff_format(tmp_path) == "megatron"
    trace, warnings = load(tmp_path)
    assert trace.sequence_offsets.tolist() == [0, 5, 8, 13, 16]
    assert trace.expert_ids[0, 0].tolist() == ids_of(2, 0, 1, 0), "ranks in the order of their numbers"
    assert trace.expert_ids[8, 0].tolist() == ids_of(10, 0, 1, 0)
    assert any("2 ranks with the same layers" in warning for warning in warnings)


def test_a_rank_that_repeats_another_is_left_out(tmp_path: Path) -> None:
    for rank in (0, 1):
        write(tmp_path, calls(rank), rank)
    trace, warnings = load(tmp_path)
    assert trace.tokens == sum(STEPS)
    assert any("repeats router_trace_rank0.jsonl call for call" in warning for warning in warnings)
    differing = calls(1)
    differing[-1]["top_indices"] = [[1, 2, 3]]
    write(tmp_path, differing, 1)
    assert load(tmp_path)[0].tokens == 2 * sum(STEPS)


def test_ranks_without_a_common_layer_are_stages_of_one_pipeline(tmp_path: Path) -> None:
    write(tmp_path, calls(0, (1, 2)), 0)
    write(tmp_path, calls(1, (5,)), 1)
    trace, warnings = load(tmp_path)
    whole = import_recording(
        write(tmp_path / "..", calls()), "megatron", ImportOptions(model="toy", experts=EXPERTS)
    ).recording
    assert isinstance(whole, RoutingTrace)
    assert choices(trace) == choices(whole)
    assert any("stages of one pipeline" in warning for warning in warnings)
    write(tmp_path, calls(1, (5,), STEPS[:-1]), 1)
    with pytest.raises(ForestageError, match=r"rank1\.jsonl: lacks step 4 of 1 tokens"):
        load(tmp_path)
    write(tmp_path, calls(1, (2, 5)), 1)
    with pytest.raises(ForestageError, match="ranks hold different layers, but share some"):
        load(tmp_path)


def test_steps_that_look_like_a_batch_are_told(tmp_path: Path) -> None:
    trace, warnings = load(write(tmp_path, calls(steps=(4, 4, 4))))
    assert trace.sequences == 3
    assert any("2 steps of several tokens follow another such" in warning for warning in warnings)
    _, warnings = load(write(tmp_path, [line for line in calls() if line["step"] != 1]))
    assert any("step numbers are skipped 1 times" in warning for warning in warnings)


def changed(number: int, **fields: Any) -> list[Line]:
    """The calls with fields of line ``number`` (1-based) replaced."""
    return [{**line, **fields} if place == number else line for place, line in enumerate(calls(), start=1)]


FAULTS: dict[str, tuple[list[Line] | str, str]] = {
    "cut off": (text_of(calls())[:-9], "line 15: not valid JSON; is the file cut off"),
    "step cut off": (calls()[:-1], "line 13: step 4: lacks layer 5; if the file was cut off"),
    "stray layer": (changed(5, layer=9), "line 4: step 1: lacks layer 2"),
    "new layer": ([*calls(), {**calls()[-1], "layer": 9}], "line 13: step 4: layer 9 is not in the first step"),
    "twice": ([*calls(), calls()[-1]], "line 16: step 4, layer 5: came before"),
    "order": (list(reversed(calls())), "line 4: step: 3 after 4; steps must ascend"),
    "stage": (changed(2, stage="post_dispatch"), "line 2: stage: Input should be 'pre_dispatch'"),
    "rank": (changed(2, rank=1), "line 2: rank: 1, but the lines before are of rank 0"),
    "tokens": (changed(2, num_tokens=2), "line 2: top_indices: 3 rows, but num_tokens is 2"),
    "tokens differ": (
        changed(2, num_tokens=1, top_indices=[[1, 2, 3]]),
        "line 2: num_tokens: 1, but the step's other calls have 3",
    ),
    "topk": (changed(2, topk=2), r"line 2: top_indices\.0: 3 ids, but topk is 2"),
    "topk differs": (
        changed(4, topk=2, top_indices=[[1, 2]]),
        "line 4: step 1: layer 1: top-2; the first step has top-3",
    ),
    "id": (changed(2, top_indices=[[1, 2, 3], [1, 2, -3], [1, 2, 3]]), r"line 2: top_indices\.1\.2: Input should be"),
    "beyond": (changed(2, top_indices=[[1, 2, 3], [1, 2, 16], [1, 2, 3]]), "id 16; toy has experts 0 to 15"),
    "no decoder": ([{**line, "block": "mtp"} for line in calls()], "no call of the decoder's routers"),
    "empty": ("\n", "no call of the decoder's routers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_line_and_field(fault: str, tmp_path: Path) -> None:
    lines, message = FAULTS[fault]
    path = write(tmp_path, lines)
    with pytest.raises(ForestageError, match=message) as caught:
        import_recording(path, "megatron", ImportOptions(model="toy", experts=EXPERTS))
    assert str(caught.value).startswith(str(path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="holds no router_trace_rank<r>"):
        import_recording(tmp_path, "megatron", ImportOptions(model="toy", experts=EXPERTS))


@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(damaged(text_of(calls())))
    path = tmp_path_factory.getbasetemp() / "router_trace_rank7.jsonl"
    path.write_bytes(content)
    trace = import_or_refuse(path, "megatron", model="toy", experts=EXPERTS)
    if trace is None:
        return
    lines = [json.loads(line) for line in content.splitlines() if line.strip()]
    steps: dict[int, dict[int, list[list[int]]]] = {}
    for line in lines:
        if line["block"] == "decoder":
            assert line["layer"] not in steps.setdefault(line["step"], {}), "a call that came twice was accepted"
            steps[line["step"]][line["layer"]] = line["top_indices"]
    said: dict[tuple[int, int, int], tuple[int, ...]] = {}
    sequence, position = -1, 0
    for step in sorted(steps):
        tokens = len(next(iter(steps[step].values())))
        if tokens > 1 or sequence < 0:
            sequence, position = sequence + 1, 0
        for row in range(tokens):
            for layer, indices in steps[step].items():
                said[sequence, position + row, layer] = tuple(indices[row])
        position += tokens
    # Layers that run from 0 without a gap are those of the trace too: the model is not in the catalogue.
    assert choices(trace) == {place: ids for place, ids in said.items() if len(set(ids)) == len(ids)}
