"""The same on a GPU, where there is one: real streams and events in place of the tests' device."""

from dataclasses import replace

import pytest
import torch

from gpu_reference.decoder import Decoder, GraphedDecoder
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.opened import offloaded_experts, resident_experts
from gpu_reference.offload.replay import ReplayRun, replay
from gpu_reference.offload.routing import ReplayPlan
from predictor.policies.policy import Eviction, Policy, Prefetch
from tests.gpu_reference.decoder.whole_models import TINY
from tests.gpu_reference.offload.test_offload_decoding import KINDS, SETTINGS, run
from tests.gpu_reference.offload.test_offload_replay import EXPERTS, LAYERS, LAYOUT, part, plan_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, which this machine lacks")

POLICIES = [
    Policy(eviction=Eviction.LRU),
    Policy(eviction=Eviction.FREQUENCY, background=True, price=3000),
    Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT),
]


def decoder(kind: str, *, graphs: bool) -> Decoder | GraphedDecoder:
    plan = ReplayPlan(part(kind))
    made = Decoder.random(
        TINY, TINY.layer_map, device="cuda", dtype=torch.bfloat16, slots=plan.slots, max_context=plan.max_context,
        seed=5,
    )  # fmt: skip
    return GraphedDecoder(made, tokens=plan.slots) if graphs else made


@pytest.fixture(scope="module")
def host() -> HostExperts:
    return HostExperts.random(LAYOUT, LAYERS, EXPERTS, seed=3, device=torch.device("cuda"))


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("kind", ["single", "batch"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_outputs_have_the_resident_runs_bits(host: HostExperts, policy: Policy, kind: str, graphs: bool) -> None:
    device = torch.device("cuda")

    def offloaded(**options: float) -> ReplayRun:
        with offloaded_experts(plan_for(policy, kind, 11), host, device, chunk_bytes=512, **options) as experts:  # type: ignore[arg-type]
            return replay(part(kind), decoder(kind, graphs=graphs), experts)

    expected = replay(part(kind), decoder(kind, graphs=graphs), resident_experts(host, device))
    found, slow = offloaded(), offloaded(link_gb_per_s=0.05)
    assert found.digest == slow.digest == expected.digest
    assert found.statistics.counts.lookups == expected.statistics.counts.lookups


@pytest.mark.parametrize("name", KINDS)
def test_both_domains_text_is_the_resident_runs_on_the_same_device(name: str) -> None:
    found = run(replace(KINDS[name], device="cuda"))
    assert found.resident is not None
    # Where the host computes, the text may differ in a near tie; with these prompts it does not on a CPU.
    if name != "host":
        assert [one.added for one in found.sequences] == [one.added for one in found.resident]
    assert SETTINGS.new_tokens >= len(found.sequences[0].added) > 0
