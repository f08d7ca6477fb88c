"""Times on a measured machine, added up by hand; all constants are whole microseconds."""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from perfmodel import engine
from perfmodel.measured import (
    CopyLine,
    Curve,
    Grid,
    HostConstants,
    LayerConstants,
    MeasuredConstants,
    measured_times,
)
from perfmodel.simulator import Simulator
from perfmodel.workload import Durations
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy
from staging.steps import batch_steps, decode_steps
from tests.routing import trace_of
from traces.batch import BatchConfig, make_schedule

US = 10**6  # ps
LRU = Policy(eviction=Eviction.LRU)
STATIC = Policy(eviction=Eviction.STATIC, missing=Missing.HOST)

FIRST = LayerConstants(
    fixed_s=Grid("a", ((1, Curve("a", ((8, 10e-6), (16, 20e-6)))), (2, Curve("a", ((8, 13e-6), (16, 26e-6)))))),
    shared_s=Curve("shared", ((1, 4e-6), (2, 6e-6))),
)
SECOND = LayerConstants(
    fixed_s=Grid("b", ((1, Curve("b", ((8, 30e-6), (16, 31e-6)))), (2, Curve("b", ((8, 33e-6), (16, 35e-6)))))),
    shared_s=None,
)


def made(**changes: Any) -> MeasuredConstants:
    """Two layers; an expert of three chunks."""
    fields: dict[str, Any] = {
        "model": "made",
        "expert_bytes": 2500,
        "chunk_bytes": 1000,
        "copy": CopyLine(latency_s=1e-6, bytes_per_s=1e8),
        "throttle_bytes_per_s": None,
        "expert_s": Curve("expert: tokens", ((1, 5e-6), (2, 6e-6))),
        "expert_launch_s": 2e-6,
        "layers": (FIRST, SECOND),
        "end_s": Curve("end", ((1, 100e-6), (2, 120e-6))),
        "buckets": (8, 16),
        "gate_s": Curve("gate", ((1, 3e-6), (2, 4e-6))),
        "runtime_s": Curve("runtime", ((1, 11e-6), (2, 13e-6))),
        "runtime_expert_s": 5e-6,
        "foresight_s": 8e-6,
        "begin_s": 0.0,
        "host": None,
    }
    return MeasuredConstants(**{**fields, **changes})


def part(ids: Any, *, batch: int = 1, lengths: list[int] | None = None) -> Part:
    trace = trace_of(ids, experts=4, lengths=lengths)
    steps = decode_steps(trace)
    if batch > 1:
        steps = batch_steps(trace, make_schedule(trace, BatchConfig(slots=batch)))
    return part_of(trace, steps, Predictors())


ONE = [[[0], [1]], [[0], [2]]]


def durations(**changes: Any) -> Durations:
    return measured_times(part(ONE), np.array([1, 2]), made(**changes)).durations


def test_a_gate_comes_after_everything_that_the_host_waits_for() -> None:
    work = measured_times(part(ONE), np.array([8, 9]), made()).workload
    around = 11
    end = 100 + 3
    assert (work.before_gate_ps // US).tolist() == [[end + 10 + around, 30 + around], [end + 20 + around, 31 + around]]
    # Shared experts are the mean over the layers, of which one has none.
    assert (work.shared_ps // US).tolist() == [8 + 2, 8 + 2]
    assert (work.prefetch_engine_ps // US).tolist() == [[8 + 2, 8 + 2]] * 2
    assert np.array_equal(work.before_gate_compute_ps, work.before_gate_ps)


def test_what_is_known_before_a_step_waits_for_no_launch() -> None:
    work = measured_times(part(ONE), np.array([8, 9]), made(begin_s=6e-6)).workload
    assert (work.begin_engine_ps // US).tolist() == [6, 6]
    # The host tells it before anything of the step is launched, so that the step takes as much longer.
    without = measured_times(part(ONE), np.array([8, 9]), made()).workload
    assert ((work.before_gate_ps - without.before_gate_ps) // US).tolist() == [[6, 0], [6, 0]]
    assert without.begin_engine_ps.tolist() == [0, 0]


def test_a_step_of_several_reads_the_cache_of_the_longest() -> None:
    ids = [[[0], [1]], [[0], [2]], [[3], [1]]]
    # The first sequence has tokens 0 and 1, the second token 2: a step of two, and one of one.
    work = measured_times(part(ids, batch=2, lengths=[2, 1]), np.array([3, 4, 15]), made()).workload
    ends = (120 + 4, 100 + 3)
    assert (work.before_gate_ps // US).tolist() == [
        [ends[0] + 26 + 13 + 5, 35 + 13],  # the first layer needs one expert more than one token does
        [ends[1] + 10 + 11, 30 + 11],
    ]
    assert (work.shared_ps // US).tolist() == [8 + 3, 8 + 2]
    assert (work.prefetch_engine_ps // US).tolist() == [[8 + 2 * 2, 8 + 2], [8 + 2, 8 + 2]]


def test_chunks_follow_each_other_no_faster_than_the_throttle() -> None:
    # 10 µs a chunk of 1000 bytes, 1 µs more for each.
    assert (durations().chunk_ps // US).tolist() == [0, 11, 22, 28]
    assert (durations(throttle_bytes_per_s=5e7).chunk_ps // US).tolist() == [0, 20, 40, 50]
    # A throttle that is hardly one leaves the copies as they are.
    assert (durations(throttle_bytes_per_s=9.5e7).chunk_ps // US).tolist() == [0, 11, 22, 28]


def test_a_hosts_rate_is_that_at_which_experts_were_seen_to_be_computed() -> None:
    host = HostConstants(
        expert_s=Curve("host", ((1, 1e-5), (2, 1.25e-5))), while_copying=2.0, before_s=3e-6, after_s=4e-6
    )
    of_two = part([[[0], [1]], [[0], [2]]], batch=2, lengths=[1, 1])
    found = measured_times(of_two, np.array([1, 1]), made(host=host)).durations
    # 2500 bytes in 10 µs are 250 MB/s, in 12.5 µs 200.
    assert found.host_free_rate.tolist() == [0, 250, 200]
    assert found.host_shared_rate.tolist() == [0, 125, 125]
    assert (found.host_before_ps, found.host_after_ps) == (3 * US, 4 * US)
    nothing = durations()
    assert (nothing.host_free_rate.tolist(), nothing.host_shared_rate.tolist()) == ([0, 0], [0, 0])


def test_a_token_takes_the_sum_of_its_parts() -> None:
    """One place: each layer's expert is fetched, but the first, which is there."""
    one = part(ONE)
    times = measured_times(one, np.array([8, 8]), made())
    simulator = Simulator(one, times, np.array([[1, 0, 0, 0], [0, 0, 0, 0]]), places=1, scope="global")
    run = simulator.run(LRU)
    layers = (103 + 10 + 11, 30 + 11)
    hit, fetched = 10 + 5, 28 + 5  # what follows the gate is over before the transfer is
    assert (run.step_ps // US).tolist() == [layers[0] + hit + layers[1] + fetched, sum(layers) + 2 * fetched]
    assert np.array_equal(engine.simulate(times.workload, times.durations, simulator.plan(LRU)).step_ps, run.step_ps)


def test_only_timed_steps_need_times() -> None:
    """A prompt of three tokens that choose one expert, which nothing was measured for."""
    trace = trace_of([[[0], [1]]] * 4, experts=4, prompt=3)
    prompted = part_of(trace, decode_steps(trace), Predictors())
    work = measured_times(prompted, np.array([1, 2, 20, 8]), made())
    assert (work.workload.before_gate_ps[0] == 0).all()
    assert work.workload.before_gate_ps[1, 0] > 0
    assert len(work.durations.expert_ps) == 2


def test_what_the_host_computes_comes_back() -> None:
    one = part(ONE)
    host = HostConstants(expert_s=Curve("host", ((1, 1e-5),)), while_copying=1.0, before_s=3e-6, after_s=4e-6)
    times = measured_times(one, np.array([8, 8]), made(host=host))
    simulator = Simulator(one, times, np.zeros((2, 4), np.int64), places=0, scope="global")
    assert (simulator.run(STATIC).step_ps // US).tolist() == [103 + 21 + 41 + 2 * (3 + 10 + 4)] * 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"expert_s": Curve("expert: tokens", ((2, 1e-6),))}, "expert: tokens: 1 is needed, 2 is measured"),
        ({"buckets": (8,)}, "context: a step looks at 9 tokens, the cache has 8"),
        ({"expert_bytes": 0}, "expert_bytes: 0"),
        ({"runtime_s": Curve("runtime", ((1, 1e6),))}, "one a layer takes"),
    ],
)
def test_what_cannot_be_stated_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ForestageError, match=match):
        measured_times(part(ONE), np.array([8, 9]), made(**changes))


def test_constants_of_another_model_are_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="1 layers"):
        measured_times(part(ONE), np.array([8, 9]), made(layers=(FIRST,)))
    with pytest.raises(ValueError, match="contexts"):
        measured_times(part(ONE), np.array([8]), made())
