"""What an exported Parquet table says of its trace is used when it is imported, and options are held against it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace
from traces import RoutingTrace
from traces.exporters import export_recording
from traces.importers import Imported, ImportOptions, import_recording

COLUMNS = {name: name for name in ("sequence", "position", "phase", "layer", "ids", "weights", "domain", "dataset")}


def trace(**facts: Any) -> RoutingTrace:
    said = {"synthetic": True, "source": "a lab", "licence": "MIT", "model": "our/own", "layer_map": (1, 4, 7), **facts}
    return make_trace(lengths=(6, 5), experts=12, **said)


def exported(path: Path, **facts: Any) -> Path:
    export_recording(trace(**facts), "table", path)
    return path


def read(path: Path, **options: Any) -> Imported:
    options = {"columns": COLUMNS | {"token_id": "token_hash"}, **options}
    return import_recording(path, "table", ImportOptions.parse(options, origin="test"))


def test_no_option_is_needed_but_the_columns(tmp_path: Path) -> None:
    back = read(exported(tmp_path / "t.parquet")).recording
    assert isinstance(back, RoutingTrace)
    assert back.equals(trace())
    assert back.metadata == trace().metadata  # synthetic, source and licence with it


def test_without_the_weights_their_kind_is_none(tmp_path: Path) -> None:
    back = read(
        exported(tmp_path / "t.parquet"), columns={k: v for k, v in COLUMNS.items() if k != "weights"}
    ).recording
    assert isinstance(back, RoutingTrace)
    assert (back.metadata.gate_weight_kind, back.metadata.ranked) == ("none", trace().metadata.ranked)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "experts": ({"experts": 16}, "--experts 16: the file says 12"),
    "top-k": ({"top_k": 3}, "--top-k 3: the file says 2"),
    "layers": ({"layers": (0, 1, 2)}, "--layers: the file has layers 1, 4, 7"),
    "model": ({"model": "mistralai/Mixtral-8x7B-v0.1"}, "12 experts, but Mixtral-8x7B has 8"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_an_option_that_contradicts_the_file_is_refused(name: str, tmp_path: Path) -> None:
    options, message = CONTRADICTIONS[name]
    with pytest.raises(ForestageError, match=message):
        read(exported(tmp_path / "t.parquet"), **options)


def test_a_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="--expert-map: the file is an exported trace"):
        read(exported(tmp_path / "t.parquet"), expert_map=tmp_path / "map.npy")


def rewritten(path: Path, change: Any) -> Path:
    """The table after a program's change, which keeps the metadata."""
    pq.write_table(change(pq.read_table(path)), path)
    return path


def test_rows_may_have_become_fewer(tmp_path: Path) -> None:
    def of_layers(table: pa.Table) -> pa.Table:
        return table.filter(pa.compute.field("layer") > 1)

    back = read(rewritten(exported(tmp_path / "t.parquet"), of_layers)).recording
    assert isinstance(back, RoutingTrace)
    assert back.metadata.layer_map == (4, 7)
    assert (back.expert_ids == trace().expert_ids[:, 1:]).all()


def test_rows_of_another_trace_are_refused(tmp_path: Path) -> None:
    def shifted(table: pa.Table) -> pa.Table:
        layer = pa.array([n + 1 for n in table["layer"].to_pylist()], pa.int32())
        return table.set_column(table.schema.get_field_index("layer"), "layer", layer)

    def wider(table: pa.Table) -> pa.Table:
        ids = pa.array([[*ids, (set(range(12)) - set(ids)).pop()] for ids in table["ids"].to_pylist()])
        return table.set_column(table.schema.get_field_index("ids"), "ids", ids)

    with pytest.raises(ForestageError, match=r"layer 2: the file's metadata have layers 1, 4, 7; were rows"):
        read(rewritten(exported(tmp_path / "t.parquet"), shifted))
    bare = {k: v for k, v in COLUMNS.items() if k != "weights"}
    with pytest.raises(ForestageError, match=r"3 ids a row, but the file's metadata say top_k 2"):
        read(rewritten(exported(tmp_path / "u.parquet"), wider), columns=bare)


def test_files_of_a_folder_must_agree(tmp_path: Path) -> None:
    exported(tmp_path / "1.parquet")
    exported(tmp_path / "2.parquet", model="another/one")
    with pytest.raises(ForestageError, match=r"2\.parquet: model: 'another/one' in the file's metadata, but 'our/own'"):
        read(tmp_path, files="sequence", columns={k: v for k, v in COLUMNS.items() if k != "sequence"})


@pytest.mark.parametrize(("text", "message"), [(b"{", "not valid JSON"), (b"[]", "no JSON object"), (b"{}", "model")])
def test_damaged_metadata_are_refused(text: bytes, message: str, tmp_path: Path) -> None:
    path = exported(tmp_path / "t.parquet")
    rewritten(path, lambda table: table.replace_schema_metadata({"forestage": text}))
    with pytest.raises(ForestageError, match=f"the metadata forestage: .*{message}"):
        read(path)


def test_others_tables_are_as_before(tmp_path: Path) -> None:
    path = exported(tmp_path / "t.parquet")
    rewritten(path, lambda table: table.replace_schema_metadata(None))
    with pytest.raises(ForestageError, match="names no model"):
        read(path)
