"""The shipped model writes the same text with its experts offloaded, whatever moves them."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.decoder import Decoder
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from gpu_reference.offload.decoding import Decoded, Decoding, decode
from gpu_reference.offload.foresight import ArrayForesight, ListeningForesight
from gpu_reference.offload.generate import generate
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.opened import resident_experts
from gpu_reference.offload.recorded import recorded_trace
from gpu_reference.small_moe import END_OF_TEXT_ID, load_model, load_tokenizer
from gpu_reference.trace_tokens import token_hashes, tokens_of
from predictor import registry
from predictor.activation.profile import ActivationProfile
from predictor.policies.online import online_foresight
from predictor.policies.parts import Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.steps import decode_steps
from tests.learned_samples import random_next_use, random_predictor
from traces import DECODE, RoutingTrace
from traces.selection import select_sequences

NEW = 10


@cache
def recorded() -> RoutingTrace:
    return RoutingTrace.load(SHIPPED_TRACE)


@cache
def identities() -> Any:
    return token_hashes(load_tokenizer(SHIPPED_CHECKPOINT))


@cache
def prompts() -> list[list[int]]:
    """One of each domain, the first 40 tokens."""
    of = recorded()
    ids = tokens_of(of, load_tokenizer(SHIPPED_CHECKPOINT))
    found = []
    for domain in ("code", "prose"):
        span = of.sequence_slice(of.domains.index(domain))
        found.append(ids[span][of.phase[span] != DECODE][:40].tolist())
    return found


@cache
def predictors() -> Predictors:
    some = select_sequences(recorded(), range(6))
    return Predictors(
        st_moe=registry.fit("st-moe", some, lookahead=1),
        activation=ActivationProfile.fit(some),
        next_use=random_next_use(np.random.default_rng(1), layers=8, experts=32, top_k=4),
        next_layer=random_predictor(layers=8, experts=32, top_k=4),
    )


SETTINGS = Decoding(
    policy=Policy(eviction=Eviction.LRU), capacity=6, scope="layer", format="bf16", device="cpu", new_tokens=NEW,
)  # fmt: skip


def run(settings: Decoding) -> Decoded:
    uses = np.tile(np.arange(32), (8, 1))
    return decode(
        SHIPPED_CHECKPOINT, prompts(), settings, predictors=predictors(), uses=uses, identities=identities(),
        end=END_OF_TEXT_ID,
    )  # fmt: skip


@cache
def resident_text() -> list[list[int]]:
    found = run(SETTINGS).resident
    assert found is not None
    return [sequence.added for sequence in found]


def test_the_resident_runs_text_is_that_of_transformers() -> None:
    model = load_model(SHIPPED_CHECKPOINT)
    for prompt, added in zip(prompts(), resident_text(), strict=True):
        tokens = list(prompt)
        with torch.no_grad():
            for _ in range(NEW):
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert tokens[len(prompt) :] == added


LEARNED = Policy(eviction=Eviction.LEARNED, prefetch=Prefetch.LEARNED, chance_scale=4)

KINDS = {
    "learned": replace(SETTINGS, policy=LEARNED),
    "lru, nothing held": replace(SETTINGS, capacity=0),
    "decayed frequency": replace(SETTINGS, policy=Policy(eviction=Eviction.FREQUENCY, background=True, price=9000)),
    "st-moe": replace(
        SETTINGS, policy=Policy(eviction=Eviction.LRU, prefetch=Prefetch.ST_MOE), scope="global", capacity=64
    ),
    "activation": replace(SETTINGS, policy=Policy(eviction=Eviction.ACTIVATION, prefetch=Prefetch.ACTIVATION)),
    "speculative": replace(SETTINGS, speculate=True),
    "belady and perfect": replace(SETTINGS, policy=Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT)),
    "host": replace(SETTINGS, policy=Policy(eviction=Eviction.STATIC, missing=Missing.HOST)),
}


@pytest.mark.parametrize("name", KINDS)
def test_both_domains_text_is_the_same(name: str) -> None:
    found = run(replace(KINDS[name], check=False))
    assert [sequence.added for sequence in found.sequences] == resident_text()
    counts = found.statistics.counts
    assert counts.lookups == 2 * (NEW - 1) * 8 * 4
    if name in ("st-moe", "activation", "speculative", "belady and perfect"):
        assert counts.ahead + counts.late > 0
    if name == "belady and perfect":
        assert found.statistics.hit_rate > 0.8
    assert (counts.computed > 0) == (name == "host")


def test_speculation_fetches_what_the_next_layer_then_asks_for() -> None:
    plain, looking = run(replace(SETTINGS, check=False)), run(replace(SETTINGS, speculate=True, check=False))
    asked = looking.statistics.counts
    assert asked.late + asked.useful > 0.3 * plain.statistics.counts.fetched


@pytest.mark.parametrize(
    "policy", [KINDS["decayed frequency"].policy, KINDS["activation"].policy, KINDS["st-moe"].policy, LEARNED]
)
def test_listening_tells_the_stager_what_the_arrays_of_the_same_routing_tell(policy: Policy) -> None:
    decoder = Decoder.shipped(SHIPPED_CHECKPOINT, device="cpu", dtype=torch.float32, max_context=60)
    host = HostExperts.of_checkpoint(SHIPPED_CHECKPOINT, "bf16", pinned=False)
    everything = resident_experts(host, torch.device("cpu"))
    everything.heard = []
    made = generate(decoder, everything, prompts(), new_tokens=NEW)
    trace = recorded_trace(made, everything.heard, identities(), model="m", layers=8, experts=32, top_k=4)
    part = part_of(trace, decode_steps(trace), predictors(), only=policy)
    source = online_foresight(policy, predictors(), layers=8, experts=32)
    assert source is not None
    listening = ListeningForesight(source, 8, 4)
    arrays = ArrayForesight(8, part.values.get(policy.eviction), part.predictions.get(policy.prefetch))
    ids = trace.expert_ids.astype(int)
    for step in range(len(part.steps)):
        rows = part.steps.tokens[part.steps.offsets[step] : part.steps.offsets[step + 1]]
        timed = bool(part.steps.timed[step])
        listening.announce(trace.token_hash[rows].tolist(), starts=not timed, is_pass=not timed)
        begun = listening.begin_step(step)
        assert not timed or _same(begun, arrays.begin_step(step))
        for layer in range(8):
            chosen = ids[rows, layer].reshape(-1).tolist()
            values, expected = listening.at_gate(step, layer, chosen, ())
            other_values, other = arrays.at_gate(step, layer, chosen, ())
            if timed or policy.eviction is not Eviction.LEARNED:  # within a pass learned values are not known
                assert (values is None) == (other_values is None)
            if values is not None and other_values is not None:
                np.testing.assert_array_equal(values, other_values)
            if timed:
                assert _same(expected, other)
        after = dict(listening.end_step(step))
        assert bool(after) == (policy.eviction is Eviction.LEARNED and not timed)
        for layer, values in after.items():
            np.testing.assert_array_equal(values, arrays.at_gate(step, layer, (), ())[0])


def _same(some: Any, others: Any) -> bool:
    told = [[(one.layer, one.experts.tolist(), one.chances.tolist()) for one in each] for each in (some, others)]
    return told[0] == told[1]


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    decoder = Decoder.shipped(SHIPPED_CHECKPOINT, device="cpu", dtype=torch.float32, max_context=20)
    host = HostExperts.of_checkpoint(SHIPPED_CHECKPOINT, "bf16", pinned=False)
    experts = resident_experts(host, torch.device("cpu"))
    with pytest.raises(ForestageError, match=r"prompt 1: 15 tokens and 8 new ones do not fit the context of 20"):
        generate(decoder, experts, [[1] * 15], new_tokens=8)
    with pytest.raises(ForestageError, match=r"prompt 1: has no token"):
        generate(decoder, experts, [[]], new_tokens=8)
