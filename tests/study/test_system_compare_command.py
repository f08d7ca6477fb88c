"""``forestage system compare`` says which policy is best on a machine, and refuses what contradicts itself."""

import json
from pathlib import Path

import pytest

from tests.study.conftest import refused

SHIPPED = Path(__file__).parents[2] / "gpu_reference" / "shipped" / "trace.safetensors"
LINK = ("--link-gb-per-s", 0.1, "--resamples", 20)
SMALL = ("--trace", SHIPPED, "--tokens", 200, "--tuning-tokens", 300, *LINK)


def test_it_names_the_best_of_the_policies_and_its_gains(forestage) -> None:
    told = forestage(
        "system", "compare", *SMALL, "--capacity-fraction", 0.5, "--capacity-fraction", 0.25, "--host-gb-per-s", 0.5,
        "--json",
    )  # fmt: skip
    assert told.status == 0, told.err
    document = json.loads(told.out)
    assert [point["config"]["capacity_fraction"] for point in document["points"]] == [0.5, 0.25]
    assert (document["batch"], document["drafted"], document["next_use"]) == (1, 1, None)
    for point in document["points"]:
        names = {line["name"] for line in point["lines"]}
        assert {"LRU", "static placement", "background, frequency"} <= names
        assert not {name for name in names if "learned" in name}
        best = min((line for line in point["lines"] if not line["is_oracle"]), key=lambda line: line["tuning_s"])
        assert point["recommended"] == best["name"]


def test_the_table_marks_the_best_and_says_how_to_add_learned_rows(forestage) -> None:
    told = forestage("system", "compare", *SMALL, "--capacity-fraction", 0.5)
    assert told.status == 0, told.err
    assert len([line for line in told.out.splitlines() if " ← " in line]) == 1
    assert "forestage predictor train-next-use" in told.out
    assert "oracle" in told.out


def test_drafts_are_verified_without_a_predictor_and_timed_by_the_step(forestage) -> None:
    told = forestage("system", "compare", *SMALL, "--capacity-fraction", 0.5, "--drafted", 4)
    assert told.status == 0, told.err
    assert "time: of a step" in told.out
    assert "as --predictor" not in told.out
    told = forestage("system", "compare", *SMALL, "--drafted", 4, "--predictor", SHIPPED.parent / "none.safetensors")
    assert "--predictor: has no effect: with --drafted nothing is predicted within a step" in refused(told)


def test_few_tokens_are_not_tuned_on_few(forestage) -> None:
    told = forestage(
        "system", "compare", "--trace", SHIPPED, "--tokens", 200, *LINK, "--capacity-fraction", 0.5, "--json"
    )
    assert told.status == 0, told.err
    document = json.loads(told.out)
    assert document["tokens"] < 1000
    assert document["tuning_tokens"] > 3000


def test_the_terminal_shows_a_point_within_a_hundred_columns(forestage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    told = forestage("system", "compare", *SMALL, "--capacity-fraction", 0.5, "--host-gb-per-s", 0.5)
    assert told.status == 0, told.err
    lines = told.out.splitlines()
    assert max(map(len, lines[1:-3])) <= 100
    (row,) = [line for line in lines if line.startswith("background, oracle of next use")]
    assert "baseline" in next(line for line in lines if line.startswith("static placement"))
    assert "×" in row
    (told_at,) = [number for number, line in enumerate(lines) if line.startswith("← what to build: it ")]
    assert "as fast as an LRU cache" in " ".join(" ".join(lines[told_at:]).split())


@pytest.mark.parametrize("option", [("--batch", 4), ("--drafted", 4)])
def test_batches_and_verification_are_simulated(forestage, option: tuple[str, int]) -> None:
    told = forestage("system", "compare", *SMALL, "--capacity-fraction", 0.5, *option, "--json")
    assert told.status == 0, told.err
    (point,) = json.loads(told.out)["points"]
    outcome = point["lines"][0]["outcome"]
    assert outcome["tokens"] > outcome["steps"]
    assert point["link_roofline_s"] is None


def test_what_contradicts_itself_is_refused(forestage) -> None:
    assert "give one of the two" in refused(forestage("system", "compare", *SMALL, "--batch", 2, "--drafted", 2))
    assert "'nowhere' is not in the catalogue" in refused(
        forestage("system", "compare", *SMALL, "--machine", "nowhere")
    )
    assert "--capacity-fraction 2.0: give 1 or less" in refused(
        forestage("system", "compare", *SMALL, "--capacity-fraction", 2)
    )
