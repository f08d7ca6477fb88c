"""The table importer: whatever the columns are called and separated, the same routing, or a refusal by line."""

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices
from traces import DECODE, PREFILL, RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

TOKENS, LAYERS, TOP_K, EXPERTS = 5, 3, 2, 8
IDS = np.stack(
    [
        [np.random.default_rng(7 * token + layer).permutation(EXPERTS)[:TOP_K] for layer in range(LAYERS)]
        for token in range(TOKENS)
    ]
)
COLUMNS = {"token": "tok", "layer": "lay", "ids": "exp"}


def attempt(path: Path, columns: dict[str, str] | None = None, **options: Any) -> Imported:
    given = {"model": "toy", "experts": EXPERTS, "columns": columns or COLUMNS, **options}
    return import_recording(path, None, ImportOptions.parse(given, origin="test"))


def load(path: Path, columns: dict[str, str] | None = None, **options: Any) -> RoutingTrace:
    imported = attempt(path, columns, **options)
    assert imported.format == "table"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows_text(row: Callable[[int, int, npt.NDArray[np.int64]], str]) -> str:
    return "".join(row(token, layer, IDS[token, layer]) + "\n" for token in range(TOKENS) for layer in range(LAYERS))


def joined(ids: npt.NDArray[np.int64], gap: str) -> str:
    return gap.join(map(str, ids))


TEXTS: dict[str, tuple[str, dict[str, str]]] = {
    "spaces in a cell": ("tok,lay,exp\n" + rows_text(lambda t, n, i: f"{t},{n},{joined(i, ' ')}"), COLUMNS),
    "a quoted list": ("tok,lay,exp\n" + rows_text(lambda t, n, i: f'{t},{n},"{joined(i, ", ")}"'), COLUMNS),
    "brackets": ("tok,lay,exp\n" + rows_text(lambda t, n, i: f"{t},{n},[{joined(i, ' ')}]"), COLUMNS),
    "brackets and commas": ("tok,lay,exp\n" + rows_text(lambda t, n, i: f"{t},{n},[{joined(i, ', ')}]"), COLUMNS),
    "bars": ("lay,exp,tok\n" + rows_text(lambda t, n, i: f"{n},{joined(i, '|')},{t}"), COLUMNS),
    "tabs": ("tok\tlay\texp\n" + rows_text(lambda t, n, i: f"{t}\t{n}\t{joined(i, ',')}"), COLUMNS),
    "semicolons": ("tok;lay;exp\n" + rows_text(lambda t, n, i: f"{t}; {n}; {joined(i, ',')}"), COLUMNS),
    "aligned": ("tok  lay  exp\n" + rows_text(lambda t, n, i: f"{t:3d}  {n:3d}  {joined(i, ',')}"), COLUMNS),
    "a title, comments and a marked heading": (
        "=== log ===\n# of yesterday\n\n#  tok, lay, exp \n"
        + rows_text(lambda t, n, i: f"{t},{n},{joined(i, ' ')}")
        + "# the end\n\n",
        COLUMNS,
    ),
    "a byte order mark": ("\ufefftok,lay,exp\n" + rows_text(lambda t, n, i: f"{t},{n},{joined(i, ' ')}"), COLUMNS),
    "further columns": (
        "time,tok,lay,exp,note\n" + rows_text(lambda t, n, i: f'9.5,{t},{n},{joined(i, ";")},"a, b"'),
        COLUMNS,
    ),
    "wide": (
        "tok,lay,e_0,e_1,e_w_0\n" + rows_text(lambda t, n, i: f"{t},{n},{joined(i, ',')},0.5"),
        {**COLUMNS, "ids": "e_*"},
    ),
    "a range": (
        "e1,e2,tok,lay\n" + rows_text(lambda t, n, i: f"{joined(i, ',')},{t},{n}"),
        {**COLUMNS, "ids": "e1..e2"},
    ),
    "names": ("a,b,tok,lay\n" + rows_text(lambda t, n, i: f"{joined(i, ',')},{t},{n}"), {**COLUMNS, "ids": "a,b"}),
    "no heading": (
        rows_text(lambda t, n, i: f"{n},{t},{joined(i, ',')}"),
        {"layer": "#1", "token": "#2", "ids": "#3,#4"},
    ),
    "one expert a row": (
        "tok,lay,exp\n" + rows_text(lambda t, n, i: "\n".join(f"{t},{n},{expert}" for expert in i)),
        {"token": "tok", "layer": "lay", "expert": "exp"},
    ),
    "JSON Lines": (
        rows_text(lambda t, n, i: json.dumps({"tok": t, "lay": n, "exp": i.tolist(), "more": {}})),
        COLUMNS,
    ),
    "JSON Lines with a byte order mark": (
        "\ufeff" + rows_text(lambda t, n, i: json.dumps({"tok": t, "lay": n, "exp": joined(i, " ")})),
        COLUMNS,
    ),
    "JSON Lines of all layers": (
        "".join(json.dumps({"tok": t, "exp": IDS[t].tolist()}) + "\n" for t in range(TOKENS)),
        {"token": "tok", "ids": "exp"},
    ),
    "by layer": (
        "tok,lay,exp\n" + "".join(f"{t},{n},{joined(IDS[t, n], ' ')}\n" for n in range(LAYERS) for t in range(TOKENS)),
        COLUMNS,
    ),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_however_it_is_written_the_routing_is_the_same(name: str, zipped: bool, tmp_path: Path) -> None:
    text, columns = TEXTS[name]
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    trace = load(path, columns)
    np.testing.assert_array_equal(trace.expert_ids, IDS)
    assert trace.position.tolist() == list(range(TOKENS))
    assert trace.metadata.layer_map == (0, 1, 2)
    assert not trace.metadata.has_unrecorded


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


@pytest.mark.parametrize("kind", ["list", "fixed", "large", "text", "wide", "nested"])
def test_parquet(kind: str, tmp_path: Path) -> None:
    token, layer = np.divmod(np.arange(TOKENS * LAYERS), LAYERS)
    lists = IDS.reshape(-1, TOP_K).tolist()
    types = {"list": pa.list_(pa.int16()), "fixed": pa.list_(pa.uint8(), TOP_K), "large": pa.large_list(pa.uint64())}
    columns: dict[str, Any] = {"tok": pa.array(token, pa.uint64()), "lay": pa.array(layer, pa.int8())}
    named = dict(COLUMNS)
    if kind in types:
        columns["exp"] = pa.array(lists, types[kind])
    elif kind == "text":
        columns["exp"] = pa.array([str(row) for row in lists]).dictionary_encode()
    elif kind == "wide":
        columns |= {f"e{slot}": IDS.reshape(-1, TOP_K)[:, slot] for slot in range(TOP_K)}
        named["ids"] = "e*"
    else:
        columns = {"tok": np.arange(TOKENS), "exp": pa.array(IDS.tolist(), pa.list_(pa.list_(pa.int32())))}
        del named["layer"]
    trace = load(parquet(tmp_path / "t.parquet", **columns), named)
    np.testing.assert_array_equal(trace.expert_ids, IDS)


def test_parquet_faults_are_told_by_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    good = {"tok": [0, 1], "lay": [0, 0], "exp": [[1, 2], [3, 4]]}
    faults: list[tuple[dict[str, Any], str]] = [
        ({"exp": pa.array([[1.0, 2.0], [3.0, 4.0]])}, r"row 0: exp: the column's type is double"),
        ({"exp": [[1, 2], None]}, r"row 1: exp: empty"),
        ({"exp": [[1, 2], [3, None]]}, r"row 1: exp: empty"),
        ({"exp": [[1, 2], [3]]}, r"row 1: exp: 1 ids; the rows before have 2"),
        ({"tok": [0, None]}, r"row 1: tok: empty"),
        ({"tok": [0, -1]}, r"row 1: tok: -1; expected a whole number"),
        ({"lay": ["0", "x"]}, r"row 1: lay: 'x'; expected a whole number"),
        ({"lay": [0, 0], "tok": [True, False]}, r"row 0: tok: the column's type is bool"),
        # 2^64 − 1 is not −1, which would mean "not recorded".
        ({"exp": pa.array([[1, 2], [2**64 - 1] * 2], pa.list_(pa.uint64()))}, r"row 1: exp: .*; expected expert ids"),
        ({"tok": pa.array([0, 2**64 - 1], pa.uint64())}, r"row 1: tok: \d+; expected a whole number"),
    ]
    for change, message in faults:
        parquet(path, **{**good, **change})
        with pytest.raises(ForestageError, match=message):
            load(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ForestageError, match=r"t\.parquet: damaged or no Parquet file"):
        load(path)


def test_weights_phases_identities_sequences_and_labels_are_what_their_columns_say(tmp_path: Path) -> None:
    text = "req,tok,lay,exp,w,ph,vocab,lang\n"
    for number, request in enumerate(("b", "a")):
        for token in range(3):
            for layer in range(2):
                phase = "Prompt" if token < 2 else "generated"
                ids = f"{token + number} {layer + 4}"
                text += f"{request},{10 + token},{layer},{ids},0.75 0.25,{phase},{900 + token},{request}x\n"
    columns = {"sequence": "req", "token": "tok", "layer": "lay", "ids": "exp", "weights": "w", "phase": "ph"}
    columns |= {"token_id": "vocab", "domain": "lang", "dataset": "req"}
    imported = attempt(written(tmp_path / "t.csv", text), columns)
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert imported.warnings == ()
    assert trace.sequence_offsets.tolist() == [0, 3, 6]
    assert trace.position.tolist() == [0, 1, 2] * 2
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE] * 2
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [900, 901, 902] * 2
    assert (trace.domains, trace.datasets) == (("bx", "ax"), ("b", "a"))
    assert (trace.metadata.ranked, trace.metadata.gate_weight_kind) == (True, "normalised")
    positions = load(tmp_path / "t.csv", {**{k: v for k, v in columns.items() if k != "token"}, "position": "tok"})
    assert positions.position.tolist() == [10, 11, 12] * 2


def test_sequences_may_come_in_turn(tmp_path: Path) -> None:
    text = "req,tok,lay,exp\n"
    for token in range(3):
        for request in (6, 9):
            text += "".join(f"{request},{token},{layer},{token + layer} {request - 2}\n" for layer in range(2))
    trace = load(written(tmp_path / "t.csv", text), {**COLUMNS, "sequence": "req"})
    assert choices(trace) == {
        (sequence, token, layer): (token + layer, request - 2)
        for sequence, request in enumerate((6, 9))
        for token in range(3)
        for layer in range(2)
    }


def test_rows_in_any_order_need_positions_and_the_remedy_that_is_told_works(tmp_path: Path) -> None:
    rows = [f"a,{t},{n},{joined(IDS[t, n], ' ')}\n" for t in range(TOKENS) for n in range(LAYERS)]
    path = written(tmp_path / "t.csv", "seq,tok,lay,exp\n" + "".join(reversed(rows)))
    with pytest.raises(ForestageError, match=r"name them with --column position= in place of token=") as caught:
        load(path, {**COLUMNS, "sequence": "seq"})
    assert "--column sequence=" not in str(caught.value)
    columns = {"sequence": "seq", "position": "tok", "layer": "lay", "ids": "exp"}
    np.testing.assert_array_equal(load(path, columns).expert_ids, IDS)


def test_tokens_that_begin_anew_begin_a_sequence_and_it_is_told(tmp_path: Path) -> None:
    text = TEXTS["spaces in a cell"][0]
    body = text.removeprefix("tok,lay,exp\n")
    imported = attempt(written(tmp_path / "t.csv", text + body))
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert trace.sequence_offsets.tolist() == [0, TOKENS, 2 * TOKENS]
    assert any("tok: the numbers begin anew 1 times" in warning for warning in imported.warnings)


PASSES = "lay,exp\n" + rows_text(lambda t, n, i: f"{n},{joined(i, ' ')}")
PASS_COLUMNS = {"layer": "lay", "ids": "exp"}


def test_without_tokens_layers_that_begin_anew_tell_them(tmp_path: Path) -> None:
    imported = attempt(written(tmp_path / "t.log", PASSES), PASS_COLUMNS, phase="decode")
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    np.testing.assert_array_equal(trace.expert_ids, IDS)
    assert (trace.sequences, set(trace.phase.tolist())) == (1, {DECODE})
    assert any("layers begin anew 5 times" in warning for warning in imported.warnings)


def test_a_pass_of_several_tokens_is_a_prompt_and_the_single_ones_after_it_are_decoding(tmp_path: Path) -> None:
    text = "lay,exp\n"
    for _ in range(2):
        text += "".join(f"{n},{joined(IDS[t, n], ' ')}\n" for n in range(LAYERS) for t in range(3))
        text += "".join(f"{n},{joined(IDS[t, n], ' ')}\n" for t in range(3, TOKENS) for n in range(LAYERS))
    trace = load(written(tmp_path / "t.log", text), PASS_COLUMNS)
    np.testing.assert_array_equal(trace.expert_ids, np.concatenate([IDS, IDS]))
    assert trace.phase.tolist() == [PREFILL] * 3 + [DECODE] * 2 + [PREFILL] * 3 + [DECODE] * 2
    assert trace.sequence_offsets.tolist() == [0, 5, 10]


def test_passes_that_do_not_come_out_whole_are_refused(tmp_path: Path) -> None:
    lines = PASSES.splitlines(keepends=True)
    path = tmp_path / "t.log"
    with pytest.raises(ForestageError, match=r"line 5: the rows from here on lacks? layer 1"):
        load(written(path, "".join(lines[:5] + lines[6:])), PASS_COLUMNS)
    with pytest.raises(ForestageError, match=r"line 14: the rows from here on lack layer 2"):
        load(written(path, "".join(lines[:-1])), PASS_COLUMNS)
    with pytest.raises(ForestageError, match=r"line 5: from here on 1 rows of layer 0, but 2 of layer 1"):
        load(written(path, "".join([*lines[:6], lines[5], *lines[6:]])), PASS_COLUMNS)
    batch = "lay,exp\n" + "".join(f"{n},{t} {n + 4}\n" for _ in range(2) for n in range(2) for t in range(2))
    with pytest.raises(ForestageError, match=r"line 6: 2 rows a layer after 2: a batch, or several prompts; name"):
        load(written(path, batch), PASS_COLUMNS)


GOOD = ["tok,lay,exp", "0,0,1 2", "0,1,3 4", "1,0,5 6", "1,1,7 0"]
FAULTS: dict[str, tuple[list[str], str]] = {
    "a float as an id": ([*GOOD[:2], "0,1,3.0 4", *GOOD[3:]], r"line 3: exp: '3\.0 4'; expected expert ids"),
    "an id that is no number": ([*GOOD[:2], "0,1,a 4", *GOOD[3:]], r"line 3: exp: 'a 4'"),
    "an empty list": ([*GOOD[:2], "0,1,", *GOOD[3:]], r"line 3: exp: ''"),
    "a list cut short": ([*GOOD[:2], "0,1,3", *GOOD[3:]], r"line 3: exp: 1 ids; the rows before have 2"),
    "an unclosed bracket": ([*GOOD[:2], "0,1,[3 4", *GOOD[3:]], r"line 3: exp: '\[3 4'"),
    "two separators": ([*GOOD[:2], '0,1,"3,4;5"', *GOOD[3:]], r"line 3: exp: '3,4;5'"),
    "half not recorded": ([*GOOD[:2], "0,1,3 -1", *GOOD[3:]], r"line 3: exp: \[3, -1\]: some ids are -1"),
    "an id below -1": ([*GOOD[:2], "0,1,3 -2", *GOOD[3:]], r"line 3: exp: '3 -2'"),
    "beyond the experts": (
        [*GOOD[:2], "0,1,3 8", *GOOD[3:]],
        r"line 3: expert ids \[3, 8\]: the model has experts 0 to 7",
    ),
    "beyond every model": ([*GOOD[:2], "0,1,3 70000", *GOOD[3:]], r"line 3: exp: \[3, 70000\]; expected .* 0 to 65534"),
    "a negative token": ([*GOOD[:2], "-1,1,3 4", *GOOD[3:]], r"line 3: tok: '-1'; expected a whole number"),
    "a float as a token": ([*GOOD[:2], "0.0,1,3 4", *GOOD[3:]], r"line 3: tok: '0\.0'"),
    "no token": ([*GOOD[:2], ",1,3 4", *GOOD[3:]], r"line 3: tok: ''; expected a whole number"),
    "NaN as a token": ([*GOOD[:2], "NaN,1,3 4", *GOOD[3:]], r"line 3: tok: 'NaN'"),
    "thousands": ([*GOOD[:2], '"1,000",1,3 4', *GOOD[3:]], r"line 3: tok: '1,000'"),
    "a token and layer twice": ([*GOOD[:3], "0,1,3 5", *GOOD[3:]], r"line 4: token 0, layer 1: came before, in line 3"),
    "a row too long": ([*GOOD[:2], "0,1,3 4,9", *GOOD[3:]], r"line 3: 4 cells, but the table has 3 columns"),
    "a row too short": ([*GOOD[:2], "0,1", *GOOD[3:]], r"line 3: 2 cells, but the table has 3 columns"),
    "the heading again": ([*GOOD, GOOD[0]], r"line 6: exp: 'exp'"),
    "rows above the heading": (["0,0,1 2", *GOOD], r"line 1: a row above the heading"),
    "a last token cut off": (GOOD[:-1], r"line 4: token 1, the last of its sequence, lacks layer 1"),
    "no rows": (GOOD[:1], r"no rows after the heading"),
    "an open quote": ([*GOOD, '2,0,"1 2'], r"line \d+: not readable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cell_that_would_be_a_guess_is_refused_by_line_and_column(fault: str, tmp_path: Path) -> None:
    lines, message = FAULTS[fault]
    path = written(tmp_path / "t.csv", "".join(f"{line}\n" for line in lines))
    with pytest.raises(ForestageError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_ends_within_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="line 5: has no line end; was the file cut off"):
        load(written(tmp_path / "t.csv", "\n".join(GOOD)))


@pytest.mark.parametrize("weight", ["-0.5", "nan", "inf", "1e999", "x", ""])
def test_a_weight_that_is_none_is_refused(weight: str, tmp_path: Path) -> None:
    text = f"tok,lay,exp,w\n0,0,1 2,0.5 0.5\n0,1,3 4,0.5 {weight}\n"
    with pytest.raises(ForestageError, match=r"line 3: w: "):
        load(written(tmp_path / "t.csv", text), {**COLUMNS, "weights": "w"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tok": 0, "lay": 1, "exp": [3.0, 4]}', r"line 2: exp: '\[3\.0, 4\]'"),
        ('{"tok": 0, "lay": 1, "exp": [true, 4]}', r"line 2: exp: '\[True, 4\]'"),
        ('{"tok": 0, "lay": 1, "exp": null}', r"line 2: exp: 'None'"),
        ('{"tok": true, "lay": 1, "exp": [3, 4]}', r"line 2: tok: 'True'"),
        ('{"tok": 0, "lay": 1}', r"line 2: has no 'exp', but others of the named columns"),
        ('{"tok": 0, "lay": 1, "lay": 2, "exp": [3, 4]}', r"line 2: not valid JSON \('lay' comes twice in an object\)"),
        ('{"tok": 0, "lay": 1, "exp": [3, 4]', r"line 2: not valid JSON"),
        ("[0, 1]", r"line 2: a JSON list"),
        ('{"tok": 0, "lay": 1, "exp": [3, 99999999999999999999]}', r"line 2: exp: "),
    ],
)
def test_a_json_value_that_would_be_a_guess_is_refused(line: str, message: str, tmp_path: Path) -> None:
    first = '{"tok": 0, "lay": 0, "exp": [1, 2]}'
    with pytest.raises(ForestageError, match=message):
        load(written(tmp_path / "t.jsonl", f"{first}\n{line}\n"))


def test_lines_of_other_kinds_are_left_out_and_counted(tmp_path: Path) -> None:
    text = '{"event": "start"}\n' + TEXTS["JSON Lines"][0] + '{"event": "end"}\n'
    imported = attempt(written(tmp_path / "t.jsonl", text))
    assert imported.recording.experts == EXPERTS
    assert any("2 lines have none of the named columns" in warning for warning in imported.warnings)


def test_lines_taken_as_comments_are_told(tmp_path: Path) -> None:
    text = "req,tok,lay,exp\na,0,0,1 2\n#7,0,0,3 4\n"
    imported = attempt(written(tmp_path / "t.csv", text), {**COLUMNS, "sequence": "req"})
    assert any("1 lines below the heading begin with #; they are taken as comments" in w for w in imported.warnings)


def test_rows_of_minus_one_are_not_recorded(tmp_path: Path) -> None:
    lines = [*GOOD[:2], "0,1,-1 -1", *GOOD[3:]]
    imported = attempt(written(tmp_path / "t.csv", "".join(f"{line}\n" for line in lines)))
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert trace.recorded().tolist() == [[True, False], [True, True]]
    assert any("1 rows (token, layer) hold only -1" in warning for warning in imported.warnings)


def test_ids_that_count_from_one_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    text = "tok,lay,exp\n" + "".join(
        f"{t},{n},{joined(rng.permutation(7)[:2] + 1, ' ')}\n" for t in range(200) for n in range(2)
    )
    imported = attempt(written(tmp_path / "t.csv", text))
    assert any("no row has expert 0, in any layer; do the ids count from 1?" in w for w in imported.warnings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"layer": "lay", "idz": "exp"}, r"--column idz=exp: unknown role 'idz'; the nearest is 'ids'"),
        ({"layer": "lay", "load": "exp"}, r"unknown role 'load'; the nearest is 'count'"),
        ({**COLUMNS, "layer": "layer"}, r"line 1: --column layer=layer: no such column; .*there are tok, lay, exp"),
        ({**COLUMNS, "ids": "expert_*"}, r"--column ids=expert_\*: no column is numbered so"),
        ({**COLUMNS, "layer": "lay,exp"}, r"--column layer=lay,exp: several columns; only count, ids, weights"),
        ({**COLUMNS, "ids": "#4"}, r"--column ids=#4: the table has 3 columns"),
        ({**COLUMNS, "position": "tok"}, r"--column token and --column position say the same"),
        ({**COLUMNS, "expert": "exp"}, r"--column ids or --column expert: both given"),
        ({"layer": "lay", "token": "tok"}, r"--column ids or --column expert: neither given"),
        ({"layer": "lay", "expert": "exp"}, r"--column token: missing; rows of one expert each need the token"),
        ({"token": "tok", "count": "exp"}, r"--column token: a table of loads \(count\) has no use for it"),
        ({**COLUMNS, "step": "tok"}, r"--column step: goes with count"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=message):
        load(written(tmp_path / "t.csv", "".join(f"{line}\n" for line in GOOD)), columns)


def test_numbered_columns_come_in_the_order_of_their_numbers_and_without_a_gap(tmp_path: Path) -> None:
    text = "tok,lay,e_10,e_9\n0,0,1,2\n0,1,3,4\n"
    trace = load(written(tmp_path / "t.csv", text), {**COLUMNS, "ids": "e_*"})
    assert trace.expert_ids.tolist() == [[[2, 1], [4, 3]]]
    with pytest.raises(ForestageError, match="has e_7 and e_9, but none between"):
        load(written(tmp_path / "t.csv", text.replace("e_10", "e_7")), {**COLUMNS, "ids": "e_*"})
    with pytest.raises(ForestageError, match="2 columns are called 'e'"):
        load(written(tmp_path / "t.csv", "tok,lay,e,e\n0,0,1,2\n"), {**COLUMNS, "ids": "e"})


def test_the_separator_is_the_users_where_the_text_leaves_it_open(tmp_path: Path) -> None:
    path = written(tmp_path / "t.txt", "0;0;1,2\n0;1;3,4\n")
    columns = {"token": "#1", "layer": "#2", "ids": "#3"}
    assert load(path, columns, separator=";").expert_ids.tolist() == [[[1, 2], [3, 4]]]
    assert load(written(tmp_path / "n.txt", path.read_text()), columns, separator="semicolon").tokens == 1
    tabs = written(tmp_path / "t.tsv", path.read_text().replace(";", "\t"))
    assert load(tabs, columns, separator="\\t").expert_ids.tolist() == [[[1, 2], [3, 4]]]
    for odd in ("||", "x", '"', "#"):
        with pytest.raises(ForestageError, match="expected one character, or one of comma, tab, semicolon, bar, space"):
            load(path, columns, separator=odd)
    with pytest.raises(ForestageError, match="no separator gives 4 columns"):
        load(path, {**columns, "ids": "#4"})
    with pytest.raises(ForestageError, match="--separator: the file is no separated text"):
        load(written(tmp_path / "t.jsonl", TEXTS["JSON Lines"][0]), separator=",")


def test_options_without_columns_and_columns_of_other_formats_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "".join(f"{line}\n" for line in GOOD))
    with pytest.raises(ForestageError, match="--format table needs the columns by name: --column layer=NAME"):
        import_recording(path, "table", ImportOptions(model="toy"))
    with pytest.raises(ForestageError, match="--column: the format dynande has no use for it"):
        import_recording(path, "dynande", ImportOptions(columns=COLUMNS))
    with pytest.raises(ForestageError, match="--files: says what each file of a folder is, but this is a file"):
        load(path, files="rank")


def test_physical_experts_are_mapped(tmp_path: Path) -> None:
    logical = np.stack([np.random.default_rng(n).permutation(EXPERTS) for n in range(LAYERS)])
    layout = [
        {
            "layer_id": n,
            "device_count": 2,
            "device_list": [
                {"device_id": d, "device_expert": experts.tolist()} for d, experts in enumerate(np.split(row, 2))
            ],
        }
        for n, row in enumerate(logical)
    ]
    expert_map = written(tmp_path / "map.json", json.dumps({"moe_layer_count": LAYERS, "layer_list": layout}))
    path = written(tmp_path / "t.csv", TEXTS["spaces in a cell"][0])
    trace = load(path, expert_map=expert_map)
    np.testing.assert_array_equal(trace.expert_ids, logical[np.arange(LAYERS)[None, :, None], IDS])
    with pytest.raises(ForestageError, match=r"map\.json: layer_list: maps to 8 logical experts, but --experts says 9"):
        load(path, expert_map=expert_map, experts=9)
    with pytest.raises(ForestageError, match=r"line 2: expert ids .*: the expert map has physical experts 0 to 7"):
        load(written(tmp_path / "t.csv", "tok,lay,exp\n0,0,8 1\n0,1,1 2\n0,2,1 2\n"), expert_map=expert_map)
    with pytest.raises(ForestageError, match=r"2 layers, but the expert map .* has 3"):
        load(written(tmp_path / "t.csv", "tok,lay,exp\n0,0,7 1\n0,1,1 2\n"), expert_map=expert_map)


# Folders


def parts(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_of_layers(tmp_path: Path) -> None:
    texts = {
        f"moe_layer_{layer + 9}.csv": "exp\n" + "".join(f"{joined(IDS[t, layer], ' ')}\n" for t in range(TOKENS))
        for layer in range(LAYERS)
    }
    folder = parts(tmp_path / "run", texts)
    trace = load(folder, {"ids": "exp"}, files="layer")
    np.testing.assert_array_equal(trace.expert_ids, IDS)
    assert trace.metadata.layer_map == (9, 10, 11)
    with pytest.raises(ForestageError, match="a folder; say what each of its files is with --files sequence"):
        load(folder, {"ids": "exp"})
    with pytest.raises(ForestageError, match="--column layer: the files are layers"):
        load(folder, {"ids": "exp", "layer": "exp"}, files="layer")
    short = folder / "moe_layer_10.csv"
    short.write_text("exp\n1 2\n")
    with pytest.raises(ForestageError, match="token 1 lacks layer 10"):
        load(folder, {"ids": "exp"}, files="layer")
    (folder / "run_1_of_2.csv").write_text("exp\n1 2\n")
    with pytest.raises(ForestageError, match=r"run_1_of_2\.csv: which layer"):
        load(folder, {"ids": "exp"}, files="layer")


def test_a_folder_of_layers_joins_tokens_by_their_numbers(tmp_path: Path) -> None:
    """In another order in every layer's file."""
    texts = {
        f"layer{layer}.csv": "tok,exp\n"
        + "".join(
            f"{t},{joined(IDS[t, layer], ' ')}\n" for t in sorted(range(TOKENS), key=lambda t: (t > 0, t * layer))
        )
        for layer in range(LAYERS)
    }
    trace = load(parts(tmp_path / "run", texts), {"token": "tok", "ids": "exp"}, files="layer")
    np.testing.assert_array_equal(trace.expert_ids, IDS)


def test_a_folder_of_sequences(tmp_path: Path) -> None:
    texts = {
        f"prompt_{number}.csv": "lay,exp\n"
        + "".join(f"{n},{joined(IDS[t, n], ' ')}\n" for n in range(LAYERS) for t in range(number))
        for number in (10, 2)
        if not (number > TOKENS)
    }
    texts["prompt_10.csv"] = "lay,exp\n" + rows_text(lambda t, n, i: f"{n},{joined(i, ' ')}")
    folder = parts(tmp_path / "run", {**texts, "notes.md": "x"})
    imported = attempt(folder, PASS_COLUMNS, files="sequence")
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    np.testing.assert_array_equal(trace.expert_ids, np.concatenate([IDS[:2], IDS]))
    assert trace.sequence_offsets.tolist() == [0, 2, 7]
    assert any("notes.md left out" in warning for warning in imported.warnings)


def test_ranks_that_say_the_same_count_once_and_others_are_joined(tmp_path: Path) -> None:
    lines = TEXTS["spaces in a cell"][0].splitlines(keepends=True)
    whole = "".join(lines)
    imported = attempt(parts(tmp_path / "same", {"rank0.csv": whole, "rank1.csv": whole}), files="rank")
    assert isinstance(imported.recording, RoutingTrace)
    np.testing.assert_array_equal(imported.recording.expert_ids, IDS)
    assert any(f"{TOKENS * LAYERS} rows (token, layer) repeat another" in warning for warning in imported.warnings)
    split = {"rank0.csv": "".join([lines[0], *lines[1:7]]), "rank1.csv": "".join([lines[0], *lines[7:]])}
    np.testing.assert_array_equal(load(parts(tmp_path / "split", split), files="rank").expert_ids, IDS)
    stages = {
        f"rank{rank}.csv": lines[0] + "".join(line for line in lines[1:] if (line.split(",")[1] == "0") == (rank == 0))
        for rank in range(2)
    }
    np.testing.assert_array_equal(load(parts(tmp_path / "stages", stages), files="rank").expert_ids, IDS)
    other = whole.replace(joined(IDS[2, 1], " "), "0 1" if set(IDS[2, 1]) != {0, 1} else "2 3")
    with pytest.raises(
        ForestageError, match=r"rank1\.csv: line \d+: token \d, layer \d: other experts than in .*rank0"
    ):
        load(parts(tmp_path / "own", {"rank0.csv": whole, "rank1.csv": other}), files="rank")


# Loads


def load_of(path: Path, columns: dict[str, str], **options: Any) -> tuple[ExpertLoad, tuple[str, ...]]:
    imported = attempt(path, columns, **options)
    assert isinstance(imported.recording, ExpertLoad)
    return imported.recording, imported.warnings


COUNTS = np.random.default_rng(3).integers(0, 50, (2, LAYERS, EXPERTS))
LOAD_COLUMNS = {"layer": "l", "expert": "e", "count": "n", "step": "s"}


def test_a_table_of_loads(tmp_path: Path) -> None:
    rows = [(s, n, e, COUNTS[s, n, e]) for s in range(2) for n in range(LAYERS) for e in range(EXPERTS)]
    kept = [row for row in rows if row[3]]
    text = "s,l,e,n\n" + "".join(",".join(map(str, row)) + "\n" for row in kept)
    loads, _ = load_of(written(tmp_path / "t.csv", text), LOAD_COLUMNS)
    np.testing.assert_array_equal(loads.counts, COUNTS)
    columns = dict(zip("slen", (list(column) for column in zip(*kept, strict=True)), strict=True))
    loads, _ = load_of(parquet(tmp_path / "t.parquet", **columns), LOAD_COLUMNS)
    np.testing.assert_array_equal(loads.counts, COUNTS)
    with pytest.raises(ForestageError, match=r"line \d+: layer 0, expert \d: came before, in .*line 2"):
        load_of(tmp_path / "t.csv", {k: v for k, v in LOAD_COLUMNS.items() if k != "step"})
    with pytest.raises(
        ForestageError, match="experts: the largest is 7, but more may be without a load; give --experts"
    ):
        load_of(tmp_path / "t.csv", LOAD_COLUMNS, experts=None)
    with pytest.raises(ForestageError, match="expert 7: the model has experts 0 to 6"):
        load_of(tmp_path / "t.csv", LOAD_COLUMNS, experts=7)


def test_a_table_of_loads_with_all_experts_in_a_row(tmp_path: Path) -> None:
    heading = "s,l," + ",".join(f"x{expert}" for expert in range(EXPERTS))
    text = heading + "\n" + "".join(f"{s},{n},{joined(COUNTS[s, n], ',')}\n" for s in range(2) for n in range(LAYERS))
    columns = {"step": "s", "layer": "l", "count": "x*"}
    loads, _ = load_of(written(tmp_path / "t.csv", text), columns, experts=None, model="toy")
    np.testing.assert_array_equal(loads.counts, COUNTS)
    with pytest.raises(ForestageError, match="--experts 9: the file says 8"):
        load_of(tmp_path / "t.csv", columns, experts=9)


def test_ranks_of_loads_are_added_up_and_copies_counted_once(tmp_path: Path) -> None:
    def text(counts: npt.NDArray[np.int64]) -> str:
        return "l,e,n\n" + "".join(f"{n},{e},{counts[n, e]}\n" for n in range(LAYERS) for e in range(EXPERTS))

    columns = {k: v for k, v in LOAD_COLUMNS.items() if k != "step"}
    texts = {"r0.csv": text(COUNTS[0]), "r1.csv": text(COUNTS[1]), "r2.csv": text(COUNTS[0])}
    loads, warnings = load_of(parts(tmp_path / "run", texts), columns, files="rank")
    np.testing.assert_array_equal(loads.counts[0], COUNTS.sum(axis=0))
    assert any("1 ranks counted the same as another" in warning for warning in warnings)
    loads, _ = load_of(parts(tmp_path / "run", texts), columns, files="sequence")
    np.testing.assert_array_equal(loads.counts, COUNTS[[0, 1, 0]])


def test_a_layer_without_a_row_in_a_step_is_told_and_an_idle_expert_is_not(tmp_path: Path) -> None:
    rows = [(s, n, e, 1 + COUNTS[s, n, e]) for s in range(2) for n in range(LAYERS) for e in range(EXPERTS - 1)]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    _, warnings = load_of(written(tmp_path / "t.csv", "s,l,e,n\n" + text), LOAD_COLUMNS)
    assert not any("nothing was counted" in warning for warning in warnings)
    text = "".join(",".join(map(str, row)) + "\n" for row in rows if row[:2] != (1, 2))
    _, warnings = load_of(written(tmp_path / "t.csv", "s,l,e,n\n" + text), LOAD_COLUMNS)
    assert any(
        "1 times (step, layer) nothing was counted" in line and "step 1 from 0 on, layer 2" in line for line in warnings
    )


def test_counts_that_are_shares_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "l,e,n\n0,0,0.25\n0,1,0.75\n")
    _, warnings = load_of(path, {"layer": "l", "expert": "e", "count": "n"}, experts=2)
    assert any("counts are no whole numbers" in warning for warning in warnings)


# Unknown files


@pytest.mark.parametrize("name", ["wide", "tabs", "JSON Lines", "brackets"])
def test_the_error_for_an_unknown_table_shows_its_columns_and_the_way_in(name: str, tmp_path: Path) -> None:
    text = TEXTS[name][0].replace("exp", "expert_ids").replace("lay", "layer").replace("tok", "token")
    path = written(tmp_path / "t.txt", text)
    with pytest.raises(
        ForestageError, match=r"looks like a table with the columns .*--format table .*--column"
    ) as caught:
        sniff_format(path)
    suggested = [
        word.removeprefix("--column ") for word in str(caught.value).split("--format table and ")[1].split(" --")
    ]
    if name != "wide":
        assert set(suggested) == {"layer=layer", "column token=token", "column ids=expert_ids"}
    parquet(tmp_path / "t.parquet", layer=[1], token=[2], expert_ids=[[1]])
    with pytest.raises(
        ForestageError, match=r"with the columns layer, token, expert_ids: import it with --format table"
    ):
        sniff_format(tmp_path / "t.parquet")
    with pytest.raises(
        ForestageError, match=r"a folder of tables such as t\.parquet .*--files sequence, layer or rank"
    ):
        sniff_format(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(ForestageError, match=r"a\.npy: no known .*NAME\.npz: expert_ids \[tokens, layers, k\]"):
        sniff_format(tmp_path / "a.npy")


# Met in the field


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("spaced.log", {"layer": "layer_id", "ids": "expert_ids"}),
        ("wide.csv", {"layer": "layer_id", "token": "token_id", "ids": "expert_*"}),
        ("bracketed.csv", {"layer": "Layer", "token": "Token", "ids": "ExpertIDs", "weights": "ExpertWeights"}),
    ],
)
def test_tables_met_in_the_field(name: str, columns: dict[str, str], field_case: Callable[[str], Path]) -> None:
    path = field_case(name)
    trace = load(path, columns, model="Qwen3-30B-A3B", experts=None)
    script = Path(__file__).resolve().parents[3] / "shared" / "field-cases" / "make.py"
    spec = importlib.util.spec_from_file_location("make", script)
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    np.testing.assert_array_equal(trace.expert_ids, make.rows(np.random.default_rng(5), 30))
    assert trace.sequences == 1


def test_a_separator_of_ascii_is_no_blank(tmp_path: Path) -> None:
    """A damaged byte within a number must not part it in two, nor pass for nothing."""
    for cells, message in (("1\x1c2 3,0.5", "line 2: ids"), ("1 2,0.5\x1f", "line 2: score")):
        path = tmp_path / "t.csv"
        path.write_text(f"token,layer,ids,score\n0,0,{cells}\n")
        with pytest.raises(ForestageError, match=message):
            import_recording(
                path,
                "table",
                ImportOptions(
                    model="toy",
                    experts=8,
                    columns={"token": "token", "layer": "layer", "ids": "ids", "weights": "score"},
                ),
            )


def test_a_list_of_one_layer_without_a_layer_column_is_shown_with_the_remedy(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "exp\n1 2\n3 4\n")
    with pytest.raises(ForestageError, match=r"line 2: exp: '1 2'; expected a list of ids .*--column layer="):
        load(path, {"ids": "exp"})
