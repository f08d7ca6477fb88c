"""Selections as moe-cache-lab writes them: what their metadata say is used, and encoder and decoder are kept apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording

Line = dict[str, Any]

HEAD: Line = {
    "record_type": "metadata",
    "format": "moe-cache-lab.routing-jsonl",
    "format_version": 1,
    "model_id": "our-lab/tiny-moe",
    "num_experts": 8,
    "experts_per_token": 2,
    "source_text": None,
    "capture_method": "model.forward(output_router_logits=True)",
}


def selection(position: int, layer: int, phase: str, experts: list[int], **more: Any) -> Line:
    return {
        "record_type": "routing_selection",
        "phase": phase,
        "token_position": position,
        "layer": layer,
        "selected_experts": experts,
        "token_id": None,
        "selected_probabilities": [],
        **more,
    }


def version_1() -> list[Line]:
    """A prompt of two tokens by layer, two generated tokens one by one."""
    places = [("prompt", layer, position) for layer in range(3) for position in range(2)]
    places += [("generated", layer, position) for position in (2, 3) for layer in range(3)]
    return [HEAD, *(selection(p, layer, phase, [p, 4 + layer]) for phase, layer, p in places)]


def version_2() -> list[Line]:
    head = {key: value for key, value in HEAD.items() if key not in ("num_experts", "experts_per_token")}
    stages = [
        {"routing_stage": stage, "num_experts": experts, "assigned_experts_per_token": 1, "allows_unassigned": True}
        for stage, experts in (("encoder", 8), ("decoder", 4))
    ]
    lines: list[Line] = [{**head, "format_version": 2, "routing_stages": stages}]
    for stage, phase, positions in (
        ("encoder", "source", range(3)),
        ("decoder", "decoder_prompt", range(1)),
        ("decoder", "decoder_generated", range(1, 3)),
    ):
        for layer in (1, 3):
            for position in positions:
                full = (stage, position, layer) in {("encoder", 0, 1), ("encoder", 2, 3), ("decoder", 1, 3)}
                lines.append(
                    selection(
                        position,
                        layer,
                        phase,
                        [] if full else [(position + layer - 1) % 4],
                        routing_stage=stage,
                        assignment_state="unassigned" if full else "assigned",
                        selected_probabilities=[] if full else [0.5],
                        **({"unassigned_reason": "capacity"} if full else {}),
                    )
                )
    return lines


def attempt(path: Path, lines: list[Line], **options: Any) -> Imported:
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    return import_recording(path, None, ImportOptions.parse(options, origin="test"))


def trace_in(path: Path, lines: list[Line], **options: Any) -> RoutingTrace:
    imported = attempt(path, lines, **options)
    assert imported.format == "jsonl_routes"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording


def test_a_recording_needs_no_options_where_its_metadata_say_what_it_is_of(tmp_path: Path) -> None:
    imported = attempt(tmp_path / "t.jsonl", version_1())
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert imported.warnings == ()
    facts = trace.metadata
    assert (facts.model, facts.experts, facts.top_k, facts.layer_map) == ("our-lab/tiny-moe", 8, 2, (0, 1, 2))
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE, DECODE]
    assert choices(trace) == {(0, p, layer): (p, 4 + layer) for p in range(4) for layer in range(3)}
    assert trace.gate_weights is None
    assert trace.token_hash is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 16}, r"line 1: --experts 16: the file says 8; leave the option out"),
        ({"top_k": 1}, r"line 1: --top-k 1: the file says 2; leave the option out"),
        ({"stack": "encoder"}, r"line 2: --stack: the selections are of no encoder or decoder"),
        ({"phase": "decode"}, r"--phase: the lines tell the phase themselves"),
    ],
)
def test_an_option_that_contradicts_the_metadata_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ForestageError, match=message):
        attempt(tmp_path / "t.jsonl", version_1(), **options)


def test_options_that_say_the_same_are_welcome_and_a_known_name_takes_the_place_of_an_unknown_one(
    tmp_path: Path,
) -> None:
    same = trace_in(tmp_path / "t.jsonl", version_1(), experts=8, top_k=2, model="Tiny-MoE")
    assert same.metadata.model == "Tiny-MoE"
    other = attempt(tmp_path / "t.jsonl", version_1(), model="their/other")
    told = [w for w in other.warnings if "--model their/other takes the place of the file's own our-lab/tiny-moe" in w]
    assert len(told) == 1
    lines = [{**HEAD, "model_id": "/data/mixtral"}, *version_1()[1:]]
    imported = attempt(tmp_path / "t.jsonl", lines, model="Mixtral-8x7B", layers=(0, 1, 2))
    assert any("--model Mixtral-8x7B takes the place of the file's own /data/mixtral" in w for w in imported.warnings)
    with pytest.raises(ForestageError, match="8 experts, but gpt-oss-20b has 32"):
        attempt(tmp_path / "t.jsonl", lines, model="gpt-oss-20b", layers=(0, 1, 2))
    lines[0] = {**HEAD, "model_id": "mistralai/Mixtral-8x7B-v0.1"}
    with pytest.raises(ForestageError, match="--model gpt-oss-20b: the file says that it is of mistralai/Mixtral"):
        attempt(tmp_path / "t.jsonl", lines, model="gpt-oss-20b", layers=(0, 1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts_per_token": 3}, r"line 2: selected_experts: 2, but the metadata say 3 a token"),
        ({"num_experts": 6}, r"line \d+: expert ids \[\d, 6\]: the model has experts 0 to 5"),
        ({"num_experts": 0}, r"line 1: num_experts: Input should be greater than or equal to 1"),
        ({"format_version": 3}, r"line 1: format_version"),
    ],
)
def test_metadata_that_the_rows_contradict_are_refused(change: Line, message: str, tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=message):
        attempt(tmp_path / "t.jsonl", [{**HEAD, **change}, *version_1()[1:]])


def test_other_metadata_further_down_are_refused_and_the_same_are_another_recording(tmp_path: Path) -> None:
    lines = version_1()
    with pytest.raises(ForestageError, match="line 14: metadata other than in line 1"):
        attempt(tmp_path / "t.jsonl", [*lines, {**HEAD, "model_id": "x"}, *lines[1:]])
    with pytest.raises(ForestageError, match="line 2: metadata after selections"):
        attempt(tmp_path / "t.jsonl", [lines[1], HEAD, *lines[2:]])
    assert trace_in(tmp_path / "t.jsonl", [*lines, *lines]).sequence_offsets.tolist() == [0, 4, 8]


def test_encoder_and_decoder_are_chosen_from_and_never_merged(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for lines in (version_2(), [version_1()[0] | {"experts_per_token": 1}, *version_2()[1:]]):
        with pytest.raises(ForestageError, match=r"line \d+: .*choose one with --stack encoder or --stack decoder"):
            attempt(path, lines)
    encoder = attempt(path, version_2(), stack="encoder")
    trace = encoder.recording
    assert isinstance(trace, RoutingTrace)
    assert (trace.experts, trace.top_k, trace.metadata.layer_map) == (8, 1, (1, 3))
    assert trace.recorded().tolist() == [[False, True], [True, True], [True, False]]
    assert choices(trace) == {(0, 0, 3): (2,), (0, 1, 1): (1,), (0, 1, 3): (3,), (0, 2, 1): (2,)}
    assert set(trace.phase.tolist()) == {PREFILL}
    assert any("the encoder alone is imported (--stack); 6 lines left out" in w for w in encoder.warnings)
    assert any("2 rows (token, layer) are unassigned" in w for w in encoder.warnings)
    assert not any("are missing" in w for w in encoder.warnings)
    decoder = trace_in(path, version_2(), stack="decoder")
    assert decoder.experts == 4
    assert decoder.phase.tolist() == [PREFILL, DECODE, DECODE]
    assert decoder.recorded().tolist() == [[True, True], [True, False], [True, True]]


def test_a_file_of_the_decoder_alone_needs_no_choice(tmp_path: Path) -> None:
    head, *lines = version_2()
    head["routing_stages"] = head["routing_stages"][1:]
    alone = [line for line in lines if line["routing_stage"] == "decoder"]
    assert trace_in(tmp_path / "t.jsonl", [head, *alone]).tokens == 3
    with pytest.raises(ForestageError, match="--stack encoder: the file holds the decoder alone"):
        attempt(tmp_path / "t.jsonl", [head, *alone], stack="encoder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"selected_experts": [3]}, "line 2: selected_experts: unassigned, but names experts"),
        ({"assignment_state": "assigned"}, "line 2: selected_experts: assigned, but names no expert"),
        ({"assignment_state": "lost"}, "line 2: assignment_state: Input should be 'assigned' or 'unassigned'"),
        ({"routing_stage": "middle"}, "line 2: routing_stage: Input should be 'encoder' or 'decoder'"),
    ],
)
def test_an_assignment_that_contradicts_itself_is_refused(change: Line, message: str, tmp_path: Path) -> None:
    lines = version_2()
    lines[1] = {**lines[1], **change}
    with pytest.raises(ForestageError, match=message):
        attempt(tmp_path / "t.jsonl", lines, stack="encoder")


def test_selections_met_in_the_field(field_case: Callable[[str], Path]) -> None:
    path = field_case("selection.jsonl")
    trace = import_recording(path).recording
    assert isinstance(trace, RoutingTrace)
    facts = trace.metadata
    assert facts.model == "ibm-granite/granite-3.1-1b-a400m-instruct"
    assert (facts.experts, facts.top_k, len(facts.layer_map)) == (32, 8, 24)
    assert np.bincount(trace.phase).tolist() == [12, 8]
    said = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert choices(trace) == {(0, s["token_position"], s["layer"]): tuple(s["selected_experts"]) for s in said}


@pytest.mark.parametrize(("stack", "tokens", "phase"), [("encoder", 6, PREFILL), ("decoder", 4, DECODE)])
def test_an_encoder_decoder_met_in_the_field(
    stack: str, tokens: int, phase: int, field_case: Callable[[str], Path]
) -> None:
    path = field_case("selection_encoder_decoder.jsonl")
    with pytest.raises(ForestageError, match="--stack encoder or --stack decoder"):
        import_recording(path)
    imported = import_recording(path, None, ImportOptions.parse({"stack": stack}, origin="test"))
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    said = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    said = [line for line in said if line["routing_stage"] == stack]
    assert (trace.tokens, set(trace.phase.tolist()), trace.metadata.layer_map) == (tokens, {phase}, (1, 3, 5))
    assert choices(trace) == {
        (0, s["token_position"], s["layer"]): tuple(s["selected_experts"]) for s in said if s["selected_experts"]
    }
    missing = sum(not line["selected_experts"] for line in said)
    assert any(f"{missing} rows (token, layer) are unassigned" in w for w in imported.warnings) == (missing > 0)
