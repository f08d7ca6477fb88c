"""``forestage trace export``: files, what is lost, and the command that reads them back."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.selection import select_sequences

Forestage = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("format", "name"),
    [("jsonl_routes", "t.jsonl"), ("eplb", "t.json"), ("sglang_expert_location", "t.json")],
)
def test_the_printed_command_reads_the_file_back(
    forestage: Forestage, small_trace: Path, tmp_path: Path, format: str, name: str
) -> None:
    layers = ("--model-layers", 3) if format == "sglang_expert_location" else ()
    outcome = forestage(
        "trace", "export", small_trace, "--format", format, "--out", tmp_path / name, *layers, "--json"
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["files"] == [{"path": str(tmp_path / name), "bytes": (tmp_path / name).stat().st_size}]
    assert "licence" in document["lost"]
    (warning,) = outcome.err.splitlines()
    assert warning.startswith(f"forestage: warning: {tmp_path / name}: the format {format} does not hold ")
    program, *words = shlex.split(document["read_back"])
    assert program == "forestage"
    back = forestage(*words, "--out", tmp_path / "back.safetensors", "--json")
    assert back.status == 0, back.err
    assert json.loads(back.out)["layers"] == 3


def test_a_person_is_told_the_files_and_the_command(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    outcome = forestage("trace", "export", small_trace, "--format", "npz", "--out", tmp_path / "[b].npz")
    assert outcome.status == 0, outcome.err
    assert f"written: {tmp_path / '[b].npz'}" in outcome.out
    assert f"written: {tmp_path / '[b].sequences.jsonl'}" in outcome.out
    assert "to read it back: forestage trace import" in outcome.out


def test_a_batch_goes_out_as_the_curve_of_its_steps(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    batch, out = tmp_path / "batch.safetensors", tmp_path / "gate_stats.json"
    assert forestage("trace", "batch", "--trace", small_trace, "--batch", 3, "--out", batch).status == 0
    outcome = forestage("trace", "export", batch, "--format", "llmservingsim_gate_stats", "--out", out, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(out.read_text())
    assert {tokens for tokens, _, _ in document["curve"]} >= {3}
    assert all(2 <= mean <= min(8, 2 * tokens) for tokens, mean, _ in document["curve"])
    assert json.loads(outcome.out)["read_back"] is None


def test_the_trace_itself_is_never_written_over(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    before = small_trace.read_bytes()
    line = refused(forestage("trace", "export", small_trace, "--format", "eplb", "--out", small_trace))
    assert "is the source" in line
    assert small_trace.read_bytes() == before


def test_labels_beside_an_archive_are_not_written_over_by_one_of_another_trace(
    forestage: Forestage, small_trace: Path, tmp_path: Path
) -> None:
    """Both files are replaced together, so that they fit."""
    out = tmp_path / "t.npz"
    assert forestage("trace", "export", small_trace, "--format", "npz", "--out", out).status == 0
    select_sequences(RoutingTrace.load(small_trace), [0, 1]).save(tmp_path / "two.safetensors")
    assert forestage("trace", "export", tmp_path / "two.safetensors", "--format", "npz", "--out", out).status == 0
    assert len((tmp_path / "t.sequences.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(("option", "value"), [("--ids", "narrow"), ("--devices", "0"), ("--redundant", "-1")])
def test_options_out_of_range(forestage: Forestage, small_trace: Path, tmp_path: Path, option: str, value: str) -> None:
    line = refused(
        forestage("trace", "export", small_trace, "--format", "table", "--out", tmp_path / "t.csv", option, value)
    )
    assert option.removeprefix("--") in line
    assert not (tmp_path / "t.csv").exists()
