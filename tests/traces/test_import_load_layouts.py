"""Loads in the layouts of SGLang's CSV, expert popularity and activation matrices, and a map that is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers import Imported, ImportOptions, import_recording, sniff_format
from traces.importers.assembly.expert_map import read_expert_map

COUNTS = np.random.default_rng(4).integers(0, 9, (4, 3, 8))


def load_in(path: Path, format: str | None = None, **options: Any) -> tuple[ExpertLoad, Imported]:
    imported = import_recording(path, format, ImportOptions.parse(options, origin="test"))
    assert isinstance(imported.recording, ExpertLoad)
    return imported.recording, imported


# SGLang's CSV


def write_rank(folder: Path, rank: int, counts: np.ndarray, seconds: str = "1744347750.5", first: int = 3) -> Path:
    """A rank's dump, rows in no order, those of 0 left out."""
    folder.mkdir(exist_ok=True)
    rows = [(first + n, e, c) for (n, e), c in np.ndenumerate(counts) if c]
    np.random.default_rng(rank).shuffle(rows)
    path = folder / f"expert_distribution_rank{rank}_timestamp{seconds}.csv"
    path.write_text("layer_id,expert_id,count\n" + "".join(f"{n},{e},{c}\n" for n, e, c in rows))
    return path


def test_sglang_ranks_are_added_up(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for rank, counts in enumerate(COUNTS):
        write_rank(folder, rank, counts, f"17443477{rank}0.{rank}")
    assert sniff_format(folder) == "sglang_load_csv"
    load, imported = load_in(folder, model="own", experts=8)
    np.testing.assert_array_equal(load.counts, COUNTS.sum(axis=0)[None])
    assert load.metadata.layer_map == (3, 4, 5)
    assert len(imported.warnings) == 1
    single = write_rank(tmp_path / "one", 0, COUNTS[0])
    assert sniff_format(single) == "sglang_load_csv"
    np.testing.assert_array_equal(load_in(single, model="own", experts=8)[0].counts[0], COUNTS[0])


def test_sglang_ranks_that_saw_the_same_tokens_are_one(tmp_path: Path) -> None:
    """Two groups of tensor parallelism, each with tokens of its own."""
    folder = tmp_path / "run"
    for rank, counts in enumerate(COUNTS[[0, 0, 1, 1]]):
        write_rank(folder, rank, counts)
    load, imported = load_in(folder, model="own", experts=8)
    np.testing.assert_array_equal(load.counts[0], COUNTS[0] + COUNTS[1])
    assert any("2 files count the same as another rank's" in warning for warning in imported.warnings)


def test_sglang_dumps_are_steps_and_a_missing_rank_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for rank in (0, 2):
        write_rank(folder, rank, COUNTS[rank], "999.5")
        write_rank(folder, rank, COUNTS[rank + 1], "1000.25")
    load, imported = load_in(folder, model="own", experts=8)
    np.testing.assert_array_equal(load.counts, [COUNTS[0] + COUNTS[2], COUNTS[1] + COUNTS[3]])
    assert any("no file of rank 1" in warning for warning in imported.warnings)
    assert any("every rank has 2 files" in warning for warning in imported.warnings)
    write_rank(folder, 0, COUNTS[0], "1001")
    with pytest.raises(ForestageError, match="ranks have from 2 to 3 files each"):
        load_in(folder, model="own", experts=8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("3,0,5\n3,0,6\n", r"line 3: layer 3, expert 0: came before, in .*line 2"),
        ("3,0,-5\n", r"line 2: count: '-5'"),
        ("3,0,5.5\n", r"line 2: count: 5\.5; expected a whole number"),
        ("3,8,5\n", r"expert 8: the model has experts 0 to 7"),
        ("3,0\n", r"line 2: 2 cells, but the table has 3 columns"),
        ("3,0,5", r"line 2: has no line end"),
        ("", r"no rows after the heading"),
    ],
)
def test_sglang_faults(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("layer_id,expert_id,count\n" + rows)
    with pytest.raises(ForestageError, match=message):
        load_in(path, model="own", experts=8)


def test_sglang_experts_must_be_known_because_idle_ones_have_no_row(tmp_path: Path) -> None:
    path = write_rank(tmp_path, 0, COUNTS[0] + 1)
    with pytest.raises(ForestageError, match="experts: the largest is 7, but more may be without a load"):
        load_in(path)
    assert load_in(path, model="own", experts=9)[0].experts == 9


# Popularity


def test_popularity_is_kept_as_it_stands_and_told_to_be_no_count(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    values = np.random.default_rng(2).random((3, 4))
    path.write_text(json.dumps({"total_input_tokens": 911, "expert_popularity": values.tolist()}))
    load, imported = load_in(path, model="own")
    assert imported.format == "expert_popularity"
    np.testing.assert_array_equal(load.counts[0], values)
    assert "relative within a layer, no counts" in load.metadata.source
    assert any("popularity is relative within a layer and no number of tokens" in w for w in imported.warnings)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0.5, 0.5], [1.0]], r"expert_popularity\.1: 1 experts; layer 0 has 2"),
        ([[0.5, -0.5]], r"expert_popularity\.0\.1: Input should be greater than or equal to 0"),
        ([[0.5, "1"]], r"expert_popularity\.0\.1: Input should be a valid number"),
        ({"0": [0.5]}, r"expert_popularity: Input should be a valid"),
        ([], r"expert_popularity: "),
        ([[0.0, 0.0]], r"every layer is empty"),
    ],
)
def test_popularity_faults(value: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"expert_popularity": value}))
    with pytest.raises(ForestageError, match=message):
        load_in(path, model="own")


# Activation matrices


def test_activation_matrices_are_one_a_request_and_unused_places_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    matrices = COUNTS.astype(np.float32)
    matrices[1] = 0
    np.save(path, matrices)
    load, imported = load_in(path, model="own")
    assert imported.format == "activation_matrices"
    np.testing.assert_array_equal(load.counts, COUNTS[[0, 2, 3]])
    assert not load.metadata.steps_ordered
    assert any("1 of 4 matrices are zero: unused places" in warning for warning in imported.warnings)


def test_an_array_that_may_be_something_else_is_no_matrix_of_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, COUNTS)  # integers may be the experts chosen
    with pytest.raises(ForestageError, match=r"no known trace format.*NAME\.npz"):
        sniff_format(path)
    np.testing.assert_array_equal(load_in(path, "activation_matrices", model="own")[0].counts, COUNTS)
    for array in (COUNTS - 4.0, COUNTS + 0.5, np.full((1, 2, 3), np.nan)):  # logits, weights
        np.save(path, array)
        with pytest.raises(ForestageError, match=r"a\.npy: \[0, 0, \d\]: .*: no count"):
            load_in(path, model="own")
    np.save(path, np.zeros((2, 3, 4)))
    with pytest.raises(ForestageError, match="every matrix is zero"):
        load_in(path, model="own")
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(ForestageError, match=r"float64 \[2, 3\]; expected numbers \[requests, layers, experts\]"):
        load_in(path, "activation_matrices", model="own")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ForestageError, match="damaged or truncated"):
        load_in(path, "activation_matrices", model="own")


# The map of vLLM-Ascend


def layout(*layers: list[list[int]]) -> dict[str, Any]:
    return {
        "moe_layer_count": len(layers),
        "layer_list": [
            {
                "layer_id": number,
                "device_count": len(devices),
                "device_list": [{"device_id": d, "device_expert": e} for d, e in enumerate(devices)],
            }
            for number, devices in enumerate(layers)
        ],
    }


def test_a_map_of_experts_to_devices_is_a_map_and_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "expert_map.json"
    value = layout([[0, 2, 1], [3, 1, 0]], [[3, 2, 1], [0, 0, 3]])
    value["layer_list"].reverse()
    value["layer_list"][0]["device_list"].reverse()
    path.write_text(json.dumps(value))
    with pytest.raises(
        ForestageError, match=r"a map of experts to devices .*give it as --expert-map with the recording"
    ):
        import_recording(path)
    found = read_expert_map(path)
    assert found.logical.tolist() == [[0, 2, 1, 3, 1, 0], [3, 2, 1, 0, 0, 3]]
    assert found.experts == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(moe_layer_count=3), r"layer_list: layer_id 0, 1; expected 0 to 2"),
        (lambda v: v["layer_list"][1].update(device_count=3), r"layer_id 1: device_list: expected device_id 0 to 2"),
        (lambda v: v["layer_list"][1]["device_list"].pop(), r"layer_id 1: device_list"),
        (lambda v: v["layer_list"][1]["device_list"][0]["device_expert"].pop(), r"layer_id 1: 3 experts .*has 4"),
        (
            lambda v: v["layer_list"][1]["device_list"][0].update(device_expert=[0, 0]),
            r"layer 1 has no copy of expert 1",
        ),
        (
            lambda v: v["layer_list"][1]["device_list"][0].update(device_expert=[0, -1]),
            r"device_expert\.1: Input should",
        ),
        (lambda v: v.pop("moe_layer_count"), r"moe_layer_count: Field required"),
    ],
)
def test_a_map_of_experts_to_devices_is_checked(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "expert_map.json"
    value = layout([[0, 1], [2, 3]], [[0, 1], [3, 2]])
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(ForestageError, match=message):
        read_expert_map(path)


# Met in the field


def test_loads_met_in_the_field(field_case: Callable[[str], Path]) -> None:
    folder = field_case("sglang_load_csv")
    load, _ = load_in(folder, model="DeepSeek-V3")
    wanted = np.zeros((61, 256))
    for file in folder.iterdir():
        table = np.loadtxt(file, delimiter=",", skiprows=1, dtype=int)
        wanted[table[:, 0], table[:, 1]] += table[:, 2]
    assert load.metadata.layer_map == tuple(range(3, 61))
    np.testing.assert_array_equal(load.counts[0], wanted[3:])
    popularity = field_case("popularity.json")
    load, _ = load_in(popularity, model="Mixtral-8x7B")
    np.testing.assert_array_equal(load.counts[0], json.loads(popularity.read_text())["expert_popularity"])
    matrices = field_case("activation_matrices.npy")
    load, imported = load_in(matrices, model="DeepSeek-V2-Lite")
    np.testing.assert_array_equal(load.counts, np.load(matrices)[:15])
    assert any("5 of 20 matrices are zero" in warning for warning in imported.warnings)
    expert_map = field_case("expert_map.json")
    with pytest.raises(ForestageError, match="a map of experts to devices"):
        import_recording(expert_map)
    assert read_expert_map(expert_map).logical.shape == (2, 132)
