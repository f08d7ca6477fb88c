"""What all importers share: options, warnings, JSON in pieces, rows that move to disk, maps of experts."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from tests.routing import trace_of
from tests.traces.recorded_ids import random_ids
from traces import DECODE, PREFILL
from traces.importers import ImportOptions, import_recording
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.expert_map import check_map, read_expert_map
from traces.importers.assembly.json_records import read_records
from traces.importers.assembly.models import RecordedModel, recorded_model
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.suspicious import warn_of_trace
from traces.importers.assembly.text_file import read_lines, starting_bytes
from traces.importers.options import parse_layers
from traces.importers.report import Report

OWN = RecordedModel("own", 8, (0, 1, 2), (0, 1, 2))


# Options


def test_an_option_that_a_format_has_no_use_for_is_refused(tmp_path: Path) -> None:
    trace_of(random_ids(4, 2, 2, 8), experts=8).save(tmp_path / "t.safetensors")
    with pytest.raises(ForestageError, match="--top-k: the format safetensors has no use for it"):
        import_recording(tmp_path / "t.safetensors", options=ImportOptions(top_k=2))


@pytest.mark.parametrize(
    ("text", "layers"), [("3-5", (3, 4, 5)), ("0,2,5-7", (0, 2, 5, 6, 7)), ("4", (4,)), (" 1 , 2 ", (1, 2))]
)
def test_layers_as_they_are_typed(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "1-999999999"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(ForestageError, match="--layers"):
        parse_layers(text)


@pytest.mark.parametrize("layers", [(), (1, 1), (2, 1)])
def test_layers_must_ascend(layers: tuple[int, ...]) -> None:
    with pytest.raises(ForestageError, match="layers"):
        ImportOptions.parse({"layers": layers}, origin="options")


# Which model


def known(options: ImportOptions | None = None, **facts: Any) -> RecordedModel:
    layers = facts.pop("layers", 26)
    given = {"top_k": 6, "used_layers": range(layers), **facts}
    return recorded_model(options or ImportOptions(), Report(), origin="file", layers=layers, **given)


def test_the_catalogue_tells_by_shape_by_name_and_by_option() -> None:
    assert known(layers=36, used_layers=range(36), top_k=4).name == "gpt-oss-120b"
    assert known(written_for="DeepSeek").name == "DeepSeek-V2-Lite"
    assert known(name="deepseek-ai/DeepSeek-V2-Lite-Chat").layer_map == tuple(range(1, 27))
    assert known(name="other", options=ImportOptions(model="DeepSeek-V2-Lite")).experts == 64
    cut = known(ImportOptions(model="DeepSeek-V2-Lite", top_k=4), top_k=4)
    assert cut.experts == 64
    assert known(layers=27, used_layers=range(1, 27), name="DeepSeek-V2-Lite").kept_layers == tuple(range(1, 27))
    own = known(ImportOptions(model="own", experts=99), layers=5, used_layers=(1, 3))
    assert (own.kept_layers, own.layer_map, own.experts) == ((1, 3), (1, 3), 99)
    assert known(ImportOptions(model="own", experts=9), layers=2, layer_map=(4, 7)).layer_map == (4, 7)


@pytest.mark.parametrize(
    ("options", "facts", "message"),
    [
        ({}, {"layers": 5}, "names no model.*--model"),
        ({"model": "own"}, {}, "not in the catalogue"),
        ({}, {"name": "own", "layers": 5}, "does not know own; import it with --experts"),
        ({"experts": 9}, {"experts": 8}, "--experts 9: the file says 8"),
        ({"top_k": 5}, {}, "--top-k 5: the file holds 6"),
        ({"model": "DeepSeek-V2-Lite"}, {"top_k": 4}, "4 ids a row, but DeepSeek-V2-Lite uses 6.*--top-k 4"),
        ({"model": "DeepSeek-V2-Lite", "experts": 65}, {}, "65 experts, but DeepSeek-V2-Lite has 64"),
        ({"model": "DeepSeek-V2-Lite"}, {"layers": 20}, "20 layers, but DeepSeek-V2-Lite has 27, 26 of them"),
        ({"model": "DeepSeek-V2-Lite", "layers": (99,)}, {"layers": 1}, "layer 99"),
        ({}, {}, "2 models of the catalogue have 26 MoE layers of top-6 .DeepSeek-V2-Lite, Moonlight-16B-A3B"),
        (
            {"model": "DeepSeek-V2-Lite", "layers": (1, 2)},
            {"layer_map": range(1, 27)},
            "--layers: the file names its layers, 1, 2, 3",
        ),
        ({}, {"used_layers": ()}, "every layer is empty"),
    ],
)
def test_what_is_missing_or_contradicts_is_told(options: dict[str, Any], facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ForestageError, match=f"^(file: |model ).*{message}"):
        known(ImportOptions(**options), **facts)


# The builder


@pytest.mark.parametrize("spill", [0, 1 << 30])
def test_tokens_in_pieces_become_a_trace_wherever_they_wait(
    spill: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traces.importers.assembly.spool.SPILL_BYTES", spill)
    monkeypatch.setattr("traces.importers.assembly.builder.CHUNK_TOKENS", 3)
    ids = random_ids(11, 3, 2, 8)
    weights = np.array([0.75, 0.25]) * np.ones((11, 3, 2))
    builder = TraceBuilder(tmp_path, layers=3, top_k=2, weights=True, hashes=True)
    tokens = np.arange(11, dtype=np.uint32) + 7
    for start, stop in ((0, 4), (4, 6), (6, 11)):
        builder.append(ids[start:stop], phase=DECODE, weights=weights[start:stop], token_hash=tokens[start:stop])
        if stop == 6:
            builder.end_sequence("a", "x")
    builder.end_sequence("b", "y")
    report = Report()
    trace = builder.finish(OWN, report, source="a test")
    np.testing.assert_array_equal(trace.expert_ids, ids)
    np.testing.assert_array_equal(trace.gate_weights, weights)
    np.testing.assert_array_equal(trace.token_hash, tokens)
    assert trace.position.tolist() == [*range(6), *range(5)]
    assert (trace.domains, trace.datasets) == (("a", "b"), ("x", "y"))
    assert (trace.metadata.ranked, trace.metadata.gate_weight_kind) == (True, "normalised")
    assert not report.warnings
    trace.save(tmp_path / "t.safetensors")


def test_unrecorded_zero_and_doubled_rows(tmp_path: Path) -> None:
    ids = random_ids(6, 3, 2, 8)
    ids[0, 1] = -1
    ids[1, 1] = 0
    ids[2, 1] = 5
    builder = TraceBuilder(tmp_path, layers=3, top_k=2, weights=True)
    builder.append(ids, phase=PREFILL, weights=np.full((6, 3, 2), 0.5))
    builder.end_sequence("a", "x")
    report = Report()
    trace = builder.finish(OWN, report, source="a test")
    assert np.argwhere(~trace.recorded()).tolist() == [[0, 1], [1, 1], [2, 1]]
    assert trace.gate_weights is not None
    assert np.all(trace.gate_weights[:3, 1] == 0)
    assert trace.metadata.gate_weight_kind == "normalised"
    assert [line.split(": ", 1)[1] for line in report.warnings] == [
        "1 rows (token, layer) hold only -1; they count as not recorded",
        "1 rows (token, layer) hold only zeros; they count as not recorded",
        "1 rows (token, layer) name an expert twice, which no top-k does; they count as not recorded (first: token 2, "
        "layer 1: [5, 5])",
    ]


def test_a_trace_of_doubled_rows_alone_is_none(tmp_path: Path) -> None:
    builder = TraceBuilder(tmp_path, layers=3, top_k=2)
    builder.append(np.full((6, 3, 2), 4), phase=PREFILL)
    builder.end_sequence("a", "x")
    with pytest.raises(ForestageError, match="no row holds 2 distinct experts"):
        builder.finish(OWN, Report(), source="a test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": np.ones((2, 3, 4), np.int64)}, r"expected integers \[tokens, 3, 2\]"),
        ({"ids": np.ones((2, 3, 2))}, "ids float64"),
        ({"ids": np.array([[[1, 2]] * 3, [[1, -1]] * 3])}, r"ids\[1, 0\]: -1; expected"),
        ({"ids": np.array([[[1, 65535]] * 3] * 2)}, "65535; expected 0 to 65534"),
        ({"position": np.array([0, -1])}, r"position\[1\]: -1"),
        ({"weights": np.ones((2, 3, 2))}, "weights: given here, but missing before"),
    ],
)
def test_what_a_reader_may_not_give(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    builder = TraceBuilder(tmp_path, layers=3, top_k=2)
    arguments: dict[str, Any] = {"ids": random_ids(2, 3, 2, 8), "phase": PREFILL, "where": "line 7", **change}
    with pytest.raises(ForestageError, match=rf": line 7: .*{message}"):
        builder.append(arguments.pop("ids"), **arguments)


def test_large_imports_stay_small_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.importers.assembly.spool.SPILL_BYTES", 1 << 20)
    piece = random_ids(512, 24, 4, 32)
    peaks = []
    for pieces in (64, 256):
        builder = TraceBuilder(tmp_path, layers=24, top_k=4)
        tracemalloc.start()
        for _ in range(pieces):
            builder.append(piece, phase=DECODE)
        builder.end_sequence("a", "x")
        model = RecordedModel("own", 32, tuple(range(24)), tuple(range(24)))
        trace = builder.finish(model, Report(), source="a test")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert trace.tokens == 512 * pieces
        assert isinstance(trace.expert_ids.base, np.ndarray)
    # Four times the tokens (12.6 MB of ids more): the peak grows by the positions and phases that are checked whole.
    assert peaks[1] - peaks[0] < 4 << 20


def test_a_spool_keeps_the_order_of_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.importers.assembly.spool.SPILL_BYTES", 100)
    spool = Spool(np.int32, (3,))
    rows = np.arange(300, dtype=np.int32).reshape(100, 3)
    for start in range(0, 100, 7):
        spool.append(rows[start : start + 7])
    np.testing.assert_array_equal(spool.array(), rows)
    with pytest.raises(ValueError, match="expected int32"):
        spool.append(rows.astype(np.int64))


# JSON and text in pieces


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("layout", ["lines", "array", "pretty", "pretty array"])
def test_records_in_every_layout_read_in_any_pieces(
    size: int, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traces.importers.assembly.json_records.READ_CHARACTERS", size)
    values = [{"a": [1, -2.5e3, True, None], "text": 'ü"\\\n\u2028'}, {}, {"b": {"c": "x" * 40}}]
    path = tmp_path / "a.json"
    path.write_text(
        {
            "lines": "\n".join(json.dumps(v) for v in values),
            "array": json.dumps(values),
            "pretty": "\n".join(json.dumps(v, indent=2, ensure_ascii=False) for v in values),
            "pretty array": json.dumps(values, indent=2) + "\n",
        }[layout],
        encoding="utf-8",
    )
    assert [value for _, value in read_records(path, Report())] == values
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert [value for _, value in read_records(path, Report())] == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no JSON object"),
        ("[]", "holds no JSON object"),
        ('{"a": 1}\n{"a": }', "line 2: not valid JSON"),
        ('{"a": 1}\n{"a": 2', "line 2: .*cut off"),
        ('{"a": 1}\n7', "line 2: expected a JSON object"),
        ('[{"a": 1},', "expected a JSON object"),
        ('[{"a": 1}', "is the file cut off"),
        ('[{"a": 1} {"a": 2}]', "expected ',' or ']'"),
        ('[{"a": 1}] {"a": 2}', "text follows the array"),
        ("[1]", "expected a JSON object"),
        ('{"a": tru', "cut off"),
        ('[{"a": 1},', "cut off"),
        ('{"a": "\\u12', "cut off"),
        ('{"a": ' + "[" * 100_000, "line 1: "),
        ('{"a": ' + "1" * 10_000 + "}", "line 1: "),
        ("\ufeff\ufeff{}", "expected a JSON object"),
        ("{}\n\ufeff{}", "line 2: expected a JSON object"),
    ],
)
def test_what_is_no_json_is_told_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ForestageError, match=rf"a\.json: .*{message}") as caught:
        list(read_records(path, Report()))
    assert "\n" not in str(caught.value)


def test_lines_of_text_and_their_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(b"one\r\ntwo\n\nlast"))
    calls: list[tuple[int, int]] = []
    assert list(read_lines(path, Report(lambda *call: calls.append(call)))) == [
        (1, "one"), (2, "two"), (3, ""), (4, "last"),
    ]  # fmt: skip
    assert calls[-1] == (path.stat().st_size, path.stat().st_size)
    path.write_bytes(b"a\xff\xfe")
    with pytest.raises(ForestageError, match="not a UTF-8 text"):
        list(read_lines(path, Report()))
    path.write_text("a\n", encoding="utf-16")
    with pytest.raises(ForestageError, match="is text in UTF-16; save it as UTF-8"):
        list(read_lines(path, Report()))
    path.write_text("one\n", encoding="utf-8-sig")
    assert list(read_lines(path, Report())) == [(1, "one")]
    assert starting_bytes(path, 16) == b"one\n"
    monkeypatch.setattr("traces.importers.assembly.text_file.MAX_LINE_CHARACTERS", 10)
    path.write_bytes(b"short\n" + b"x" * 50)
    with pytest.raises(ForestageError, match="line 2: longer than 10"):
        list(read_lines(path, Report()))


# What is suspicious


def test_constant_rows_are_told_from_the_eighth_on() -> None:
    ids = random_ids(7, 2, 2, 8)
    ids[:] = ids[0]
    for tokens, told in ((7, False), (8, True)):
        report = Report()
        warn_of_trace(trace_of(np.repeat(ids[:1], tokens, axis=0), experts=8), report)
        assert bool(report.warnings) == told
        assert all("layer 0, 1 has the same" in line for line in report.warnings)
    report = Report()
    warn_of_trace(trace_of(random_ids(40, 2, 2, 8), experts=8), report)
    assert not report.warnings


# Maps of experts


def test_log2phy_is_the_inverse_of_phy2log(tmp_path: Path) -> None:
    placement = np.array([[0, 1, 2, 1], [2, 0, 1, 0]])
    inverse = np.array([[[0, -1], [1, 3], [2, -1]], [[1, 3], [2, -1], [0, -1]]])
    np.savez(tmp_path / "map.npz", log2phy=inverse, logcnt=np.array([[1, 2, 1], [2, 1, 1]]))
    np.testing.assert_array_equal(read_expert_map(tmp_path / "map.npz").logical, placement)
    np.save(tmp_path / "map.npy", placement)
    found = read_expert_map(tmp_path / "map.npy")
    np.testing.assert_array_equal(found.logical, placement)
    assert (found.layers, found.physical, found.experts) == (2, 4, 3)
    ids = np.array([[[0, 3], [1, -1]]])
    assert found.apply(ids, "here").tolist() == [[[0, 1], [0, -1]]]
    with pytest.raises(ForestageError, match=r"here: ids\[0, 1\]: 4; .*physical experts 0 to 3"):
        found.apply(np.array([[[0, 3], [4, 1]]]), "here")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("phy2log", np.array([[0, 2]]), "layer 0 has no copy of expert 1 of 3"),
        ("phy2log", np.array([0, 1]), r"expected integers \[layers, physical\]"),
        ("phy2log", np.array([[-1, 0]]), "logical experts from 0 on"),
        ("phy2log", np.array([[0.0, 1.0]]), "expected integers"),
        ("log2phy", np.array([[[0], [0]]]), "physical experts 0 to 0 must each appear once"),
        ("log2phy", np.array([[[0], [2]]]), "physical experts 0 to 2 must each appear once"),
        ("log2phy", np.array([[[-1], [-1]]]), "must be physical experts"),
        ("weight", np.array([[1, 2]]), "holds no expert map; known are phy2log"),
    ],
)
def test_a_wrong_map_is_refused(name: str, array: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "map.npz", **{name: array})
    with pytest.raises(ForestageError, match=rf"map\.npz: .*{message}"):
        read_expert_map(tmp_path / "map.npz")


def test_maps_of_one_file_must_agree(tmp_path: Path) -> None:
    placement, inverse = np.array([[0, 1, 1]]), np.array([[[0, -1], [1, 2]]])
    np.savez(tmp_path / "map.npz", phy2log=placement, log2phy=inverse)
    np.testing.assert_array_equal(read_expert_map(tmp_path / "map.npz").logical, placement)
    np.savez(tmp_path / "map.npz", phy2log=placement[:, ::-1], log2phy=inverse)
    with pytest.raises(ForestageError, match=r"map\.npz: log2phy: contradicts phy2log; leave one of them out"):
        read_expert_map(tmp_path / "map.npz")


def test_a_map_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("phy2log")
    with pytest.raises(ForestageError, match="no file of arrays"):
        read_expert_map(tmp_path / "map.txt")
    (tmp_path / "map.json").write_text('{"phy2log": [[0, 1], [0]]}')
    with pytest.raises(ForestageError, match="expected rows of one length"):
        read_expert_map(tmp_path / "map.json")
    with pytest.raises(ForestageError, match="here"):
        check_map(np.array([[0, 5]]), "here")
