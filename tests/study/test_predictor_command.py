"""``forestage predictor evaluate``: intervals, subsets, sizes, files and the comparison."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from predictor import registry
from tests.study.conftest import Outcome, refused

Forestage = Callable[..., Outcome]


def evaluated(forestage: Forestage, trace: Path, *arguments: object) -> dict:
    outcome = forestage("predictor", "evaluate", "--trace", trace, *arguments, "--json")
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)


def test_resamples_and_their_seed(forestage: Forestage, small_trace: Path) -> None:
    arguments = ("--predictor", "st-moe", "--issue", 2, "--split", "all")
    first, again = (evaluated(forestage, small_trace, *arguments) for _ in range(2))
    assert first == again
    assert first["bootstrap"] == {"resamples": 1000, "seed": 0}
    low, high = first["intervals"]["recall"]["2"]
    assert low < first["recall"]["2"] < high
    for option in (("--seed", 1), ("--resamples", 50)):
        other = evaluated(forestage, small_trace, *arguments, *option)
        assert other["recall"] == first["recall"]
        assert other["intervals"] != first["intervals"]
    assert evaluated(forestage, small_trace, *arguments, "--resamples", 0)["intervals"]["exact_set"] is None


def test_a_subset_by_domain(forestage: Forestage, small_trace: Path) -> None:
    result = evaluated(forestage, small_trace, "--predictor", "popularity", "--issue", 2, "--split", "all",
                       "--domain", "b")  # fmt: skip
    assert (result["sequences"], list(result["by_domain"])) == (3, ["b"])


def test_an_unknown_size_is_a_note_and_null(forestage: Forestage, small_trace: Path) -> None:
    arguments = ("predictor", "evaluate", "--trace", small_trace, "--predictor", "popularity", "--issue", 2, "--json")
    outcome = forestage(*arguments)
    assert json.loads(outcome.out)["traffic"]["moved_bytes_per_token"] == {"2": None}
    assert "note: no bytes moved: the catalogue has no model 'made-for-tests'" in outcome.err
    outcome = forestage(*arguments, "--expert-bytes", 100)
    assert json.loads(outcome.out)["traffic"]["moved_bytes_per_token"] == {"2": 2 * 2 * 100}
    assert outcome.err == ""


def test_the_comparison_and_its_figure(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    figure = tmp_path / "recall.svg"
    arguments = ("--compare", "--split", "all", "--issue", 2, "--issue", 4, "--figure", figure)
    document = evaluated(forestage, small_trace, *arguments, "--expert-bytes", 10)
    names = list(registry.profiled_names())
    assert [e["predictor"] for e in document["evaluations"]] == [c["predictor"] for c in document["curves"]] == names
    bounds, popularity = document["bounds"], document["evaluations"][names.index("popularity")]
    assert (bounds["perfect"], bounds["random"]) == ({"2": 1.0, "4": 1.0}, {"2": 0.25, "4": 0.5})
    assert bounds["popularity"] == {"recall": popularity["recall"], "gate_mass": {"2": None, "4": None}}
    assert bounds["perfect_gate_mass"] == {"2": None, "4": None}
    drawn = figure.read_text()
    assert drawn.startswith("<?xml")
    evaluated(forestage, small_trace, *arguments, "--expert-bytes", 10)
    assert figure.read_text() == drawn
    few = evaluated(forestage, small_trace, "--compare", "--issue", 2, "--predictor", "st-moe")
    assert [e["predictor"] for e in few["evaluations"]] == ["st-moe"]


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_figures_in_other_formats(forestage: Forestage, small_trace: Path, tmp_path: Path, ending: str) -> None:
    figure = tmp_path / f"recall.{ending}"
    evaluated(forestage, small_trace, "--compare", "--issue", 2, "--predictor", "popularity", "--figure", figure)
    assert figure.read_bytes()[1:4] == {"png": b"PNG", "pdf": b"PDF"}[ending]


@pytest.mark.parametrize("compare", [("--compare",), ("--predictor", "st-moe")])
def test_tables_for_a_person(forestage: Forestage, small_trace: Path, compare: tuple[str, ...]) -> None:
    outcome = forestage("predictor", "evaluate", "--trace", small_trace, "--issue", 2, "--split", "all", *compare)
    assert outcome.status == 0
    assert "st-moe" in outcome.out
    assert "±" in outcome.out
    assert "…" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--predictor: 0 given"),
        (("--predictor", "st-moe", "--predictor", "popularity"), "--predictor: 2 given; give one, or --compare"),
        (("--predictor", "st-moe", "--figure", "a.svg"), "--figure a.svg: only a comparison is drawn"),
        (("--compare", "--set", "candidates=2"), "--set candidates: a parameter of one kind"),
        (("--compare", "--issue", 2, "--figure", "a.gif"), "a.gif: a figure is written as .svg, .pdf, .png"),
        (("--predictor", "no/such.safetensors"), "no/such.safetensors: no such file"),
        (("--predictor", "st-moe", "--split", "tset"), "--split tset: choose 'train', 'test' or 'all'"),
        (("--predictor", "st-moe", "--domain", "c"), "--domain c: unknown name 'c'"),
    ],
)
def test_refusals(forestage: Forestage, small_trace: Path, arguments: tuple[object, ...], named: str) -> None:
    assert named in refused(forestage("predictor", "evaluate", "--trace", small_trace, *arguments))
