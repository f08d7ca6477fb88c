"""The importer of llama.cpp's routing tensors, written by the test in ggml's layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, fuzz, import_or_refuse
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

EXPERTS, LAYERS, TOP_K = 8, (1, 2), 3
EVALUATIONS = (3, 1, 1)
"""Tokens of each: a prompt of 3, two decoded tokens."""

LOG = """ggml_debug:   ffn_moe_topk-0 = (i32)  VIEW(ffn_moe_argsort-0{64, 7, 1, 1}, }}) = {8, 7, 1, 1}
                                     [
                                      [
                                       [     46.0000,      53.0000,      31.0000, ...,      35.0000,       0.0000],
                                       ...,
"""


def sorted_experts(evaluation: int, layer: int, token: int) -> list[int]:
    """All experts, best first: what ggml sorts and views the first k of."""
    generator = np.random.default_rng([evaluation, layer, token])
    return generator.permutation(EXPERTS).tolist()


def all_sorted(evaluation: int, layer: int) -> np.ndarray:
    return np.array(
        [sorted_experts(evaluation, layer, token) for token in range(EVALUATIONS[evaluation])], dtype=np.int32
    )


def weights_of(evaluation: int) -> np.ndarray:
    return np.tile(np.array([0.5, 0.25, 0.125], dtype=np.float32), (EVALUATIONS[evaluation], 1))


def view_bytes(experts: np.ndarray) -> bytes:
    """The bytes of the view: rows at the stride of all experts, the last without its padding."""
    return experts.tobytes()[: ((len(experts) - 1) * EXPERTS + TOP_K) * 4]


def write_folder(folder: Path, weights: bool = True) -> Path:
    for evaluation in range(len(EVALUATIONS)):
        part = folder / f"{evaluation:04}"
        part.mkdir(parents=True)
        for layer in LAYERS:
            (part / f"ffn_moe_topk-{layer}.bin").write_bytes(view_bytes(all_sorted(evaluation, layer)))
            if weights:
                (part / f"ffn_moe_weights-{layer}.bin").write_bytes(weights_of(evaluation).tobytes())
    return folder


def arrays(padded: bool = True, weights: bool = True) -> dict[str, np.ndarray]:
    named: dict[str, np.ndarray] = {}
    for evaluation in range(len(EVALUATIONS)):
        for layer in LAYERS:
            experts = all_sorted(evaluation, layer)
            named[f"{evaluation}/ffn_moe_topk-{layer}"] = experts if padded else experts[:, :TOP_K]
            if weights:
                named[f"{evaluation}/ffn_moe_weights-{layer}"] = weights_of(evaluation)[:, :, None]
    return named


def load(path: Path, **options: object) -> RoutingTrace:
    options = {"model": "toy", "experts": EXPERTS, **options}
    imported = import_recording(path, None, ImportOptions.parse(options, origin="test"))
    assert imported.format == "llama_cpp_dump"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording


def expected() -> dict[tuple[int, int, int], tuple[int, ...]]:
    places = [(evaluation, token) for evaluation, tokens in enumerate(EVALUATIONS) for token in range(tokens)]
    return {
        (0, position, layer): tuple(sorted_experts(evaluation, layer, token)[:TOP_K])
        for position, (evaluation, token) in enumerate(places)
        for layer in LAYERS
    }


def check_whole(trace: RoutingTrace) -> None:
    assert choices(trace) == expected()
    assert trace.phase.tolist() == [PREFILL] * 3 + [DECODE] * 2
    assert trace.sequence_offsets.tolist() == [0, 5]
    assert (trace.metadata.layer_map, trace.metadata.ranked) == (LAYERS, True)


@pytest.mark.parametrize("weights", [True, False])
def test_the_views_bytes_keep_their_row_stride(weights: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "dump", weights)
    assert sniff_format(folder) == "llama_cpp_dump"
    trace = load(folder, top_k=TOP_K)
    check_whole(trace)
    assert (trace.gate_weights is not None) == weights
    if trace.gate_weights is not None:
        assert np.all(trace.gate_weights == np.array([0.5, 0.25, 0.125]))
        assert trace.metadata.gate_weight_kind == "softmax"


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_arrays_with_and_without_padding(padded: bool, weights: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "dump.npz", **arrays(padded, weights))
    assert sniff_format(tmp_path / "dump.npz") == "llama_cpp_dump"
    check_whole(load(tmp_path / "dump.npz", top_k=None if weights else TOP_K))


def test_one_evaluation_needs_no_number(tmp_path: Path) -> None:
    for layer in LAYERS:
        np.save(tmp_path / f"ffn_moe_topk-{layer}.npy", all_sorted(0, layer))
        np.save(tmp_path / f"ffn_moe_weights-{layer}.npy", weights_of(0))
    np.save(tmp_path / "ffn_moe_logits-1.npy", np.zeros(3))
    assert choices(load(tmp_path)) == {place: ids for place, ids in expected().items() if place[1] < 3}


def test_the_last_layer_may_have_the_last_token_alone(tmp_path: Path) -> None:
    named = arrays()
    for kind in ("topk", "weights"):
        named[f"0/ffn_moe_{kind}-2"] = named[f"0/ffn_moe_{kind}-2"][-1:]
    np.savez(tmp_path / "dump.npz", **named)
    missing = {(0, 0, 2), (0, 1, 2)}
    assert choices(load(tmp_path / "dump.npz")) == {p: ids for p, ids in expected().items() if p not in missing}
    np.savez(tmp_path / "dump.npz", **{**named, "0/ffn_moe_topk-1": named["0/ffn_moe_topk-1"][:2]})
    with pytest.raises(ForestageError, match=r"0/ffn_moe_weights-1: \[3, 3\]; the ids have \[2, 3\]"):
        load(tmp_path / "dump.npz")


@pytest.mark.parametrize("mark", ["ggml_debug:", "common_debug_cb_eval:"])
def test_a_log_is_refused_with_what_to_do(mark: str, tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("build: 5770\n" + LOG.replace("ggml_debug:", mark))
    assert sniff_format(path) == "llama_cpp_dump"
    with pytest.raises(ForestageError, match=r"run\.log: the log of llama-eval-callback .* write the tensors' bytes"):
        load(path)


WRONG: dict[str, tuple[dict[str, Any], dict[str, object], str]] = {
    "no top-k": ({f"{e}/ffn_moe_weights-{x}": None for e in range(3) for x in LAYERS}, {}, "give --top-k"),
    "stride": ({"1/ffn_moe_topk-2": np.arange(5, dtype=np.int32)[None]}, {}, r"int32 \[1, 5\]; expected integers"),
    "floats": ({"1/ffn_moe_topk-2": np.ones((1, 8))}, {}, r"float64 \[1, 8\]; expected integers"),
    "twice": ({"1/ffn_moe_topk-2": np.array([[1, 2, 1]])}, {}, r"token 0: \[1, 2, 1\]; expected distinct experts"),
    "beyond": ({"1/ffn_moe_topk-2": np.array([[1, 2, 8]])}, {}, r"token 0: \[1, 2, 8\]; expected distinct experts"),
    "negative": ({"1/ffn_moe_topk-2": np.array([[1, 2, -8]])}, {}, r"\[1, 2, -8\]; expected distinct experts"),
    "tokens": ({"0/ffn_moe_topk-1": all_sorted(0, 1)[:2]}, {}, "ffn_moe_topk-1: 2 tokens; another layer has 3"),
    "layer missing": ({"1/ffn_moe_topk-2": None}, {}, "evaluation 1: lacks ffn_moe_topk-2, unlike the first"),
    "layer more": ({"1/ffn_moe_topk-3": all_sorted(1, 1)}, {}, "evaluation 1: has ffn_moe_topk-3, unlike the first"),
    "weights missing": ({f"{e}/ffn_moe_weights-2": None for e in range(3)}, {}, "lacks ffn_moe_weights-2, which other"),
    "nan": ({"1/ffn_moe_weights-2": np.array([[0.5, np.nan, 0]])}, {}, "token 0: weight nan; must be finite"),
    "weights kind": ({"0/ffn_moe_weights-1": np.ones(3)}, {}, r"float64 \[3\]; expected floats \[tokens, k\]"),
    "unnumbered": ({"ffn_moe_topk-1": all_sorted(1, 1)}, {}, "some tensors have an evaluation's number"),
    "batch": ({f"1/ffn_moe_{k}-{x}": arrays()[f"0/ffn_moe_{k}-{x}"][:2] for k in ("topk", "weights") for x in LAYERS}
              | {f"2/ffn_moe_{k}-{x}": arrays()[f"0/ffn_moe_{k}-{x}"] for k in ("topk", "weights") for x in LAYERS},
              {}, "evaluation 2: a pass of 3 tokens after one of 2"),
    "a gap": ({f"1/ffn_moe_{k}-{x}": None for k in ("topk", "weights") for x in LAYERS}, {},
              "evaluation 2: the one before is missing"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_fault_is_told_by_tensor(fault: str, tmp_path: Path) -> None:
    changes, options, message = WRONG[fault]
    named = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    path = tmp_path / "dump.npz"
    np.savez(path, **named)
    with pytest.raises(ForestageError, match=message) as caught:
        load(path, **options)
    assert str(caught.value).startswith(str(path))


def test_bytes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "dump")
    file = folder / "0001" / "ffn_moe_topk-2.bin"
    whole = file.read_bytes()
    for data, message in (
        (whole[:-1], "11 bytes, which is no multiple of 4; was it cut off"),
        (whole[:-4], r"2 numbers; expected \(tokens - 1\) · 8 \+ 3"),
        (whole + whole, r"6 numbers; expected \(tokens - 1\) · 8 \+ 3"),
        (b"", r"0 numbers; expected \(tokens - 1\) · 8 \+ 3"),
    ):
        file.write_bytes(data)
        with pytest.raises(ForestageError, match=message) as caught:
            load(folder, top_k=TOP_K)
        assert str(file) in str(caught.value)
    file.write_bytes(whole)
    np.save(file.with_suffix(".npy"), all_sorted(1, 2))
    with pytest.raises(ForestageError, match=r"the tensor is also in ffn_moe_topk-2\.bin"):
        load(folder, top_k=TOP_K)


def test_an_empty_folder_and_another_archive_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for source in (tmp_path, tmp_path / "other.npz"):
        with pytest.raises(ForestageError, match="holds no ffn_moe_topk-<layer>"):
            import_recording(source, "llama_cpp_dump", ImportOptions())


@fuzz(60)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz-dump.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))]))
    trace = import_or_refuse(path, "llama_cpp_dump", model="toy", experts=EXPERTS)
    if trace is not None:
        assert choices(trace) == expected(), "the archive's checksums let nothing else through"


@fuzz(60)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_read_as_they_stand(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz-dump"
    if not folder.exists():
        write_folder(folder)
    file = folder / "0000" / "ffn_moe_topk-1.bin"
    content = bytearray(view_bytes(all_sorted(0, 1)))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    file.write_bytes(bytes(content[:end]))
    trace = import_or_refuse(folder, "llama_cpp_dump", model="toy", experts=EXPERTS, top_k=TOP_K)
    if trace is not None:
        rows = np.frombuffer(bytes(content) + b"\0" * (4 * (EXPERTS - TOP_K)), "<i4").reshape(-1, EXPERTS)[:, :TOP_K]
        assert trace.expert_ids[:3, 0].tolist() == rows.tolist()
