"""How long kernels take before each gate, against the costs of one token and by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel, SimulatedLayers
from perfmodel.durations import durations
from perfmodel.workload import Workload
from perfmodel.workload_of import check_times, workload
from staging.steps import StepExperts, Steps
from tests.perfmodel.micro import EXPERT, gate, make_catalog, make_trace
from tests.routing import trace_of
from traces import RoutingTrace

CATALOG = load_catalog()


def steps_of(rows: list[list[int]], *, warm: tuple[int, ...] = (), sequential: bool = False) -> Steps:
    timed = np.ones(len(rows), np.bool_)
    timed[list(warm)] = False
    offsets = np.cumsum([0, *map(len, rows)])
    return Steps(tokens=np.concatenate(rows).astype(np.int64), offsets=offsets, timed=timed, sequential=sequential)


def experts_of(steps: Steps, layers: int) -> StepExperts:
    """Every step needs expert 0 of every layer, with one token."""
    uses = len(steps) * layers
    return StepExperts(
        experts=np.zeros(uses, np.int32), tokens_of=np.ones(uses, np.int32), offsets=np.arange(uses + 1, dtype=np.int64)
    )


def workload_of(trace: RoutingTrace, steps: Steps, costs: CostModel, layers: SimulatedLayers | None = None) -> Workload:
    layers = layers or SimulatedLayers.of(costs.model, trace.metadata.layer_map, own=True)
    engine_ps = np.zeros((len(steps), trace.layers), np.int64)
    return workload(trace, steps, experts_of(steps, trace.layers), costs, layers, engine_ps)


def micro(tmp_path: Path, **shape: int) -> CostModel:
    catalog = make_catalog(tmp_path, layers=3, experts=4, top_k=1, **shape)
    return CostModel(catalog.models.find("micro"), catalog.machines.find("micro"))


@pytest.mark.parametrize(
    "model", ["gpt-oss-20b", "DeepSeek-V2-Lite", "Qwen3-Next-80B-A3B", "Llama-4-Scout-17B-16E", "DeepSeek-V3.2"]
)
def test_steps_of_one_token_take_what_the_costs_of_one_token_say(model: str) -> None:
    record = CATALOG.models.find(model)
    costs = CostModel(record, CATALOG.machines.find("A100"))
    routed = record.moe_layers
    ids = np.zeros((6, routed, 1), np.int64)
    trace = trace_of(ids, experts=record.experts, lengths=[4, 2], layer_map=record.layer_map)
    trace = replace(trace, position=np.array([0, 1, 2, 9_000, 0, 1], np.int32))
    steps = steps_of([[0], [1], [2], [3], [4], [5]], warm=(0, 4))
    layers = SimulatedLayers.of(record, record.layer_map, own=True)
    work = workload_of(trace, steps, costs)
    shared = costs.shared_experts()
    for step, context in ((1, 2), (2, 3), (3, 9_001), (5, 2)):
        kernels = [[one, costs.gate()] for one in (costs.attention(context, layer) for layer in layers.routed)]
        kernels[0] += [costs.dense_layer(context, layer) for layer in layers.dense]
        assert work.before_gate_ps[step].tolist() == [sum(k.duration_ps for k in ks) for ks in kernels]
        assert work.before_gate_compute_ps[step].tolist() == [sum(k.compute_ps for k in ks) for ks in kernels]
        assert work.shared_ps[step] == (shared.duration_ps if shared else 0)
        assert work.shared_compute_ps[step] == (shared.compute_ps if shared else 0)
    for step in (0, 4):
        assert not work.before_gate_ps[step].any()
        assert not work.shared_ps[step]
    assert work.tokens.tolist() == [1] * 6
    assert (work.layers, work.model_experts) == (routed, record.experts)


def test_a_batch_reads_weights_once_and_each_sequences_own_cache(tmp_path: Path) -> None:
    costs = micro(tmp_path, shared_experts=1)
    trace = make_trace(np.zeros((5, 3, 1)), experts=4, sequences=[3, 2])
    work = workload_of(trace, steps_of([[2, 4], [0]]), costs)
    # Contexts of 3 and 2 tokens; 400 weights of 2 bytes once, 4 bytes a token of context, at 10 bytes a nanosecond.
    assert work.before_gate_ps[0].tolist() == [(800 + 4 * (3 + 2)) * 100 + gate(4)] * 3
    assert work.before_gate_ps[1].tolist() == [(800 + 4) * 100 + gate(4)] * 3
    assert work.shared_ps.tolist() == [EXPERT, EXPERT]
    assert work.tokens.tolist() == [2, 1]


def test_drafted_tokens_of_one_sequence_read_its_cache_once(tmp_path: Path) -> None:
    costs = micro(tmp_path)
    trace = make_trace(np.zeros((5, 3, 1)), experts=4)
    work = workload_of(trace, steps_of([[0, 1], [2, 3, 4]], sequential=True), costs)
    assert work.before_gate_ps[0, 0] == (800 + 4 * 2) * 100 + gate(4)
    assert work.before_gate_ps[1, 0] == (800 + 4 * 5) * 100 + gate(4)


def test_operations_count_by_token() -> None:
    record = CATALOG.models.find("DeepSeek-V2-Lite")
    costs = CostModel(record, CATALOG.machines.find("A100"))
    trace = trace_of(np.zeros((300, 26, 1), np.int64), experts=64, lengths=[1] * 300, layer_map=record.layer_map)
    layers = SimulatedLayers.of(record, record.layer_map, own=True)
    work = workload_of(trace, steps_of([list(range(300))]), costs)
    one = costs.attention(1, 1)
    attention = costs.kernel(300 * one.flops, one.hbm_bytes + 299 * (512 + 64) * 2)
    router = costs.kernel(300 * costs.gate().flops, costs.gate().hbm_bytes)
    dense = costs.kernel(
        attention.flops + 300 * 2 * record.dense_weights, attention.hbm_bytes + 2 * record.dense_weights
    )
    shared = costs.kernel(300 * 2 * record.shared_weights, 2 * record.shared_weights)
    assert attention.duration_ps == attention.compute_ps  # so that operations show
    assert layers.dense == (0,)
    assert work.before_gate_ps[0, 1] == attention.duration_ps + router.duration_ps
    assert work.before_gate_ps[0, 0] == attention.duration_ps + router.duration_ps + dense.duration_ps
    assert work.before_gate_compute_ps[0, 1] == attention.compute_ps + router.compute_ps
    assert (work.shared_ps[0], work.shared_compute_ps[0]) == (shared.duration_ps, shared.compute_ps)


def test_steps_that_do_not_fit_the_trace_are_refused(tmp_path: Path) -> None:
    costs = micro(tmp_path)
    trace = make_trace(np.zeros((2, 3, 1)), experts=4)
    steps = steps_of([[0], [1]])
    layers = SimulatedLayers.of(costs.model, (0, 1, 2), own=True)
    engine_ps = np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="experts: offsets"):
        workload(trace, steps, experts_of(steps, 2), costs, layers, engine_ps)
    with pytest.raises(ValueError, match="not \\[steps, layers\\]"):
        workload(trace, steps, experts_of(steps, 3), costs, layers, engine_ps[:1])
    with pytest.raises(ValueError, match="negative"):
        workload(trace, steps, experts_of(steps, 3), costs, layers, engine_ps - 1)
    with pytest.raises(ValueError, match="1 layers are simulated, the trace has 3"):
        workload(trace, steps, experts_of(steps, 3), costs, SimulatedLayers((0,), ()), engine_ps)
    empty = steps_of([[0], []])
    with pytest.raises(ValueError, match="one has no token"):
        workload(trace, empty, experts_of(empty, 3), costs, layers, engine_ps)


def test_a_run_whose_times_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    trace = trace_of(np.zeros((200, 36, 1), np.int64), experts=16, layer_map=range(36))
    record = CATALOG.models.find("Jamba-1.5-Large")
    config = SimulationConfig(link_gb_per_s=1e-3)
    costs = CostModel(record, CATALOG.machines.find("A100"), config.link_gb_per_s)
    times = durations(costs, config, most_tokens=1, largest_step=1)
    layers = SimulatedLayers.of(record, range(36), own=False)
    steps = steps_of([[row] for row in range(200)])
    work = workload_of(trace, steps, costs, layers)
    with pytest.raises(
        ForestageError, match=r"the steps could take .* s, more than the 2.31e\+06 s that can be counted"
    ):
        check_times(work, times)
    fast = CostModel(record, costs.machine)
    check_times(work, durations(fast, SimulationConfig(), most_tokens=1, largest_step=1))
