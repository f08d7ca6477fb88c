"""The same trace and the same question give the same hit rate and the same words, whichever command is asked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study.config import StudyConfig
from study.stages import StudyContext
from study.subjects import caches
from study.subjects import trace as trace_subject
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.batch import BatchConfig, make_schedule
from traces.batch_file import load_schedule, save_batched

Forestage = Callable[..., Outcome]

KINDS = {"prefill only": 20, "decode only": 0, "mixed": 6}
"""Prompt tokens of sequences of 20."""


def made(prompt: int) -> RoutingTrace:
    popularity = np.linspace(1, 3, 16)
    ids = np.argsort(-popularity * np.random.default_rng(5).random((100, 3, 16)), axis=-1)[..., :2]
    return trace_of(ids, experts=16, lengths=[20] * 5, prompt=prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_gives_one_answer(kind: str, forestage: Forestage, tmp_path: Path) -> None:
    trace, path = made(KINDS[kind]), tmp_path / "t.safetensors"
    trace.save(path)
    stats = json.loads(forestage("trace", "stats", path, "--samples", 1, "--json").out)["lru"]
    capacity = stats["by_capacity"][2]["capacity"]
    asked = ("--trace", path, "--capacity", capacity, "--json")
    simulated = json.loads(forestage("cache", "simulate", *asked).out)
    compared = json.loads(forestage("cache", "compare", *asked, "--split", "all", "--resamples", 0).out)
    settings = StudyConfig(cache_fractions=(capacity / 16,))
    study = caches.run(StudyContext(trace, path, settings, tmp_path), lambda done, total: None)
    sentences = {stats["counted"], simulated["counted"], compared["counted"], study["counted"]}
    assert len(sentences) == 1
    rates = {
        point["policy"]: {round(point["hit_rate"], 12)}
        for point in [*simulated["results"], simulated["static"]]
    }  # fmt: skip
    for point in (*compared["points"], *study["points"]):
        rates[point["policy"]].add(round(point["hit_rate"], 12))
    rates["lru"].add(round(stats["by_capacity"][2]["hit_rate"], 12))
    rates["static"].add(round(stats["by_capacity"][2]["static_hit_rate"], 12))
    assert all(len(found) == 1 for found in rates.values()), rates
    for command in (("trace", "stats", path), ("cache", "simulate", *asked[:-1])):
        assert "counted: " + sentences.pop()[:12] in " ".join(forestage(*command).out.split())
        sentences.add(simulated["counted"])


def test_a_batch_is_simulated_and_other_commands_say_that_it_is_left_aside(
    forestage: Forestage, tmp_path: Path
) -> None:
    trace, path, plain = made(6), tmp_path / "batch.safetensors", tmp_path / "plain.safetensors"
    trace.save(plain)
    save_batched(path, trace, make_schedule(trace, BatchConfig(slots=4)))
    asked = ("--capacity", 6, "--policy", "lru", "--json")
    batch = json.loads(forestage("cache", "simulate", "--trace", path, *asked).out)
    single = json.loads(forestage("cache", "simulate", "--trace", plain, *asked).out)
    assert batch["batch"]["slots"] == 4
    assert single["batch"] is None
    assert batch["results"][0]["lookups"] < single["results"][0]["lookups"]  # a step's experts are united
    assert "batch" in batch["counted"]
    line = refused(forestage("cache", "compare", "--trace", path, "--capacity", 6))
    assert "`cache simulate` runs the batch" in line
    for command in (("trace", "stats", path, "--samples", 1), ("predictor", "evaluate", "--trace", path,
                    "--predictor", "popularity", "--resamples", 0)):  # fmt: skip
        run = forestage(*command)
        assert run.status == 0
        assert "its batch schedule is left aside" in run.err
        assert "left aside" not in forestage(*(plain if part == path else part for part in command)).err


def test_dropping_rows_of_a_batch_leaves_its_schedule_out(forestage: Forestage, tmp_path: Path) -> None:
    trace, path, out = made(6), tmp_path / "batch.safetensors", tmp_path / "out.safetensors"
    ids = trace.expert_ids.copy()
    ids[30:40] = ids[30]
    constant = trace_of(ids, experts=16, lengths=[20] * 5, prompt=6)
    save_batched(path, constant, make_schedule(constant, BatchConfig(slots=4)))
    run = forestage("trace", "import", path, "--out", out, "--drop-constant", 8)
    assert (run.status, load_schedule(out)) == (0, None)
    assert "make it again" in run.err
    assert RoutingTrace.load(out).tokens == 90
    kept = forestage("trace", "import", path, "--out", out, "--drop-constant", 11)
    assert (kept.status, "make it again" in kept.err) == (0, False)
    assert load_schedule(out) is not None


def test_one_layer_has_none_to_predict_ahead(forestage: Forestage, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    trace_of(np.arange(40).reshape(40, 1, 1) % 4, experts=4, lengths=[4] * 10).save(path)
    line = refused(forestage("predictor", "evaluate", "--trace", path, "--predictor", "st-moe"))
    assert "a trace of one layer has no layer to predict ahead" in line


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_says_what_is_counted_and_shows_the_nulls(kind: str, tmp_path: Path) -> None:
    trace = made(KINDS[kind])
    context = StudyContext(trace, tmp_path / "t.safetensors", StudyConfig(cache_fractions=(0.5,)), tmp_path)
    trace.save(context.trace_path)
    for subject in (caches, trace_subject):
        context.results[subject.SUBJECT.stage.name] = subject.run(context, lambda done, total: None)
    said = str(caches.section(context))
    assert f"Counted: {context.results['caches']['counted']}." in said
    assert "most used, static (null)" in said
    shown = trace_subject.section(context)
    assert "× within" in str(shown)
    overall = context.results["trace"]["statistics"]["overall"]
    assert shown.facts[0].value == f"{overall['over_popularity']:.2f} / {overall['over_sequence']:.2f} ×"
