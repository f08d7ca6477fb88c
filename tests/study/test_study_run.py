"""The whole study on the shipped trace, at its smallest: run, report, and a second run that reuses everything."""

import html
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from predictor.row_network.image import read_image
from study.pipeline import SUBJECTS
from tests.study.conftest import Outcome

SMALLEST = """
issue = [4]
predictors = ["popularity", "st-moe"]
cache_fractions = [0.5]
replay_tokens = 12
learned = "RECIPE"
[system]
tokens = 60
map_tokens = 50
tuning_tokens = 60
capacity_fractions = [0.25]
link_gb_per_s = [16, 64]
map_host_gb_per_s = [60, 300]
in_memory_batches = [1, 2]
[next_use]
hidden = 8
layers_back = 1
ngram_tables = []
epochs = 1
"""


QUICK = """
[predictor]
hidden = 8
layers_back = 1
previous = [[0, 0]]
decays = [[3, 0]]
identity_rows = 64
[training]
epochs = 1
"""


def test_from_trace_to_report_and_again(forestage: Callable[..., Outcome], tmp_path: Path) -> None:
    """One test, as what follows the run is checked on what it left."""
    folder, config = tmp_path / "out", tmp_path / "study.toml"
    recipe = tmp_path / "quick.toml"
    recipe.write_text(QUICK)
    config.write_text(SMALLEST.replace("RECIPE", str(recipe)))
    outcome = forestage("study", "--out", folder, "--config", config, "--json")
    assert outcome.status == 0, outcome.err
    check_results(outcome, folder)
    check_report(folder)
    check_that_the_commands_remake_the_points(forestage, folder)
    check_that_the_commands_remake_what_runs_in_memory(forestage, folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "stages").iterdir()}
    outcome = forestage("study", "--out", folder, "--config", config)
    assert outcome.status == 0
    assert outcome.err.count("kept from the earlier run") == len(SUBJECTS)
    assert {path: path.stat().st_mtime_ns for path in (folder / "stages").iterdir()} == before


def check_results(outcome: Outcome, folder: Path) -> None:
    """``results.json`` is what was printed, and the hardware agrees with its twins and PyTorch."""
    document = json.loads(outcome.out)
    assert document == json.loads((folder / "results.json").read_text())
    stages = document["stages"]
    assert set(stages) == {subject.stage.name for subject in SUBJECTS}
    assert stages["engine"]["replay"]["mismatches"] == 0
    assert stages["engine"]["replay"]["tokens"] == 12
    assert stages["unit"]["agrees"]
    learned, tables = stages["predictors"]["evaluations"][-1], stages["predictors"]["evaluations"][0]
    assert (learned["predictor"], tables["predictor"]) == ("learned", "popularity")
    assert learned["recall"]["4"] > tables["recall"]["4"]
    assert read_image(folder / "learned.img").manifest.size == stages["learned"]["image_bytes"]
    assert stages["learned"]["calibration"]["calibration_error"] < 0.05
    check_system(stages["system"])
    assert "module table_engine(" in (folder / "verilog" / "table_engine.v").read_text()


def check_system(result: dict[str, Any]) -> None:
    """Both shares and both cells of each map, learned rows of both families; none that fetches is below the least."""
    assert [point["config"]["capacity_fraction"] for point in result["points"]] == [0.25, 0.5]
    assert [cell["config"]["link_gb_per_s"] for cell in result["map"]] == [16, 64]
    assert [cell["config"]["host_gb_per_s"] for cell in result["host_map"]] == [60, 300]
    for point in (*result["points"], *result["map"], *result["host_map"]):
        times = {line["name"]: line["outcome"]["tpot"]["mean_s"] for line in point["lines"]}
        assert {"learned", "background, learned", "LRU", "static placement"} <= set(times)
        fetching = [line["name"] for line in point["lines"] if line["family"] == "fetch"]
        assert min(times[name] for name in fetching) >= point["all_resident_s"]
        assert point["recommended"] in times


def check_that_the_commands_remake_the_points(forestage: Callable[..., Outcome], folder: Path) -> None:
    """The commands under the section of the whole system give the points and both maps, figure by figure.

    The points of the maps lack the oracles, which change nothing of the others.
    """
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8")).replace("\\\n", " ")
    shown, _ = [text for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL) if "forestage system compare" in text]
    kept = json.loads((folder / "results.json").read_text())["stages"]["system"]
    for command, stage in zip(shown.splitlines(), ("points", "map", "host_map"), strict=True):
        words = shlex.split(command)[1:]
        for name in ("next-use.safetensors", "learned.safetensors"):
            words[words.index(name)] = str(folder / name)
        outcome = forestage(*words, "--json")
        assert outcome.status == 0, outcome.err
        points = json.loads(outcome.out)["points"]
        if stage != "points":
            for point in points:
                point["lines"] = [line for line in point["lines"] if not line["is_oracle"]]
        assert sorted(points, key=str) == sorted(kept[stage], key=str)


def check_that_the_commands_remake_what_runs_in_memory(forestage: Callable[..., Outcome], folder: Path) -> None:
    """The commands under the section of experts in memory give its figures: of one expert, and of each batch."""
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8")).replace("\\\n", " ")
    _, shown = [text for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL) if "forestage system compare" in text]
    kept = json.loads((folder / "results.json").read_text())["stages"]["in-memory"]
    expert, *batches = shown.splitlines()
    assert json.loads(forestage(*shlex.split(expert)[1:], "--json").out) == kept["experts"]
    for command, batch in zip(batches, kept["batches"], strict=True):
        words = shlex.split(command)[1:]
        for name in ("next-use.safetensors", "learned.safetensors"):
            words[words.index(name)] = str(folder / name)
        outcome = forestage(*words, "--json")
        assert outcome.status == 0, outcome.err
        none, some = json.loads(outcome.out)["points"]
        static = next(line for line in none["lines"] if line["name"] == "in memory, static placement")
        assert static["outcome"] == batch["none_held"]
        some["lines"] = [line for line in some["lines"] if not line["is_oracle"]]
        assert some == batch["point"]


def check_report(folder: Path) -> None:
    """The page holds every section and reaches for nothing outside itself."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 6
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "undefined" not in page.lower()
    for subject in SUBJECTS:
        assert f'<section id="{subject.stage.name}">' in page
