"""Tables whose columns hold a 0 or a 1 for every expert."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording

TOKENS, LAYERS, EXPERTS, TOP_K = 20, 3, 8, 2
GENERATOR = np.random.default_rng(4)
IDS = np.sort(np.stack([GENERATOR.permutation(EXPERTS)[:TOP_K] for _ in range(TOKENS * LAYERS)]), axis=1)
HOT = (IDS[:, :, None] == np.arange(EXPERTS)).any(axis=1).astype(int)
PLACES = [(token, layer) for token in range(TOKENS) for layer in range(LAYERS)]
WIDE = {"token": "token", "layer": "layer", "ids": "e*"}


def csv(path: Path, hot: Any = HOT, first: int = 0) -> Path:
    heading = ",".join(["token", "layer", *(f"e{first + n}" for n in range(len(hot[0])))])
    rows = [",".join(map(str, (*place, *row))) for place, row in zip(PLACES, hot, strict=True)]
    (path / "t.csv").write_text("\n".join([heading, *rows, ""]))
    return path / "t.csv"


def read(path: Path, columns: dict[str, str] = WIDE, **options: Any) -> Imported:
    said = {"model": "our/own", "columns": columns, **options}
    return import_recording(path, "table", ImportOptions.parse(said, origin="test"))


def trace_in(path: Path, columns: dict[str, str] = WIDE, **options: Any) -> RoutingTrace:
    recording = read(path, columns, **options).recording
    assert isinstance(recording, RoutingTrace)
    return recording


@pytest.mark.parametrize("first", [0, 1])
def test_columns_of_experts_are_read_and_not_ranked(first: int, tmp_path: Path) -> None:
    trace = trace_in(csv(tmp_path, first=first))
    np.testing.assert_array_equal(trace.expert_ids.reshape(-1, TOP_K), IDS)
    assert (trace.experts, trace.top_k, trace.metadata.ranked) == (EXPERTS, TOP_K, False)
    with pytest.raises(ForestageError, match="--experts 16: the file says 8"):
        trace_in(csv(tmp_path), experts=16)
    with pytest.raises(ForestageError, match="--top-k 4: the file holds 2 ids a row"):
        trace_in(csv(tmp_path), top_k=4)


@pytest.mark.parametrize("columns", ["e0,e1,e3,e2", "e2..e7", "e0,e2,e4,e6"])
def test_columns_left_out_or_in_another_order_are_refused(columns: str, tmp_path: Path) -> None:
    hot = np.repeat([[1, 0, 1, 1, 1, 1, 1, 0]], len(PLACES), axis=0)
    with pytest.raises(ForestageError, match=r"in the columns e\d, .*; name those of all experts, in order, from the"):
        read(csv(tmp_path, hot), {**WIDE, "ids": columns})


def test_columns_by_place_or_of_other_names_stand_as_named(tmp_path: Path) -> None:
    path = csv(tmp_path)
    columns = {"token": "#1", "layer": "#2", "ids": "#3..#10"}
    np.testing.assert_array_equal(trace_in(path, columns).expert_ids.reshape(-1, TOP_K), IDS)


@pytest.mark.parametrize("kind", ["True", "true", "1.0"])
def test_yes_and_no_as_programs_write_them(kind: str, tmp_path: Path) -> None:
    words = np.array([{"True": "False", "true": "false", "1.0": "0.0"}[kind], kind])
    np.testing.assert_array_equal(trace_in(csv(tmp_path, words[HOT])).expert_ids.reshape(-1, TOP_K), IDS)
    columns = dict(zip(("token", "layer"), np.array(PLACES).T.tolist(), strict=True))
    values = HOT.astype(float if kind == "1.0" else bool)
    table = pa.table({**columns, **{f"e{n}": values[:, n] for n in range(EXPERTS)}})
    pq.write_table(table, tmp_path / "t.parquet")
    np.testing.assert_array_equal(trace_in(tmp_path / "t.parquet").expert_ids.reshape(-1, TOP_K), IDS)


def test_scores_of_all_experts_are_refused(tmp_path: Path) -> None:
    scores = GENERATOR.random(HOT.shape)
    with pytest.raises(ForestageError, match=r"line 2: .*; of columns that are an expert each, 0 and 1 alone are read"):
        read(csv(tmp_path, scores))


def test_lists_and_lists_of_lists_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"token": t, "layer": n, "hot": HOT[i].tolist()} for i, (t, n) in enumerate(PLACES)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    trace = trace_in(path, {"token": "token", "layer": "layer", "ids": "hot"})
    np.testing.assert_array_equal(trace.expert_ids.reshape(-1, TOP_K), IDS)
    nested = [{"token": t, "hot": HOT[LAYERS * t : LAYERS * (t + 1)].tolist()} for t in range(TOKENS)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in nested))
    trace = trace_in(path, {"token": "token", "ids": "hot"})
    np.testing.assert_array_equal(trace.expert_ids.reshape(-1, TOP_K), IDS)


def test_one_hot_is_ranked(tmp_path: Path) -> None:
    one = (IDS[:, :1] == np.arange(EXPERTS)).astype(int)
    trace = trace_in(csv(tmp_path, one))
    np.testing.assert_array_equal(trace.expert_ids.reshape(-1), IDS[:, 0])
    assert trace.metadata.ranked


@pytest.mark.parametrize("row", [[0] * 8, [1, 1, 1, 0, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0]])
def test_a_row_of_another_number_of_ones_is_refused(row: list[int], tmp_path: Path) -> None:
    hot = HOT.copy()
    hot[30] = row
    with pytest.raises(ForestageError, match=r"line 32: .*\d ones among 8 numbers, .*\(one-hot or multi-hot\); a tr"):
        read(csv(tmp_path, hot))
    hot = HOT.copy()
    hot[0] = [0] * 8
    with pytest.raises(ForestageError, match=r"line 2: .* 0 ones among 8 numbers"):
        read(csv(tmp_path, hot))


def test_weights_beside_them_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"token": t, "layer": n, "hot": HOT[i].tolist(), "w": [0.5, 0.5]} for i, (t, n) in enumerate(PLACES)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ForestageError, match=r"line 1: .* no order for weights to be in; leave --column weights out"):
        read(path, {"token": "token", "layer": "layer", "ids": "hot", "weights": "w"})


def test_lists_of_ids_are_as_before(tmp_path: Path) -> None:
    """Two ids that are 0 and 1, and rows of zeros, which are not recorded."""
    path = tmp_path / "t.csv"
    path.write_text('token,layer,ids\n0,0,"[0, 1]"\n1,0,"[1, 0]"\n2,0,"[1, 0]"\n')
    columns = {"token": "token", "layer": "layer", "ids": "ids"}
    assert trace_in(path, columns, experts=4).expert_ids.tolist() == [[[0, 1]], [[1, 0]], [[1, 0]]]
    path.write_text('token,layer,ids\n0,0,"[0, 0, 0]"\n1,0,"[3, 1, 0]"\n2,0,"[1, 0, 2]"\n')
    trace = trace_in(path, columns, experts=4)
    assert trace.recorded()[:, 0].tolist() == [False, True, True]
