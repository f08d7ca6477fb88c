"""``forestage predictor train-next-use`` and ``forestage cache compare``."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

TINY = ("--set", "hidden=4", "--set", "epochs=1")


@pytest.fixture
def trained(forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path) -> Path:
    out = tmp_path / "next.safetensors"
    assert forestage("predictor", "train-next-use", "--trace", small_trace, "--out", out, *TINY).status == 0
    return out


def test_training_says_what_it_made(forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.safetensors"
    outcome = forestage("predictor", "train-next-use", "--trace", small_trace, "--out", out, *TINY, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["parameters"]["hidden"] == 4
    assert document["training"]["epochs"] == 1
    assert document["model"] == "made-for-tests"
    assert out.is_file()
    lines = [json.loads(line) for line in Path(document["log"]).read_text().splitlines()]
    assert [line["layer"] for line in lines] == [0, 1, 2]
    assert [str(line["validation_loss"]) for line in lines] == [str(v) for v in document["validation_loss"].values()]


def test_identity_is_looked_at_where_it_is_recorded(
    forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path
) -> None:
    told = RoutingTrace.load(small_trace)
    told = replace(told, token_hash=np.arange(told.tokens, dtype=np.uint32) % 5)
    told.save(tmp_path / "told.safetensors")
    out = tmp_path / "next.safetensors"

    def train(trace: Path, *more: str) -> Outcome:
        return forestage("predictor", "train-next-use", "--trace", trace, "--out", out, *TINY, *more)

    note = "note: the trace does not record the identity of tokens; trained without contexts"
    outcome = train(tmp_path / "told.safetensors", "--json")
    assert (outcome.status, note in outcome.err) == (0, False)
    document = json.loads(outcome.out)
    assert document["parameters"]["contexts"] == [1, 2, 3]
    # Records of six ids, a beat of 64 bytes each: eight and three entries read, one and three entries written.
    assert document["far_memory"] == {
        "held_bytes": 3 * 4096 * 16 + 4096 * 64, "read_bytes": 11 * 64, "written_bytes": 4 * 64,
    }  # fmt: skip
    shown = train(tmp_path / "told.safetensors").out
    assert "far memory: 704 B read and 256 B written a token, 459 kB held a sequence" in shown
    compare = ("cache", "compare", "--next-use", out, "--capacity", 3)
    assert "looks at the identity of tokens, which" in refused(forestage(*compare, "--trace", small_trace))
    assert forestage(*compare, "--trace", tmp_path / "told.safetensors").status == 0

    outcome = train(small_trace, "--json")
    assert (outcome.status, outcome.err.count(note)) == (0, 1)
    document = json.loads(outcome.out)
    assert (document["parameters"]["contexts"], document["far_memory"]["read_bytes"]) == ([], 0)
    assert document["parameters"]["neighbour_shifts"] == [3, 5]  # the rows that are free tell of more
    assert "far memory" not in train(small_trace).out
    assert note not in train(small_trace, "--set", "contexts=[]").err
    assert "contexts (1,): the trace does not record" in refused(train(small_trace, "--set", "contexts=[1]"))


def test_comparing_with_a_figure(
    forestage: Callable[..., Outcome], small_trace: Path, trained: Path, tmp_path: Path
) -> None:
    figure = tmp_path / "caches.svg"
    arguments = ("cache", "compare", "--trace", small_trace, "--next-use", trained, "--capacity", 3, "--capacity", 5)
    outcome = forestage(*arguments, "--oracle", 1, "--resamples", 20, "--figure", figure, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["policies"][-6:] == ["lru", "lfu", "ema", "oracle 1", "next use", "belady"]
    assert {point["capacity"] for point in document["points"]} == {3, 5}
    assert "next use" in figure.read_text()
    at = {(point["policy"], point["capacity"]): point for point in document["points"]}
    table = forestage(*arguments, "--oracle", 1, "--resamples", 20).out
    rates, shares = (part.splitlines() for part in table.split("hit rate, %")[1].split("share closed of", 1))
    for name, policy in {"Belady (bound)": "belady", "oracle of 1 token": "oracle 1", "next use": "next use"}.items():
        (row,) = (line for line in rates if line.startswith(name))
        assert row.split()[-2:] == [f"{100 * at[policy, held]['hit_rate']:.1f}" for held in (3, 5)]
    row = next(line for line in shares if line.startswith("next use"))
    assert f" {100 * at['next use', 3]['share_closed']:.1f}" in row


def test_capacities_follow_from_the_shape(forestage: Callable[..., Outcome], small_trace: Path) -> None:
    for scope, expected in (("layer", [2, 3, 4, 5]), ("global", [4, 6, 9, 12, 15])):
        outcome = forestage("cache", "compare", "--trace", small_trace, "--scope", scope, "--resamples", 0, "--json")
        assert outcome.status == 0, outcome.err
        points = json.loads(outcome.out)["points"]
        assert sorted({point["capacity"] for point in points}) == expected
        assert all(point["interval"] is None for point in points)


def test_a_refresh_joins(forestage: Callable[..., Outcome], small_trace: Path, trained: Path, tmp_path: Path) -> None:
    ahead = tmp_path / "ahead.safetensors"
    made = forestage("predictor", "train-next-use", "--trace", small_trace, "--out", ahead, "--lookahead", 1, *TINY)
    assert made.status == 0, made.err
    arguments = ("cache", "compare", "--trace", small_trace, "--scope", "global", "--capacity", 9, "--json")
    outcome = forestage(*arguments, "--next-use", trained, "--ahead", ahead)
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["ahead"].startswith("the training part of small.safetensors")


def test_a_training_that_is_refused_leaves_the_log_alone(
    forestage: Callable[..., Outcome], small_trace: Path, trained: Path, tmp_path: Path
) -> None:
    train = ("predictor", "train-next-use", "--trace", small_trace)
    log = tmp_path / "next.log.jsonl"
    before = log.read_text()
    refused(forestage(*train, "--out", trained, "--lookahead", 3))
    assert log.read_text() == before
    refused(forestage(*train, "--out", tmp_path / "other.safetensors", "--lookahead", 3))
    assert not (tmp_path / "other.log.jsonl").exists()
    assert forestage(*train, "--out", trained, *TINY).status == 0  # anew, not in addition
    assert len(log.read_text().splitlines()) == len(before.splitlines()) == 3


def test_where_all_fits_no_share_is_drawn(
    forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """LRU loads no more than Belady: a curve without a point has no name, and the picture keeps its shape."""
    figure = tmp_path / "caches.svg"
    outcome = forestage("cache", "compare", "--trace", small_trace, "--capacity", 8, "--figure", figure)
    assert outcome.status == 0, outcome.err
    assert figure.read_text().count("<!-- LFU -->") == 1  # of the hit rates
    assert not [warning for warning in recwarn if "constrained_layout" in str(warning.message)]


def test_refusals(forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path) -> None:
    train = ("predictor", "train-next-use", "--trace", small_trace)
    out = tmp_path / "next.safetensors"
    assert "end its name with .safetensors" in refused(forestage(*train, "--out", tmp_path / "p.bin"))
    assert "the nearest known key is 'hidden'" in refused(forestage(*train, "--out", out, "--set", "hiden=3"))
    assert "the nearest known key is 'epochs'" in refused(forestage(*train, "--out", out, "--set", "epoch=3"))
    assert "give --lookahead" in refused(forestage(*train, "--out", out, "--set", "lookahead=3"))
    assert "lookahead: 3 for a model of 3 layers" in refused(forestage(*train, "--out", out, "--lookahead", 3))
    assert "seed: Input should be less than" in refused(forestage(*train, "--out", out, "--seed", 1 << 64))
    compare = ("cache", "compare", "--trace", small_trace)
    assert "end the name" in refused(forestage(*compare, "--figure", tmp_path / "p.gif"))
    assert "no next-use predictor" in refused(forestage(*compare, "--next-use", small_trace))
    assert "cannot read" in refused(forestage(*compare, "--next-use", tmp_path / "absent.safetensors"))
    assert not out.exists()
