"""What is tested on is never trained on: other routing in the test sequences gives the same predictor."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from study.subjects import learned
from tests.study.conftest import Outcome
from traces import RoutingTrace, split
from traces.safetensors_file import open_tensors

pytest.importorskip("torch", reason="needs the extra forestage[torch]")

RECIPE = """
[predictor]
hidden = 4
identity_rows = 0
identities = 0
ngram_tables = []
[training]
epochs = 2
validation = 0.2
"""


def reversed_in(trace: RoutingTrace, sequences: np.ndarray) -> RoutingTrace:
    """The trace, with every id of these sequences another."""
    ids = trace.expert_ids.copy()
    offsets = trace.sequence_offsets
    for sequence in sequences:
        part = slice(offsets[sequence], offsets[sequence + 1])
        ids[part] = trace.experts - 1 - ids[part]
    return replace(trace, expert_ids=ids)


@pytest.fixture
def variants(small_trace: Path, tmp_path: Path) -> dict[str, Path]:
    """The trace as it is, and with other routing in the sequences of each part."""
    trace = RoutingTrace.load(small_trace)
    paths = {"as it is": small_trace}
    for part, sequences in zip(("train", "test"), split(trace), strict=True):
        paths[part] = tmp_path / part / small_trace.name
        paths[part].parent.mkdir()
        reversed_in(trace, sequences).save(paths[part])
    return paths


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def same(first: Path, second: Path) -> bool:
    """Whether two predictors hold the same integers."""
    ours, theirs = open_tensors(first).tensors, open_tensors(second).tensors
    assert set(ours) == set(theirs)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("command", ["train", "train-next-use"])
def test_by_the_commands(
    forestage: Callable[..., Outcome], variants: dict[str, Path], recipe: Path, tmp_path: Path, command: str
) -> None:
    # A seed by which none of the test sequences would be the one that is held back, were all trained on.
    settings = ("--config", recipe) if command == "train" else ("--set", "hidden=4", "--set", "epochs=1", "--seed", 1)
    out = {name: tmp_path / f"{name}.safetensors" for name in variants}
    for name, trace in variants.items():
        outcome = forestage("predictor", command, "--trace", trace, "--out", out[name], *settings)
        assert outcome.status == 0, outcome.err
    assert same(out["as it is"], out["test"])
    assert not same(out["as it is"], out["train"])


def test_by_the_study(variants: dict[str, Path], recipe: Path, tmp_path: Path) -> None:
    """Its probabilities are held against the test sequences alone."""
    errors = {}
    for name, path in variants.items():
        trace, out = RoutingTrace.load(path), tmp_path / f"out-{name}"
        config = SimpleNamespace(learned=str(recipe), lookahead=1)
        context = SimpleNamespace(config=config, trace=trace, trace_path=path, trace_name=path.name, out=out)
        result = learned.run(context, lambda done, total: None)  # type: ignore[arg-type]
        assert json.dumps(result)
        assert result["calibration"]["sequences"] == len(split(trace)[1]) < trace.sequences / 2
        errors[name] = result["calibration"]["calibration_error"]
    files = {name: tmp_path / f"out-{name}" / learned.PREDICTOR_FILE for name in variants}
    assert same(files["as it is"], files["test"])
    assert not same(files["as it is"], files["train"])
    assert errors["as it is"] != errors["test"]
