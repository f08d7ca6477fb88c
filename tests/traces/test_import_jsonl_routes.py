"""The JSON Lines importer, on small files of its three field lists."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

Line = dict[str, Any]
LAYERS, TOKENS = (1, 3, 4), 3


def ids_of(sequence: int, position: int, layer: int) -> list[int]:
    return [(5 * sequence + 3 * position + layer) % 8, (5 * sequence + 3 * position + layer + 3) % 8]


def request_lines() -> list[Line]:
    """Two requests whose tokens come in turn, as a server writes them."""
    return [
        {
            "type": "route",
            "req_id": request,
            "token_idx": position,
            "layer": layer,
            "topk_ids": ids_of(sequence, position, layer),
            "topk_weights": [0.75, 0.25],
        }
        for position in range(TOKENS)
        for sequence, request in enumerate(("cmpl-7", "cmpl-2"))
        for layer in LAYERS
    ]


def problem_lines() -> list[Line]:
    return [
        {
            "dataset": dataset,
            "problem_id": problem,
            "layer": layer,
            "experts": ids_of(sequence, position, layer),
            "gating_probs": [0.125, 0.5],
            "token_idx": position,
        }
        for sequence, (dataset, problem) in enumerate((("gsm8k", 4), ("mmlu", 4)))
        for layer in LAYERS
        for position in range(TOKENS)
    ]


def selection_lines() -> list[Line]:
    """Two sequences; the prefill of two tokens by layer, the decode step after it."""
    lines: list[Line] = []
    for sequence in range(2):
        places = [("prefill", layer, position) for layer in LAYERS for position in range(2)]
        places += [("decode", layer, 2) for layer in LAYERS]
        lines += [
            {
                "record_type": "routing_selection",
                "phase": phase,
                "layer": layer,
                "token_position": position,
                "token_id": 1000 * sequence + position,
                "selected_experts": ids_of(sequence, position, layer),
                "selected_probabilities": [0.5, 0.25],
            }
            for phase, layer, position in places
        ]
    return lines


VARIANTS = {"request": request_lines, "problem": problem_lines, "selection": selection_lines}


def text_of(lines: list[Line]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def load(path: Path, lines: list[Line] | str, **options: Any) -> tuple[RoutingTrace, tuple[str, ...]]:
    path.write_text(lines if isinstance(lines, str) else text_of(lines))
    options = {"model": "toy", "experts": 8, **options}
    imported = import_recording(path, None, ImportOptions.parse(options, origin="test"))
    assert imported.format == "jsonl_routes"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported.warnings


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_row_is_where_its_line_says(variant: str, tmp_path: Path) -> None:
    trace, _ = load(tmp_path / "t.jsonl", VARIANTS[variant]())
    assert choices(trace) == {
        (sequence, position, layer): tuple(ids_of(sequence, position, layer))
        for sequence in range(2)
        for position in range(TOKENS)
        for layer in LAYERS
    }
    facts = trace.metadata
    assert (facts.model, facts.experts, facts.top_k, facts.layer_map) == ("toy", 8, 2, LAYERS)
    assert trace.sequence_offsets.tolist() == [0, 3, 6]


def test_requests_are_sequences_with_normalised_weights(tmp_path: Path) -> None:
    trace, warnings = load(tmp_path / "t.jsonl", request_lines(), domain="chat")
    assert set(trace.phase.tolist()) == {PREFILL}
    assert warnings == (
        f"{tmp_path / 't.jsonl'}: the lines tell no phases; all tokens count as prefill (--phase decode)",
    )
    assert trace.gate_weights is not None
    assert np.all(trace.gate_weights == np.array([0.75, 0.25]))
    assert (trace.metadata.gate_weight_kind, trace.metadata.ranked) == ("normalised", True)
    assert trace.domains == ("chat", "chat")
    assert trace.token_hash is None


@pytest.mark.parametrize("lines", [request_lines(), problem_lines()], ids=["request", "problem"])
@pytest.mark.parametrize(("name", "phase"), [("prefill", PREFILL), ("decode", DECODE)])
def test_the_user_says_the_phase_that_the_lines_do_not(
    lines: list[Line], name: str, phase: int, tmp_path: Path
) -> None:
    trace, warnings = load(tmp_path / "t.jsonl", lines, phase=name)
    assert set(trace.phase.tolist()) == {phase}
    assert warnings == ()


def test_a_phase_is_refused_where_the_lines_tell_it(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"t\.jsonl: --phase: the lines tell the phase themselves; leave it out"):
        load(tmp_path / "t.jsonl", selection_lines(), phase="decode")


def test_problems_are_labelled_by_their_dataset_and_unordered_weights_are_not_ranked(tmp_path: Path) -> None:
    trace, _ = load(tmp_path / "t.jsonl", problem_lines(), domain="chat")
    assert trace.domains == trace.datasets == ("gsm8k", "mmlu")
    assert (trace.metadata.gate_weight_kind, trace.metadata.ranked) == ("softmax", False)


def test_selections_have_phases_and_token_ids_and_begin_a_sequence_where_the_first_row_comes_again(
    tmp_path: Path,
) -> None:
    trace, warnings = load(tmp_path / "t.jsonl", selection_lines())
    assert warnings == ()
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE] * 2
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [0, 1, 2, 1000, 1001, 1002]


def test_weights_may_be_absent_and_other_lines_are_left_out(tmp_path: Path) -> None:
    lines = [{**line, "more": 1} for line in request_lines()]
    for line in lines:
        del line["topk_weights"]
    lines.insert(0, {"type": "meta", "model": "x"})
    lines.append({"type": "done"})
    trace, warnings = load(tmp_path / "t.jsonl", lines)
    assert trace.gate_weights is None
    assert (trace.metadata.gate_weight_kind, trace.metadata.ranked) == ("none", False)
    assert any("2 lines of another kind left out" in warning for warning in warnings)


def test_a_gzipped_file_and_the_catalogues_layers(tmp_path: Path) -> None:
    """Layers counted from 0 are a catalogue model's MoE layers: DeepSeek-V2-Lite's first layer is dense."""
    lines = [
        {"dataset": "d", "problem_id": "p", "layer": layer, "experts": [0, 1, 2, 3, 4, 5], "token_idx": 7}
        for layer in range(26)
    ]
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(text_of(lines).encode()))
    assert sniff_format(path) == "jsonl_routes"
    trace = import_recording(path, options=ImportOptions(model="DeepSeek-V2-Lite")).recording
    assert isinstance(trace, RoutingTrace)
    assert trace.metadata.layer_map == tuple(range(1, 27))
    assert (trace.experts, trace.position.tolist()) == (64, [7])


def test_layers_that_the_model_lacks_are_refused_unless_the_user_names_them(tmp_path: Path) -> None:
    lines = [
        {"dataset": "d", "problem_id": "p", "layer": layer, "experts": [0, 1, 2, 3, 4, 5], "token_idx": 0}
        for layer in (0, 5)
    ]
    known = {"model": "DeepSeek-V2-Lite", "experts": None}
    with pytest.raises(ForestageError, match=r"layer 0 is none of the 26 MoE layers of DeepSeek-V2-Lite \(1 to 26\)"):
        load(tmp_path / "t.jsonl", lines, **known)
    assert load(tmp_path / "t.jsonl", lines, **known, layers=(1, 6))[0].metadata.layer_map == (1, 6)


def test_a_missing_row_is_not_recorded_and_skipped_positions_are_told(tmp_path: Path) -> None:
    lines = [line for line in request_lines() if not (line["token_idx"] == 1 and line["layer"] == 3)]
    trace, warnings = load(tmp_path / "t.jsonl", lines)
    assert np.argwhere(~trace.recorded()).tolist() == [[1, 1], [4, 1]]
    assert any("2 rows (token, layer) are missing" in warning for warning in warnings)
    _, warnings = load(tmp_path / "t.jsonl", [line for line in request_lines() if line["token_idx"] != 1])
    assert any("2 times tokens are left out" in warning for warning in warnings)


def changed(lines: list[Line], number: int, **fields: Any) -> list[Line]:
    """The lines with fields of line ``number`` (1-based) replaced."""
    return [{**line, **fields} if place == number else line for place, line in enumerate(lines, start=1)]


FAULTS: dict[str, tuple[list[Line] | str, str]] = {
    "cut off": (text_of(request_lines())[:-20], r"line 18: not valid JSON .*cut off"),
    "last token": (request_lines()[:-1], r"line 16: position 2, the last of its sequence, lacks layer 4"),
    "stray layer": (changed(request_lines(), 2, layer=30), r"position 2, the last of its sequence, lacks layer 30"),
    "twice": ([*request_lines(), request_lines()[4]], r"line 19: position 0, layer 3: came before, in line 5"),
    "no object": ("{}\n[1]\n", r"line 1: has none of the keys req_id"),
    "no request": (
        text_of([{"type": "route", "token_idx": 0, "layer": 0, "topk_ids": [0, 1]}, *request_lines()]),
        "line 1: has none of the keys",
    ),
    "array": (text_of(request_lines()) + "[1]\n", r"line 19: a JSON list; expected a JSON object"),
    "negative": (changed(request_lines(), 4, topk_ids=[-1, 2]), r"line 4: topk_ids\.0: Input should be greater"),
    "boolean": (changed(request_lines(), 4, layer=True), r"line 4: layer: Input should be a valid integer"),
    "fraction": (changed(request_lines(), 4, token_idx=1.0), r"line 4: token_idx: Input should be a valid integer"),
    "huge": (changed(request_lines(), 4, token_idx=2**31), r"line 4: token_idx: Input should be less than"),
    "beyond": (
        changed(request_lines(), 4, topk_ids=[8, 2]),
        r"line 4: expert ids \[8, 2\]: the model has experts 0 to 7",
    ),
    "nan": (
        changed(request_lines(), 4, topk_weights=[float("nan"), 1]),
        r"line 4: topk_weights\.0: Input should be a f",
    ),
    "k differs": (changed(request_lines(), 4, topk_ids=[1, 2, 3]), r"line 4: 3 expert ids; the rows before have 2"),
    "weights huge": (
        changed(request_lines(), 4, topk_weights=[1e300, 1]),
        r"line 4: weights \[1e\+300, 1\.0\]: expected numbers from 0 to 65504",
    ),
    "weights differ": (changed(request_lines(), 4, topk_weights=[1.0]), r"line 4: 1 weights for 2 expert ids"),
    "weights missing": (
        changed(request_lines(), 4, topk_weights=None),
        r"line 4: no weights, but the rows before have",
    ),
    "field": ([{"req_id": 1, "type": "route"}], r"line 1: token_idx: Field required"),
    "phase": (
        changed(selection_lines(), 3, phase="warmup"),
        r"line 3: phase: Input should be 'prefill', 'prompt', 'source'",
    ),
    "phase differs": (changed(selection_lines(), 3, phase="decode"), r"phase: differs from line 1"),
    "token differs": (changed(selection_lines(), 3, token_id=9), r"token: differs from line 1"),
    "token missing": (changed(selection_lines(), 9, token_id=None), r"token: differs from line"),
    "one token missing": (
        [{**line, "token_id": None} if line["token_position"] == 1 else line for line in selection_lines()],
        r"line 2: names no token, but other rows do",
    ),
    "restart": (
        selection_lines()[:9] + selection_lines()[10:],
        r"line 11: position 0, layer 3: came before, in line 3",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_line_and_field(fault: str, tmp_path: Path) -> None:
    lines, message = FAULTS[fault]
    path = tmp_path / "t.jsonl"
    path.write_text(lines if isinstance(lines, str) else text_of(lines))
    with pytest.raises(ForestageError, match=message) as caught:
        import_recording(path, "jsonl_routes", ImportOptions(model="toy", experts=8))
    assert str(caught.value).startswith(str(path))


def test_a_model_that_nobody_knows_needs_its_experts(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="name it with --model"):
        load(tmp_path / "t.jsonl", request_lines(), model=None, experts=None)


def rows_said(data: bytes) -> dict[tuple[Any, int, int], tuple[int, ...]] | None:
    """By (sequence, position, layer), read off the lines; ``None`` where two lines contradict each other."""
    said: dict[tuple[Any, int, int], tuple[int, ...]] = {}
    first, restarts = None, -1
    for text in data.splitlines():
        if not text.strip():
            continue
        line = json.loads(text)
        if line.get("type", "route") != "route" or line.get("record_type", "routing_selection") != "routing_selection":
            continue
        if "record_type" in line:
            place = (line["token_position"], line["layer"])
            first = first or place
            restarts += place == first
            key: Any = restarts
        else:
            key = line.get("req_id", (line.get("dataset"), line.get("problem_id")))
        position = line["token_position"] if "record_type" in line else line["token_idx"]
        ids = next(line[name] for name in ("topk_ids", "experts", "selected_experts") if name in line)
        where = (key, position, line["layer"])
        if where in said:
            return None
        said[where] = tuple(ids)
    return said


@pytest.mark.parametrize("variant", VARIANTS)
@fuzz(60)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    variant: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(damaged(text_of(VARIANTS[variant]())))
    path = tmp_path_factory.getbasetemp() / f"fuzz-{variant}.jsonl"
    path.write_bytes(content)
    trace = import_or_refuse(path, "jsonl_routes", model="toy", experts=8)
    if trace is None:
        return
    said = rows_said(content)
    assert said is not None
    names = list(dict.fromkeys(key for key, _, _ in said))
    distinct = {(names.index(key), position, layer): ids for (key, position, layer), ids in said.items()}
    assert choices(trace) == {place: ids for place, ids in distinct.items() if len(set(ids)) == len(ids)}
