"""A trace replays in a small decoder: whatever moves, the outputs have the resident run's bits."""

import random
import time
from functools import cache

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.decoder import Decoder
from gpu_reference.experts.compute import reference_output
from gpu_reference.experts.group import expert_group
from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.offload.copier import ThreadCopier, ThrottledCopier
from gpu_reference.offload.estimates import Estimates
from gpu_reference.offload.foresight import ArrayForesight
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.opened import offloaded_experts, resident_experts
from gpu_reference.offload.queues import ImmediateQueue
from gpu_reference.offload.replay import ReplayRun, replay
from gpu_reference.offload.routing import ReplayPlan
from gpu_reference.offload.runtime import OffloadedExperts
from predictor import registry
from predictor.activation.profile import ActivationProfile
from predictor.policies.parts import Part, Predictors, part_of
from predictor.policies.plan import Missing, Plan
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from predictor.policies.rows import rows_of
from staging.results import Scope
from staging.simulate import simulate
from staging.steps import Steps, batch_steps, decode_steps, verification_steps
from tests.gpu_reference.decoder.whole_models import TINY, TINY_LATENT
from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata
from traces.batch import BatchConfig, make_schedule

CPU = torch.device("cpu")
LAYERS, EXPERTS, TOP_K = 4, 8, 2
LAYOUT = ExpertLayout.of(TINY)


@cache
def trace() -> RoutingTrace:
    """Three sequences of 3 prompt tokens (of two, a row is not recorded) and 7 decode tokens; the last begins at 5."""
    generator = np.random.default_rng(0)
    lengths, prompt = [10, 10, 7], [3, 3, 0]
    tokens = sum(lengths)
    odds = np.r_[np.full(3, 5.0), np.ones(EXPERTS - 3)]
    ids = np.array(
        [
            [generator.choice(EXPERTS, TOP_K, replace=False, p=odds / odds.sum()) for _ in range(LAYERS)]
            for _ in range(tokens)
        ]
    ).astype(np.uint8)
    ids[1, 2] = ids[11, 0] = 255
    ids[10:13, 3] = 255
    weights = generator.random((tokens, LAYERS, TOP_K)).astype(np.float16)
    return RoutingTrace(
        expert_ids=ids,
        gate_weights=weights,
        sequence_offsets=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        position=np.concatenate([np.arange(10), np.arange(10), 5 + np.arange(7)]).astype(np.int32),
        phase=np.concatenate(
            [np.where(np.arange(n) < p, PREFILL, DECODE) for n, p in zip(lengths, prompt, strict=True)]
        ).astype(np.uint8),
        token_hash=np.arange(tokens).astype(np.uint32),
        domains=("a",) * 3,
        datasets=("a",) * 3,
        metadata=TraceMetadata(
            model="tiny", experts=EXPERTS, top_k=TOP_K, layer_map=tuple(range(LAYERS)), ranked=True,
            gate_weight_kind="softmax", source="test", licence="none", has_unrecorded=True,
        ),
    )  # fmt: skip


def steps_of(kind: str) -> Steps:
    if kind == "batch":
        return batch_steps(trace(), make_schedule(trace(), BatchConfig(slots=2)))
    return verification_steps(trace(), 3) if kind == "drafts" else decode_steps(trace())


@cache
def part(kind: str) -> Part:
    predictors = Predictors(
        st_moe=registry.fit("st-moe", trace(), lookahead=1), activation=ActivationProfile.fit(trace())
    )
    return part_of(trace(), steps_of(kind), predictors)


@cache
def host() -> HostExperts:
    return HostExperts.random(LAYOUT, LAYERS, EXPERTS, seed=3, device=CPU)


def decoder(kind: str = "single") -> Decoder:
    plan = ReplayPlan(part(kind))
    return Decoder.random(
        TINY, TINY.layer_map, device="cpu", dtype=torch.float32, slots=plan.slots, max_context=plan.max_context, seed=5
    )


@cache
def resident(kind: str) -> ReplayRun:
    return replay(part(kind), decoder(kind), resident_experts(host(), CPU))


def plan_for(policy: Policy, kind: str, places: int, scope: Scope = "global") -> Plan:
    of = part(kind)
    share = places // LAYERS if scope == "layer" else places
    first = np.arange(share)
    keys = np.concatenate([first + layer * EXPERTS for layer in range(LAYERS)]) if scope == "layer" else first
    return plan_of(
        policy, layers=LAYERS, experts=EXPERTS, most_needed=of.most_needed, places=places, scope=scope,
        hottest=keys.astype(np.int64), values=of.values, predictions=of.predictions,
    )  # fmt: skip


POLICIES = [
    *[candidate.policy for row in rows_of(part("single"), host=False) for candidate in row.candidates],
    Policy(eviction=Eviction.ORACLE, background=True, price=30000),
    Policy(eviction=Eviction.USES, background=True, prefetch=Prefetch.PERFECT, price=1000),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize(("places", "scope"), [(0, "global"), (8, "layer"), (11, "global")])
def test_every_fetching_policy_gives_the_resident_runs_outputs(policy: Policy, places: int, scope: Scope) -> None:
    with offloaded_experts(plan_for(policy, "single", places, scope), host(), CPU, chunk_bytes=512) as experts:
        run = replay(part("single"), decoder(), experts)
    assert run.digest == resident("single").digest
    assert run.statistics.counts.lookups == resident("single").statistics.counts.lookups
    assert len(run.step_s) == run.tokens == part("single").timed_tokens


@pytest.mark.parametrize("kind", ["batch", "drafts"])
@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[-1]], ids=lambda policy: policy.name)
def test_so_do_steps_of_several_tokens(kind: str, policy: Policy) -> None:
    with offloaded_experts(plan_for(policy, kind, 11), host(), CPU, chunk_bytes=512) as experts:
        run = replay(part(kind), decoder(kind), experts)
    assert run.digest == resident(kind).digest
    assert run.tokens == part(kind).timed_tokens


class HesitantCopier(ThreadCopier):
    """Copies after a random while."""

    def _one(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        time.sleep(random.choice((0, 0, 1e-4, 1e-3)))
        super()._one(destination, source)


@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[-1]], ids=lambda policy: policy.name)
def test_a_copier_of_random_delays_changes_nothing_but_times(policy: Policy) -> None:
    plan, copier = plan_for(policy, "single", 6), HesitantCopier()
    foresight = ArrayForesight(LAYERS, plan.values, plan.predictions)
    experts = OffloadedExperts(
        plan, host(), ImmediateQueue(), copier, expert_group(LAYOUT, "cpu"), foresight, chunk_bytes=1024
    )
    assert replay(part("single"), decoder(), experts).digest == resident("single").digest
    experts.close()
    copier.close()
    assert experts.total.stall_s > 0


def test_a_throttled_link_is_no_faster_than_asked() -> None:
    plan, rate = plan_for(POLICIES[0], "single", 4), 2e-3
    with offloaded_experts(plan, host(), CPU, link_gb_per_s=rate, chunk_bytes=1024) as experts:
        run = replay(part("single"), decoder(), experts)
    assert run.digest == resident("single").digest
    assert run.step_s.sum() >= run.statistics.moved_bytes / (rate * 1e9)
    assert run.statistics.stall_s > 0.5 * run.statistics.moved_bytes / (rate * 1e9)


def test_lru_hits_are_those_of_the_cache_simulation() -> None:
    plan = plan_for(Policy(eviction=Eviction.LRU), "single", 8, "layer")
    empty = Plan(**{**vars(plan), "resident": np.empty(0, np.int64)})
    with offloaded_experts(empty, host(), CPU) as experts:
        run = replay(part("single"), decoder(), experts)
    expected = simulate(trace(), capacity=2, policy="lru", scope="layer")
    assert run.statistics.hit_rate == expected.hit_rate


def test_what_the_host_computes_is_the_devices_on_a_cpu_by_the_same_kernel() -> None:
    policy = Policy(eviction=Eviction.FREQUENCY, missing=Missing.HOST, background=True)
    with offloaded_experts(plan_for(policy, "batch", 11), host(), CPU, host_kernel="torch") as experts:
        run = replay(part("batch"), decoder("batch"), experts)
    assert run.digest == resident("batch").digest
    assert run.statistics.counts.computed > 0
    assert run.statistics.counts.ahead > 0


def test_what_ends_sooner_is_chosen_by_times_measured_at_the_start() -> None:
    policy = Policy(eviction=Eviction.FREQUENCY, missing=Missing.SOONER, background=True)
    of, plan = part("batch"), plan_for(policy, "batch", 11)
    with offloaded_experts(plan, host(), CPU, host_kernel="torch", most_tokens=of.most_tokens) as experts:
        assert replay(of, decoder("batch"), experts).digest == resident("batch").digest


@pytest.mark.parametrize("missing", [Missing.IN_MEMORY, Missing.SOONER_IN_MEMORY, Missing.FROM_MEMORY])
def test_a_memory_that_computes_is_simulated_alone(missing: Missing) -> None:
    plan = plan_for(Policy(eviction=Eviction.FREQUENCY, missing=missing, background=True), "batch", 11)
    with (
        pytest.raises(ForestageError, match=f"missing is {missing.value}; no memory here computes: choose fetch, host"),
        offloaded_experts(plan, host(), CPU),
    ):
        pass


@pytest.mark.parametrize(("host_rate", "computes"), [(10**9, True), (1, False)])
def test_a_fast_host_computes_what_is_missing_and_a_slow_one_nothing(host_rate: int, computes: bool) -> None:
    policy = Policy(eviction=Eviction.FREQUENCY, missing=Missing.SOONER)
    tokens = part("batch").most_tokens + 1
    estimates = Estimates(
        transfer_ps=10**9, expert_ps=np.full(tokens, 10**6), host_work=LAYOUT.nbytes * 10**6,
        host_free_rate=np.full(tokens, host_rate), host_shared_rate=np.full(tokens, host_rate),
        host_before_ps=0, host_after_ps=0,
    )  # fmt: skip
    plan = plan_for(policy, "batch", 11)
    with offloaded_experts(plan, host(), CPU, host_kernel="torch", estimates=estimates) as experts:
        run = replay(part("batch"), decoder("batch"), experts)
    assert run.digest == resident("batch").digest
    counts = run.statistics.counts
    assert (counts.computed > 0, counts.fetched > 0) == (computes, not computes)


def test_the_replay_follows_the_traces_routing_and_weights() -> None:
    """Against the decoder with experts in float64, one token after the other."""
    of, whole, last = trace(), decoder(), []
    with torch.inference_mode():
        for sequence in range(of.sequences):
            span = of.sequence_slice(sequence)
            start = int(of.position[span][0])
            whole.reset(0, context=start)
            ids = torch.from_numpy(np.random.default_rng(9).integers(0, TINY.vocabulary, of.tokens))[span]
            calls = [range(3), *([at] for at in range(3, 10))] if start == 0 else [[at] for at in range(7)]
            for call in calls:
                hidden = whole.embed(ids[list(call)])
                for layer in range(LAYERS):
                    gate = whole.before_gate(layer, hidden, [start + at for at in call], [0] * len(call))
                    moe = torch.zeros_like(hidden)
                    for row, at in enumerate(call):
                        token = span.start + at
                        for expert, weight in zip(
                            of.expert_ids[token, layer], of.gate_weights[token, layer], strict=True
                        ):
                            if expert != 255:
                                block = host().blocks[layer * EXPERTS + int(expert)]
                                out = reference_output(LAYOUT, block, gate.normed[row : row + 1])
                                moe[row] += torch.from_numpy(out[0] * float(weight)).float()
                    hidden = whole.after_experts(layer, gate.residual, moe, whole.shared(layer, gate.normed))
                last.append(hidden)
    found: list[torch.Tensor] = []
    experts = resident_experts(host(), CPU)
    noted = decoder()
    logits = noted.logits
    noted.logits = lambda hidden: (found.append(hidden), logits(hidden))[1]  # type: ignore[method-assign]
    replay(part("single"), noted, experts, token_ids=np.random.default_rng(9).integers(0, TINY.vocabulary, of.tokens))
    for one, other in zip(found, last, strict=True):
        torch.testing.assert_close(one, other[-1:], rtol=1e-4, atol=1e-4)


def test_a_decoder_that_does_not_fit_the_trace_is_refused() -> None:
    small = Decoder.random(TINY, (0, 1), device="cpu", dtype=torch.float32, max_context=64, seed=1)
    with pytest.raises(ForestageError, match=r"the decoder has 2 layers with experts, the trace 4"):
        replay(part("single"), small, resident_experts(host(), CPU))
    short = Decoder.random(TINY, TINY.layer_map, device="cpu", dtype=torch.float32, max_context=11, seed=1)
    with pytest.raises(ForestageError, match=r"max_context 11, the trace's steps need 12"):
        replay(part("single"), short, resident_experts(host(), CPU))
    with pytest.raises(ForestageError, match=r"slots 1, the trace's steps need 2"):
        replay(part("batch"), decoder("single"), resident_experts(host(), CPU))


def test_a_transfer_takes_its_bytes_time_on_a_throttled_link() -> None:
    now = [0.0]
    copier = ThrottledCopier(ThreadCopier(), 1e-6, clock=lambda: now[0])  # 1000 bytes a second
    source, destination = torch.ones(500, dtype=torch.uint8), torch.zeros(500, dtype=torch.uint8)
    first, second = (copier.copy(destination, source, None) for _ in range(2))
    copier.close()
    for at_s, reached in ((0.49, (False, False)), (0.51, (True, False)), (1.01, (True, True))):
        now[0] = at_s
        assert (first.is_reached(), second.is_reached()) == reached
        assert (first.may_be_awaited(), second.may_be_awaited()) == reached


def test_a_shape_with_shared_experts_and_dense_layers_replays() -> None:
    layout = ExpertLayout.of(TINY_LATENT)
    shared_host = HostExperts.random(layout, 2, EXPERTS, seed=3, device=CPU)
    whole = trace()
    metadata = whole.metadata.model_copy(update={"layer_map": (1, 3)})
    short = RoutingTrace(
        **{
            **{
                name: getattr(whole, name)
                for name in ("sequence_offsets", "position", "phase", "token_hash", "domains", "datasets")
            },
            "expert_ids": whole.expert_ids[:, :2].copy(), "gate_weights": None,
            "metadata": metadata.model_copy(update={"gate_weight_kind": "none"}),
        }
    )  # fmt: skip
    of = part_of(short, decode_steps(short), Predictors())
    plan = plan_of(
        Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT), layers=2, experts=EXPERTS,
        most_needed=of.most_needed, places=5, scope="global", hottest=np.arange(5), values=of.values,
        predictions=of.predictions,
    )  # fmt: skip

    def latent() -> Decoder:
        return Decoder.random(TINY_LATENT, (1, 3), device="cpu", dtype=torch.bfloat16, slots=1, max_context=12, seed=2)

    with offloaded_experts(plan, shared_host, CPU, chunk_bytes=700) as experts:
        run = replay(of, latent(), experts)
    assert run.digest == replay(of, latent(), resident_experts(shared_host, CPU)).digest
