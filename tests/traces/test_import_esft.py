"""The importer of ESFT's expert logs, on small folders in their layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import damaged, fuzz, import_or_refuse, lines_of
from traces import PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format
from traces.selection import select_sequences

LAYERS, LENGTHS, TOP_K = (1, 2, 10), (3, 2), 3


def ids_of(sample: int, layer: int, token: int) -> list[int]:
    first = 5 * sample + 2 * layer + token
    return [first % 16, (first + 9) % 16, (first + 3) % 16]


def weights_of(token: int) -> list[float]:
    return [0.0414, round(0.1 + token / 1000, 4), 0.25]


def line_of(sample: int, layer: int) -> str:
    tokens = range(LENGTHS[sample])
    ids = [str(expert) for token in tokens for expert in ids_of(sample, layer, token)]
    weights = [str(weight) for token in tokens for weight in weights_of(token)]
    return "\t".join(ids) + "\t\t" + "\t".join(weights) + "\n"


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for layer in LAYERS:
        (folder / f"expert_weights_{layer}.txt").write_text("".join(line_of(sample, layer) for sample in (0, 1)))
    (folder / "summary.json").write_text("{}")
    return folder


def load(folder: Path, **options: object) -> RoutingTrace:
    options = {"model": "toy", "experts": 16, "top_k": TOP_K, **options}
    imported = import_recording(folder, None, ImportOptions.parse(options, origin="test"))
    assert imported.format == "esft"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording


def test_a_line_is_a_sample_and_a_file_a_layer(tmp_path: Path) -> None:
    trace = load(write(tmp_path / "intent"))
    assert trace.sequence_offsets.tolist() == [0, 3, 5]
    assert trace.position.tolist() == [0, 1, 2, 0, 1]
    assert set(trace.phase.tolist()) == {PREFILL}
    assert (trace.domains, trace.datasets) == (("intent", "intent"), ("esft", "esft"))
    assert trace.gate_weights is not None
    places = [(sample, token) for sample, length in enumerate(LENGTHS) for token in range(length)]
    for row, (sample, token) in enumerate(places):
        for column, layer in enumerate(LAYERS):
            assert trace.expert_ids[row, column].tolist() == ids_of(sample, layer, token)
            assert np.array_equal(trace.gate_weights[row, column], np.array(weights_of(token), np.float16))
    facts = trace.metadata
    assert (facts.layer_map, facts.ranked, facts.gate_weight_kind) == (LAYERS, False, "softmax")


def test_folders_within_are_domains_and_ranks_of_one(tmp_path: Path) -> None:
    write(tmp_path / "scores" / "law")
    write(tmp_path / "scores" / "intent" / "rank_0")
    write(tmp_path / "scores" / "intent" / "rank_1")
    assert sniff_format(tmp_path / "scores") == "esft"
    assert load(tmp_path / "scores").domains == ("intent",) * 4 + ("law",) * 2
    (tmp_path / "scores" / "law" / "expert_weights_10.txt").unlink()
    with pytest.raises(ForestageError, match=r"law: has the layers \[1, 2\], but .*rank_0 has \[1, 2, 10\]"):
        load(tmp_path / "scores")


def test_the_catalogue_tells_the_top_k(tmp_path: Path) -> None:
    for layer in range(1, 27):
        (tmp_path / f"expert_weights_{layer}.txt").write_text("1\t2\t3\t4\t5\t63\t\t0.1\t0.1\t0.1\t0.01\t0.01\t0.01\n")
    trace = load(tmp_path, model=None, experts=None, top_k=None)
    assert (trace.metadata.model, trace.top_k, trace.experts) == ("DeepSeek-V2-Lite", 6, 64)
    with pytest.raises(ForestageError, match="give --top-k"):
        load(tmp_path, top_k=None)


def test_a_layer_whose_file_is_missing_is_told_unless_the_user_names_the_layers(tmp_path: Path) -> None:
    recorded = (1, 2, *range(4, 27))
    for layer in recorded:
        (tmp_path / f"expert_weights_{layer}.txt").write_text("1\t2\t3\t4\t5\t63\t\t0.1\t0.1\t0.1\t0.01\t0.01\t0.01\n")
    for layers, warnings in (
        (None, ["1 of the 26 MoE layers of DeepSeek-V2-Lite are not in it (3); was it cut off, or is a file missing?"]),
        (recorded, []),
    ):
        imported = import_recording(tmp_path, None, ImportOptions(model="DeepSeek-V2-Lite", layers=layers))
        assert isinstance(imported.recording, RoutingTrace)
        assert imported.recording.metadata.layer_map == recorded
        assert [line.split(": ", 1)[1] for line in imported.warnings] == warnings


def test_the_published_logs_are_what_the_recording_holds(shared_file: Callable[[str], Path], tmp_path: Path) -> None:
    """The recording kept as .npz was made from such files: written back into their layout, it comes in the same."""
    recorded = import_recording(shared_file("deepseek_v2_lite_esft.npz")).recording
    assert isinstance(recorded, RoutingTrace)
    part = select_sequences(recorded, [0, 1, 2])
    assert part.gate_weights is not None
    for column, layer in enumerate(part.metadata.layer_map):
        lines = []
        for sequence in range(part.sequences):
            rows = part.sequence_slice(sequence)
            ids = part.expert_ids[rows, column].reshape(-1).tolist()
            weights = part.gate_weights[rows, column].reshape(-1).tolist()
            lines.append("\t".join(map(str, ids)) + "\t\t" + "\t".join(map(str, weights)) + "\n")
        (tmp_path / f"expert_weights_{layer}.txt").write_text("".join(lines))
    trace = load(tmp_path, model=None, experts=None, top_k=None)
    assert np.array_equal(trace.expert_ids, part.expert_ids)
    assert np.array_equal(trace.gate_weights, part.gate_weights)
    assert np.array_equal(trace.sequence_offsets, part.sequence_offsets)
    assert trace.metadata.layer_map == part.metadata.layer_map


FAULTS: dict[str, tuple[str, str]] = {
    "cut off": (line_of(0, 2) + line_of(1, 2)[:-2], "line 2: has no line end; was the file cut off"),
    "weight missing": (line_of(0, 2) + line_of(1, 2)[:-6] + "\n", "line 2: 5 weights for 6 ids"),
    "no weights": (line_of(0, 2) + line_of(1, 2)[:6] + "\n", "line 2: expected ids, two tabs and weights"),
    "line missing": (line_of(0, 2), "ends before line 2, which other layers have"),
    "line more": (line_of(0, 2) + line_of(1, 2) * 2, r"expert_weights_1\.txt: ends before line 3"),
    "blank": (line_of(0, 2) + "\n", "line 2: expected ids, two tabs and weights"),
    "order": (line_of(1, 2) + line_of(0, 2), r"line 1: 6 ids, but expert_weights_1\.txt has 9 there"),
    "negative": (line_of(0, 2) + "-" + line_of(1, 2), "line 2: expected ids"),
    "nan": (line_of(0, 2).replace("0.25", "nan", 1) + line_of(1, 2), "line 1: weight 3: nan; must be finite"),
    "text": (line_of(0, 2).replace("0.25", "x", 1) + line_of(1, 2), "line 1: weights: could not convert string to"),
    "beyond": (line_of(0, 2).replace("4", "16", 1) + line_of(1, 2), r"layer 2: id 16; toy has experts 0 to 15"),
    "huge": (line_of(0, 2).replace("4", "65535", 1) + line_of(1, 2), "line 1: id 65535; expected 0 to 65534"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_file_and_line(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    (write(tmp_path) / "expert_weights_2.txt").write_text(text)
    with pytest.raises(ForestageError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_wrong_top_k_and_two_files_of_a_layer_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ForestageError, match="9 ids, which is no multiple of the top-k 2"):
        load(tmp_path, top_k=2)
    repeated = "\t".join(["1", "2", "1"] * 3) + "\t\t" + "\t".join(["0.1"] * 9) + "\n" + line_of(1, 2)
    (tmp_path / "expert_weights_2.txt").write_text(repeated)
    with pytest.raises(ForestageError, match=r"line 1: token 0: \[1, 2, 1\]: an expert twice; is the top-k 3 right"):
        load(tmp_path)
    (tmp_path / "expert_weights_02.txt").write_text(repeated)
    with pytest.raises(ForestageError, match=r"layer 2 is also in expert_weights_02\.txt"):
        load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="holds no expert_weights_<layer>"):
        import_recording(tmp_path, "esft", ImportOptions())


@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write(tmp_path_factory.getbasetemp() / "fuzz-esft")
    content = data.draw(damaged(line_of(0, 2) + line_of(1, 2)))
    (folder / "expert_weights_2.txt").write_bytes(content)
    trace = import_or_refuse(folder, "esft", model="toy", experts=16, top_k=TOP_K)
    if trace is None:
        return
    said = [[int(text) for text in line.split("\t\t")[0].split("\t")] for line in lines_of(content) if line]
    assert np.array_equal(trace.expert_ids[:, 1], np.concatenate(said).reshape(-1, TOP_K))
    assert [len(ids) // TOP_K for ids in said] == np.diff(trace.sequence_offsets).tolist()
