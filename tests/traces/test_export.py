"""What is written comes back as it was, and what is declared lost is exactly what the file does not say."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from catalog import load_catalog
from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace, traces
from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata, id_dtype
from traces.batch import BatchConfig, BatchSchedule, make_schedule
from traces.expert_load import ExpertLoad, LoadMetadata
from traces.exporters import FORMATS, ExportOptions, export_recording
from traces.exporters.exporter import Source, spans
from traces.exporters.formats.vllm_ascend_expert_map import place
from traces.importers import FORMATS as IMPORTED
from traces.importers import ImportOptions, import_recording
from traces.importers.options import parse_columns

PATHS = {
    "table": ("t.csv", "t.jsonl", "t.parquet"),
    "npz": ("t.npz",),
    "jsonl_routes": ("t.jsonl",),
    "eplb": ("t.json", "t.npz", "t.safetensors"),
    "sglang_expert_location": ("t.json",),
    "vllm_ascend_expert_map": ("t.json",),
    "llmservingsim_gate_stats": ("t.json",),
}
EVERY = [(name, file) for name, files in PATHS.items() for file in files]
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def options_for(format: str, model_layers: int = 40) -> ExportOptions:
    """What the format must be told."""
    return ExportOptions(
        model_layers=model_layers if format == "sglang_expert_location" else None,
        devices=1 if format == "vllm_ascend_expert_map" else None,
    )


def make_load(steps: int = 3, layers: int = 3, experts: int = 8, **facts: Any) -> ExpertLoad:
    """Loads of random whole numbers."""
    counts = np.random.default_rng(1).integers(1, 100, (steps, layers, experts)).astype(np.float64)
    metadata = {"model": "test", "experts": experts, "top_k": 2, "layer_map": tuple(range(1, layers + 1)),
                "source": "a test", "licence": "MIT", "synthetic": True}  # fmt: skip
    return ExpertLoad(counts=counts, metadata=LoadMetadata(**{**metadata, **facts}))


def told(trace: RoutingTrace | ExpertLoad) -> ImportOptions:
    """The shape, as the printed command says it."""
    meta = trace.metadata
    return ImportOptions(model=meta.model, experts=meta.experts, top_k=meta.top_k, layers=meta.layer_map)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table as a stranger's script would read them."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    with path.open(newline="", encoding="utf-8") as file:
        found: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in found:
        for name, text in row.items():
            if name.split("_")[0] in ("sequence", "position", "layer", "ids", "weights", "token"):
                row[name] = json.loads(text) if text else None
    return found


def from_rows(rows: list[dict[str, Any]], like: RoutingTrace) -> RoutingTrace:
    """A trace of table rows, with the metadata of ``like``."""
    top_k = like.top_k
    width, layers = id_dtype(like.experts), like.layers
    if "ids" not in rows[0]:
        for row in rows:
            for field in ("ids", "weights"):
                row[field] = [row.get(f"{field}_{place}") for place in range(top_k)]
    missing = np.iinfo(width).max
    tokens = rows[::layers]
    ends = [i for i in range(1, len(tokens)) if tokens[i]["sequence"] != tokens[i - 1]["sequence"]]
    firsts = [0, *ends]
    weights = [row["weights"] for row in rows] if like.gate_weights is not None else None
    ids = np.array([row["ids"] for row in rows])
    phases = {"prefill": PREFILL, "decode": DECODE}
    return RoutingTrace(
        expert_ids=np.where(ids < 0, missing, ids).astype(width).reshape(-1, layers, top_k),
        gate_weights=None if weights is None else np.array(weights, np.float16).reshape(-1, layers, top_k),
        sequence_offsets=np.array([*firsts, len(tokens)], np.int64),
        position=np.array([token["position"] for token in tokens], np.int32),
        phase=np.array([phases[token["phase"]] for token in tokens], np.uint8),
        token_hash=np.array([token["token_hash"] for token in tokens], np.uint32) if "token_hash" in rows[0] else None,
        domains=tuple(tokens[first]["domain"] for first in firsts),
        datasets=tuple(tokens[first]["dataset"] for first in firsts),
        metadata=like.metadata,
    )


@FEW
@given(trace=traces(), file=st.sampled_from(PATHS["table"]), wide=st.booleans())
def test_a_table_holds_a_trace_row_by_row(trace: RoutingTrace, file: str, wide: bool, tmp_path: Path) -> None:
    assume(trace.recorded().any())
    assume(not set("".join(trace.domains + trace.datasets)) & set("\r\n\0"))
    path = tmp_path / file
    export_recording(trace, "table", path, ExportOptions(ids="wide" if wide else "list"))
    rows = read_table(path)
    assert [row["layer"] for row in rows] == list(trace.metadata.layer_map) * trace.tokens
    assert from_rows(rows, trace).equals(trace)


@pytest.mark.skipif("table" not in IMPORTED, reason="no importer of tables here")
@FEW
@given(trace=traces(), file=st.sampled_from(PATHS["table"]), wide=st.booleans())
def test_a_table_comes_back_through_the_importer(trace: RoutingTrace, file: str, wide: bool, tmp_path: Path) -> None:
    assume(trace.recorded().any(axis=0).all())
    assume(all(trace.recorded()[end - 1].all() for end in trace.sequence_offsets[1:]))
    # Labels as files have them: none empty, no line breaks, no spaces around.
    plain = {"domains": tuple(f"d{n % 2}, x" for n in range(trace.sequences)), "datasets": ("s",) * trace.sequences}
    trace = replace(trace, **plain)
    options = ExportOptions(ids="wide" if wide else "list")
    export_recording(trace, "table", tmp_path / file, options)
    reader = FORMATS["table"].reader
    assert reader is not None
    words = reader(Source(trace), tmp_path / file, options)
    columns = parse_columns([words[i + 1] for i, word in enumerate(words) if word == "--column"])
    back = import_recording(tmp_path / file, "table", told(trace).model_copy(update={"columns": columns})).recording
    assert isinstance(back, RoutingTrace)
    assert replace(back, metadata=trace.metadata).equals(trace)
    kept = ("model", "experts", "top_k", "layer_map")
    assert [getattr(back.metadata, fact) for fact in kept] == [getattr(trace.metadata, fact) for fact in kept]


def test_parquet_carries_the_metadata(tmp_path: Path) -> None:
    trace = make_trace(unrecorded=True)
    export_recording(trace, "table", tmp_path / "t.parquet")
    text = pyarrow.parquet.read_schema(tmp_path / "t.parquet").metadata[b"forestage"]
    assert TraceMetadata.parse(json.loads(text), origin="parquet") == trace.metadata


@FEW
@given(
    name=st.sampled_from(["forestage-small-moe", "Qwen3-Next-80B-A3B"]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    prompt=st.integers(0, 6),
    weights=st.booleans(),
    hashes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_npz_layout_comes_back_whole(
    name: str, lengths: list[int], prompt: int, weights: bool, hashes: bool, seed: int, tmp_path: Path
) -> None:
    record = load_catalog().find_model(name)
    trace = make_trace(
        tuple(lengths), record.moe_layers, record.experts, record.top_k, seed=seed, prompt=prompt, weights=weights,
        hashes=hashes, model=name, layer_map=record.layer_map,
    )  # fmt: skip
    export_recording(trace, "npz", tmp_path / "t.npz")
    back = import_recording(tmp_path / "t.npz", "npz", ImportOptions(model=name)).recording
    assert isinstance(back, RoutingTrace)
    assert replace(back, metadata=trace.metadata).equals(trace)
    facts = ("model", "experts", "top_k", "layer_map")
    assert [getattr(back.metadata, fact) for fact in facts] == [getattr(trace.metadata, fact) for fact in facts]


@FEW
@given(trace=traces())
def test_request_lines_come_back_with_what_they_hold(trace: RoutingTrace, tmp_path: Path) -> None:
    try:
        export_recording(trace, "jsonl_routes", tmp_path / "t.jsonl")
    except ForestageError:
        assert not trace.recorded().all()
        assert not (tmp_path / "t.jsonl").exists()
        return
    back = import_recording(tmp_path / "t.jsonl", "jsonl_routes", told(trace)).recording
    (tmp_path / "t.jsonl").unlink()
    assert isinstance(back, RoutingTrace)
    same = replace(back, phase=trace.phase, token_hash=trace.token_hash, domains=trace.domains,
                   datasets=trace.datasets, metadata=trace.metadata)  # fmt: skip
    assert same.equals(trace)
    assert back.metadata.has_unrecorded == (not trace.recorded().all())


def counted(trace: RoutingTrace) -> np.ndarray:
    """Loads by a plain loop."""
    counts = np.zeros((trace.layers, trace.experts))
    for token in range(trace.tokens):
        for layer in range(trace.layers):
            if trace.recorded()[token, layer]:
                counts[layer, trace.expert_ids[token, layer]] += 1
    return counts


@pytest.mark.parametrize(("format", "file"), [one for one in EVERY if "llmservingsim" not in one[0]])
def test_progress_rises_to_the_whole(format: str, file: str, tmp_path: Path) -> None:
    trace, shown = make_trace((3, 4)), list[tuple[int, int]]()
    path, options = tmp_path / file, options_for(format)
    export_recording(trace, format, path, options, progress=lambda done, total: shown.append((done, total)))
    assert shown == sorted(shown)
    assert shown[0][0] > 0
    assert shown[-1] == (trace.tokens, trace.tokens)
    if format == "jsonl_routes":
        shown.clear()
        import_recording(path, format, told(trace), progress=lambda done, total: shown.append((done, total)))
        assert shown == sorted(shown)
        assert shown[-1] == (path.stat().st_size, path.stat().st_size)


def test_a_file_of_loads_is_what_its_ending_says(tmp_path: Path) -> None:
    """Each is read by the library of its format, not only by this project."""
    load = make_load()
    for file in PATHS["eplb"]:
        export_recording(load, "eplb", tmp_path / file)
    weight = json.loads((tmp_path / "t.json").read_text())["weight"]
    assert np.shape(weight) == (load.layers, load.experts)
    with np.load(tmp_path / "t.npz") as archive:
        assert archive["weight"].tolist() == weight
    assert load_file(tmp_path / "t.safetensors")["weight"].tolist() == weight


@FEW
@given(trace=traces(), file=st.sampled_from(PATHS["eplb"]))
def test_eplb_gets_how_many_tokens_chose_each_expert(trace: RoutingTrace, file: str, tmp_path: Path) -> None:
    if not trace.recorded().any(axis=0).all():
        with pytest.raises(ForestageError, match="has no recorded row"):
            export_recording(trace, "eplb", tmp_path / file)
        return
    export_recording(trace, "eplb", tmp_path / file)
    back = import_recording(tmp_path / file, "eplb", told(trace)).recording
    assert isinstance(back, ExpertLoad)
    assert np.array_equal(back.counts, counted(trace)[None])
    assert back.metadata.layer_map == trace.metadata.layer_map


def test_loads_of_several_steps_go_out_and_come_back(tmp_path: Path) -> None:
    load = make_load()
    export_recording(load, "sglang_expert_location", tmp_path / "s.json", ExportOptions(model_layers=6))
    document = json.loads((tmp_path / "s.json").read_text())
    placed = np.array(document["logical_count"])
    assert list(document) == ["logical_count"]
    assert placed.shape == (3, 6, 8)
    assert placed.dtype.kind == "i"
    assert not placed[:, [0, 4, 5]].any()
    back = import_recording(tmp_path / "s.json", None, told(load)).recording
    assert isinstance(back, ExpertLoad)
    assert np.array_equal(back.counts, load.counts)
    assert back.metadata.layer_map == (1, 2, 3)
    export_recording(load, "eplb", tmp_path / "e.npz")
    summed = import_recording(tmp_path / "e.npz", None, told(load)).recording
    assert isinstance(summed, ExpertLoad)
    assert np.array_equal(summed.counts, load.counts.sum(axis=0, keepdims=True))


def test_estimates_stay_fractions(tmp_path: Path) -> None:
    load = make_load()
    load = replace(load, counts=load.counts / 8)
    export_recording(load, "sglang_expert_location", tmp_path / "s.json", ExportOptions(model_layers=6))
    assert np.array_equal(np.array(json.loads((tmp_path / "s.json").read_text())["logical_count"])[:, 1:4], load.counts)


def test_a_layer_with_experts_that_was_not_recorded_is_no_layer_without_load(tmp_path: Path) -> None:
    load = make_load(layers=3, experts=32, model="gpt-oss-20b")
    with pytest.raises(ForestageError, match="layer 0 of gpt-oss-20b has experts and is not recorded"):
        export_recording(load, "sglang_expert_location", tmp_path / "s.json")


@FEW
@given(experts=st.integers(1, 24), devices=st.integers(1, 6), spare=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_placement_holds_every_expert_once_a_device_at_most(
    experts: int, devices: int, spare: int, seed: int
) -> None:
    redundant = -experts % devices + spare * devices
    assume(redundant <= experts * (devices - 1))
    load = np.random.default_rng(seed).pareto(1.0, experts)
    held = place(load, devices, redundant)
    assert {len(device) for device in held} == {(experts + redundant) // devices}
    assert all(len(set(device)) == len(device) for device in held)
    assert {expert for device in held for expert in device} == set(range(experts))


def test_a_placement_balances() -> None:
    load = np.array([8.0, 7, 6, 5, 4, 3, 2, 1])
    totals = [sum(load[expert] for expert in device) for device in place(load, 4, 0)]
    assert totals == [9, 9, 9, 9]
    hot = np.array([100.0, 1, 1, 1])
    assert sum(0 in device for device in place(hot, 2, 2)) == 2


def test_llmservingsim_gets_distinct_experts_by_tokens_a_step(tmp_path: Path) -> None:
    trace = make_trace((9, 7, 8, 6), unrecorded=True, prompt=3, seed=3)
    schedule = make_schedule(trace, BatchConfig(slots=3))
    export_recording(trace, "llmservingsim_gate_stats", tmp_path / "g.json", schedule=schedule)
    document = json.loads((tmp_path / "g.json").read_text())
    calls: dict[int, list[int]] = {}
    dropped = 0
    for number in range(schedule.steps):
        tokens = schedule.step(number).token
        for layer in range(trace.layers):
            if trace.recorded()[tokens, layer].all():
                reached = {int(e) for token in tokens for e in trace.expert_ids[token, layer]}
                calls.setdefault(len(tokens), []).append(len(reached))
            else:
                dropped += 1
    assert document["curve"] == [[n, sum(v) / len(v), len(v)] for n, v in sorted(calls.items())]
    assert document["n_calls"] == sum(len(v) for v in calls.values())
    assert document["n_unparsed"] == dropped > 0
    assert (document["model"], document["num_experts"], document["num_experts_per_tok"]) == ("test", 8, 2)


def changed(trace: RoutingTrace, fact: str) -> RoutingTrace:
    """``trace`` with one fact otherwise."""
    meta = trace.metadata
    assert trace.gate_weights is not None
    assert trace.token_hash is not None
    other = {
        "tokens": {"expert_ids": trace.expert_ids[..., ::-1]},
        "gate_weights": {"gate_weights": trace.gate_weights[..., ::-1]},
        "phase": {"phase": np.zeros_like(trace.phase)},
        "token_hash": {"token_hash": trace.token_hash ^ 1},
        "labels": {"domains": tuple(f"{label}!" for label in trace.domains)},
    }.get(fact)
    if other is not None:
        return replace(trace, **other)
    value: Any = {
        "gate_weight_kind": "unknown",
        "ranked": not meta.ranked,
        "model": "another",
        "experts": meta.experts + 1,
        "layer_map": tuple(layer + 1 for layer in meta.layer_map),
        "source": "elsewhere",
        "licence": "MIT",
        "synthetic": not meta.synthetic,
    }[fact]
    return replace(trace, metadata=meta.model_copy(update={fact: value}))


def contents(folder: Path) -> dict[str, Any]:
    """What the files in ``folder`` hold (a Parquet's bytes name its writer, but nothing of time)."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(("format", "file"), EVERY)
def test_what_is_declared_lost_is_exactly_what_the_file_does_not_say(format: str, file: str, tmp_path: Path) -> None:
    trace = make_trace((6, 5, 7), prompt=2)
    schedule = make_schedule(trace, BatchConfig(slots=2))

    def written(source: RoutingTrace, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        (tmp_path / name).mkdir()
        exported = export_recording(source, format, tmp_path / name / file, options_for(format), schedule=schedule)
        return contents(tmp_path / name), exported.lost

    before, lost = written(trace, "before")
    assert "batch" in lost or format == "llmservingsim_gate_stats"
    for fact in ("tokens", "gate_weights", "gate_weight_kind", "ranked", "phase", "token_hash", "labels", "model",
                 "experts", "layer_map", "source", "licence", "synthetic"):  # fmt: skip
        after, _ = written(changed(trace, fact), fact)
        assert (after == before) == (fact in lost), fact


@pytest.mark.parametrize("format", [name for name, exporter in FORMATS.items() if exporter.takes_loads])
def test_what_is_lost_of_loads_is_declared(format: str, tmp_path: Path) -> None:
    load = make_load()
    meta = load.metadata
    others = {
        "steps": replace(load, counts=load.counts[::-1]),
        **{
            fact: replace(load, metadata=meta.model_copy(update={fact: value}))
            for fact, value in (("steps_ordered", False), ("model", "another"), ("top_k", 3), ("source", "elsewhere"),
                                ("licence", "MPL"), ("synthetic", False), ("layer_map", (2, 3, 4)))
        },
    }  # fmt: skip
    path = tmp_path / PATHS[format][0]
    lost = export_recording(load, format, path, options_for(format)).lost
    before = path.read_bytes()
    for fact, other in others.items():
        export_recording(other, format, path, options_for(format))
        assert (path.read_bytes() == before) == (fact in lost), fact


def scheduled(trace: RoutingTrace) -> BatchSchedule:
    return make_schedule(trace, BatchConfig(slots=2))


REFUSED: list[tuple[str, str, Any, dict[str, Any], str]] = [
    ("csv", "t.csv", lambda: make_trace(), {}, "unknown format; known are table, npz"),
    ("table", "t.txt", lambda: make_trace(), {}, r"ends in \.csv or \.jsonl or \.parquet"),
    ("table", "t.csv", lambda: make_trace((3,), domains=("a\rb",)), {}, r"the label 'a\\rb' has a line break"),
    ("npz", "t.npz", lambda: make_trace(), {"ids": "wide"}, "--ids: the format npz has no use for it"),
    (
        "npz",
        "t.npz",
        lambda: make_trace(unrecorded=True),
        {},
        "token 0, layer 2 was not recorded, which the format npz",
    ),
    ("npz", "t.npz", lambda: changed_phase(), {}, "sequence 0 has prefill tokens after decode tokens"),
    ("table", "t.csv", lambda: make_load(), {}, "of them are written: eplb, sglang_expert_location"),
    ("sglang_expert_location", "t.json", lambda: make_trace(), {}, "say so with --model-layers"),
    ("sglang_expert_location", "t.json", lambda: make_trace(), {"model_layers": 3}, "layer 3 is recorded, so test has"),
    ("vllm_ascend_expert_map", "t.json", lambda: make_trace(), {}, "say on how many"),
    ("vllm_ascend_expert_map", "t.json", lambda: make_trace(), {"devices": 3}, "or --redundant 1"),
    ("vllm_ascend_expert_map", "t.json", lambda: make_trace(), {"devices": 2, "redundant": 10}, "choose at most 8"),
    ("llmservingsim_gate_stats", "t.json", lambda: make_trace(), {}, "forestage trace batch"),
]


def changed_phase() -> RoutingTrace:
    """A prompt after what was generated."""
    trace = make_trace()
    return replace(trace, phase=trace.phase[::-1].copy())


@pytest.mark.parametrize(("format", "file", "make", "given", "says"), REFUSED)
def test_what_a_format_cannot_say_is_refused_and_nothing_is_written(
    format: str, file: str, make: Any, given: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ForestageError, match=says) as raised:
        export_recording(make(), format, tmp_path / file, ExportOptions(**given))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_layers_are_spelt_as_the_command_reads_them() -> None:
    assert spans((0, 1, 2, 5, 7, 8)) == ["0-2", "5", "7-8"]
