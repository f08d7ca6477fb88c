"""``forestage system simulate`` runs one policy, and finds for it what ``system compare`` does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.learned_samples import random_next_use, random_predictor
from tests.study.conftest import refused

SHIPPED = Path(__file__).parents[2] / "gpu_reference" / "shipped" / "trace.safetensors"
SMALL = ("--trace", SHIPPED, "--tokens", 200, "--link-gb-per-s", 0.1)
HOST = ("--host-gb-per-s", 0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a next-use predictor and of a next-layer predictor of up to three layers ahead; both know nothing."""
    folder = tmp_path_factory.mktemp("trained")
    shape: dict[str, Any] = {"layers": 8, "experts": 32, "top_k": 4}
    random_next_use(np.random.default_rng(0), **shape).save(folder / "next-use.safetensors")
    random_predictor(**shape, farthest=3).save(folder / "next-layer.safetensors")
    return folder / "next-use.safetensors", folder / "next-layer.safetensors"


def options_of(policy: dict[str, Any], trained: tuple[Path, Path]) -> list[object]:
    """The options that give a policy of a comparison."""
    found: list[object] = ["--eviction", policy["eviction"], "--missing", policy["missing"]]
    moves = policy["prefetch"] != "none"
    if moves:
        found += ["--prefetch", policy["prefetch"], "--chance-scale", policy["chance_scale"]]
        found += ["--distance", 1] + ([] if policy["prefetch"] == "st-moe" else ["--distance", 3])
    if policy["prefetch"] == "learned":
        found += ["--predictor", trained[1]]
    if policy["eviction"] == "learned":
        found += ["--next-use", trained[0]]
    if policy["background"]:
        found.append("--background")
    if policy["background"] or moves:
        found += ["--price", policy["price"]]
    return found


def test_it_finds_for_each_policy_what_a_comparison_finds(forestage, trained: tuple[Path, Path]) -> None:
    told = forestage(
        "system", "compare", *SMALL, *HOST, "--capacity-fraction", 0.5, "--resamples", 0, "--next-use", trained[0],
        "--predictor", trained[1], "--distance", 1, "--distance", 3, "--json",
    )  # fmt: skip
    assert told.status == 0, told.err
    (point,) = json.loads(told.out)["points"]
    assert {"learned", "background, learned", "ST-MoE prefetch"} <= {line["name"] for line in point["lines"]}
    for line in point["lines"]:
        one = forestage("system", "simulate", *SMALL, *HOST, *options_of(line["policy"], trained), "--json")
        assert one.status == 0, one.err
        document = json.loads(one.out)
        assert (document["policy"], document["outcome"]) == (line["policy"], line["outcome"])
        assert (document["places"], document["all_resident_s"]) == (point["places"], point["all_resident_s"])


@pytest.mark.parametrize(
    "policy",
    [
        (),
        ("--prefetch", "st-moe", "--distance", 2, "--issue-limit", 3, "--engine-cycles", 100),
        (*HOST, "--eviction", "decayed-frequency", "--missing", "sooner", "--background", "--price", 16_384),
        ("--drafted", 4, "--prefetch", "perfect", "--scope", "layer"),
    ],
)
def test_both_engines_print_the_same(forestage, policy: tuple[object, ...]) -> None:
    found = []
    for engine in ("compiled", "reference"):
        told = forestage("system", "simulate", *SMALL, *policy, "--engine", engine, "--json")
        assert told.status == 0, told.err
        found.append(json.loads(told.out))
        assert found[-1].pop("engine") == engine
    assert found[0] == found[1]


def test_the_table_names_the_time_its_parts_and_the_bounds(forestage) -> None:
    static = forestage("system", "simulate", *SMALL, *HOST, "--eviction", "static", "--missing", "host")
    assert static.status == 0, static.err
    for said in ("mean / p50 / p95 / p99", "host wait", "hit rate", "busy: link", "every expert on the device"):
        assert said in static.out
    assert "128 experts held (50\u202f%)" in static.out
    assert "fetching cannot take less" not in static.out


def test_a_device_that_keeps_nothing_fetches_every_expert(forestage) -> None:
    told = forestage("system", "simulate", *SMALL, "--capacity-fraction", 0, "--json")
    document = json.loads(told.out)
    assert (document["places"], document["outcome"]["hit_rate"], document["outcome"]["fetched"]) == (0, 0, 32)
    assert document["counts"]["demands"] == 32 * document["outcome"]["steps"]


def test_a_static_placement_never_moves(forestage) -> None:
    told = forestage("system", "simulate", *SMALL, *HOST, "--eviction", "static", "--missing", "host", "--json")
    document = json.loads(told.out)
    assert (document["outcome"]["moved"], document["link_roofline_s"]) == (0, None)
    assert document["counts"]["computed"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--eviction", "static"), "--eviction static: a static placement fetches nothing"),
        (
            ("--eviction", "static", "--missing", "host", "--background"),
            "--eviction static: a static placement moves nothing",
        ),
        (("--background",), "--eviction lru: background loads compare values"),
        (("--missing", "host"), "--eviction lru: has no effect: with --missing host nothing is ever loaded"),
        (("--prefetch", "st-moe", "--distance", 1, "--distance", 2), "predicts at one distance"),
        (("--prefetch", "st-moe", "--distance", 8), "--distance 8: choose one in 1…7"),
        (("--eviction", "learned"), "--next-use: the policy needs a trained predictor"),
        (("--prefetch", "learned"), "--predictor: the policy needs a trained predictor"),
        (("--prefetch", "st-moe", "--drafted", 2), "nothing is predicted within a step"),
        (("--prefetch", "st-moe", "--issue-limit", 0), "--issue-limit 0: choose 1 to 32"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(forestage, options: tuple[object, ...], said: str) -> None:
    assert said in refused(forestage("system", "simulate", *SMALL, *options))


def test_a_predictor_of_another_shape_or_distance_is_refused(forestage, trained: tuple[Path, Path]) -> None:
    learned = ("--prefetch", "learned", "--predictor", trained[1])
    assert "4" in refused(forestage("system", "simulate", *SMALL, *learned, "--distance", 4))
    other = trained[1].parent / "other.safetensors"
    random_predictor(layers=8, experts=16, top_k=4).save(other)
    line = refused(forestage("system", "simulate", *SMALL, "--prefetch", "learned", "--predictor", other))
    assert "16" in line
