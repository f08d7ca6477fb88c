"""The importer of MoE-Beyond's CSV, on small files in its layout."""

import csv
import io
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse
from traces import PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

HEADING = ["Layer ID", "Batch Number", "Token", "Activated Expert IDs"]
LAYERS = (1, 2, 3)
TOKENS = ["<｜begin▁of▁sentence｜>", "I", "Ġsaid", ',"', "Ċ\n"]
Row = tuple[int, int, str, list[int]]


def ids_of(prompt: int, batch: int, layer: int, position: int) -> list[int]:
    """Two ids, now and then in descending order."""
    first = (3 * prompt + 5 * batch + 2 * layer + position) % 8
    return [first, (first + 3) % 8]


def prompt_rows(prompt: int = 0, batches: int = 2) -> list[Row]:
    """A prompt's rows by layer, batch number and token; batch 1 is one token shorter."""
    return [
        (layer, batch, token, ids_of(prompt, batch, layer, position))
        for layer in LAYERS
        for batch in range(batches)
        for position, token in enumerate(TOKENS[: len(TOKENS) - batch])
    ]


def text_of(rows: list[Row], heading: list[str] | None = None) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heading or HEADING)
    writer.writerows(rows)
    return stream.getvalue()


def load(path: Path, rows: list[Row] | None = None) -> RoutingTrace:
    if rows is not None:
        path.write_text(text_of(rows))
    imported = import_recording(path, None, ImportOptions(model="toy", experts=8))
    assert imported.format == "moe_beyond"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording


def test_rows_by_layer_become_tokens(tmp_path: Path) -> None:
    trace = load(tmp_path / "prompt_7_data.csv", prompt_rows())
    assert trace.sequence_offsets.tolist() == [0, 5, 9]
    assert trace.position.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert set(trace.phase.tolist()) == {PREFILL}
    assert choices(trace) == {
        (batch, position, layer): tuple(ids_of(0, batch, layer, position))
        for layer in LAYERS
        for batch in range(2)
        for position in range(5 - batch)
    }
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [zlib.crc32(token.encode()) for token in (*TOKENS, *TOKENS[:-1])]
    assert (trace.metadata.layer_map, trace.metadata.ranked) == (LAYERS, False)


def test_several_prompts_in_a_file_and_in_a_folder(tmp_path: Path) -> None:
    together = load(tmp_path / "all.csv", prompt_rows(0, 1) + prompt_rows(1, 1))
    assert together.sequence_offsets.tolist() == [0, 5, 10]
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "prompt_10_data.csv").write_text(text_of(prompt_rows(1, 1)))
    (folder / "prompt_9_data.csv").write_text(text_of(prompt_rows(0, 1)))
    assert sniff_format(folder) == "moe_beyond"
    assert choices(load(folder)) == choices(together)


def test_further_columns_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [(*row, [0.5, -0.25]) for row in prompt_rows()]
    path.write_text(text_of(rows, [*HEADING, "Token Embedding Vector"]))  # type: ignore[arg-type]
    assert load(path).equals(load(path, prompt_rows()))


def rows_with(place: int, row: Row) -> str:
    rows = prompt_rows(batches=1)
    rows[place] = row
    return text_of(rows)


BY_TOKEN = sorted(prompt_rows(batches=1), key=lambda row: TOKENS.index(row[2]))
FAULTS: dict[str, tuple[str, str]] = {
    "heading": (text_of(prompt_rows(), ["Layer", *HEADING[1:]]), "line 1: expected the heading 'Layer ID,Batch"),
    "no rows": (text_of([]), "no rows after the heading"),
    "cut off": (text_of(prompt_rows(batches=1))[:-12], "fields, but the heading names 4|line .*: not CSV"),
    "cut off in ids": (text_of(prompt_rows(batches=1))[:-3], "line 19: not CSV"),
    "fields": ("".join(f"{','.join(HEADING)}\n1,0,I\n"), "line 2: 3 fields, but the heading names 4"),
    "layer": (rows_with(0, ("x", 0, "I", [1, 2])), "line 2: Layer ID: 'x'; expected a whole number"),  # type: ignore[arg-type]
    "batch": (rows_with(0, (1, -1, "I", [1, 2])), "line 2: Batch Number: '-1'; expected a whole"),
    "ids": (rows_with(0, (1, 0, "I", "8, 2")), "line 2: Activated Expert IDs: '8, 2'; expected a list"),  # type: ignore[arg-type]
    "negative": (rows_with(0, (1, 0, "I", [1, -2])), r"line 2: Activated Expert IDs: '\[1, -2\]'"),
    "beyond": (rows_with(1, (1, 0, "I", [1, 8])), r"line 3: expert ids \[1, 8\]: the model has experts 0 to 7"),
    "k differs": (rows_with(1, (1, 0, "I", [1, 2, 3])), "line 3: 3 expert ids; the rows before have 2"),
    "token dropped": (text_of([r for i, r in enumerate(prompt_rows(batches=1)) if i != 7]), "token: differs from line"),
    "last token": (text_of(prompt_rows(batches=1)[:-1]), "token 4 lacks layer 3; if the recording was cut off"),
    "by token": (text_of(BY_TOKEN), "the layers begin anew at every token; rows must stand by layer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_line_and_column(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ForestageError, match=message) as caught:
        import_recording(path, "moe_beyond", ImportOptions(model="toy", experts=8))
    assert str(caught.value).startswith(str(path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"holds no \.csv file"):
        import_recording(tmp_path, "moe_beyond", ImportOptions(model="toy", experts=8))


@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(damaged(text_of(prompt_rows(batches=1))))
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    trace = import_or_refuse(path, "moe_beyond", model="toy", experts=8)
    if trace is None:
        return
    said: list[tuple[int, ...]] = []
    tokens: dict[str, list[int]] = {}
    for layer, _, token, ids in csv.reader(io.StringIO(content.decode().split("\n", 1)[1])):
        said.append((int(layer), *json.loads(ids)))
        tokens.setdefault(token, []).append(int(layer))
    held = [(layer, *ids) for (_, _, layer), ids in choices(trace).items()]
    assert sorted(held) == sorted(row for row in said if len(set(row[1:])) == len(row[1:]))
    whole = all(sorted(set(layers)) == sorted({layer for layer, *_ in said}) for layers in tokens.values())
    assert whole, "a token that some layer lacks was accepted"
