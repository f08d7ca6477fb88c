"""The runtime on a device with scripted times, and the system model with the same times: one part, one plan.

They agree in every count and picosecond where one thing follows from another alone: experts fetched on demand, or
computed by the host beside a static placement. Where transfers go on beside the computing they may part where both of
two orders are right, as the runtime differs in what its own description says: it asks the stager for the next expert
when the last chunk of the one before is queued, not when it is complete, and tells it that a layer has run when all is
launched. `CLOSE` bounds what comes of that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.experts.piece import Piece
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.offload import link, runtime
from gpu_reference.offload.foresight import ArrayForesight, Expected, Integers
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.runtime import OffloadedExperts
from gpu_reference.offload.statistics import Statistics
from perfmodel import engine
from perfmodel.measured import CopyLine, Curve, Grid, LayerConstants, MeasuredConstants, measured_times
from perfmodel.run import Run
from perfmodel.workload import Durations, Workload
from predictor.policies.parts import Predictors
from predictor.policies.plan import Missing, Plan
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from staging.steps import decode_steps
from study.reference.comparison import DecodedPart, contexts_of
from tests.routing import trace_of
from tests.study.reference.scripted_device import ScriptedDevice

LAYERS, EXPERTS, TOP_K, HIDDEN, STEPS = 4, 12, 2, 8, 60
PLACES = 20
LAYOUT = ExpertLayout(ExpertShape(hidden=HIDDEN, intermediate=4, matrices=3, activation="swiglu"), "fp32")
SIZE = LAYOUT.nbytes
BEFORE_PS, EXPERT_PS = 40_000, 15_000
TELLING_PS = 5_000
HOST_BEFORE_PS, HOST_EXPERT_PS, HOST_AFTER_PS = 3_000, 50_000, 2_000
FASTEST, FAST, SLOW = 1, 100, 600
"""Picoseconds a byte: an expert takes next to nothing; a layer of two; three layers of two."""

LRU, FREQUENCY, BELADY = (Policy(eviction=kind) for kind in (Eviction.LRU, Eviction.FREQUENCY, Eviction.BELADY))
PERFECT = Policy(eviction=Eviction.LRU, prefetch=Prefetch.PERFECT)
BELADY_PERFECT = Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT)
FREQUENCY_BACKGROUND = Policy(eviction=Eviction.FREQUENCY, background=True, price=4095)
STATIC = Policy(eviction=Eviction.STATIC, missing=Missing.HOST)
HOST_FREQUENCY = Policy(eviction=Eviction.FREQUENCY, missing=Missing.HOST, background=True, price=4095)
HOST_ORACLE = Policy(eviction=Eviction.ORACLE, missing=Missing.HOST, background=True, price=30000)
EVERYTHING = Policy(eviction=Eviction.ORACLE, prefetch=Prefetch.PERFECT, background=True, price=30000)

CLOSE, CLOSEST = 0.02, 0.008
"""Of hits by look-ups, of moved experts by look-ups, and of the whole time."""

CLOSE_WITH_EVERYTHING = 0.022
"""With prefetch and background loads on a slow link; the largest of all, as the runtime's two chunks are of either."""


@cache
def part(warm: int, policy: Policy) -> DecodedPart:
    """Experts are the likelier the smaller their number, and often the same as before."""
    generator = np.random.default_rng(4)
    ids = np.empty((STEPS, LAYERS, TOP_K), np.int64)
    for step in range(STEPS):
        score = generator.gumbel(size=(LAYERS, EXPERTS)) - np.log(1 + np.arange(EXPERTS))
        if step:
            np.put_along_axis(score, ids[step - 1], np.take_along_axis(score, ids[step - 1], 1) + 1.5, 1)
        ids[step] = np.argsort(-score, axis=1)[:, :TOP_K]
    trace = trace_of(ids, experts=EXPERTS, lengths=[STEPS])
    return DecodedPart.of(trace, decode_steps(trace), warm, Predictors(distances=(1,)), policy)


@cache
def host() -> HostExperts:
    return HostExperts.random(LAYOUT, LAYERS, EXPERTS, seed=1, device=torch.device("cpu"))


def plan_for(decoded: DecodedPart, policy: Policy) -> Plan:
    of = decoded.part
    return plan_of(
        policy, layers=LAYERS, experts=EXPERTS, most_needed=of.most_needed, places=PLACES, scope="global",
        hottest=np.arange(PLACES, dtype=np.int64), values=of.values, predictions=of.predictions,
    )  # fmt: skip


# --- the model ---


def workload(decoded: DecodedPart) -> Workload:
    of = decoded.part
    steps, shape = len(of.steps), (len(of.steps), LAYERS)
    return Workload(
        layers=LAYERS,
        model_experts=EXPERTS,
        experts=of.needed.experts,
        tokens_of=of.needed.tokens_of,
        offsets=of.needed.offsets,
        timed=of.steps.timed,
        tokens=np.ones(steps, np.int64),
        before_gate_ps=np.full(shape, BEFORE_PS),
        before_gate_compute_ps=np.full(shape, BEFORE_PS),
        shared_ps=np.zeros(steps, np.int64),
        shared_compute_ps=np.zeros(steps, np.int64),
        prefetch_engine_ps=np.ones(shape, np.int64),  # after the link has started what the gate demands
        values_engine_ps=np.ones(shape, np.int64),
        begin_engine_ps=np.zeros(steps, np.int64),
    )


def durations(byte_ps: int, chunk_bytes: int) -> Durations:
    ends = np.array([*range(0, SIZE, chunk_bytes), SIZE], np.int64)
    rate = 10**6
    return Durations(
        expert_bytes=SIZE,
        chunk_bytes=chunk_bytes,
        chunk_ps=ends * byte_ps,
        expert_ps=np.array([0, EXPERT_PS]),
        expert_compute_ps=np.array([0, EXPERT_PS]),
        host_work=HOST_EXPERT_PS * rate,
        host_free_rate=np.array([0, rate]),
        host_shared_rate=np.array([0, rate]),
        host_groups=1,
        host_before_ps=HOST_BEFORE_PS,
        host_after_ps=HOST_AFTER_PS,
        host_token_ps=0,
    )


def modelled(work: Workload, takes: Durations, plan: Plan, first: int) -> Run:
    """The steps from ``first`` on."""
    return engine.simulate(work, takes, plan).less(engine.simulate(work.head(first), takes, plan))


# --- the runtime ---


class SlowForesight(ArrayForesight):
    """Asking takes the host's time."""

    def __init__(self, plan: Plan, device: ScriptedDevice, takes_ps: int) -> None:
        super().__init__(LAYERS, plan.values, plan.predictions)
        self._device, self._takes_ps = device, takes_ps

    def begin_step(self, step: int) -> Iterable[Expected]:
        if self.predicts:
            self._device.host_works(self._takes_ps)
        return super().begin_step(step)

    def at_gate(
        self, step: int, layer: int, ids: Sequence[int], beside: Sequence[int]
    ) -> tuple[Integers | None, Iterable[Expected]]:
        self._device.host_works(self._takes_ps)
        return super().at_gate(step, layer, ids, beside)


@dataclass(frozen=True)
class Measured:
    statistics: Statistics
    step_ps: list[int]

    @property
    def moved(self) -> float:
        return self.statistics.moved_bytes / SIZE


def measured(
    decoded: DecodedPart,
    plan: Plan,
    device: ScriptedDevice,
    monkeypatch: pytest.MonkeyPatch,
    chunk_bytes: int,
    telling_ps: int = 0,
) -> Measured:
    for module in (runtime, link):
        monkeypatch.setattr(module, "time", device)
        monkeypatch.setattr(module, "let_others_run", lambda: device.sleep(0))

    def group(pieces: Sequence[Piece], rows: torch.Tensor, outputs: torch.Tensor) -> None:
        device.busy(EXPERT_PS * len(pieces))

    experts = OffloadedExperts(
        plan, host(), device, device, group, SlowForesight(plan, device, telling_ps), worker=device,
        chunk_bytes=chunk_bytes,
    )  # fmt: skip
    ids = torch.from_numpy(decoded.part.trace.expert_ids.astype(np.int64))
    x, weights, step_ps = torch.zeros(1, HIDDEN), torch.ones(1, TOP_K), []
    for step, counted in enumerate(decoded.counted.tolist()):
        began_ps = device.now_ps
        experts.begin_step(step, timed=counted)
        for layer in range(LAYERS):
            device.launch(lambda: device.busy(BEFORE_PS))
            experts.run(layer, x, ids[step : step + 1, layer], weights)
        experts.end_step()
        experts.read(ids[0, 0])
        step_ps.append((device.now_ps - began_ps) * counted)
    experts.close()
    return Measured(experts.timed, step_ps)


# --- both ---


def both(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, byte_ps: int, chunk_bytes: int, *, warm: int = 0
) -> tuple[Measured, Run]:
    decoded = part(warm, policy)
    plan = plan_for(decoded, policy)
    device = ScriptedDevice(byte_ps, lambda count: HOST_BEFORE_PS + count * HOST_EXPERT_PS + HOST_AFTER_PS)
    return (
        measured(decoded, plan, device, monkeypatch, chunk_bytes),
        modelled(workload(decoded), durations(byte_ps, chunk_bytes), plan, decoded.first),
    )


def moved(run: Run) -> float:
    counts = run.counts
    return counts.demands + counts.late + counts.ahead + counts.abandoned_bytes / SIZE


@pytest.mark.parametrize("warm", [0, 7])
@pytest.mark.parametrize("chunk_bytes", [SIZE, 100])
@pytest.mark.parametrize("byte_ps", [FASTEST, FAST, SLOW])
@pytest.mark.parametrize("policy", [LRU, FREQUENCY, BELADY, STATIC], ids=lambda policy: policy.name)
def test_on_demand_they_agree_in_every_count_and_picosecond(
    policy: Policy, byte_ps: int, chunk_bytes: int, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, said = both(policy, monkeypatch, byte_ps, chunk_bytes, warm=warm)
    assert vars(ran.statistics.counts) == vars(said.counts)
    assert ran.step_ps == said.step_ps.tolist()
    assert ran.moved == moved(said)


@pytest.mark.parametrize("warm", [0, 7])
@pytest.mark.parametrize(
    "policy", [PERFECT, BELADY_PERFECT, FREQUENCY_BACKGROUND, HOST_FREQUENCY, HOST_ORACLE], ids=lambda p: p.name
)
def test_over_a_link_that_takes_next_to_no_time_too(policy: Policy, warm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, said = both(policy, monkeypatch, FASTEST, SIZE, warm=warm)
    assert vars(ran.statistics.counts) == vars(said.counts)
    assert ran.step_ps == said.step_ps.tolist()
    assert said.counts.ahead > 0, "something moved unasked"


@pytest.mark.parametrize("warm", [0, 7])
@pytest.mark.parametrize("byte_ps", [FAST, SLOW])
@pytest.mark.parametrize(
    "policy",
    [PERFECT, BELADY_PERFECT, FREQUENCY_BACKGROUND, EVERYTHING, HOST_FREQUENCY, HOST_ORACLE],
    ids=lambda policy: policy.name,
)
def test_what_moves_beside_the_computing_is_close(
    policy: Policy, byte_ps: int, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, said = both(policy, monkeypatch, byte_ps, 100, warm=warm)
    _check_close(ran, said, CLOSE_WITH_EVERYTHING if policy is EVERYTHING else CLOSEST)


def _check_close(ran: Measured, said: Run, close: float) -> None:
    lookups = said.counts.lookups
    assert ran.statistics.counts.lookups == lookups
    assert ran.statistics.counts.hits / lookups == pytest.approx(said.counts.hits / lookups, abs=close)
    assert ran.moved / lookups == pytest.approx(moved(said) / lookups, abs=close)
    assert sum(ran.step_ps) == pytest.approx(said.step_ps.sum(), rel=close)


# --- a host that launches in series: the times that `measured_times` makes of what was measured ---


def constants(byte_ps: int, policy: Policy) -> MeasuredConstants:
    def curve(takes_ps: int, most: int = 1) -> Curve:
        return Curve("made", ((1, takes_ps / 1e12), (most + 1, takes_ps / 1e12)))

    layer = LayerConstants(fixed_s=Grid("made", ((1, curve(BEFORE_PS, 1024)),)), shared_s=None)
    return MeasuredConstants(
        model="made",
        expert_bytes=SIZE,
        chunk_bytes=SIZE,
        copy=CopyLine(latency_s=0.0, bytes_per_s=1e12 / byte_ps),
        throttle_bytes_per_s=None,
        expert_s=curve(EXPERT_PS),
        expert_launch_s=EXPERT_PS / 1e12,
        layers=(layer,) * LAYERS,
        end_s=curve(0),
        buckets=(1024,),
        gate_s=curve(0, TOP_K),
        runtime_s=curve(0),
        runtime_expert_s=0.0,
        foresight_s=TELLING_PS / 1e12,
        begin_s=TELLING_PS / 1e12 if policy.prefetch is not Prefetch.NONE else 0.0,
        host=None,
    )


@pytest.mark.parametrize("byte_ps", [FASTEST, FAST])
@pytest.mark.parametrize(
    "policy", [LRU, FREQUENCY, BELADY, PERFECT, BELADY_PERFECT, FREQUENCY_BACKGROUND], ids=lambda policy: policy.name
)
def test_so_is_a_host_that_computes_what_it_launches(
    policy: Policy, byte_ps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a CPU: what is known ahead is told after the layer's kernels, and the link is looked at between them alone.

    Experts move in one piece: of smaller ones the link has no more than two until the host looks again, and idles.
    """
    decoded = part(7, policy)
    plan, device = plan_for(decoded, policy), ScriptedDevice(byte_ps, immediate=True)
    times = measured_times(decoded.part, contexts_of(decoded.part.trace), constants(byte_ps, policy))
    said = modelled(times.workload, times.durations, plan, decoded.first)
    ran = measured(decoded, plan, device, monkeypatch, SIZE, TELLING_PS)
    _check_close(ran, said, CLOSE)
