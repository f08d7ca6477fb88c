"""The engine beside the system model, on a trace: which policies, whose times, and what the document says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from cocotb_tests.build import require_tools
from perfmodel.config import SimulationConfig
from predictor.engine.limits import HeadsLimits
from predictor.engine.scale import MachineTimes
from predictor.policies.parts import Predictors
from predictor.row_network.limits import HeadLimits
from staging.transfer.timing import MemoryTiming
from study.engine.system_comparison import (
    LEAST_LAYER_CYCLES,
    SystemComparison,
    chosen_policies,
    compare_system,
    first_part,
    scaled_times,
)
from study.engine.system_model import POLICIES, EngineTimes, SteadyPredictor, compare
from tests.learned_samples import identified_trace, random_next_use, random_predictor

LAYERS, EXPERTS, TOP_K = 4, 32, 4
MACHINE = MachineTimes(transfer=400_000, before_gate=30_000, expert=7_500)
CONFIG = SimulationConfig(sizes_of="gpt-oss-20b", capacity_experts=LAYERS * 8)
TRACE = identified_trace(experts=EXPERTS, layers=LAYERS, top_k=TOP_K, lengths=(40,) * 6, seed=3)


def predictors(**config: Any) -> Predictors:
    shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K}
    next_use = random_next_use(np.random.default_rng(0), ranked=True, **shape, **config)
    return Predictors(next_use=next_use, next_layer=random_predictor(**shape, **config), prefetched=4)


def test_all_policies_that_the_predictors_allow_are_compared() -> None:
    both = predictors()
    assert chosen_policies([], both) == (tuple(POLICIES), ())
    assert chosen_policies(["background", "recency"], both) == (("recency", "background"), ())
    values = replace(both, next_layer=None)
    assert chosen_policies([], values) == (("recency", "values"), ("prefetch", "background"))
    with pytest.raises(ForestageError, match=r"--policy prefetch: asks a trained predictor; give --predictor$"):
        chosen_policies(["prefetch"], values)
    with pytest.raises(ForestageError, match=r"give --predictor and --next-use$"):
        chosen_policies(["background"], Predictors())
    with pytest.raises(ForestageError, match="--policy lru: give recency, values, prefetch, background"):
        chosen_policies(["lru"], both)


def test_a_replay_keeps_the_machines_proportions() -> None:
    machine, scaled = (scaled_times(MACHINE, scale, top_k=TOP_K) for scale in ("machine", "replay"))
    assert (machine.link.chunk_cycles, machine.layers.before_gate_cycles) == (400_000, 30_000)
    assert machine.settings is None
    layer = scaled.layers.before_gate_cycles + TOP_K * scaled.layers.expert_cycles
    assert layer == pytest.approx(LEAST_LAYER_CYCLES, abs=2)
    assert scaled.link.chunk_cycles / layer == pytest.approx(400_000 / 60_000, rel=0.005)
    # The hardware's link moves so many bytes at its whole bandwidth, in one chunk.
    assert scaled.settings is not None
    assert (scaled.settings.expert_bytes, scaled.settings.share) == (64 * scaled.link.chunk_cycles, 256)
    assert scaled.settings.chunks == 1
    assert 20 < scaled.link.latency < 80


def test_every_count_is_equal_at_a_machines_times() -> None:
    steps: list[tuple[int, int]] = []
    found = compare_system(
        TRACE, 30, predictors(), CONFIG, tuple(POLICIES), times="machine", progress=lambda *done: steps.append(done)
    )
    assert found.is_equal
    assert (found.engine, found.tokens, len(steps)) == ("twin", 30, 4)
    for run in found.runs:
        assert (run.compared_with_twin, run.differences) == (0, {})
        assert run.engine["hits"] + run.engine["fetched"] == 30 * LAYERS * TOP_K
        assert abs(run.relative_time) < 0.001
    assert found.runs[2].engine["ahead"] > 0
    assert SystemComparison.model_validate_json(found.model_dump_json()) == found
    assert not found.model_copy(update={"runs": (run.model_copy(update={"differences": {"hits": 1}}),)}).is_equal


def test_the_hardware_does_not_run_at_a_machines_times() -> None:
    with pytest.raises(ForestageError, match=r"--rtl: .* give --times replay"):
        compare_system(TRACE, 2, Predictors(), CONFIG, ["recency"], times="machine", rtl=True)


PLAIN = {"identities": 0, "identity_rows": 0, "ngram_tables": (), "continuation_windows": ()}
NET = HeadsLimits(
    lanes=64,
    next_layer=HeadLimits(hidden=64, row_words=2048, previous=2, decays=3, identities=2, matched=8),
    next_use=HeadLimits(hidden=64, questions=2, row_words=2048, previous=2, decays=3, identities=1, matched=8),
)


@pytest.mark.long
@pytest.mark.parametrize("config", [PLAIN, {}], ids=["plain", "text"])
def test_the_hardware_beside_the_system_model(config: dict[str, Any]) -> None:
    """Recency counts alike; every policy's hardware is its twin's."""
    try:
        require_tools()
    except ForestageError as error:
        pytest.skip(str(error))
    from study.engine.system_rtl import RtlRunner

    asked, scaled = predictors(**config), scaled_times(MACHINE, "replay", top_k=TOP_K)
    assert scaled.settings is not None
    times = EngineTimes(
        layers=scaled.layers, link=scaled.link, networks=SteadyPredictor(prefetch=61, values=201, next=202)
    )
    part, uses = first_part(TRACE, 6, asked), np.ones((LAYERS, EXPERTS), np.int64)
    for name, policy in POLICIES.items():
        runner = RtlRunner(scaled.settings, MemoryTiming(latency=20), net=NET)
        found = compare(part, policy, asked, uses, times, share=8, run_engine=runner)
        assert runner.result is not None
        assert runner.result.mismatches == 0
        assert sum(runner.result.compared.values()) > 500
        learns = policy.is_learned and not config
        assert runner.result.start_cycles == ("from hardware" if learns else "compared")
        assert found.engine["hits"] + found.engine["fetched"] == 6 * LAYERS * TOP_K
        assert found.relative_time == pytest.approx(0, abs=0.05)
        if name == "recency":
            assert found.differences == {}
