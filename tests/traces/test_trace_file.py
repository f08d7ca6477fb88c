"""The trace file: round trips, agreement with the safetensors library, and every way of damaging it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace
from traces.selection import select_phase, select_sequences

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(trace=traces())
def test_loading_what_was_saved_gives_the_same_trace(trace: RoutingTrace, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    for validate in (True, False, None):
        assert RoutingTrace.load(path, validate=validate).equals(trace)


def test_saving_is_reproducible_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    trace = make_trace()
    trace.save(tmp_path / "a.safetensors")
    RoutingTrace.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_the_safetensors_library_reads_our_file(tmp_path: Path) -> None:
    trace = make_trace(unrecorded=True)
    trace.save(tmp_path / "trace.safetensors")
    with safe_open(tmp_path / "trace.safetensors", "numpy") as file:
        assert set(file.keys()) == {
            "expert_ids", "gate_weights", "position", "phase", "token_hash", "sequence_offsets", "domain_index",
            "dataset_index",
        }  # fmt: skip
        for name in ("expert_ids", "gate_weights", "position", "phase", "token_hash", "sequence_offsets"):
            np.testing.assert_array_equal(file.get_tensor(name), getattr(trace, name))
        assert json.loads(file.metadata()["trace"])["metadata"]["experts"] == trace.experts


def resave(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    """Rewrite a trace file with the safetensors library after ``change(tensors, metadata)``; checksums are dropped."""
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = dict(file.metadata())
    del metadata["checksums"]
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def change_document(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any], dict[str, str]], None]:
    def apply(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        document = json.loads(metadata["trace"])
        change(document)
        metadata["trace"] = json.dumps(document)

    return apply


def put(name: str, index: tuple[int, ...], value: float) -> Callable[[dict[str, Any], dict[str, str]], None]:
    def apply(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        tensors[name][index] = value

    return apply


def replace_tensor(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, str]], None]:
    def apply(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    return apply


def test_we_read_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    trace = make_trace()
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    resave(path, lambda tensors, metadata: None)
    assert RoutingTrace.load(path).equals(trace)


def test_a_file_whose_tensors_are_not_aligned_is_read(tmp_path: Path) -> None:
    trace = make_trace(experts=300)
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    path.write_bytes(struct.pack("<Q", length + 1) + data[8 : 8 + length] + b" " + data[8 + length :])
    assert RoutingTrace.load(path).equals(trace)


FAULTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, str]], None], str]] = {
    # what is done to the file → what the error says after the file's name
    "id too large": (put("expert_ids", (7, 1, 1), 8), r"expert_ids\[7, 1\] \(token 7, layer 1\): .*below.*\(8\)"),
    "id twice": (replace_tensor("expert_ids", lambda a: a * 0), r"expert_ids\[0, 0\].*chosen twice"),
    "row unrecorded": (put("expert_ids", (2, 0), 255), r"expert_ids\[2, 0\].*has_unrecorded is false"),
    "weight nan": (put("gate_weights", (3, 2, 0), np.nan), r"gate_weights\[3, 2\].*finite"),
    "weight infinite": (put("gate_weights", (3, 2, 0), np.inf), r"gate_weights\[3, 2\].*finite"),
    "weight negative": (put("gate_weights", (3, 2, 0), -0.5), r"gate_weights\[3, 2\].*not negative"),
    "weights sum": (put("gate_weights", (3, 2, 0), 0.0), r"gate_weights\[3, 2\].*sum of 1"),
    "phase": (put("phase", (9,), 2), r"phase\[9\]: 2; must be 0"),
    "position negative": (put("position", (0,), -1), r"position\[0\]: -1; positions must be"),
    "position falls": (put("position", (6,), 0), r"position\[6\]: 0 after"),
    "offsets start": (put("sequence_offsets", (0,), 1), r"sequence_offsets\[0\]: 1; must be 0"),
    "offsets fall": (put("sequence_offsets", (2,), 5), r"sequence_offsets\[2\]: 5 does not exceed"),
    "offsets end": (put("sequence_offsets", (3,), 13), r"sequence_offsets\[3\]: ends at 13.*12 tokens"),
    "offsets short": (replace_tensor("sequence_offsets", lambda a: a[[0, 3]]), r"domains: 3 labels for 1 sequences"),
    "offsets type": (replace_tensor("sequence_offsets", lambda a: a.astype(np.int32)), r"sequence_offsets: int32"),
    "label index": (put("domain_index", (1,), 2), r"domain_index\[1\]: 2, but there are 2 labels"),
    "label shape": (replace_tensor("dataset_index", lambda a: a[:, None]), r"dataset_index: must be U32"),
    "ids flat": (replace_tensor("expert_ids", lambda a: a[..., 0]), r"expert_ids: uint8 \[12, 3\]; expected"),
    "ids type": (replace_tensor("expert_ids", lambda a: a.astype(np.int32)), r"expert_ids: int32"),
    "fewer layers": (replace_tensor("expert_ids", lambda a: a[:, :2]), r"expert_ids: 2 layers.*layer_map has 3"),
    "fewer ids": (replace_tensor("expert_ids", lambda a: a[..., :1]), r"expert_ids: 1 ids a row.*top_k is 2"),
    "weights shape": (
        replace_tensor("gate_weights", lambda a: a[:-1]),
        r"gate_weights: float16 \[11, 3, 2\]; expected",
    ),
    "weights missing": (lambda t, m: t.pop("gate_weights"), r"gate_weight_kind: 'normalised', but the trace has no"),
    "position missing": (lambda t, m: t.pop("position"), r"position: missing tensor"),
    "ids missing": (lambda t, m: t.pop("expert_ids"), r"expert_ids: missing tensor"),
    "unknown tensor": (lambda t, m: t.update(extra=np.zeros(3, np.uint8)), r"extra: unknown tensor"),
    "foreign dtype": (replace_tensor("position", lambda a: a.astype(np.uint64)), r"position: dtype 'U64' is not one"),
    "no format": (lambda t, m: m.pop("format"), r"header: a safetensors file, but no trace"),
    "version": (lambda t, m: m.update(version="3"), r"version '3'; this program reads 1 and 2"),
    "version of a batch": (lambda t, m: m.update(version="2"), r"version 2, but no entry 'batch'"),
    "header entry": (lambda t, m: m.update(checksum="{}"), r"unknown entry 'checksum' in __metadata__"),
    "document": (lambda t, m: m.update(trace="{"), r"'trace' is not valid JSON"),
    "document list": (lambda t, m: m.update(trace="[]"), r"'trace' must hold exactly"),
    "document key": (change_document(lambda d: d.pop("domain_labels")), r"'trace' must hold exactly"),
    "labels": (change_document(lambda d: d.update(domain_labels=[1, 2])), r"domain_labels: must be a list of strings"),
    "label text": (change_document(lambda d: d["domain_labels"].__setitem__(0, "\ud800")), r"domains: .*UTF-8"),
    "metadata": (change_document(lambda d: d.update(metadata=3)), r"metadata: must be a JSON object"),
    "metadata key": (
        change_document(lambda d: d["metadata"].update(sinthetic=True)),
        r"metadata: unknown key 'sinthetic'; the nearest known key is 'synthetic'",
    ),
    "metadata missing": (change_document(lambda d: d["metadata"].pop("model")), r"metadata: model: Field required"),
    "metadata top_k": (change_document(lambda d: d["metadata"].update(top_k=9)), r"top_k \(9\) exceeds experts \(8\)"),
    "metadata map": (change_document(lambda d: d["metadata"].update(layer_map=[1, 1, 2])), r"strictly ascending"),
    "experts 256": (change_document(lambda d: d["metadata"].update(experts=256)), r"uint8 cannot hold 256 experts"),
    "fewer experts": (change_document(lambda d: d["metadata"].update(experts=3)), r"expert_ids\[\d+, \d\].*below"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_by_file_field_and_row(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    make_trace().save(path)
    change, message = FAULTS[fault]
    resave(path, change)
    with pytest.raises(ForestageError, match=rf"^\S*trace\.safetensors: .*{message}") as caught:
        RoutingTrace.load(path)
    assert "\n" not in str(caught.value)


def test_unrecorded_rows_must_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    make_trace(unrecorded=True).save(path)
    resave(
        path,
        replace_tensor(
            "expert_ids", lambda a: np.where(np.arange(12)[:, None, None] == 1, [255, 0], a).astype(a.dtype)
        ),
    )
    with pytest.raises(ForestageError, match=r"expert_ids\[1, 0\].*every id must be below"):
        RoutingTrace.load(path)


def test_a_lazily_opened_trace_checks_what_it_hands_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    make_trace().save(path)
    resave(path, put("expert_ids", (7, 1, 1), 8))  # in sequence 1, tokens 5 to 7
    trace = RoutingTrace.load(path, validate=False)
    fault = r"trace\.safetensors: expert_ids\[7, 1\] \(token 7, layer 1\)"
    assert trace.sequence(0).tokens == 5
    assert select_sequences(trace, [2, 0]).tokens == 9
    assert trace.token_range(0, 7).tokens == 7
    for use in (
        lambda: trace.sequence(1),
        lambda: select_sequences(trace, [0, 1]),
        lambda: trace.token_range(0, 8),
        lambda: select_phase(trace, 1),
        lambda: list(trace.chunks(3)),
        trace.checked,
        trace.validate,
        lambda: trace.save(tmp_path / "copy.safetensors"),
    ):
        with pytest.raises(ForestageError, match=fault):
            use()
    assert not (tmp_path / "copy.safetensors").exists()


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    make_trace().save(whole)
    data = whole.read_bytes()
    for length in [*range(40), *range(40, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ForestageError, match=r"cut\.safetensors"):
            RoutingTrace.load(path, validate=False)
    path.write_bytes(data + b"\0")
    with pytest.raises(ForestageError, match="1 bytes follow the last tensor"):
        RoutingTrace.load(path, validate=False)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "must be a JSON object"),
        (b"{]", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a":1,"a":1}', "a key appears twice"),
        (b"[" * 5000, "not valid JSON"),
        (b'{"__metadata__":{"format":1}}', "names to strings"),
        (b'{"a":{"dtype":"U8","shape":[1]}}', "dtype, shape and data_offsets"),
        (b'{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}', "whole numbers"),
        (b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', "whole numbers"),
        (b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', "whole numbers"),
        (b'{"a":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}}', "is not one of"),
        (b'{"a":{"dtype":"U8","shape":[0,99999999999999999999],"data_offsets":[0,0]}}', "holds nothing"),
        (b'{"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}}', "data_offsets give 1"),
        (b'{"a":{"dtype":"U16","shape":[1],"data_offsets":[0,1]}}', "takes 2 bytes, data_offsets give 1"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', "start at 1, expected 0"),
        (b"{}", "holds no tensors"),
    ],
)
def test_a_malformed_header_is_refused(header: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + (b"\0\0" if header != b"{}" else b""))
    with pytest.raises(ForestageError, match=message) as caught:
        RoutingTrace.load(path)
    assert "\n" not in str(caught.value)


@settings(FUZZ, max_examples=300)
@given(data=st.data())
def test_damaged_bytes_give_an_error_or_the_same_trace(data: st.DataObject, tmp_path: Path) -> None:
    trace = make_trace(lengths=(2, 1), layers=2, unrecorded=data.draw(st.booleans()))
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    loaded, error = None, ""
    try:
        loaded = RoutingTrace.load(path)
    except ForestageError as refusal:
        error = str(refusal)
    if loaded is None:
        assert error.startswith(f"{path}: ")
        assert "\n" not in error
    else:
        assert loaded.equals(trace)


def test_damage_that_leaves_a_valid_trace_is_seen_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    make_trace().save(path)
    content = bytearray(path.read_bytes())
    for name in (b'"token_hash"', b'\\"test\\"'):
        assert content.count(name) >= 1
    damaged = bytes(content).replace(b'\\"test\\"', b'\\"tess\\"')
    path.write_bytes(damaged)
    with pytest.raises(ForestageError, match="trace: damaged"):
        RoutingTrace.load(path)
    content[-1] ^= 1
    path.write_bytes(bytes(content).replace(b'"checksums"', b'"checksumz"'))
    with pytest.raises(ForestageError, match="unknown entry 'checksumz'"):
        RoutingTrace.load(path, validate=False)
    # the last byte of the last tensor, a u8 one: phase or expert_ids
    path.write_bytes(content)
    with pytest.raises(ForestageError, match=r"trace\.safetensors: (phase|expert_ids)"):
        RoutingTrace.load(path)


def test_missing_folder_and_unwritable_paths_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="cannot read"):
        RoutingTrace.load(tmp_path / "none.safetensors")
    with pytest.raises(ForestageError, match="cannot read"):
        RoutingTrace.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ForestageError, match="cannot write"):
        make_trace().save(tmp_path / "file" / "trace.safetensors")
