"""``forestage predictor sweep`` takes from its folder what was asked in the same way, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from predictor import registry
from predictor.measure.metrics import recall, tally_predictor
from tests.study.conftest import Outcome
from traces import RoutingTrace, split
from traces.selection import select_sequences

pytest.importorskip("torch", reason="needs the extra forestage[torch]")

GRID = """
about = "one size"
recipe = "few-tokens"
issue = [2]
[variants.one]
set = { hidden = 2, epochs = 1 }
train = { domains = ["a"] }
"""


@pytest.fixture
def sweep(forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path) -> Callable[[str], tuple[Any, bool]]:
    """Runs a grid of one variant: what was measured, and whether anything was trained or measured anew."""

    def run(grid: str) -> tuple[Any, bool]:
        path = tmp_path / "grid.toml"
        path.write_text(grid)
        asked = ("predictor", "sweep", "--trace", small_trace, "--grid", path, "--out", tmp_path / "out", "--json")
        outcome = forestage(*asked)
        assert outcome.status == 0, outcome.err
        (result,) = json.loads(outcome.out)["results"]
        return result, "variant one" in outcome.err

    return run


def test_what_is_asked_differently_is_done_anew(sweep: Callable[[str], tuple[Any, bool]]) -> None:
    first, anew = sweep(GRID)
    assert anew
    assert sweep(GRID) == (first, False)
    wider, anew = sweep(GRID.replace("hidden = 2", "hidden = 5"))
    assert anew
    assert wider["sram_bytes"] > first["sram_bytes"]
    farther, anew = sweep(GRID + "lookahead = 2\n")
    assert anew
    assert farther["recall"] != first["recall"]


def test_another_trace_of_the_same_name_takes_nothing_over(
    sweep: Callable[[str], tuple[Any, bool]], forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path
) -> None:
    sweep(GRID)
    trace = RoutingTrace.load(small_trace)
    other = tmp_path / "elsewhere" / small_trace.name
    other.parent.mkdir()
    select_sequences(trace, range(trace.sequences)[::-1]).save(other)
    asked = ("predictor", "sweep", "--trace", other, "--grid", tmp_path / "grid.toml", "--out", tmp_path / "out")
    outcome = forestage(*asked)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "holds a sweep of another trace" in outcome.err


def test_the_rival_is_profiled_on_what_the_variant_is_trained_on(
    sweep: Callable[[str], tuple[Any, bool]], small_trace: Path
) -> None:
    result, _ = sweep(GRID)
    trace = RoutingTrace.load(small_trace)
    train, test = split(trace)
    found = []
    for chosen in ([index for index in train if trace.domains[index] == "a"], train):
        rival = registry.fit("markov-spatial", select_sequences(trace, chosen))
        tally = tally_predictor(rival, select_sequences(trace, test), (2,))
        found.append(float(recall(tally.overall()).over(0).values()[0]))
    assert found[0] != found[1]
    assert result["rival"] == {"2": found[0]}
