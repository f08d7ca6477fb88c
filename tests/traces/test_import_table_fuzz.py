"""Damaged tables are refused in one line, or what they now say is imported; nothing in between.

Each test decodes what was changed by itself, strictly, and compares. The same for loads, and for the layouts of them.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import Choice, choices, damaged, fuzz, lines_of
from traces import RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import ImportOptions, import_recording

EXPERTS, TOP_K = 6, 2
FUZZ = fuzz()
COLUMNS = {"sequence": "req", "token": "tok", "layer": "lay", "ids": "exp", "weights": "w"}

Cell = tuple[str, str, str, str, str]


def ids_of(request: int, token: int, layer: int) -> list[int]:
    return [(request + 2 * token + layer) % EXPERTS, (request + 2 * token + layer + 3) % EXPERTS]


def rows() -> list[Cell]:
    return [
        (f"r{request}", str(token), str(layer), " ".join(map(str, ids_of(request, token, layer))), "0.75 0.25")
        for request in range(2)
        for token in range(3)
        for layer in range(2)
    ]


STYLES = {
    "spaces": "req,tok,lay,exp,w\n" + "".join(",".join(row) + "\n" for row in rows()),
    "brackets": "=== log ===\n# req,tok,lay,exp,w\n"
    + "".join(f"{r},{t},{n},[{e}],[{w}]\n" for r, t, n, e, w in rows()),
    "quotes": "req\ttok\tlay\texp\tw\n"
    + "".join(f'{r}\t{t}\t{n}\t"{e.replace(" ", ",")}"\t"{w.replace(" ", ", ")}"\n' for r, t, n, e, w in rows()),
}

LIST = re.compile(r"\s*(?:\[(.*)\]|\((.*)\)|\{(.*)\}|(.*))\s*", re.DOTALL)


def attempt(path: Path, columns: dict[str, str], **options: Any) -> RoutingTrace | ExpertLoad | None:
    """What is imported, or ``None`` where it is refused in one line that names the file."""
    given_options = {"model": "our/own", "experts": EXPERTS, "columns": columns, **options}
    return imported_or_refused(path, "table", ImportOptions.parse(given_options, origin="test"))


def imported_or_refused(path: Path, format: str, options: ImportOptions) -> RoutingTrace | ExpertLoad | None:
    """As ``attempt``."""
    try:
        return import_recording(path, format, options).recording
    except ForestageError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert path.name in refusal
    return None


def listed(text: str) -> list[str]:
    """The members of a list in a cell."""
    match = LIST.fullmatch(text)
    assert match is not None
    return re.split(r"[\s,;|]+", next(part for part in match.groups() if part is not None).strip())


def rows_below_heading(text: str, separator: str, columns: list[str]) -> Iterator[list[str]]:
    """The rows of a text that are no comments; lines above the one that names the columns are none."""

    def is_heading(line: str) -> bool:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [""])
        names = [re.sub(r"^\s*#+\s*", "", cells[0]), *cells[1:]] if cells else []
        return [name.strip().strip('"') for name in names] == columns

    lines = text.split("\n")
    heading = next((number for number, line in enumerate(lines) if is_heading(line)), len(lines))
    body = io.StringIO("\n".join(lines[heading + 1 :]), newline="")
    for row in csv.reader(body, delimiter=separator, skipinitialspace=True):
        if row and "".join(row).strip() and not row[0].lstrip().startswith("#"):
            yield row


def said(text: str, separator: str, numbers: dict[str, int]) -> Choice:
    """What a text says, decoded row by row: ids by (sequence, position, layer)."""
    made: Choice = {}
    firsts: dict[str, int] = {}
    for row in rows_below_heading(text, separator, list(COLUMNS.values())):
        if len(row) > len(COLUMNS):
            row = re.split(rf"{separator}(?![^\[\]]*\])", separator.join(row))
        request, token, layer = row[0].strip(), int(row[1]), int(row[2])
        position = token - firsts.setdefault(request, token)
        key = numbers.setdefault(request, len(numbers)), position, layer
        assert key not in made
        made[key] = tuple(int(part) for part in listed(row[3]))
    return made


def check_choices(trace: RoutingTrace, made: Choice) -> None:
    """The trace holds what was said; what it leaves out was no choice of distinct experts."""
    held = choices(trace)
    for key, ids in made.items():
        if key in held:
            assert held.pop(key) == ids
        else:
            assert len(set(ids)) < len(ids) or set(ids) == {-1}
    assert not held


@FUZZ
@given(st.data())
def test_text(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    style = data.draw(st.sampled_from(list(STYLES)))
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data.draw(damaged(STYLES[style])))
    trace = attempt(path, COLUMNS)
    if trace is None:
        return
    assert isinstance(trace, RoutingTrace)
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    check_choices(trace, said(text, "\t" if style == "quotes" else ",", {}))


@FUZZ
@given(st.data())
def test_passes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Without tokens, every row has a place all the same: the rows of a layer are its tokens, in order."""
    lines = ["lay,exp\n"]
    for tokens in data.draw(st.sampled_from([(1, 1, 1), (3, 1, 1), (2, 1, 4, 1, 1)])):
        lines += [f"{layer},{layer} {3 + token % 3}\n" for layer in range(3) for token in range(tokens)]
    path = tmp_path_factory.getbasetemp() / "fuzz.log"
    path.write_bytes(data.draw(damaged("".join(lines))))
    trace = attempt(path, {"layer": "lay", "ids": "exp"})
    if trace is None:
        return
    assert isinstance(trace, RoutingTrace)
    said = lines_of(path.read_bytes().replace(b'"', b""))
    heading = next(
        number for number, line in enumerate(said) if {"lay", "exp"} <= {part.strip("# ") for part in line.split(",")}
    )
    body = [line.split(",") for line in said[heading + 1 :]]  # a title may stand above the heading
    body = [row for row in body if "".join(row).strip() and not row[0].lstrip().startswith("#")]
    assert trace.tokens * trace.layers == len(body)
    by_layer: dict[int, list[Any]] = {}
    for layer, cell in body:
        ids = tuple(int(part) for part in listed(cell))
        by_layer.setdefault(int(layer), []).append(ids if len(set(ids)) == len(ids) and min(ids) >= 0 else None)
    recorded = trace.recorded()
    for index, layer in enumerate(sorted(by_layer)):
        ours = [tuple(trace.expert_ids[t, index].tolist()) if recorded[t, index] else None for t in range(trace.tokens)]
        assert ours == by_layer[layer]


@FUZZ
@given(st.data())
def test_json_lines(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    lines = [
        {"req": request, "tok": token, "lay": layer, "exp": ids_of(request, token, layer), "w": [0.75, 0.25]}
        for request in range(2)
        for token in range(3)
        for layer in range(2)
    ]
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(data.draw(damaged("".join(json.dumps(line) + "\n" for line in lines))))
    trace = attempt(path, COLUMNS)
    if trace is None:
        return
    assert isinstance(trace, RoutingTrace)
    made: Choice = {}
    numbers: dict[str, int] = {}
    firsts: dict[str, int] = {}
    for line in lines_of(path.read_bytes()):
        value = json.loads(line) if line.strip() else {}
        if not set(COLUMNS.values()) & set(value):
            continue
        request = str(value["req"]).strip()
        number = numbers.setdefault(request, len(numbers))
        token, layer = int(value["tok"]), int(value["lay"])
        cell = value["exp"]
        key = number, token - firsts.setdefault(request, token), layer
        assert key not in made
        made[key] = tuple(cell) if isinstance(cell, list) else tuple(int(part) for part in listed(str(cell)))
    check_choices(trace, made)


@FUZZ
@given(st.data())
def test_parquet_bytes_and_cells(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.parquet"
    cells: dict[str, list[Any]] = {
        "tok": [token for token in range(3) for _ in range(2)],
        "lay": [0, 1] * 3,
        "exp": [ids_of(0, token, layer) for token in range(3) for layer in range(2)],
    }
    for _ in range(data.draw(st.integers(0, 2))):
        name = data.draw(st.sampled_from(list(cells)))
        row = data.draw(st.integers(0, 5))
        numbers = st.integers(-2, 9) | st.sampled_from([2**31, 2**40, -(2**62)])
        odd = st.none() | (st.lists(numbers | st.none(), max_size=3) if name == "exp" else numbers)
        cells[name][row] = data.draw(odd)
    pq.write_table(pa.table({**cells, "exp": pa.array(cells["exp"], pa.list_(pa.int64()))}), path)
    if data.draw(st.booleans()):
        made = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(made[: data.draw(st.integers(len(made) // 2, len(made)))]))
    trace = attempt(path, {"token": "tok", "layer": "lay", "ids": "exp"})
    if trace is None:
        return
    assert isinstance(trace, RoutingTrace)
    found = pq.read_table(path).to_pydict()
    start = found["tok"][0], found["lay"][0]
    sequence, firsts = -1, {}
    said_here: Choice = {}
    for token, layer, ids in zip(found["tok"], found["lay"], found["exp"], strict=True):
        sequence += (token, layer) == start
        first = firsts.setdefault(sequence, token)
        said_here[sequence, token - first, layer] = tuple(ids)
    check_choices(trace, said_here)


LOADS = "step,layer,expert,count\n" + "".join(
    f"{step},{layer},{expert},{step + layer + expert + 1}\n"
    for step in range(2)
    for layer in range(2)
    for expert in range(3)
)


@FUZZ
@given(st.data())
def test_loads(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data.draw(damaged(LOADS)))
    columns = ["step", "layer", "expert", "count"]
    load = attempt(path, {name: name for name in columns})
    if load is None:
        return
    assert isinstance(load, ExpertLoad)
    counts: dict[tuple[int, int, int], float] = {}
    for row in rows_below_heading(path.read_text("utf-8"), ",", columns):
        key = int(row[0]), int(row[1]), int(row[2])
        assert key not in counts
        counts[key] = float(row[3])
    steps = sorted({step for step, _, _ in counts})
    layers = sorted({layer for _, layer, _ in counts})
    wanted = np.zeros((len(steps), len(layers), EXPERTS))
    for (step, layer, expert), count in counts.items():
        wanted[steps.index(step), layers.index(layer), expert] = count
    kept = [index for index in range(len(layers)) if wanted[:, index].any()]
    np.testing.assert_array_equal(load.counts, wanted[:, kept])
    assert load.metadata.layer_map == tuple(layers[index] for index in kept)


@FUZZ
@given(st.data())
def test_layouts_of_loads(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Popularity and device maps: refused in a line, or what the JSON says."""
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    value = {"total_input_tokens": 7, "expert_popularity": [[0.5, 0.25, 1.0], [3, 0.0, 2]]}
    path.write_bytes(data.draw(damaged(json.dumps(value))))
    load = imported_or_refused(path, "expert_popularity", ImportOptions(model="our/own"))
    if load is None:
        return
    assert isinstance(load, ExpertLoad)
    found = np.array(json.loads(path.read_text("utf-8"))["expert_popularity"], dtype=np.float64)
    np.testing.assert_array_equal(load.counts[0], found[found.any(axis=1)])
