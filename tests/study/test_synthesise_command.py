"""``forestage trace synthesise``, and the mark on every result of what it makes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from study.synthetic import NAMES
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.synthesis import calibrate

Forestage = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "KIND_ROUNDS", 1)
    monkeypatch.setattr(calibrate, "LAYER_ROUNDS", 1)


@pytest.fixture
def synthetic(forestage: Forestage, small_trace: Path, tmp_path: Path) -> Path:
    out = tmp_path / "synthetic.safetensors"
    assert forestage("trace", "synthesise", "--from", small_trace, "--out", out, "--tokens", 100).status == 0
    return out


def test_the_document_describes_the_trace_and_its_fit(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    outcome = forestage(
        "trace", "synthesise", "--from", small_trace, "--out", out, "--experts", 16, "--layers", 2, "--top-k", 3,
        "--tokens", 200, "--sequences", 5, "--seed", 4, "--json",
    )  # fmt: skip
    document = json.loads(outcome.out)
    assert [document[name] for name in ("layers", "experts", "top_k", "tokens", "sequences")] == [2, 16, 3, 200, 5]
    fit = document["metadata"]["synthesis"]
    assert (fit["model"], fit["layers"], fit["experts"], fit["seed"]) == ("made-for-tests", 3, 8, 4)
    assert set(fit["figures"]) == set(NAMES)
    assert document["metadata"]["synthetic"] is True
    assert document["peak_rss_bytes"] > 10e6
    assert RoutingTrace.load(out, validate=True).tokens == 200


def test_a_catalogue_model_gives_shape_and_name(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    outcome = forestage(
        "trace", "synthesise", "--from", small_trace, "--out", out, "--tokens", 20, "--like", "openai/gpt-oss-20b",
        "--json",
    )  # fmt: skip
    document = json.loads(outcome.out)
    assert [document[name] for name in ("layers", "experts", "top_k")] == [24, 32, 4]
    assert "gpt-oss-20b" in document["metadata"]["model"]


@pytest.mark.parametrize(
    "command",
    [
        ("trace", "info"),
        ("trace", "stats", "--samples", "3"),
        ("predictor", "evaluate", "--predictor", "popularity", "--split", "all", "--issue", "2", "--trace"),
    ],
    ids=["info", "stats", "evaluate"],
)
def test_results_are_marked_with_the_errors_of_the_fit(
    forestage: Forestage, synthetic: Path, command: tuple[str, ...]
) -> None:
    outcome = forestage(*command, synthetic)
    assert outcome.status == 0, outcome.err
    assert "(synthetic" in outcome.out
    (note,) = [line for line in outcome.err.splitlines() if "synthetic" in line and "fitted to made-for-tests" in line]
    for name, _ in NAMES.values():
        assert name in note


def test_a_recorded_trace_bears_no_mark(forestage: Forestage, shipped_trace: Path) -> None:
    outcome = forestage("trace", "info", shipped_trace)
    assert "synthetic" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--experts", "2"), "--experts 2"),
        (("--layers", "0"), "--layers 0"),
        (("--tokens", "0"), "--tokens 0"),
        (("--seed", "-1"), "--seed -1"),
        (("--like", "gpt-oss-20b", "--layers", "3"), "--like gpt-oss-20b"),
        (("--like", "no-such-model"), "no-such-model"),
    ],
)
def test_mistakes_are_one_line(
    forestage: Forestage, small_trace: Path, tmp_path: Path, options: tuple[str, ...], part: str
) -> None:
    out = tmp_path / "s.safetensors"
    assert part in refused(forestage("trace", "synthesise", "--from", small_trace, "--out", out, *options))
    assert not out.exists()


@pytest.mark.parametrize("out", ["folder", "file/t", "small.safetensors"])
def test_a_destination_that_cannot_be_is_told_before_the_work(
    out: str, forestage: Forestage, small_trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr("study.commands.trace.synthesise.synthesise", None)
    before, recorded = sorted(tmp_path.iterdir()), small_trace.read_bytes()
    for command in (("synthesise", "--from", small_trace), ("batch", "--batch", 2, "--trace", small_trace)):
        assert f"{out}: " in refused(forestage("trace", *command, "--out", out))
    assert sorted(tmp_path.iterdir()) == before
    assert small_trace.read_bytes() == recorded
