"""Formats that hold loads alone, and the file they become."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad, LoadMetadata
from traces.expert_load_statistics import expert_load_statistics
from traces.importers import Imported, ImportOptions, import_recording, import_trace, sniff_format
from traces.statistics.expert_load_nulls import uniform_hottest_over_mean, uniform_load_entropy


def load_in(path: Path, **options: Any) -> tuple[ExpertLoad, Imported]:
    imported = import_recording(path, options=ImportOptions(**options))
    assert isinstance(imported.recording, ExpertLoad)
    assert any("expert loads only" in warning for warning in imported.warnings)
    return imported.recording, imported


def counts_of(*shape: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(1).integers(1, 100, shape)


# TensorRT-LLM


def write_folder(folder: Path, ranks: list[npt.NDArray[np.int64]], layers: list[int], dtype: str = "<i8") -> Path:
    """A folder of the ranks' ``counts [iterations, layers, experts]``, iterations counted from 10."""
    meta = {"num_experts": ranks[0].shape[2], "num_experts_per_token": 2}
    (folder / "meta_info.json").write_text(json.dumps(meta))
    for rank, counts in enumerate(ranks):
        tensors = {
            f"{10 + iteration}_{layer}": counts[iteration, row].astype(dtype)
            for iteration in range(len(counts))
            for row, layer in enumerate(layers)
        }
        save_file(tensors, folder / f"rank{rank}.safetensors")
    return folder


@pytest.mark.parametrize("dtype", ["<i8", "<i4"])
def test_tensorrt_llm_ranks_are_added_up(dtype: str, tmp_path: Path) -> None:
    ranks = [counts_of(3, 2, 8), counts_of(3, 2, 8) * 2]
    path = write_folder(tmp_path, ranks, [3, 11], dtype)
    assert sniff_format(path) == "tensorrt_llm"
    load, imported = load_in(path, model="own")
    np.testing.assert_array_equal(load.counts, ranks[0] + ranks[1])
    assert (load.metadata.layer_map, load.metadata.top_k, load.metadata.steps_ordered) == ((3, 11), 2, True)
    assert len(imported.warnings) == 1


def test_tensorrt_llm_iterations_and_ranks_are_numbers_not_texts(tmp_path: Path) -> None:
    """Iteration 9 comes before 10, rank 10 exists beside rank 9."""
    (tmp_path / "meta_info.json").write_text('{"num_experts": 2, "num_experts_per_token": 1}')
    for rank in range(11):
        tensors = {f"{i}_0": np.array([i, rank]) for i in (10, 9, 2)}
        save_file(tensors, tmp_path / f"rank{rank}.safetensors")
    load, _ = load_in(tmp_path, model="own")
    assert load.counts[:, 0].tolist() == [[22, 55], [99, 55], [110, 55]]


def test_tensorrt_llm_ranks_that_counted_the_same_are_one(tmp_path: Path) -> None:
    counts = counts_of(3, 2, 8)
    load, imported = load_in(write_folder(tmp_path, [counts, counts], [0, 1]), model="own")
    np.testing.assert_array_equal(load.counts, counts)
    assert any("counted the same" in warning for warning in imported.warnings)


def test_tensorrt_llm_a_rank_that_is_missing_is_told(tmp_path: Path) -> None:
    ranks = [counts_of(1, 2, 8), counts_of(1, 2, 8) * 2, counts_of(1, 2, 8) * 3]
    path = write_folder(tmp_path, ranks, [3, 11])
    (path / "rank0.safetensors").unlink()
    load, imported = load_in(path, model="own")
    np.testing.assert_array_equal(load.counts, ranks[1] + ranks[2])
    assert any("rank0.safetensors is missing" in warning for warning in imported.warnings)


def test_tensorrt_llm_layers_that_count_nothing_are_left_out(tmp_path: Path) -> None:
    counts = counts_of(3, 3, 8)
    counts[:, 1] = 0
    load, _ = load_in(write_folder(tmp_path, [counts], [3, 4, 5]), model="own")
    np.testing.assert_array_equal(load.counts, counts[:, [0, 2]])
    assert load.metadata.layer_map == (3, 5)


def test_tensorrt_llm_faults(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [counts_of(2, 2, 8), counts_of(2, 2, 8) + 1], [0, 1])
    save_file({"10_0": np.arange(8)}, path / "rank1.safetensors")
    with pytest.raises(ForestageError, match=r"rank1\.safetensors: 10_1: not in every rank"):
        load_in(path, model="own")
    save_file({"10_0": np.arange(7)}, path / "rank1.safetensors")
    with pytest.raises(ForestageError, match=r"10_0: int64 \[7\]; meta_info\.json says num_experts=8"):
        load_in(path, model="own")
    save_file({"layer0": np.arange(8)}, path / "rank1.safetensors")
    with pytest.raises(ForestageError, match="layer0: expected tensors named <iteration>_<layer>"):
        load_in(path, model="own")
    (path / "meta_info.json").write_text('{"num_experts": 8}')
    with pytest.raises(ForestageError, match=r"meta_info\.json: num_experts_per_token: Field required"):
        load_in(path, model="own")
    (path / "meta_info.json").unlink()
    with pytest.raises(ForestageError, match="no folder of a known trace format"):
        load_in(path, model="own")


# EPLB


def test_eplb_weight_in_every_kind_of_file(tmp_path: Path) -> None:
    weight = counts_of(3, 8)
    np.savez(tmp_path / "load.npz", weight=weight)
    (tmp_path / "load.json").write_text(json.dumps({"weight": weight.tolist()}))
    save_file({"weight": weight}, tmp_path / "load.safetensors")
    for name in ("load.npz", "load.json", "load.safetensors"):
        assert sniff_format(tmp_path / name) == "eplb"
        load, _ = load_in(tmp_path / name, model="own")
        np.testing.assert_array_equal(load.counts, weight[None])
    np.save(tmp_path / "load.npy", weight / 7)  # estimates may be fractions
    imported = import_recording(tmp_path / "load.npy", "eplb", ImportOptions(model="own"))
    assert isinstance(imported.recording, ExpertLoad)
    np.testing.assert_array_equal(imported.recording.counts, weight[None] / 7)


def test_eplb_weight_from_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes the .pt files that EPLB's users write")
    weight = counts_of(26, 64)
    for name, value in (("named.pt", {"weight": torch.from_numpy(weight)}), ("bare.pt", torch.from_numpy(weight))):
        torch.save(value, tmp_path / name)
        imported = import_recording(tmp_path / name, "eplb", ImportOptions(model="DeepSeek-V2-Lite"))
        assert isinstance(imported.recording, ExpertLoad)
        np.testing.assert_array_equal(imported.recording.counts, weight[None])
        assert imported.recording.metadata.model == "DeepSeek-V2-Lite"
    assert sniff_format(tmp_path / "named.pt") == "eplb"


def test_eplb_outputs_are_maps_and_say_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "out.npz", phy2log=np.arange(8)[None], logcnt=np.ones((1, 8), np.int64))
    assert sniff_format(tmp_path / "out.npz") == "eplb"
    with pytest.raises(ForestageError, match=r"phy2log, logcnt: the balancer's output.*--expert-map"):
        import_recording(tmp_path / "out.npz", options=ImportOptions(model="own"))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.array([[1.0, -1.0]]), "expert 1: -1; expected a number"),
        (np.array([[1.0, np.nan]]), "expert 1: nan; expected a number"),
        (np.array([[1.0, 1e308]]), r"expert 1: 1e\+308; expected a number from 0 to 9"),
        (np.array([[1.0, np.longdouble("1e4000")]]), "expert 1: inf; expected a number"),
        (np.ones(3), r"expected \[layers, logical experts\]"),
        (np.array([["a", "b"]]), "expected numbers"),
        (np.zeros((2, 3)), "every layer is empty"),
    ],
)
def test_eplb_faults(weight: npt.NDArray[Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "load.npz", weight=weight)
    with pytest.raises(ForestageError, match=rf"load\.npz: .*{message}"):
        load_in(tmp_path / "load.npz", model="own")


@pytest.mark.parametrize(
    "header", ["{" * 3000, "(" * 5000, "'''", "{'descr': 5, 'fortran_order': False, 'shape': (3,)}"]
)
def test_an_array_whose_header_is_none_is_one_line(header: str, tmp_path: Path) -> None:
    path = tmp_path / "load.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(ForestageError, match=r"load\.npy: damaged or truncated") as caught:
        import_recording(path, "eplb", ImportOptions(model="own"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


# The project's own file of loads


def made_load(steps: int = 3) -> ExpertLoad:
    metadata = LoadMetadata(model="own", experts=4, layer_map=(1, 5), source="a test", licence="Apache-2.0")
    return ExpertLoad(counts=counts_of(steps, 2, 4).astype(np.float64), metadata=metadata)


def test_a_load_file_returns_as_it_was_and_is_no_trace(tmp_path: Path) -> None:
    load = made_load()
    for name in ("load.safetensors", "load.bin"):
        load.save(tmp_path / name)
        assert sniff_format(tmp_path / name) == "safetensors_load"
        imported = import_recording(tmp_path / name)
        assert isinstance(imported.recording, ExpertLoad)
        assert imported.recording.equals(load)
        with pytest.raises(ForestageError, match=r"holds expert loads .*not which experts each token chose"):
            import_trace(tmp_path / name)


def test_a_damaged_load_file_is_never_another_load(tmp_path: Path) -> None:
    load, path = made_load(1), tmp_path / "load.safetensors"
    load.save(path)
    data = path.read_bytes()
    for where in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[where] ^= 0x15
        path.write_bytes(damaged)
        loaded = load
        with contextlib.suppress(ForestageError):
            loaded = ExpertLoad.load(path)
        assert loaded.equals(load)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ForestageError):
            ExpertLoad.load(path)


def test_the_figures_of_loads_by_hand(tmp_path: Path) -> None:
    counts = np.zeros((2, 2, 4))
    counts[0, 0], counts[1, 0] = [4, 0, 0, 0], [0, 2, 2, 0]  # in all 4, 2, 2, 0
    counts[0, 1] = [1, 1, 1, 1]  # the second step did not run the layer
    metadata = LoadMetadata(model="own", experts=4, layer_map=(0, 1), source="a test", licence="Apache-2.0")
    path = tmp_path / "load.safetensors"
    load = ExpertLoad(counts=counts, metadata=metadata)
    load.save(path)
    figures = expert_load_statistics(load, path)
    first, second = figures.by_layer
    assert first.load_entropy == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(4)) / np.log(4))
    assert (first.hottest_over_mean, first.step_hottest_over_mean, first.idle_experts) == (2, 3, 1)
    assert second.load_entropy == pytest.approx(1)
    assert (second.hottest_over_mean, second.step_hottest_over_mean, second.idle_experts) == (1, 1, 0)
    assert (figures.total, figures.overall.hottest_over_mean) == (12, 1.5)
    assert "nothing token by token" in figures.note


def test_loads_of_known_tokens_have_their_nulls(tmp_path: Path) -> None:
    counts = np.zeros((2, 1, 4))
    counts[:, 0] = [[4, 0, 2, 2], [3, 2, 2, 1]]  # of 4 tokens each, two experts a token
    path = tmp_path / "load.safetensors"

    def nulls(counts: np.ndarray, top_k: int | None) -> tuple[float | None, ...]:
        metadata = LoadMetadata(
            model="own", experts=4, top_k=top_k, layer_map=(0,), source="a test", licence="Apache-2.0"
        )
        load = ExpertLoad(counts=counts, metadata=metadata)
        load.save(path)
        layer = expert_load_statistics(load, path).overall
        return layer.uniform_load_entropy, layer.uniform_hottest_over_mean, layer.uniform_step_hottest_over_mean

    known = uniform_load_entropy(8, 4, 2), uniform_hottest_over_mean(8, 4, 2), uniform_hottest_over_mean(4, 4, 2)
    assert nulls(counts, 2) == pytest.approx(known)
    # Of no known number of tokens: shares, no top-k, a sum that it does not divide, more of one expert than tokens.
    for unknown, top_k in ((counts / 3, 2), (counts, None), (counts, 3), (counts * 0 + [5, 1, 0, 0], 2)):
        assert nulls(unknown, top_k) == (None, None, None)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones((2, 2, 4), np.float32), "expected F64"),
        (np.ones((2, 3, 4)), r"the metadata say \[steps, 2, 4\]"),
        (np.ones((0, 2, 4)), "the metadata say"),
        (np.full((2, 2, 4), np.inf), r"counts\[0, 0, 0\]: inf"),
        (np.zeros((2, 2, 4)), "layer 1 counts nothing"),
    ],
)
def test_an_invalid_load_cannot_be_made(counts: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        ExpertLoad(counts=counts, metadata=made_load().metadata)


def test_every_format_of_loads_tells_shares_and_silent_layers(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text('{"weight": [[1.5, 2], [1, 2]]}')
    _, imported = load_in(tmp_path / "w.json", model="own")
    assert any("counts are no whole numbers" in warning for warning in imported.warnings)
    (tmp_path / "s.json").write_text('{"logical_count": [[[3, 1], [2, 2]], [[4, 0], [0, 0]]]}')
    _, imported = load_in(tmp_path / "s.json", model="own")
    assert any("step 1 from 0 on, layer 1" in warning for warning in imported.warnings)


def test_rows_of_unequal_length_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text('{"weight": [[1, 2, 3], [1, 2]]}')
    with pytest.raises(ForestageError, match=r"w\.json: weight: row 1 has 2 numbers, but row 0 has 3; expected rows"):
        load_in(tmp_path / "w.json", model="own")
