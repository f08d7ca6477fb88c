"""What is no text's routing inside a sequence: told, and left out where the user asks for it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from staging.simulate import simulate
from tests.routing import trace_of
from tests.traces.trace_samples import make_trace
from traces import RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import ImportOptions, import_recording, suspicions
from traces.importers.assembly import constant_runs as module
from traces.importers.assembly.constant_runs import constant_runs, without
from traces.importers.assembly.suspicious import judged_rows

RECORDINGS = (
    "gpt_oss_20b_decode.npz",
    "deepseek_v2_lite_esft.npz",
    "big_moe_on_edge_qwen.route.csv.gz",
    "big_moe_on_edge_gemma.route.csv.gz",
)
UNRECORDED = 255


def random_rows(tokens: int, layers: int = 8, top_k: int = 2, experts: int = 16, seed: int = 0) -> np.ndarray:
    keys = np.random.default_rng(seed).random((tokens, layers, experts))
    return keys.argsort(axis=-1)[..., :top_k].astype(np.uint8)


def plain_runs(trace: RoutingTrace, least: int) -> list[tuple[int, int]]:
    """Runs by plain loops over sets; of each run, what each layer first chose."""
    runs, begun, chosen = [], 0, {}
    for token in range(trace.tokens):
        row = {
            layer: {int(i) for i in trace.expert_ids[token, layer]}
            for layer in range(trace.layers)
            if trace.expert_ids[token, layer, 0] < trace.experts
        }
        shared = row.keys() & chosen.keys()
        alike = bool(shared) and all(row[layer] == chosen[layer] for layer in shared)
        if token in trace.sequence_offsets or not alike:
            runs.append((begun, token))
            begun, chosen = token, {}
        chosen = {**row, **chosen}
    runs.append((begun, trace.tokens))
    return [(first, stop) for first, stop in runs if stop - first >= least]


@st.composite
def repetitive_traces(draw: st.DrawFn) -> RoutingTrace:
    """Few different rows, in any order of their ids, some not recorded, in several sequences."""
    generator = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    tokens, layers, top_k = draw(st.integers(1, 30)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    ids = generator.permuted(random_rows(2, layers, top_k, 4)[generator.integers(2, size=tokens)], axis=2)
    if draw(st.booleans()):
        ids[generator.random((tokens, layers)) < 0.2] = UNRECORDED
    cut = draw(st.integers(0, tokens - 1))
    return trace_of(ids, experts=4, lengths=[cut, tokens - cut] if cut else None)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoutingTrace, "chunks", lambda trace: trace.walk(slice(0, trace.tokens), 3))
    monkeypatch.setattr(module, "COPIED_TOKENS", 2)


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=80, deadline=None)
@given(trace=repetitive_traces(), least=st.integers(2, 6))
def test_runs_are_those_of_plain_loops_across_chunks(trace: RoutingTrace, least: int) -> None:
    runs = constant_runs(trace, least)
    assert [tuple(span) for span in runs.spans.tolist()] == plain_runs(trace, least)
    assert constant_runs(trace, 2).at_least(least).spans.tolist() == runs.spans.tolist()
    keep = np.ones(trace.tokens, bool)
    for first, stop in runs.spans:
        keep[first:stop] = False
    if not keep.any():
        with pytest.raises(ForestageError, match="nothing is left"):
            without(trace, runs)
        return
    kept = without(trace, runs)
    np.testing.assert_array_equal(kept.expert_ids, trace.expert_ids[keep])
    np.testing.assert_array_equal(kept.position, trace.position[keep])
    lengths = np.add.reduceat(keep, trace.sequence_offsets[:-1])
    assert np.diff(kept.sequence_offsets).tolist() == lengths[lengths > 0].tolist()


def test_a_model_of_as_many_experts_as_it_uses_cannot_vary() -> None:
    trace = trace_of(np.tile(np.arange(2), (20, 8, 1)), experts=2)
    assert len(constant_runs(trace, 8).spans) == 0
    assert not [line for line in suspicions(trace) if "within rows" in line or "in order" in line]


def warm_up(folder: Path) -> Path:
    """A server's profile run of 100 rows with equal weights, then 200 rows of text, as JSON Lines."""
    generator, path = np.random.default_rng(2), folder / "t.jsonl"
    lines = []
    for token in range(300):
        for layer in range(4):
            real = generator.permutation(64)[:8].tolist()
            weights = np.sort(generator.dirichlet(np.ones(8)))[::-1].round(4).tolist()
            ids, weights = (real, weights) if token >= 100 else (list(range(8)), [0.125] * 8)
            line = {"type": "route", "req_id": "r0", "token_idx": token, "layer": layer}
            lines.append(json.dumps({**line, "topk_ids": ids, "topk_weights": weights}) + "\n")
    path.write_text("".join(lines))
    return path


def check_warm_up(path: Path, with_dummies: float, without_dummies: float) -> None:
    facts = {"model": "own", "experts": 64}
    told = import_recording(path, options=ImportOptions(**facts))
    assert any("within rows 0–99 the experts are the same in every layer (100 of 300" in w for w in told.warnings)
    assert any("equal weights" in w and "100 times (rows 0 to 99)" in w for w in told.warnings)
    assert any("0 to 7 in order" in w for w in told.warnings)
    assert all("\n" not in w for w in told.warnings)
    dropped = import_recording(path, options=ImportOptions(**facts, drop_constant=8))
    assert any("--drop-constant 8: 100 of 300 tokens left out" in w for w in dropped.warnings)
    assert not any("constant rows" in w or "equal weights" in w for w in dropped.warnings)
    trace = dropped.recording
    assert isinstance(trace, RoutingTrace)
    assert isinstance(told.recording, RoutingTrace)
    assert (trace.tokens, trace.position[0]) == (200, 100)
    rates = [simulate(one, capacity=21).hit_rate for one in (told.recording, trace)]
    assert rates == [pytest.approx(with_dummies, abs=0.0005), pytest.approx(without_dummies, abs=0.0005)]


def test_a_warm_up_before_the_text_is_told_and_left_out(tmp_path: Path) -> None:
    # 200 rows of 8 of 64 by chance hit about 21/64 less what is first loaded; a row repeated 100 times hits always.
    check_warm_up(warm_up(tmp_path), 0.5421, 0.3170)


def test_the_warm_up_met_in_the_field(field_case: Callable[[str], Path]) -> None:
    check_warm_up(field_case("warm_up.jsonl"), 0.5377, 0.3100)


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_are_not_accused(name: str, shared_file: Callable[[str], Path]) -> None:
    imported = import_recording(shared_file(name))
    signs = ("constant rows", "equal weights", "in order")
    assert not [line for line in imported.warnings if any(sign in line for sign in signs)]
    # One pair of gpt-oss-20b's sequences is the same text, recorded twice.
    repeated = [line for line in imported.warnings if "repeated sequences" in line]
    assert len(repeated) == (name == RECORDINGS[0])
    assert all("1 of 562 have" in line and "sequence 243 that of 162" in line for line in repeated)


def test_the_shipped_trace_is_not_accused(shipped_trace: Path) -> None:
    trace = RoutingTrace.load(shipped_trace)
    assert suspicions(trace) == ()
    assert np.diff(constant_runs(trace, 2).spans).max() == 4 < judged_rows(trace.layers, trace.top_k)


def test_a_run_in_the_middle_leaves_a_gap_and_no_pair(tmp_path: Path) -> None:
    ids = random_rows(40)
    ids[10:20] = ids[10]
    trace = trace_of(ids, experts=16, lengths=[30, 10])
    trace.save(tmp_path / "t.safetensors")
    imported = import_recording(tmp_path / "t.safetensors", options=ImportOptions(drop_constant=10))
    kept = imported.recording
    assert isinstance(kept, RoutingTrace)
    assert kept.position.tolist() == [*range(10), *range(20, 30), *range(10)]
    assert kept.sequence_offsets.tolist() == [0, 20, 30]
    untouched = import_recording(tmp_path / "t.safetensors", options=ImportOptions(drop_constant=11)).recording
    assert isinstance(untouched, RoutingTrace)
    assert untouched.equals(trace)


def test_loads_have_no_rows_to_leave_out(tmp_path: Path) -> None:
    counts = np.ones((1, 2, 4), np.int64)
    np.savez(tmp_path / "loads.npz", weight=counts[0])
    options = ImportOptions(model="own", experts=4, drop_constant=8)
    with pytest.raises(ForestageError, match=r"loads\.npz: --drop-constant: holds expert loads"):
        import_recording(tmp_path / "loads.npz", "eplb", options)
    assert isinstance(
        import_recording(tmp_path / "loads.npz", "eplb", ImportOptions(model="own", experts=4)).recording, ExpertLoad
    )


def test_few_layers_are_judged_by_longer_runs() -> None:
    assert [judged_rows(*shape) for shape in ((24, 4), (8, 1), (4, 8), (6, 1), (3, 8), (3, 2), (2, 8), (1, 4))] == [
        8, 8, 8, 48, 40, 96, 64, 256,
    ]  # fmt: skip


def test_padding_scattered_over_sequences_is_told() -> None:
    ids = random_rows(90, layers=6, experts=64)
    ids[::9] = [0, 1]
    trace = trace_of(ids, experts=64, lengths=[9] * 10)
    (line,) = suspicions(trace)
    assert "a token's experts are 0 to 1 in order in every layer, 10 times (rows 0 to 81)" in line


def test_equal_weights_by_chance_are_not_told() -> None:
    ids, weights = random_rows(4000, layers=1, experts=64), np.full((4000, 1, 2), 0.5, np.float16)
    weights[20:] = [0.75, 0.25]
    assert not suspicions(trace_of(ids, experts=64, gate_weights=weights))
    # Of four weights in two layers, chance makes all the same in one row of 2^60.
    four = np.repeat(np.repeat(weights, 2, axis=1), 2, axis=2)
    (line,) = suspicions(
        trace_of(random_rows(4000, 2, 4, 64), experts=64, gate_weights=four, gate_weight_kind="unknown")
    )
    assert "gate weights are all equal in every layer, 20 times" in line
    deep = np.repeat(weights, 8, axis=1)
    (line,) = suspicions(trace_of(random_rows(4000, experts=64), experts=64, gate_weights=deep))
    assert "gate weights are all equal in every layer, 20 times (rows 0 to 19)" in line


@pytest.mark.usefixtures("small_chunks")
def test_repeated_sequences_are_told_but_not_those_that_chance_gives() -> None:
    ids = random_rows(40)
    ids[30:] = ids[10:20]
    (line,) = suspicions(trace_of(ids, experts=16, lengths=[10] * 4))
    assert "1 of 4 have the routing of an earlier one, token for token (first: sequence 3 that of 1)" in line
    assert not suspicions(trace_of(random_rows(40), experts=16, lengths=[10] * 4))
    short = random_rows(200, layers=1, top_k=1, experts=4)  # 100 sequences of two tokens, of 16 kinds
    assert not suspicions(trace_of(short, experts=4, lengths=[2] * 100))


def test_sequences_of_other_lengths_are_no_repetitions() -> None:
    ids = random_rows(30)
    ids[10:25] = np.concatenate([ids[:10], ids[25:30]])
    assert not suspicions(trace_of(ids, experts=16, lengths=[10, 15, 5]))


def test_weights_and_identity_go_with_the_rows_that_stay() -> None:
    trace = make_trace((30, 20), layers=8, experts=16)
    ids = trace.expert_ids.copy()
    ids[5:15] = ids[5]
    trace = replace(trace, expert_ids=ids, content="unchecked")
    kept = without(trace, constant_runs(trace, 8))
    keep = np.r_[0:5, 15:50]
    for name in ("gate_weights", "token_hash", "phase", "position", "expert_ids"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(trace, name)[keep])
    assert (kept.domains, kept.datasets) == (trace.domains, trace.datasets)
