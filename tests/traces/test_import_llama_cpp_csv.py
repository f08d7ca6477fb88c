"""The importer of llama.cpp's ``layer,expert`` CSV, on small files in its layout."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse, lines_of
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording

EXPERTS, LAYERS, TOP_K = 16, (0, 1, 3), 2
PASSES = (3, 3, 2, 1, 1, 4, 1)
"""Tokens of each pass: a prompt in pieces of 3, 3 and 2, two tokens decoded; a prompt of 4, one token decoded."""


def ids_of(number: int, layer: int, token: int) -> list[int]:
    first = 5 * number + 2 * layer + token
    return [(first + 7) % EXPERTS, first % EXPERTS]


def rows(passes: tuple[int, ...] = PASSES, last_layer_whole: bool = True) -> list[str]:
    """Rows of every pass, by layer, token and choice."""
    return [
        f"{layer},{expert}"
        for number, tokens in enumerate(passes)
        for layer in LAYERS
        for token in range(tokens)
        if last_layer_whole or layer < LAYERS[-1] or token == tokens - 1
        for expert in ids_of(number, layer, token)
    ]


def text_of(lines: list[str]) -> str:
    return "\n".join(["layer,expert", *lines]) + "\n"


def load(path: Path, text: str, **options: object) -> tuple[RoutingTrace, tuple[str, ...]]:
    path.write_text(text)
    options = {"model": "toy", "experts": EXPERTS, "top_k": TOP_K, **options}
    imported = import_recording(path, None, ImportOptions.parse(options, origin="test"))
    assert imported.format == "llama_cpp_csv"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported.warnings


def test_passes_become_prompts_and_decoded_tokens(tmp_path: Path) -> None:
    trace, warnings = load(tmp_path / "t.csv", text_of(rows()))
    assert trace.sequence_offsets.tolist() == [0, 10, 15]
    assert trace.position.tolist() == [*range(10), *range(5)]
    assert trace.phase.tolist() == [PREFILL] * 8 + [DECODE] * 2 + [PREFILL] * 4 + [DECODE]
    tokens = [(number, token) for number, count in enumerate(PASSES) for token in range(count)]
    for row, (number, token) in enumerate(tokens):
        for column, layer in enumerate(LAYERS):
            assert trace.expert_ids[row, column].tolist() == ids_of(number, layer, token)
    assert (trace.metadata.layer_map, trace.metadata.ranked) == (LAYERS, True)
    assert warnings == ()


def test_the_last_layer_may_have_the_last_token_alone(tmp_path: Path) -> None:
    whole, _ = load(tmp_path / "t.csv", text_of(rows((3, 1))))
    trace, _ = load(tmp_path / "t.csv", text_of(rows((3, 1), last_layer_whole=False)))
    missing = {(0, 0, LAYERS[-1]), (0, 1, LAYERS[-1])}
    assert choices(trace) == {place: ids for place, ids in choices(whole).items() if place not in missing}


def test_the_catalogue_tells_the_top_k_and_ascending_ids_are_not_ranked(tmp_path: Path) -> None:
    lines = [f"{layer},{expert}" for layer in range(24) for expert in (3, 4, 5, 31)]
    trace, _ = load(tmp_path / "t.csv", text_of(lines), model="gpt-oss-20b", experts=None, top_k=None)
    assert (trace.tokens, trace.top_k, trace.experts, trace.metadata.ranked) == (1, 4, 32, False)


def test_files_put_together_begin_a_sequence_at_the_heading(tmp_path: Path) -> None:
    trace, _ = load(tmp_path / "t.csv", text_of(rows((3, 1))) + text_of(rows((1, 1))))
    assert trace.sequence_offsets.tolist() == [0, 4, 6]


def test_a_pass_may_reach_over_pieces_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = load(tmp_path / "t.csv", text_of(rows()))
    for lines in (1, 5, 18):
        monkeypatch.setattr("traces.importers.formats.llama_cpp_csv.CHUNK_LINES", lines)
        assert load(tmp_path / "t.csv", text_of(rows()))[0].equals(whole)


def test_a_suspicious_top_k_is_told(tmp_path: Path) -> None:
    _, warnings = load(tmp_path / "t.csv", text_of(rows((1, 1))), top_k=1)
    assert any("no pass of one token at top-k 1" in warning for warning in warnings)


FAULTS: dict[str, tuple[str, str]] = {
    "heading": (text_of(rows()).replace("layer,expert", "layer;expert"), "'layer;expert'; expected the heading"),
    "no rows": (text_of([]), "no rows after the heading"),
    "cut off": (text_of(rows())[:-1], "line 91: has no line end; was the file cut off"),
    "row cut off": (text_of(rows()[:-1]), "line 90: 1 rows of layer 3; expected 1 tokens of 2"),
    "layer cut off": (text_of(rows()[:-2]), "line 86: the pass that begins here lacks layer 3"),
    "new layer": (text_of([*rows(), "9,1", "9,2"]), "line 86: the pass that begins here has layer 9"),
    "row missing": (text_of(rows()[:3] + rows()[4:]), r"line 2: 5 rows of layer 0; expected 3 tokens of 2"),
    "token missing": (text_of(rows()[:2] + rows()[4:]), r"line 2: 4 rows of layer 0; expected 3 tokens of 2"),
    "twice": (text_of([rows()[0], *rows()[:1], *rows()[2:]]), r"line 2: experts \[7, 7\] of one token"),
    "text": (text_of(["0,1", "0,x"]), "line 3: '0,x'; expected two whole numbers"),
    "negative": (text_of(["0,1", "0,-1"]), "line 3: '0,-1'; expected two whole numbers"),
    "blank": (text_of(["0,1", "", "0,2"]), "line 3: ''; expected two whole numbers"),
    "huge": (text_of(["0,1", "0,65535"]), "line 3: expert: 65535; expected at most 65534"),
    "beyond": (text_of(["0,1", "0,16", "1,3", "1,4"]), "id 16; toy has experts 0 to 15"),
    "one layer": (text_of(["3,1", "3,2"]), "only layer 3 is in it, so that passes cannot be told apart"),
    "batch": (text_of(rows((3, 2, 3))), "a pass of 3 tokens after one of 2 is neither the rest of a prompt nor"),
    "larger piece": (text_of(rows((3, 4))), "a pass of 4 tokens after one of 3 is neither"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_line(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ForestageError, match=message) as caught:
        import_recording(path, "llama_cpp_csv", ImportOptions(model="toy", experts=EXPERTS, top_k=TOP_K))
    assert str(caught.value).startswith(str(path))


def test_without_a_top_k_the_file_is_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"top-k: the file does not say .* give --top-k, or name a model"):
        load(tmp_path / "t.csv", text_of(rows()), top_k=None)


@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(damaged(text_of(rows((3, 1, 1)))))
    path = tmp_path_factory.getbasetemp() / "fuzz-llama.csv"
    path.write_bytes(content)
    trace = import_or_refuse(path, "llama_cpp_csv", model="toy", experts=EXPERTS, top_k=TOP_K)
    if trace is None:
        return
    lines = [line for line in lines_of(content)[1:] if line != "layer,expert"]
    said = sorted((int(layer), int(expert)) for layer, expert in (line.split(",") for line in lines))
    held = sorted((layer, expert) for (_, _, layer), ids in choices(trace).items() for expert in ids)
    assert held == said
    # A file cut between layers is one of fewer layers: nothing in it tells.
    assert trace.tokens * trace.layers * TOP_K - len(said) in (0, 2 * TOP_K), "of the prompt's last layer at most"


def test_a_top_k_above_the_rows_of_every_layer_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("layer,expert\n0,1\n0,2\n1,1\n1,3\n")
    with pytest.raises(ForestageError, match=r"line 2: 2 rows of layer 0, no multiple of the 5 experts of a token"):
        import_recording(tmp_path / "t.csv", options=ImportOptions(model="own", experts=8, top_k=5))
