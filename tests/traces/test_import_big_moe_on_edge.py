"""The BigMoeOnEdge importer, on small files in the format's layout and on the recordings."""

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import import_recording, import_trace, read_residency

HEADING = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"
PREAMBLE = [
    "# route_trace v1",
    "# model=/data/my models/Toy-MoE-Q4.gguf arch=toy n_layer=3 n_expert=8 n_expert_used=2",
    "# layer=0 expert_bytes=100 dense_bytes=7",
    "# layer=1 expert_bytes=100 dense_bytes=7",
    "# layer=2 expert_bytes=90 dense_bytes=5",
]
Row = tuple[int, int, int, int, int, int, float, int, int]


def toy_rows() -> list[Row]:
    """Turn 0: 3 prefill steps (the last layer of the last alone), 2 decode steps; turn 1: 1 prefill, 1 decode step."""
    rows: list[Row] = []

    def event(turn: int, phase: int, step: int, layer: int) -> None:
        first, second = (step * 3 + layer) % 8, (step * 3 + layer + 1 + turn) % 8
        bytes_read = 90 if layer == 2 else 100
        rows.append((turn, phase, step, layer, 0, first, 0.75, 0, bytes_read))
        rows.append((turn, phase, step, layer, 1, second, 0.25, 1 + turn, 0))

    for layer in range(3):  # a prefill is written layer by layer
        for step in range(3):
            if layer < 2 or step == 2:
                event(0, 0, step, layer)
    for step in (3, 4):
        for layer in range(3):
            event(0, 1, step, layer)
    for step, phase in ((0, 0), (1, 1)):
        for layer in range(3):
            event(1, phase, step, layer)
    return rows


def text_of(rows: list[Row], preamble: list[str] | None = None, heading: str = HEADING) -> str:
    return "\n".join([*(preamble or PREAMBLE), heading, *(",".join(f"{v:g}" for v in row) for row in rows)]) + "\n"


def write(folder: Path, text: str, name: str = "toy.route.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["toy.route.csv", "toy.route.csv.gz", "odd_name.txt", "odd_name.gz"])
def test_events_become_tokens_layers_and_slots(name: str, tmp_path: Path) -> None:
    rows = toy_rows()
    path = write(tmp_path, text_of(rows), name)
    trace, residency = import_trace(path), read_residency(path)
    assert (trace.tokens, trace.layers, trace.top_k, trace.experts) == (7, 3, 2, 8)
    assert trace.sequence_offsets.tolist() == [0, 5, 7]
    assert trace.position.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert trace.phase.tolist() == [PREFILL] * 3 + [DECODE] * 2 + [PREFILL, DECODE]
    assert trace.gate_weights is not None
    for turn, _, step, layer, slot, expert, weight, hit, read in rows:
        place = (turn * 5 + step, layer, slot)
        assert trace.expert_ids[place] == expert
        assert trace.gate_weights[place] == weight
        assert residency.residency[place] == hit
        assert residency.read_bytes[place] == read
    assert np.argwhere(~trace.recorded()).tolist() == [[0, 2], [1, 2]]
    assert np.all(residency.residency[:2, 2] == 255)
    assert residency.expert_bytes.tolist() == [100, 100, 90]
    assert residency.dense_bytes.tolist() == [7, 7, 5]
    facts = trace.metadata
    assert (facts.model, facts.layer_map, facts.has_unrecorded) == ("Toy-MoE-Q4", (0, 1, 2), True)
    assert (facts.ranked, facts.gate_weight_kind) == (True, "normalised")


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    rows = toy_rows()
    expected = import_trace(write(tmp_path, text_of(rows)))
    generator = np.random.default_rng(0)
    shuffled = [rows[i] for i in generator.permutation(len(rows))]
    assert import_trace(write(tmp_path, text_of(shuffled))).equals(expected)
    turned: list[Row] = [row[::-1] for row in rows]  # type: ignore[misc]
    heading = ",".join(HEADING.split(",")[::-1])
    assert import_trace(write(tmp_path, text_of(turned, heading=heading))).equals(expected)


def test_a_complete_recording_has_no_unrecorded_rows_and_dense_layers_are_left_out(tmp_path: Path) -> None:
    rows = [row for row in toy_rows() if row[3] == 1]
    trace = import_trace(write(tmp_path, text_of(rows)))
    assert not trace.metadata.has_unrecorded
    assert trace.metadata.layer_map == (1,)


def edit(line: int, old: str, new: str) -> Callable[[str], str]:
    """Replace ``old`` in the given line (1-based) of the file."""

    def apply(text: str) -> str:
        lines = text.split("\n")
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new, 1)
        return "\n".join(lines)

    return apply


# Rows begin in line 7; line 7 is "0,0,0,0,0,0,0.75,0,100", line 8 "0,0,0,0,1,1,0.25,1,0".
FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "first line": (edit(1, "v1", "v2"), "line 1: expected '# route_trace v1'"),
    "model": (edit(2, "model=", "name="), "preamble: 'model=' is missing"),
    "experts": (edit(2, "n_expert=8", ""), "preamble: 'n_expert=' is missing"),
    "experts text": (edit(2, "n_expert=8", "n_expert=x"), "preamble: n_expert=x; expected a whole number"),
    "experts huge": (edit(2, "n_expert=8", "n_expert=70000"), "experts: Input should be less than or equal to 65535"),
    "k differs": (edit(2, "n_expert_used=2", "n_expert_used=3"), "line 7: the event has fewer rows .*=3"),
    "k smaller": (edit(2, "n_expert_used=2", "n_expert_used=1"), "line 8: slot: the preamble says n_expert_used=1"),
    "column": (edit(6, "expert,", "export,"), "line 6: column 'expert' is missing"),
    "field missing": (edit(9, ",0,100", ",0"), "line 9: 8 fields, but the heading names 9"),
    "fields extra": (edit(6, ",expert_bytes", ",expert_bytes,more"), "line 7: 9 fields, but the heading names 10"),
    "text": (edit(8, "0.25", "x"), "line 8: weight: 'x' is no number"),
    "weight huge": (edit(8, "0.25", "1e300"), r"line 8: weight: 1e\+300; expected a number from 0 to 65504"),
    "layer beyond": (edit(2, "n_layer=3", "n_layer=2"), "line 19: layer: the preamble says n_layer=2"),
    "digits": (edit(2, "n_expert=8", "n_expert=" + "8" * 5000), "preamble: n_expert=8+; expected a whole number"),
    "nan": (edit(8, "0.25", "nan"), "line 8: weight: nan; expected a number"),
    "negative": (edit(8, ",1,1,", ",1,-1,"), "line 8: expert: -1; expected a whole number"),
    "fraction": (edit(8, ",1,1,", ",1,1.5,"), "line 8: expert: 1.5; expected a whole number"),
    "id too large": (edit(8, ",1,1,", ",1,8,"), "line 8: expert: the preamble says n_expert=8"),
    "id twice": (edit(8, ",1,1,", ",1,0,"), r"expert_ids\[0, 0\].*chosen twice"),
    "step huge": (edit(8, "0,0,0,0,1", "0,0,1e300,0,1"), "line 8: step: 1e\\+300; expected a whole number"),
    "phase": (edit(8, "0,0,0,0,1", "0,2,0,0,1"), "line 8: phase: must be 0"),
    "phase differs": (edit(8, "0,0,0,0,1", "0,1,0,0,1"), r"line \d+: phase: differs within a step"),
    "residency": (edit(8, "0.25,1,", "0.25,3,"), "line 8: residency: must be"),
    "row twice": (edit(8, "0,0,0,0,1", "0,0,0,0,0"), "line 8: turn, step, layer and slot appeared before"),
    "blank line": (edit(8, "0,0,0,0,1,1,0.25,1,0", ""), "line 8: empty line"),
    "no rows": (lambda text: "\n".join(text.split("\n")[:6]) + "\n", "no rows after the heading"),
    "no heading": (lambda text: "\n".join(text.split("\n")[:5]) + "\n", "line 6: column 'turn' is missing"),
    "cut in a number": (lambda text: text[:-2], r"line \d+: has no line end; was the file cut off"),
    "cut between layers": (lambda text: "\n".join(text.split("\n")[:-3]) + "\n", "lacks a layer; if the file was cut"),
    "cut in an event": (lambda text: "\n".join(text.split("\n")[:-2]) + "\n", "fewer rows .*cut off"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_by_line(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    path = write(tmp_path, change(text_of(toy_rows())))
    with pytest.raises(ForestageError, match=rf"toy\.route\.csv: .*{message}") as caught:
        import_trace(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("step", "layer", "told"), [(0, 1, 1), (3, 2, 1), (0, 2, 0)])
def test_a_missing_event_is_told_but_where_a_prefill_leaves_it_out(
    step: int, layer: int, told: int, tmp_path: Path
) -> None:
    rows = [row for row in toy_rows() if row[:1] + row[2:4] != (0, step, layer)]
    imported = import_recording(write(tmp_path, text_of(rows)))
    assert isinstance(imported.recording, RoutingTrace)
    assert not imported.recording.recorded()[step, layer]
    assert [line.split(": ", 1)[1] for line in imported.warnings] == [
        "1 rows (token, layer) are missing; they count as not recorded"
    ] * told


@fuzz(100)
@given(data=damaged(text_of(toy_rows())))
def test_a_damaged_file_is_refused_or_read_as_it_stands(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.route.csv"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = import_or_refuse(path, "big_moe_on_edge")
    if trace is None:
        return
    lines = data.decode().splitlines()
    heading = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    names = lines[heading].split(",")
    rows = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines[heading + 1 :]]
    turns = sorted({row["turn"] for row in rows})
    said = {
        (turns.index(row["turn"]), int(row["step"]), int(row["layer"]), int(row["slot"])): int(row["expert"])
        for row in rows
    }
    assert said == {(*place, slot): ids[slot] for place, ids in choices(trace).items() for slot in range(len(ids))}


def test_a_preamble_without_bytes_has_no_residency(tmp_path: Path) -> None:
    path = write(tmp_path, text_of(toy_rows(), [*PREAMBLE[:3], *PREAMBLE[4:]]))
    import_trace(path)
    with pytest.raises(ForestageError, match="no line gives the bytes of layer 1"):
        read_residency(path)


def test_truncated_or_damaged_gzip_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, text_of(toy_rows()), "toy.route.csv.gz")
    expected = import_trace(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ForestageError, match=r"toy\.route\.csv\.gz") as caught:
            import_trace(path)
        assert "\n" not in str(caught.value)
    for where in range(len(data)):
        damaged = bytearray(data)
        damaged[where] ^= 0x55
        path.write_bytes(damaged)
        loaded: RoutingTrace | None = None
        try:
            loaded = import_trace(path)
        except ForestageError:
            continue
        assert loaded.equals(expected)


def test_qwen_recording(shared_file: Callable[[str], Path]) -> None:
    path = shared_file("big_moe_on_edge_qwen.route.csv.gz")
    trace, residency = import_trace(path), read_residency(path)
    assert (trace.layers, trace.experts, trace.top_k, trace.sequences) == (48, 128, 6, 1)
    decode = trace.phase == DECODE
    assert (int((~decode).sum()), int(decode.sum())) == (28, 128)
    assert np.argwhere(~trace.recorded()).tolist() == [[token, 47] for token in range(27)]
    assert (trace.metadata.model, trace.metadata.licence) == ("Qwen3-30B-A3B-Q4_K_M", "Apache-2.0")
    # seed-systems.md section 8: this run's cache, LRU of 4000 MiB, hit 80.3 % in decode.
    assert np.mean(residency.residency[decode] > 0) == pytest.approx(0.803, abs=0.0005)
    metrics = shared_file("big_moe_on_edge_qwen.metrics").read_text().splitlines()
    read = [int(line.split(",")[5]) for line in metrics[1:] if not line.startswith("#")]
    # The run's own count includes what its reads were rounded up to, about 0.4 %.
    np.testing.assert_allclose(residency.read_bytes[decode].sum(axis=(1, 2)), read, rtol=0.006)


def test_gemma_recording(shared_file: Callable[[str], Path]) -> None:
    trace = import_trace(shared_file("big_moe_on_edge_gemma.route.csv.gz"))
    assert (trace.tokens, trace.layers, trace.experts, trace.top_k) == (29 + 128, 30, 128, 6)
    assert not trace.metadata.has_unrecorded
    assert trace.metadata.licence == "Apache-2.0"
