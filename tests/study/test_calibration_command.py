"""``forestage predictor calibration`` where layers, or whole sequences, were not recorded; and paths that are none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.selection import select_sequences

pytest.importorskip("torch", reason="needs the extra forestage[torch]")

Forestage = Callable[..., Outcome]


def without(trace: RoutingTrace, layers: slice) -> RoutingTrace:
    """The trace, these layers not recorded."""
    ids = trace.expert_ids.copy()
    ids[:, layers] = 255
    return replace(trace, expert_ids=ids, metadata=trace.metadata.model_copy(update={"has_unrecorded": True}))


def test_a_layer_that_was_never_recorded(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    """It has no calibration of its own and no row to be measured on; nothing else suffers."""
    trace, partly, out = RoutingTrace.load(small_trace), tmp_path / "partly.safetensors", tmp_path / "p.safetensors"
    without(trace, slice(1, 2)).save(partly)
    recipe = ("--config", "few-tokens", "--set", "hidden=4", "--set", "epochs=1")
    trained = forestage("predictor", "train", "--trace", partly, "--out", out, *recipe)
    assert trained.status == 0, trained.err
    asked = ("predictor", "calibration", "--predictor", out, "--split", "all", "--json", "--trace")
    document = json.loads(forestage(*asked, partly).out)
    assert [error is None for error in document["by_layer"]] == [False, True, False]
    assert np.isfinite(document["calibration_error"])

    one = tmp_path / "one.safetensors"
    select_sequences(trace, [0]).save(one)
    asked_of_test = (*asked[:4], "--trace", one)
    assert "one.safetensors: no test sequences" in refused(forestage(*asked_of_test))

    nothing = tmp_path / "nothing.safetensors"
    without(trace, slice(None)).save(nothing)
    assert "nothing.safetensors: nothing is recorded in the 6 sequence(s)" in refused(forestage(*asked, nothing))


@pytest.mark.parametrize("command", ["train", "train-next-use"])
def test_a_folder_is_no_file_to_write(forestage: Forestage, small_trace: Path, tmp_path: Path, command: str) -> None:
    """Said before the training, not after it."""
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    recipe = ("--config", "few-tokens") if command == "train" else ()
    line = refused(forestage("predictor", command, "--trace", small_trace, "--out", folder, *recipe))
    assert "folder.safetensors: is a folder; give the name of a file" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.safetensors", "small.safetensors"]
