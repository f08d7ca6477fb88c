"""The importer of DynaNDE's dense CSV, on small files in its layout."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse, lines_of
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

EXPERTS, LAYERS, TOKENS = 6, (2, 5), 4
HEADING = "layer_id,token_id," + ",".join(f"expert_{expert}" for expert in range(EXPERTS))
SCORES = {2: (0.25, 0.125), 5: (0.0625, 0.5)}


def chosen(layer: int, token: int) -> dict[int, float]:
    """Score by selected expert."""
    first = (layer + 2 * token) % EXPERTS
    return dict(zip((first, (first + 2) % EXPERTS), SCORES[layer], strict=True))


def row(layer: int, token: int, shown: int | None = None, mask: bool = False) -> str:
    scores = chosen(layer, token)
    values = [(1.0 if mask else scores[expert]) if expert in scores else 0.0 for expert in range(EXPERTS)]
    return f"{layer if shown is None else shown},{token}," + ",".join(f"{value:.6f}" for value in values)


def text_of(rows: list[str], heading: str = HEADING) -> str:
    return "\n".join([heading, *rows]) + "\n"


ROWS = [row(layer, token) for layer in LAYERS for token in range(TOKENS)]


def load(source: Path, text: str | None = None, **options: object) -> tuple[RoutingTrace, tuple[str, ...]]:
    if text is not None:
        source.write_text(text)
    imported = import_recording(source, None, ImportOptions.parse({"model": "toy", **options}, origin="test"))
    assert imported.format == "dynande"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported.warnings


def expected() -> dict[tuple[int, int, int], tuple[int, ...]]:
    """Ids by descending score."""
    return {
        (0, token, layer): tuple(sorted(chosen(layer, token), key=lambda e: -chosen(layer, token)[e]))
        for layer in LAYERS
        for token in range(TOKENS)
    }


def test_scores_give_rank_order_and_weights(tmp_path: Path) -> None:
    trace, warnings = load(tmp_path / "t.csv", text_of(ROWS))
    assert choices(trace) == expected()
    assert trace.gate_weights is not None
    assert np.all(trace.gate_weights == np.array([[0.25, 0.125], [0.5, 0.0625]]))
    facts = trace.metadata
    assert (facts.experts, facts.layer_map, facts.ranked, facts.gate_weight_kind) == (6, LAYERS, True, "softmax")
    assert [warning.partition(": ")[2] for warning in warnings] == [
        "the format tells no sequences; all tokens are one, in order of token_id",
        "the format tells no phases; all tokens count as prefill (--phase decode)",
    ]
    assert set(trace.phase.tolist()) == {PREFILL}


def test_the_user_says_the_phase(tmp_path: Path) -> None:
    trace, warnings = load(tmp_path / "t.csv", text_of(ROWS), phase="decode")
    assert set(trace.phase.tolist()) == {DECODE}
    assert not any("phases" in warning for warning in warnings)


def test_a_mask_has_no_weights_and_no_rank(tmp_path: Path) -> None:
    trace, _ = load(
        tmp_path / "t.csv", text_of([row(layer, token, mask=True) for layer in LAYERS for token in range(4)])
    )
    assert (trace.gate_weights, trace.metadata.ranked) == (None, False)
    assert choices(trace) == {place: tuple(sorted(ids)) for place, ids in expected().items()}


def test_rows_in_another_order_are_the_same_trace(tmp_path: Path) -> None:
    whole, _ = load(tmp_path / "t.csv", text_of(ROWS))
    assert load(tmp_path / "t.csv", text_of(ROWS[::-1]))[0].equals(whole)


@pytest.mark.parametrize("name", ["Layer_{}/routing.csv", "run_layer{}_firstTokens.csv"])
def test_a_folder_has_a_file_a_layer_by_name(name: str, tmp_path: Path) -> None:
    """As published: the column says 0 in every file."""
    whole, _ = load(tmp_path / "t.csv", text_of(ROWS))
    folder = tmp_path / "Batch_0"
    for layer in LAYERS:
        file = folder / name.format(layer)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text_of([row(layer, token, shown=0) for token in range(TOKENS)]))
        file.with_name("layer_top2_stats.csv").write_text("expert,count\n")
    assert sniff_format(folder) == "dynande"
    trace, _ = load(folder)
    assert choices(trace) == choices(whole)
    file.write_text(text_of([row(5, 0, shown=4)]))
    with pytest.raises(ForestageError, match="line 2: layer_id: 4, but the file is named layer 5"):
        load(folder)
    twin = folder / "copy_layer_5.csv"
    twin.write_text(text_of([row(5, token, shown=0) for token in range(TOKENS)]))
    with pytest.raises(ForestageError, match="layer 5 is also in"):
        load(folder)


FAULTS: dict[str, tuple[str, str]] = {
    "heading": (text_of(ROWS, HEADING.replace("expert_3", "expert_9")), "line 1: expected the heading layer_id,token"),
    "no rows": (text_of([]), "no routing rows in it"),
    "cut off": (text_of(ROWS)[:-3], "line 9: has no line end; was the file cut off"),
    "fields": (text_of([*ROWS[:3], "5,1,0.5"]), "line 5: 3 fields, but the heading names 8"),
    "text": (text_of([*ROWS[:3], ROWS[4].replace("0.5", "x")]), "line 5: expert_1: .*is no number"),
    "blank": (text_of([*ROWS[:3], "", *ROWS[3:]]), "line 5: empty line"),
    "nan": (text_of([*ROWS[:3], ROWS[4].replace("0.500000", "nan")]), "line 5: expert_.: nan; expected a number"),
    "negative": (text_of([ROWS[0].replace("0.25", "-0.25")]), "line 2: expert_2: -0.25; expected a number"),
    "layer": (text_of(["1.5" + ROWS[0][1:]]), "line 2: layer_id: 1.5; expected a whole number"),
    "k differs": (
        text_of([*ROWS[:3], ROWS[4].replace("0.500000", "0.000000")]),
        "line 5: 1 experts are not 0; the rows",
    ),
    "dense": (text_of(["0,0,1,1,1,1,1,1"]), "line 2: every expert is selected"),
    "none": (text_of(["0,0,0,0,0,0,0,0"]), "line 2: no expert is selected"),
    "mask then scores": (text_of(["2,0,1,0,1,0,0,0"] * 1024 + ROWS[:1]), "line 1026: scores, but the rows before hold"),
    "twice": (text_of([*ROWS, ROWS[1]]), "line 10: token_id 1, layer 2: came before, in line 3"),
    "row missing": (text_of(ROWS[:2] + ROWS[3:]), "token_id 2 lacks layer 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_line_and_column(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ForestageError, match=message) as caught:
        import_recording(path, "dynande", ImportOptions(model="toy"))
    assert str(caught.value).startswith(str(path))


def test_an_empty_folder_and_one_of_unnamed_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "batch"
    folder.mkdir()
    with pytest.raises(ForestageError, match=r"holds no \.csv file of a layer"):
        import_recording(folder, "dynande", ImportOptions(model="toy"))
    (folder / "routing.csv").write_text(text_of(ROWS))
    with pytest.raises(ForestageError, match=r"routing\.csv: neither the file nor its folder is named by a layer"):
        import_recording(folder, "dynande", ImportOptions(model="toy"))


@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(damaged(text_of(ROWS)))
    path = tmp_path_factory.getbasetemp() / "dense.csv"
    path.write_bytes(content)
    trace = import_or_refuse(path, "dynande", model="toy")
    if trace is None:
        return
    said: dict[tuple[int, int, int], frozenset[int]] = {}
    for line in lines_of(content)[1:]:
        values = [float(field) for field in line.split(",")]
        place = (0, int(values[1]), int(values[0]))
        assert place not in said, "a row that came twice was accepted"
        said[place] = frozenset(expert for expert, value in enumerate(values[2:]) if value)
    assert {place: frozenset(ids) for place, ids in choices(trace).items()} == said
