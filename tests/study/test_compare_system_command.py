"""``forestage rtl compare-system``: what it prints, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from study.engine import system_comparison
from tests.learned_samples import random_next_use
from tests.study.conftest import Outcome, refused
from tests.study.engine.test_system_comparison import TRACE

Forestage = Callable[..., Outcome]


@pytest.fixture
def given(tmp_path: Path) -> tuple[object, ...]:
    """A trace of gpt-oss-20b's width, and a predictor of next use."""
    TRACE.save(tmp_path / "trace.safetensors")
    values = random_next_use(np.random.default_rng(1), ranked=True, layers=4, experts=32, top_k=4)
    values.save(tmp_path / "next-use.safetensors")
    return (
        "rtl", "compare-system", "--trace", tmp_path / "trace.safetensors", "--sizes-of", "gpt-oss-20b",
        "--next-use", tmp_path / "next-use.safetensors", "--tokens", 20,
    )  # fmt: skip


def test_equal_counts_are_said_with_the_engine_that_ran(forestage: Forestage, given: tuple[object, ...]) -> None:
    outcome = forestage(*given)
    assert outcome.status == 0, outcome.err
    assert "the engine's twin beside the system model" in outcome.out
    assert "every count is equal" in outcome.out
    assert [line.split()[0] for line in outcome.out.splitlines() if "system model  diff" in line] == [
        "recency",
        "values",
    ]
    assert "prefetch: left out, as a predictor is missing" in outcome.out
    document = json.loads(forestage(*given, "--policy", "values", "--times", "replay", "--json").out)
    (run,) = document["runs"]
    assert (document["engine"], document["times"], run["policy"], document["left_out"]) == (
        "twin", "replay", "values", [],
    )  # fmt: skip
    assert run["engine"]["hits"] + run["engine"]["fetched"] == 20 * 4 * 4


def test_a_difference_ends_in_status_1(
    forestage: Forestage, given: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = system_comparison.compare

    def other(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        found.engine["hits"] += 3
        return found

    monkeypatch.setattr(system_comparison, "compare", other)
    outcome = forestage(*given, "--policy", "recency")
    assert outcome.status == 1
    assert "+3" in outcome.out
    assert "counts differ" in outcome.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--policy", "prefetch"), "--policy prefetch: asks a trained predictor; give --predictor"),
        (("--times", "real"), "--times real: give machine or replay"),
        (("--rtl",), "--rtl: at a machine's times a run would take weeks; give --times replay"),
        (("--places", 33), "--places 33: choose 1 to 32"),
        (("--lookahead", 4), "lookahead"),
        (("--machine", "A100-81GB"), "A100-80GB"),
        (("--tokens", 1000), "choose 1 to"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    forestage: Forestage, given: tuple[object, ...], options: tuple[object, ...], says: str
) -> None:
    names = {option for option in options if isinstance(option, str)}
    kept = given if "--tokens" not in names else given[:-2]
    assert says in refused(forestage(*kept, *options))


def test_a_predictor_of_another_shape_is_named(forestage: Forestage, given: tuple[object, ...], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    random_next_use(np.random.default_rng(1), layers=3, experts=32, top_k=4).save(other)
    place = given.index("--next-use") + 1
    line = refused(forestage(*given[:place], other, *given[place + 1 :]))
    assert "other.safetensors: is of 3 layers of 32 experts, and the trace of 4 of 32" in line
