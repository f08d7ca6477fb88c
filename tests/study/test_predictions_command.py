"""``forestage predictor predictions``, ``--predictions``, and the examples of docs/predictions.md."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from predictor import registry
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

Forestage = Callable[..., Outcome]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "predictions.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def evaluated(forestage: Forestage, trace: Path, *arguments: object) -> dict:
    outcome = forestage("predictor", "evaluate", "--trace", trace, *arguments, "--json")
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)


def test_ours_is_written_and_measured_as_ourselves(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    for name, ending, arguments in (
        ("st-moe", "npz", ("--set", "threshold=1")),
        ("markov-temporal", "parquet", ("--scores",)),
        ("popularity", "safetensors", ("--lookahead", 2)),
    ):
        out = tmp_path / f"ours.{ending}"
        outcome = forestage("predictor", "predictions", "--trace", small_trace, "--predictor", name, "--out", out,
                            *arguments, "--json")  # fmt: skip
        document = json.loads(outcome.out)
        assert (document["tokens"], document["holds"]) == (12, "scores" if "--scores" in arguments else "ids")
        assert name in document["source"]
        own = [word for word in arguments if word != "--scores"]
        direct = evaluated(forestage, small_trace, "--predictor", name, "--issue", 2, *own)
        ours = evaluated(forestage, small_trace, "--predictions", out, "--issue", 2)
        for figure in ("recall", "precision", "issued", "exact_set", "intervals", "traffic", "by_layer", "by_domain"):
            assert ours[figure] == direct[figure]
        assert (ours["predictor"], ours["file"], ours["predictions"]) == ("ours", str(out), True)


def test_a_comparison_with_predictions(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "mine.npz", tmp_path / "figure.svg"
    forestage("predictor", "predictions", "--trace", small_trace, "--predictor", "st-moe", "--out", out, "--limit", 2)
    arguments = ("--compare", "--predictions", out, "--issue", 1, "--issue", 2)
    document = evaluated(forestage, small_trace, *arguments, "--figure", figure)
    assert [e["predictor"] for e in document["evaluations"]] == [*registry.profiled_names(), "mine"]
    assert figure.read_text().startswith("<?xml")
    outcome = forestage("predictor", "evaluate", "--trace", small_trace, *arguments, "--predictor", "popularity")
    assert "mine" in outcome.out
    assert "…" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--predictions", "no.npz"), "no.npz: cannot read (No such file or directory)"),
        (("--predictions", "mine.npz", "--predictor", "st-moe"), "2 given; give one, or --compare (--predictions"),
        (("--predictions", "mine.npz", "--issue", 3), "mine.npz: issue: 3, but the file lists at most 2"),
        (("--predictions", "mine.npz", "--issue", 2, "--split", "all"), "has rows for 12 of the 72 tokens evaluated"),
        (("--predictions", "mine.npz", "--issue", 2, "--lookahead", 2), "predictions at lookahead 1, not 2"),
        (("--predictor", "mine.npz"), "mine.npz: no trained predictor, which is a .safetensors; give predictions by"),
        (("--predictor", "mine.safetensors"), "holds predictions, not a trained predictor; give it by --predictions"),
        (("--predictions", "small.safetensors"), "no predictions: it has neither ids nor scores"),
        (("--predictor", "st-moe", "--only-covered"), "--only-covered: no predictions are given"),
    ],
)  # fmt: skip
def test_refusals_of_evaluate(
    forestage: Forestage,
    small_trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("mine.npz", "mine.safetensors"):
        forestage("predictor", "predictions", "--trace", small_trace, "--predictor", "st-moe", "--out", out,
                  "--limit", 2)  # fmt: skip
    assert named in refused(forestage("predictor", "evaluate", "--trace", small_trace, *arguments))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--out", "p.json"), "p.json: predictions are written as .npz, .safetensors, .parquet"),
        (("--out", "small.safetensors"), "--out small.safetensors: is the source, which would be lost"),
        (("--out", "p.npz", "--limit", 9), "--limit 9: choose 1 to 8"),
        (("--out", "p.npz", "--limit", 2, "--scores"), "--limit 2: scores are of every expert"),
        (("--out", "p.npz", "--split", "tset"), "--split tset: choose 'train', 'test' or 'all'"),
        (("--out", "p.npz", "--set", "candidates=99"), "candidates: 99 exceeds the model's 8 experts"),
    ],
)
def test_refusals_of_predictions(
    forestage: Forestage,
    small_trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    asked = ("predictor", "predictions", "--trace", small_trace.name, "--predictor", "st-moe", *arguments)
    assert named in refused(forestage(*asked))
    assert sorted(tmp_path.iterdir()) == before


def test_the_example_in_ten_lines(
    forestage: Forestage, shipped_trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped_trace, "trace.safetensors")
    exec(EXAMPLES[0], {})
    found = evaluated(forestage, Path("trace.safetensors"), "--predictions", "mine.npz", "--issue", 4)
    idea = evaluated(forestage, Path("trace.safetensors"), "--predictor", "previous-token", "--set", "fill=none",
                     "--issue", 4)  # fmt: skip
    for figure in ("recall", "gate_mass", "precision", "issued", "exact_set", "answered", "intervals"):
        assert found[figure] == idea[figure]
    assert found["traffic"]["moved_bytes_per_token"] == idea["traffic"]["moved_bytes_per_token"]
    assert f"recall@4 is {found['recall']['4']:.3f}" in DOCUMENT.read_text(encoding="utf-8")


def test_the_example_of_a_gate_run_early(forestage: Forestage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    gates = generator.normal(size=(4, 8, 6))
    inputs = np.cumsum(generator.normal(size=(60, 4, 6)), axis=1)  # a residual stream: it changes little by little
    logits = np.einsum("tlw,lew->tle", inputs, gates)
    trace = trace_of(np.argsort(-logits, axis=-1)[..., :2], experts=8, lengths=[10] * 6)
    trace.save("trace.safetensors")
    np.savez("hidden.npz", inputs=inputs, gates=gates)
    exec(EXAMPLES[1], {})
    found = evaluated(
        forestage, Path("trace.safetensors"), "--predictions", "early.npz", "--issue", 2, "--split", "all"
    )
    early = np.einsum("tlw,lew->tle", inputs[:, :-1], gates[1:])
    best = np.argsort(-early, axis=-1)[..., :2]
    hits = (best[..., None] == trace.expert_ids[:, 1:, None, :]).any(axis=-1).mean()
    assert found["recall"]["2"] == pytest.approx(hits)
    assert found["recall"]["2"] > 2 * found["bounds"]["random"]["2"]
    assert RoutingTrace.load("trace.safetensors").tokens == found["tokens"]
