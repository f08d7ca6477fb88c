"""The learned predictor by its commands: train, evaluate, calibrate, export, sweep; and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from predictor.next_layer.sweep import grid_names, read_grid
from predictor.row_network.image import read_image
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused

pytest.importorskip("torch", reason="needs the extra forestage[torch]")

Forestage = Callable[..., Outcome]

QUICK = """
[predictor]
hidden = 8
layers_back = 1
previous = [[0, 0]]
decays = [[3, 0]]
identity_rows = 8
[training]
epochs = 2
batch = 64
validation = 0.2
"""

GRID = """
about = "two sizes"
recipe = "RECIPE"
issue = [2, 3]
[variants.wide]
[variants.narrow]
set = { hidden = 2, identity_rows = 0, identities = 0, ngram_tables = [] }
[variants.wide-on-b]
trained_by = "wide"
domains = ["b"]
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """20 sequences in two domains; each layer follows from the one before."""
    generator = np.random.default_rng(1)
    first = generator.random((400, 6)).argsort(axis=1)[:, :2]
    ids = np.stack([first, (first + 1) % 6, (first + 3) % 6], axis=1)
    made = trace_of(ids, experts=6, lengths=[20] * 20, domains=["a", "b"] * 10)
    made = replace(made, token_hash=generator.integers(0, 12, 400).astype(np.uint32))
    made.save(tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


def test_train_evaluate_calibrate_export(forestage: Forestage, trace: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    trained = forestage("predictor", "train", "--trace", trace, "--config", recipe, "--out", out, "--json")
    assert trained.status == 0, trained.err
    document = json.loads(trained.out)
    assert document["hidden"] == 8
    assert document["trained_on"] == "16 training sequences of t.safetensors (split seed 0)"
    assert len(document["log"]) == 2
    assert trained.err.count("epoch ") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.safetensors", "quick.toml", "t.safetensors"]

    evaluated = forestage("predictor", "evaluate", "--trace", trace, "--predictor", out, "--issue", 2, "--json")
    assert json.loads(evaluated.out)["trained_on"] == document["trained_on"]
    assert (
        "of far memory a token"
        in forestage("predictor", "evaluate", "--trace", trace, "--predictor", out, "--issue", 2).out
    )

    figure = tmp_path / "reliability.svg"
    asked = ("predictor", "calibration", "--trace", trace, "--predictor", out)
    calibrated = json.loads(forestage(*asked, "--json", "--figure", figure).out)
    assert sum(point["count"] for point in calibrated["reliability"]) == 4 * 20 * 3 * 6
    assert figure.read_text().startswith("<?xml")
    assert "expected calibration error" in " ".join(forestage(*asked).out.split())

    image = forestage("predictor", "export", out, "--out", tmp_path / "image", "--json")
    assert json.loads(image.out)["size"] == (tmp_path / "image").stat().st_size
    assert read_image(tmp_path / "image").manifest.layers == 3
    assert "far memory" in forestage("predictor", "export", out, "--out", tmp_path / "image").out


def test_one_bank_is_asked_at_every_lookahead(forestage: Forestage, trace: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    asked = ("predictor", "train", "--trace", trace, "--config", recipe, "--out", out, "--lookahead", "1-2")
    trained = forestage(*asked)
    assert trained.status == 0, trained.err
    assert "lookahead 1…2" in " ".join(trained.out.split())
    found = {}
    for lookahead in (1, 2):
        for command, more in (("evaluate", ("--issue", 2)), ("calibration", ())):
            words = ("predictor", command, "--trace", trace, "--predictor", out, *more)
            outcome = forestage(*words, "--lookahead", lookahead, "--json")
            assert outcome.status == 0, outcome.err
            document = json.loads(outcome.out)
            assert document["lookahead"] == lookahead
            found[command, lookahead] = document
    assert found["evaluate", 1]["recall"] != found["evaluate", 2]["recall"]
    assert found["calibration", 1]["reliability"] != found["calibration", 2]["reliability"]
    shown = forestage("predictor", "evaluate", "--trace", trace, "--predictor", out, "--issue", 2, "--json")
    assert json.loads(shown.out)["recall"] == found["evaluate", 1]["recall"]


def test_what_is_trained_on_is_selected(forestage: Forestage, trace: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    asked = ("predictor", "train", "--trace", trace, "--config", recipe, "--set", "epochs=1", "--out", out, "--json")
    document = json.loads(forestage(*asked, "--without-domain", "a").out)
    assert document["trained_on"] == "9 training sequences of t.safetensors (split seed 0), without domains a"
    assert document["training"]["epochs"] == 1
    assert json.loads(forestage(*asked, "--split", "all").out)["trained_on"] == "all of t.safetensors"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "hiden=3"], "hiden"),
        (["--set", "hidden=0"], "hidden"),
        (["--config", "none.toml"], "none.toml: no such file"),
        (["--without-domain", "c"], "'c'; it has a, b"),
        (["--lookahead", "3"], "--lookahead 3: choose one in 1…2"),
        (["--lookahead", "1-3"], "--lookahead 1-3: choose one in 1…2"),
        (["--lookahead", "2-1"], "--lookahead 2-1: give layers in 1…64, the nearest first"),
        (["--lookahead", "0"], "--lookahead 0: give layers in 1…64"),
        (["--lookahead", "far"], "--lookahead far: give a number of layers, or two as in 1-8"),
        (["--split", "test"], "--split test: choose"),
    ],
)
def test_refusals_of_train(
    forestage: Forestage, trace: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "p.safetensors"
    assert message in refused(forestage("predictor", "train", "--trace", trace, "--out", out, *arguments))
    assert not out.exists()


def test_a_trained_kind_is_given_as_a_file(forestage: Forestage, trace: Path) -> None:
    line = refused(forestage("predictor", "evaluate", "--trace", trace, "--predictor", "learned"))
    assert "forestage predictor train" in line


def test_a_sweep_goes_on_where_it_was(forestage: Forestage, trace: Path, recipe: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID.replace("RECIPE", str(recipe)))
    figure = tmp_path / "sram.svg"
    asked = ("predictor", "sweep", "--trace", trace, "--grid", grid, "--out", tmp_path / "out")
    first = forestage(*asked, "--figure", figure, "--json")
    assert first.status == 0, first.err
    document = json.loads(first.out)
    assert [result["name"] for result in document["results"]] == ["wide", "narrow", "wide-on-b"]
    sizes = {result["name"]: result["sram_bytes"] for result in document["results"]}
    assert sizes["wide"] == sizes["wide-on-b"] > sizes["narrow"]
    assert first.err.count("variant ") == 3
    assert figure.is_file()
    rivals = {result["name"]: result["rival"]["2"] for result in document["results"]}
    assert rivals["wide"] == rivals["narrow"] > 0.9  # the layers follow from one another
    assert rivals["wide-on-b"] != rivals["wide"] or rivals["wide"] == 1
    (tmp_path / "out" / "narrow.json").write_text("{")
    again = forestage(*asked, "--json")
    assert again.err.count("variant ") == 1
    (tmp_path / "out" / "narrow.json").unlink()
    before = (tmp_path / "out" / "narrow.safetensors").stat().st_mtime_ns
    assert forestage(*asked).status == 0
    assert (tmp_path / "out" / "narrow.safetensors").stat().st_mtime_ns == before  # measured anew, not trained
    assert json.loads(again.out)["results"][0] == document["results"][0]
    assert "recall@2" in forestage(*asked).out


def test_the_projects_grids_are_sound() -> None:
    assert set(grid_names()) == {"changes", "domains-deepseek", "left-out-gpt-oss", "sizes"}
    for name in grid_names():
        assert len(read_grid(name).variants) > 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about = 1", "about"),
        ("no toml", "not valid TOML"),
        ('about = "x"\n[variants.a]\nset = { hiden = 2 }', "hiden"),
        ('about = "x"\n[variants.a]\ntrained_by = "b"', "no earlier variant is called 'b'"),
    ],
)
def test_faulty_grids(forestage: Forestage, trace: Path, tmp_path: Path, text: str, message: str) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(text)
    line = refused(forestage("predictor", "sweep", "--trace", trace, "--grid", grid, "--out", tmp_path / "out"))
    assert message in line
