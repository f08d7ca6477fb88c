"""The .npz importer, on small files in the recordings' layout and on the recordings."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces import DECODE, PREFILL, RoutingTrace, split
from traces.importers import ImportOptions, import_recording
from traces.importers import import_trace as import_unnamed
from traces.importers.formats.npz import read_sequence_records

GPT_OSS = ImportOptions(model="gpt-oss-20b")
LENGTHS = (4, 3, 5)
LAYERS, TOP_K = 24, 4  # gpt-oss-20b's


def arrays(**changes: Any) -> dict[str, Any]:
    """Arrays as in gpt_oss_20b_decode.npz; a change of ``None`` leaves the array out."""
    generator = np.random.default_rng(0)
    tokens = sum(LENGTHS)
    weights = np.sort(generator.dirichlet(np.ones(TOP_K), (tokens, LAYERS)))[..., ::-1]
    made = {
        "expert_ids": np.argsort(generator.random((tokens, LAYERS, 32)))[..., :TOP_K].astype(np.uint8),
        "gate_weights": weights.astype(np.float16),
        "token_pos": np.concatenate([np.arange(10, 10 + length) for length in LENGTHS]).astype(np.int32),
        "token_crc32": generator.integers(1 << 32, size=tokens, dtype=np.uint32),
        "seq_offsets": np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64),
    }
    return {name: array for name, array in {**made, **changes}.items() if array is not None}


def records(**changes: Any) -> list[dict[str, Any]]:
    made = {"category": "law", "n_prompt_tokens": 10, "finished_successfully": True, "has_repetition": False}
    return [{"dataset": f"set {i}", **made, "n_tokens": length, **changes} for i, length in enumerate(LENGTHS)]


def header_alone(header: str) -> bytes:
    """A NumPy file that is cut off after a header of that text."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def write(folder: Path, made: dict[str, Any], lines: list[dict[str, Any]] | None, name: str = "recorded") -> Path:
    np.savez_compressed(folder / f"{name}.npz", **made)
    if lines is not None:
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{name}.sequences.jsonl").write_text(text + "\n")
    return folder / f"{name}.npz"


def import_trace(path: Path, model: str = "gpt-oss-20b") -> RoutingTrace:
    """Several models of the catalogue have the shape of these files, so they must be named."""
    return import_unnamed(path, model=model)


def test_fields_arrive_where_they_belong(tmp_path: Path) -> None:
    made = arrays()
    trace = import_trace(write(tmp_path, made, records()))
    np.testing.assert_array_equal(trace.expert_ids, made["expert_ids"])
    np.testing.assert_array_equal(trace.gate_weights, made["gate_weights"])
    np.testing.assert_array_equal(trace.position, made["token_pos"])
    np.testing.assert_array_equal(trace.token_hash, made["token_crc32"])
    np.testing.assert_array_equal(trace.sequence_offsets, made["seq_offsets"])
    assert np.all(trace.phase == DECODE)
    assert trace.datasets == ("set 0", "set 1", "set 2")
    assert trace.domains == ("law",) * 3
    facts = trace.metadata
    assert (facts.model, facts.experts, facts.top_k, facts.layer_map) == ("gpt-oss-20b", 32, 4, tuple(range(24)))
    assert (facts.ranked, facts.gate_weight_kind, facts.synthetic, facts.has_unrecorded) == (
        True, "normalised", False, False,
    )  # fmt: skip
    assert (facts.source, facts.licence) == ("imported from recorded.npz", "not stated")


def test_tokens_below_the_prompt_length_are_prefill(tmp_path: Path) -> None:
    trace = import_trace(write(tmp_path, arrays(), records(n_prompt_tokens=12)))
    assert trace.phase.tolist() == [0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1]


def test_without_positions_prompts_and_hashes_all_is_prefill_from_0(tmp_path: Path) -> None:
    lines = [{key: value for key, value in line.items() if key != "n_prompt_tokens"} for line in records()]
    trace = import_trace(write(tmp_path, arrays(token_pos=None, token_crc32=None), lines))
    assert np.all(trace.phase == PREFILL)
    assert trace.position.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4]
    assert trace.token_hash is None


def test_the_user_says_the_phase_of_sequences_that_do_not(tmp_path: Path) -> None:
    lines = records(n_prompt_tokens=12)
    del lines[1]["n_prompt_tokens"]
    path = write(tmp_path, arrays(), lines)
    for name, said in (("decode", [1, 1, 1]), ("prefill", [0, 0, 0]), (None, [0, 0, 0])):
        options = ImportOptions.parse({"model": "gpt-oss-20b", "phase": name}, origin="test")
        trace = import_recording(path, None, options).recording
        assert isinstance(trace, RoutingTrace)
        assert trace.phase.tolist() == [0, 0, 1, 1, *said, 0, 0, 1, 1, 1]
    path = write(tmp_path, arrays(), records(n_prompt_tokens=12))
    with pytest.raises(ForestageError, match="--phase: every sequence states its n_prompt_tokens; leave it out"):
        import_recording(path, None, ImportOptions(model="gpt-oss-20b", phase="decode"))


def test_weights_tell_order_and_kind(tmp_path: Path) -> None:
    weights = arrays()["gate_weights"]
    unsorted = import_trace(write(tmp_path, arrays(gate_weights=weights[..., ::-1]), records(), "a"))
    assert (unsorted.metadata.ranked, unsorted.metadata.gate_weight_kind) == (False, "normalised")
    raw = import_trace(write(tmp_path, arrays(gate_weights=weights * np.float16(0.5)), records(), "b"))
    assert (raw.metadata.ranked, raw.metadata.gate_weight_kind) == (True, "softmax")
    none = import_trace(write(tmp_path, arrays(gate_weights=None), records(), "c"))
    assert (none.metadata.ranked, none.metadata.gate_weight_kind, none.gate_weights) == (False, "none", None)


def test_the_model_is_named_by_argument_recording_or_shape(tmp_path: Path) -> None:
    source = write(tmp_path, arrays(), records(), "gpt_oss_20b_heldout")
    known = import_recording(source)
    assert isinstance(known.recording, RoutingTrace)
    assert known.recording.metadata.model == "openai/gpt-oss-20b"
    assert any("taken for openai/gpt-oss-20b by the file's name" in line for line in known.warnings)
    # A name claims no licence: only the published ids do.
    assert known.recording.metadata.licence == "not stated"
    assert import_trace(source, model="openai/gpt-oss-20b").metadata.licence == "not stated"
    path = write(tmp_path, arrays(), records())
    assert import_trace(path, model="openai/gpt-oss-20b").metadata.model == "openai/gpt-oss-20b"
    with pytest.raises(ForestageError, match="24 layers, but gpt-oss-120b has 36, 36 of them with experts"):
        import_trace(path, model="gpt-oss-120b")
    with pytest.raises(ForestageError, match="not in the catalogue; the nearest known is 'gpt-oss-20b'"):
        import_trace(path, model="gpt-oss-21b")
    thin = write(tmp_path, arrays(expert_ids=arrays()["expert_ids"][:, :3], gate_weights=None), records(), "thin")
    with pytest.raises(ForestageError, match="not one model of the catalogue has 3 MoE layers of top-4; name it"):
        import_unnamed(thin)
    with pytest.raises(ForestageError, match=r"models of the catalogue have 24 MoE layers of top-4 .*gpt-oss-20b"):
        import_unnamed(path)


def test_rows_of_nothing_are_not_recorded_and_told(tmp_path: Path) -> None:
    ids = arrays()["expert_ids"].astype(np.int16)
    ids[2, 3], ids[4:6, 7] = -1, 0
    imported = import_recording(write(tmp_path, arrays(expert_ids=ids), records()), None, GPT_OSS)
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert np.argwhere(~trace.recorded()).tolist() == [[2, 3], [4, 7], [5, 7]]
    assert trace.gate_weights is not None
    assert not trace.gate_weights[2, 3].any()
    assert trace.metadata.gate_weight_kind == "normalised"
    assert any("1 rows (token, layer) hold only -1" in line for line in imported.warnings)
    assert any("2 rows (token, layer) hold only zeros" in line for line in imported.warnings)
    with pytest.raises(ForestageError, match="every row holds only -1 or zeros; nothing was recorded"):
        import_recording(write(tmp_path, arrays(expert_ids=ids * 0), records()), None, GPT_OSS)


def test_ids_that_never_name_the_first_expert_are_told(tmp_path: Path) -> None:
    ids = arrays()["expert_ids"]
    ids = np.where((ids == 0).any(axis=2, keepdims=True), np.arange(1, TOP_K + 1, dtype=np.uint8), ids)
    imported = import_recording(write(tmp_path, arrays(expert_ids=ids), records()), None, GPT_OSS)
    assert any("no row has expert 0, in any layer; do the ids count from 1?" in line for line in imported.warnings)
    whole = import_recording(write(tmp_path, arrays(), records()), None, GPT_OSS)
    assert not any("expert 0" in line for line in whole.warnings)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "ids missing": ({"expert_ids": None}, "expert_ids: missing array; the archive holds"),
    "offsets missing": ({"seq_offsets": None}, "seq_offsets: missing array"),
    "ids flat": ({"expert_ids": np.zeros((12, 24), np.uint8)}, r"expert_ids: uint8 \[12, 24\]; expected"),
    "ids real": ({"expert_ids": np.zeros((12, 24, 4))}, r"expert_ids: float64"),
    "ids too large": ({"expert_ids": arrays()["expert_ids"] + np.uint8(20)}, r"expert_ids\[0, \d+\]: id .*0 to 31"),
    "ids negative": ({"expert_ids": arrays()["expert_ids"].astype(np.int16) - 1}, r"expert_ids\[\d, \d+\]: id -1"),
    "ids twice": ({"expert_ids": np.ones((12, 24, 4), np.uint8)}, r"expert_ids\[0, 0\].*chosen twice"),
    "weights shape": ({"gate_weights": np.zeros((12, 24, 3), np.float16)}, "gate_weights: .* does not fit expert_ids"),
    "weights huge": ({"gate_weights": np.full((12, 24, 4), 1e30)}, r"gate_weights\[0, 0, 0\]: 1e\+30; expected at"),
    "positions shape": ({"token_pos": np.zeros(11, np.int32)}, "token_pos: .* does not fit"),
    "hash type": ({"token_crc32": np.zeros(12)}, "token_crc32: float64"),
    "positions huge": ({"token_pos": np.arange(12) + 2**31}, r"token_pos\[0\]: 2147483648; expected"),
    "hash negative": ({"token_crc32": np.arange(12) - 3}, r"token_crc32\[0\]: -3; expected"),
    "offsets end": ({"seq_offsets": np.array([0, 4, 7, 11])}, r"seq_offsets: must ascend from 0 .*\(12\)"),
    "offsets order": ({"seq_offsets": np.array([0, 7, 4, 12])}, "seq_offsets: must ascend"),
    "offsets empty": ({"seq_offsets": np.array([0, 4, 4, 12])}, "seq_offsets: must ascend"),
    "offsets count": ({"seq_offsets": np.array([0, 4, 12])}, "has 2 sequences, its .sequences.jsonl 3 lines"),
    "offsets length": ({"seq_offsets": np.array([0, 3, 7, 12])}, "line 1: n_tokens is 4, seq_offsets give 3"),
    "objects": ({"token_pos": np.array([None] * 12)}, "damaged or truncated"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_a_faulty_array_is_named(fault: str, tmp_path: Path) -> None:
    changes, message = BAD_ARRAYS[fault]
    with pytest.raises(ForestageError, match=rf"recorded\.npz: .*{message}") as caught:
        import_trace(write(tmp_path, arrays(**changes), records()))
    assert "\n" not in str(caught.value)


def test_a_faulty_label_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, arrays(), None)
    with pytest.raises(ForestageError, match=r"recorded\.sequences\.jsonl: cannot read .*beside recorded\.npz"):
        import_trace(path)
    beside = tmp_path / "recorded.sequences.jsonl"
    for text, message in (
        ('{"dataset": "a", "category": "b"}', "line 1: n_tokens: Field required"),
        ('{"dataset": 3, "category": "b", "n_tokens": 4}', "line 1: dataset: Input should be a valid string"),
        ("{", "line 1: not valid JSON"),
        ("3", "line 1: .*dictionary"),
        ("[" * 100_000, "line 1: not valid JSON"),
    ):
        beside.write_text(text)
        with pytest.raises(ForestageError, match=message) as caught:
            import_trace(path)
        assert "\n" not in str(caught.value)
    beside.write_bytes(b"\xff\xff")
    with pytest.raises(ForestageError, match="not UTF-8"):
        import_trace(path)


def test_a_truncated_or_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, arrays(), records())
    data = path.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        with pytest.raises(ForestageError, match=r"recorded\.npz") as caught:
            import_trace(path)
        assert "\n" not in str(caught.value)
    generator = np.random.default_rng(1)
    original = write(tmp_path, arrays(), records())
    expected = import_trace(original)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[generator.integers(len(data))] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = import_trace(path)
        except ForestageError:
            continue
        # Zip stores dates and attributes that mean nothing; an optional array's damaged name hides the array.
        np.testing.assert_array_equal(loaded.expert_ids, expected.expert_ids)


@pytest.mark.parametrize(
    "header", ["{" * 3000, "(" * 5000, "'''", "{'descr': 5, 'fortran_order': False, 'shape': (3,)}"]
)
def test_a_header_that_is_no_header_is_one_line(header: str, tmp_path: Path) -> None:
    path = write(tmp_path, arrays(), records())
    with zipfile.ZipFile(path, "w") as archive:
        for name in arrays():
            archive.writestr(f"{name}.npy", header_alone(header))
    with pytest.raises(ForestageError, match=r"recorded\.npz: damaged or truncated") as caught:
        import_trace(path)
    assert "\n" not in str(caught.value)


def test_an_encrypted_archive_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, arrays(), records())
    data = bytearray(path.read_bytes())
    for start in (place for place in range(len(data)) if data[place : place + 4] == b"PK\x01\x02"):
        data[start + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ForestageError, match=r"recorded\.npz: damaged or truncated .*encrypted"):
        import_trace(path)


def test_gpt_oss_20b(shared_file: Callable[[str], Path]) -> None:
    path = shared_file("gpt_oss_20b_decode.npz")
    trace = import_unnamed(path)
    assert (trace.tokens, trace.layers, trace.top_k, trace.experts, trace.sequences) == (172_891, 24, 4, 32, 562)
    assert np.all(trace.phase == DECODE)
    assert (trace.metadata.ranked, trace.metadata.gate_weight_kind) == (True, "normalised")
    prompts = [record.n_prompt_tokens for record in read_sequence_records(path)]
    assert trace.position[trace.sequence_offsets[:-1]].tolist() == prompts
    train, test = split(trace)
    assert (len(train), len(test)) == (450, 112)
    assert trace.metadata.licence == "Apache-2.0"


def test_deepseek_v2_lite(shared_file: Callable[[str], Path]) -> None:
    trace = import_unnamed(shared_file("deepseek_v2_lite_esft.npz"))
    assert (trace.tokens, trace.layers, trace.top_k, trace.experts, trace.sequences) == (33_279, 26, 6, 64, 213)
    assert np.all(trace.phase == PREFILL)
    assert trace.token_hash is None
    assert trace.metadata.layer_map == tuple(range(1, 27))
    assert (trace.metadata.ranked, trace.metadata.gate_weight_kind) == (False, "softmax")
    assert set(trace.domains) == {"intent", "law", "summary", "translation"}
    assert trace.metadata.licence == "MIT"
