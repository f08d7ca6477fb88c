"""``forestage trace stats``: the document, the tables, the picture and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from staging.simulate import simulate
from study import trace_profile as module
from study.trace_profile import LRU_CAPACITIES, leading_sequences, lru_capacities, trace_profile
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.statistics import batch_statistics, cross_layer_statistics, statistics, working_set_statistics

Forestage = Callable[..., Outcome]


def test_the_document_holds_what_the_functions_compute(forestage: Forestage, small_trace: Path) -> None:
    outcome = forestage("trace", "stats", small_trace, "--json", "--batch", 3, "--samples", 9, "--seed", 2)
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    trace = RoutingTrace.load(small_trace)
    general = json.loads(statistics(trace).model_dump_json())
    assert {key: document[key] for key in general} == general
    sizes = [1, 2, 3, 4]
    assert document["batches"] == json.loads(batch_statistics(trace, sizes=sizes, samples=9, seed=2).model_dump_json())
    assert document["histogram_batch"] == 3
    assert document["cross_layer"] == json.loads(cross_layer_statistics(trace).model_dump_json())
    assert document["working_sets"] == json.loads(working_set_statistics(trace).model_dump_json())
    lru = document["lru"]
    assert (lru["count"], lru["tokens"]) == ("decode", trace.tokens)
    assert [point["capacity"] for point in lru["by_capacity"]] == list(range(2, 9))
    for point in lru["by_capacity"]:
        assert point["hit_rate"] == simulate(trace, capacity=point["capacity"]).hit_rate


def test_the_tables_show_every_subject(forestage: Forestage, small_trace: Path) -> None:
    outcome = forestage("trace", "stats", small_trace, "--samples", 5)
    assert outcome.status == 0, outcome.err
    for text in ("Overlap", "Adjacent layers", "Batches of decode", "Working sets", "LRU", "6 sequences", "synthetic"):
        assert text in outcome.out


def test_the_picture_is_the_same_for_the_same_trace(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        path = tmp_path / name
        assert forestage("trace", "stats", small_trace, "--batch", 4, "--samples", 5, "--figure", path).status == 0
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert first.startswith(b"<?xml")


def test_a_picture_is_refused_before_the_work(
    forestage: Forestage, small_trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.commands.trace.stats.trace_profile", None)
    line = refused(forestage("trace", "stats", small_trace, "--figure", tmp_path / "a.bmp"))
    assert "a.bmp" in line
    assert "svg" in line
    (tmp_path / "folder.svg").mkdir()
    for name in ("folder.svg", f"{small_trace.name}/a.svg"):
        assert name in refused(forestage("trace", "stats", small_trace, "--figure", tmp_path / name))


def test_settings_that_are_not_positive_are_refused(forestage: Forestage, small_trace: Path) -> None:
    for option in ("--batch", "--samples"):
        assert f"{option} 0: give 1 " in refused(forestage("trace", "stats", small_trace, option, 0))
    assert "--seed -1: give 0 or more" in refused(forestage("trace", "stats", small_trace, "--seed", -1))
    line = refused(forestage("trace", "stats", small_trace, "--samples", 10**12))
    assert "--samples 1000000000000: give 1 to 10000" in line


def test_a_trace_of_one_layer_and_one_prefill_token_can_be_measured_and_drawn(tmp_path: Path) -> None:
    from study.commands.trace.stats import draw

    trace = trace_of(np.array([[[0]]]), experts=1, prompt=1)
    profile = trace_profile(trace)
    assert (profile.cross_layer.by_pair, profile.lru.count) == ((), "all")
    draw(profile, tmp_path / "one.svg")
    assert (tmp_path / "one.svg").stat().st_size > 1000


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    from study.commands.trace.stats import draw

    profile = trace_profile(trace_of(np.array([[[0]], [[1]]]), experts=2, model="a$_{$b$c$"))
    draw(profile, tmp_path / "name.svg")
    assert (tmp_path / "name.svg").stat().st_size > 1000


def test_a_trace_without_a_whole_token_can_be_drawn(tmp_path: Path) -> None:
    from study.commands.trace.stats import draw

    ids = np.array([[[0], [255]], [[255], [1]]])
    profile = trace_profile(trace_of(ids, experts=2))
    assert (profile.batches.by_size, profile.working_sets.by_window) == ((), ())
    draw(profile, tmp_path / "none.svg")


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (8, 2), (32, 4), (256, 8), (5, 5)])
def test_capacities_run_from_a_token_to_all(experts: int, top_k: int) -> None:
    capacities = lru_capacities(experts, top_k)
    assert capacities[0] == top_k
    assert capacities[-1] == experts
    assert capacities == sorted(set(capacities))
    assert len(capacities) == min(LRU_CAPACITIES, experts - top_k + 1)


def test_the_cache_runs_on_leading_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of(np.zeros((9, 1, 1)), experts=2, lengths=[4, 3, 2])
    assert leading_sequences(trace, 8).sequences == 2
    assert leading_sequences(trace, 9).sequences == 3
    assert leading_sequences(trace, 3).tokens == 3
    monkeypatch.setattr(module, "LRU_TOKENS", 5)
    assert trace_profile(trace, samples=2).lru.tokens == 4
