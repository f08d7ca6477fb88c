"""``forestage trace capture`` through the command, on a tiny model made here."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gpu_reference.small_moe import train_tokenizer
from study.extras import EXTRAS
from tests.gpu_reference.tiny_models import save
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

Forestage = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save("mixtral", train_tokenizer(["def f(x): return x", "The quick brown fox"] * 20, 290), tmp_path / "tiny-mixtral")
    return tmp_path / "tiny-mixtral"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "def f(x):", "domain": "code"}\n{"prompt": "The quick brown fox jumps"}\n')
    return path


def test_the_command_writes_a_trace_and_describes_it(
    forestage: Forestage, folder: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trace.safetensors"
    arguments = ("trace", "capture", folder, "--prompts", prompts, "--out", out, "--device", "cpu")
    options = ("--new-tokens", 3, "--max-prompt", 4, "--temperature", 0.8, "--seed", 3, "--dtype", "float32")
    outcome = forestage(*arguments, *options, "--domain", "prose", "--licence", "MIT", "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    trace = RoutingTrace.load(out)
    assert (document["tokens"], document["experts"], document["top_k"]) == (trace.tokens, 8, 3)
    assert trace.domains == ("code", "prose")
    assert trace.metadata.model == "tiny-mixtral"
    assert trace.metadata.licence == "MIT"
    assert (trace.phase == 0).sum() == 8
    assert np.diff(trace.sequence_offsets).max() <= 7
    assert not (tmp_path / "trace.safetensors.parts").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--new-tokens", -1), "--new-tokens -1: give 0 or more"),
        (("--dtype", "float8"), "--dtype float8: choose"),
        (("--device", "abacus"), "--device abacus: is none"),
        (("--temperature", "nan"), "--temperature nan: give"),
        (("--temperature", "1e-320"), "must be 0 (the likeliest token) or at least 0.0001"),
        (("--licence", ""), "--licence : is empty; give a text"),
        (("--name", "\udcff"), "trace capture: model"),
        (("--early-gate", "soon"), "--early-gate soon: write a lookahead in layers, or several: 1 or 1,2,4"),
        (("--early-gate", "0"), "--early-gate 0: give 1 or more"),
        (("--early-gate", "1,1"), "--early-gate 1,1: names a lookahead twice"),
        (("--early-gate", "3"), "early gate: lookahead 3 reaches no layer of 3 with routers; give less"),
        (("--early-gate", 1, "--early-gate-width", "0"), "--early-gate-width 0: give 1 or more"),
        (("--early-gate", 1, "--early-gate-width", 9), "--early-gate-width 9: choose 1 to 8, the experts of a layer"),
        (("--early-gate-width", 4), "--early-gate-width: has no effect: no gate is run early"),
        (("--seed", 1), "--seed: has no effect"),
        (("--adapter", "my_router"), "--adapter my_router: write module:Name"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[object, ...], message: str, forestage: Forestage, folder: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trace.safetensors"
    line = refused(forestage("trace", "capture", folder, "--prompts", prompts, "--out", out, *options))
    assert message in line
    assert not out.exists()
    assert not (tmp_path / "trace.safetensors.parts").exists()


def test_gates_run_early_are_written_beside_the_trace(
    forestage: Forestage, folder: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trace.safetensors"
    arguments = ("trace", "capture", folder, "--prompts", prompts, "--out", out, "--device", "cpu", "--new-tokens", 2)
    outcome = forestage(*arguments, "--early-gate", "1,2", "--early-gate-width", 5, "--json")
    assert outcome.status == 0, outcome.err
    trace = RoutingTrace.load(out)
    written = json.loads(outcome.out)["predictions"]
    assert written == [str(tmp_path / f"trace.early-gate-{lookahead}.safetensors") for lookahead in (1, 2)]
    for lookahead, path in enumerate(written, start=1):
        ids = load_file(path)["ids"]
        assert ids.shape == (trace.tokens, 3, 5)
        assert (ids[:, :lookahead] == 0xFFFF).all()
        assert (ids[:, lookahead:] < 8).all()


@pytest.mark.parametrize("out", [".", "/", "folder", "file/t"])
def test_a_destination_that_cannot_be_is_told_before_the_model_runs(
    out: str, forestage: Forestage, folder: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    line = refused(forestage("trace", "capture", folder, "--prompts", prompts, "--out", out))
    assert line.removeprefix("forestage: error: ").startswith(f"{out}: ")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_is_not_there(forestage: Forestage, prompts: Path, tmp_path: Path) -> None:
    line = refused(forestage("trace", "capture", tmp_path / "no", "--prompts", prompts, "--out", tmp_path / "t"))
    assert "no such folder" in line


def test_a_missing_extra_is_named(
    forestage: Forestage, folder: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(__import__("sys").modules, name, None)
    line = refused(forestage("trace", "capture", folder, "--prompts", prompts, "--out", tmp_path / "t"))
    assert "forestage[torch]" in line
