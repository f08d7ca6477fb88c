"""Rows of decoding: every policy at a point, tuned on other tokens, with the outputs of the run without offloading."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog import ForestageError, find_model
from gpu_reference.measuring import bench as bench_module
from gpu_reference.measuring import decoding
from gpu_reference.measuring.bench import Bench, Skipped
from gpu_reference.measuring.clock import Effort
from gpu_reference.measuring.decoding import (
    FURTHER,
    RESIDENT,
    RowsFailedError,
    Setting,
    decode_sections,
    decoded,
)
from gpu_reference.measuring.points import POINTS, Point
from gpu_reference.measuring.steps import Parts, Purpose
from gpu_reference.offload.replay import ReplayRun
from gpu_reference.records.decode import Decode
from predictor.policies.material import Material, material_of
from predictor.policies.parts import Predictors
from predictor.policies.plan import Missing
from predictor.policies.policy import Policy
from tests.routing import trace_of

LAYERS, EXPERTS, TOP_K = 2, 8, 2
MODEL = find_model("forestage-small-moe").model_copy(
    update={"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K, "vocabulary": 50}
)
QUICK = Point(0.5, 1, "real sizes")


@pytest.fixture(scope="module")
def material() -> Material:
    """Random routing, in which some experts are likelier than others."""
    tokens = 60 * 12
    noise = np.random.default_rng(0).gumbel(size=(tokens, LAYERS, EXPERTS)) - np.log(1 + np.arange(EXPERTS))
    trace = trace_of(np.argsort(-noise, axis=2)[:, :, :TOP_K], experts=EXPERTS, lengths=[12] * 60)
    return material_of(trace, Predictors(), {}, test_tokens=200, tuning_tokens=200)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench that measures as little as it can."""
    effort = Effort(warm_runs=0, least_runs=1, most_runs=1, most_s=0.0)
    monkeypatch.setattr(bench_module, "EFFORTS", {"quick": effort, "full": effort})
    monkeypatch.setattr(decoding, "TOO_SLOW", 100.0)  # times of a busy machine leave out no candidate
    return Bench(device="cpu", suite="quick", model=MODEL)


def rows_at(
    bench: Bench, material: Material, point: Point = QUICK, setting: Setting | None = None, *, further: bool = False
) -> dict[str, Decode]:
    """The first rows at a point, or the further ones, by name."""
    found = decoded(bench, material, point, setting or Setting(), further=further)
    return {row.row: row for row in found if isinstance(row, Decode)}


def test_rows_have_the_outputs_of_the_run_without_offloading(bench: Bench, material: Material) -> None:
    rows = rows_at(bench, material)
    resident = rows.pop(RESIDENT)
    assert (resident.share, resident.hit_rate, resident.moved_bytes) == (1.0, 1.0, 0)
    fetching = [row for row in rows.values() if row.policy.missing is Missing.FETCH]
    assert {"LRU", "decayed frequency", "Belady + perfect prefetch"} <= {row.row for row in fetching}
    assert {"static placement", "background, frequency"} <= set(rows)
    for row in fetching:
        assert row.matches_resident is True
        assert row.output_digest == resident.output_digest
        assert row.host_threads == 0
        assert (row.places, row.share, row.part.steps, row.tpot_s.runs) == (8, 0.5, 8, 8)
        assert row.counts["lookups"] == 8 * LAYERS * TOP_K
        assert row.hit_rate == row.counts["hits"] / row.counts["lookups"]
    for row in rows.values():
        assert row.regimen.expert_bytes == 14_752  # 3 · 144 · 64 · 4.25 / 8, a scale for each 32 begun
        if row.policy.missing is not Missing.FETCH:
            assert row.matches_resident is None
            assert row.part.steps == 3
        if row.policy.missing is Missing.HOST:
            assert row.counts["fetched"] == 0
    assert rows["LRU"].foresight == "none"
    assert rows["decayed frequency"].foresight == "online"
    assert rows["Belady + perfect prefetch"].foresight == "arrays"
    assert rows["Belady + perfect prefetch"].hit_rate >= rows["LRU"].hit_rate


def test_free_settings_are_chosen_on_tokens_of_the_training_part(bench: Bench, material: Material) -> None:
    parts = Parts(bench, material, QUICK)
    tuning, record = parts.of(Purpose.TUNING)
    test, _ = parts.of(Purpose.TEST)
    assert set(material.tuning_sequences).isdisjoint(material.test_sequences)
    assert np.array_equal(tuning.trace.expert_ids[:2], material.tuning.expert_ids[:2])
    assert np.array_equal(test.trace.expert_ids[:2], material.test.expert_ids[:2])
    assert int(test.steps.timed.sum()) == 8
    assert not test.steps.timed[:2].any()
    rows = rows_at(bench, material)
    row = rows["decayed frequency"]
    assert row.tuning is not None
    assert (row.tuning.part, row.tuning.tried, row.tuning.share) == (record, 6, 0.5)
    assert rows["LRU"].tuning is None
    host = rows["background, frequency"].tuning
    assert host is not None
    assert (host.part, host.tried) == (parts.of(Purpose.HOST_TUNING)[1], 10)  # the host alone, and whichever is sooner


def test_what_is_sooner_is_chosen_where_that_is_fastest(
    bench: Bench, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    _steps_take(monkeypatch, lambda policy: 0.001 if policy.missing is Missing.SOONER else 2.0)
    row = rows_at(bench, material)["background, frequency"]
    assert row.policy.missing is Missing.SOONER
    assert row.counts["lookups"] == row.counts["hits"] + row.counts["fetched"] + row.counts["computed"]
    assert row.tuning is not None
    assert row.tuning.tried == 2 + 4  # the host alone is far behind at once, so its other prices are not tried


def _steps_take(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Policy], float]) -> None:
    """Runs with offloaded experts take so long a step."""
    run = decoding._run

    def timed(*arguments: Any) -> tuple[ReplayRun, Any]:
        found, told = run(*arguments)
        return replace(found, step_s=np.full_like(found.step_s, seconds(arguments[-1]))), told

    monkeypatch.setattr(decoding, "_run", timed)


def test_the_fastest_on_the_tuning_tokens_is_taken(
    bench: Bench, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    _steps_take(monkeypatch, lambda policy: 0.5 if policy.price == 4095 else 1.0)
    policy = rows_at(bench, material)["decayed frequency"].policy
    assert (policy.price, policy.background) == (4095, True)


def test_small_experts_and_a_slower_link_are_named(bench: Bench, material: Material) -> None:
    small = rows_at(bench, material, Point(0.5, 1, "small experts"))["LRU"]
    assert (small.regimen.name, small.regimen.expert_intermediate) == ("small experts", 32)
    slower = rows_at(bench, material, Point(0.5, 1, "throttled"))
    assert len({row.regimen.throttle_gb_per_s for row in slower.values()}) == 1
    assert slower["LRU"].regimen.throttle_gb_per_s is not None


def test_several_sequences_at_once(bench: Bench, material: Material) -> None:
    rows = rows_at(bench, material, Point(0.5, 4, "real sizes"))
    assert rows["LRU"].part.tokens == 32
    assert rows["LRU"].matches_resident is True
    assert rows["decayed frequency"].foresight == "arrays"  # predictors listen to one sequence at a time


def test_a_row_that_fails_leaves_the_others(bench: Bench, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    run = decoding._run

    def sometimes(*arguments: Any) -> tuple[ReplayRun, Any]:
        if arguments[-1].eviction.value == "lru":
            raise RuntimeError("no such kernel")
        found, told = run(*arguments)
        wrong = arguments[-1].eviction.value == "belady"
        return (replace(found, digest="0" * 64) if wrong else found), told

    monkeypatch.setattr(decoding, "_run", sometimes)
    found: list[str] = []
    rows = decoded(bench, material, QUICK, Setting())
    with pytest.raises(RowsFailedError) as caught:
        found.extend(row.row for row in rows if isinstance(row, Decode))
    assert "decayed frequency" in found
    assert "LRU" not in found
    assert "LRU: RuntimeError: no such kernel" in str(caught.value)
    assert "Belady + perfect prefetch: WrongResultError: its output is not that of the run" in str(caught.value)


def test_memory_that_is_not_there_is_refused(bench: Bench, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "free_bytes", lambda device: 100_000)
    with pytest.raises(ForestageError, match=r"mxfp4: 16 experts 0\.0 GB, 18 places for experts 0\.0 GB, the decoder"):
        next(decoded(bench, material, QUICK, Setting()))


def test_further_rows_are_compared_with_the_same_run(
    bench: Bench, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Point, "is_first", lambda point, row: row in ("LRU", "static placement"))
    setting = Setting()
    first = rows_at(bench, material, setting=setting)
    assert list(first) == [RESIDENT, "LRU", "static placement"]
    monkeypatch.setattr(decoding, "_resident", None)  # which has run
    rest = rows_at(bench, material, setting=setting, further=True)
    assert {"decayed frequency", "background, oracle of uses", "perfect prefetch"} <= set(rest)
    assert not set(first) & set(rest)
    assert {row.output_digest for row in rest.values() if row.matches_resident} == {first[RESIDENT].output_digest}
    monkeypatch.undo()
    monkeypatch.setattr(Point, "is_first", lambda point, row: row != "LRU")
    alone = rows_at(bench, material, further=True)  # as where a measurement goes on
    assert list(alone) == ["LRU"]
    assert alone["LRU"].matches_resident is True


def test_rows_that_take_long_have_fewer_steps(
    bench: Bench, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = decoding._resident
    monkeypatch.setattr(decoding, "_resident", lambda *arguments: replace(resident(*arguments), step_s=np.full(1, 2.0)))
    _steps_take(monkeypatch, lambda policy: 1.0 if policy.missing is Missing.FETCH else 4.0)
    rows = rows_at(bench, material)
    assert {row.part.steps for row in rows.values() if row.policy.missing is Missing.FETCH} == {
        2
    }  # 8 · 2 s is too long
    assert rows["LRU"].matches_resident is True
    assert rows["static placement"].part.steps == 3  # too few to halve


def test_sections_without_a_trace_and_of_the_quick_suite(bench: Bench, material: Material) -> None:
    sections = decode_sections(None)
    assert [section.name for section in sections] == [
        *(point.name for point in POINTS),
        *(f"{point.name}{FURTHER}" for point in POINTS),
    ]
    with pytest.raises(Skipped, match="no trace was given"):
        next(sections[0].measure(bench))
    with pytest.raises(Skipped, match="the quick suite decodes at one point alone"):
        next(decode_sections(material)[1].measure(bench))
