"""The activation-aware policy is what plain Python makes of its rules, as arrays and while a model runs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.activation.profile import ActivationProfile, ActivationSettings
from predictor.foresight.activation_arrays import activation_predictions, activation_values
from predictor.foresight.online_activation import ActivationForesight
from predictor.policies.online import online_foresight
from predictor.policies.parts import Predictors, part_of
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.steps import batch_steps, decode_steps, verification_steps
from tests.predictor.foresight.test_online import of_arrays, told, with_gaps
from tests.predictor.foresight.test_values import CERTAIN, SHAPE, sample
from traces.batch import BatchConfig, make_schedule
from traces.selection import select_sequences

LAYERS, EXPERTS = SHAPE["layers"], SHAPE["experts"]


def steps_of(kind, trace):
    if kind == "decode":
        return decode_steps(trace)
    if kind == "verification":
        return verification_steps(trace, 3)
    return batch_steps(trace, make_schedule(trace, BatchConfig(slots=3, prefill_chunk=2, order="shuffled")))


class Plain:
    """The rules in plain Python, of any steps."""

    def __init__(self, profile):
        self.of = profile
        self.rows = [
            [[row / math.sqrt(sum(c * c for c in counts) or 1) for row in counts] for counts in matrix]
            for matrix in profile.counts.tolist()
        ]

    def match(self, counts):
        """The most similar matrix, or None before any gate."""
        if not any(map(any, counts)):
            return None
        found = []
        for matrix in self.rows:
            cosines = []
            for layer in range(LAYERS):
                length = math.sqrt(sum(c * c for c in counts[layer]))
                dot = sum(a * b for a, b in zip(counts[layer], matrix[layer], strict=True))
                cosines.append(dot / length if length else 0)
            found.append(sum(cosines))
        return found

    def ratio(self, matrix, layer, expert):
        return self.of.counts[matrix, layer, expert] / max(1, self.of.tokens[matrix, layer])

    def run(self, trace, steps, distances):
        """Values by (step, layer): of each sequence; predictions by (step, gate, target, index): of each token."""
        sequence = trace.sequence_index()
        last = trace.sequence_offsets[1:] - 1
        counts, tokens, matched, live = {}, {}, {}, []
        values, predictions = {}, {}
        recorded = trace.recorded()
        for step in range(len(steps)):
            rows = steps.tokens[steps.offsets[step] : steps.offsets[step + 1]].tolist()
            for who in dict.fromkeys(sequence[rows].tolist()):
                if who not in counts:
                    counts[who] = [[0] * EXPERTS for _ in range(LAYERS)]
                    tokens[who] = [0] * LAYERS
                    matched[who] = None
                    live.append(who)

            def predict(gate, target, index, step=step, rows=rows):
                found = [matched[sequence[row]] for row in rows]
                predictions[step, gate, target, index] = [matrix for matrix in found if matrix is not None]

            for index, distance in enumerate(distances):
                for target in range(min(distance, LAYERS)):
                    if not index or target >= distances[index - 1]:
                        predict(-1, target, index)
            for layer in range(LAYERS):
                for row in rows:
                    who = sequence[row]
                    if recorded[row, layer]:
                        tokens[who][layer] += 1
                        for expert in trace.expert_ids[row, layer].tolist():
                            counts[who][layer][expert] += 1
                for who in {sequence[row] for row in rows if recorded[row, layer]}:
                    matched[who] = self.match(counts[who])
                values[step, layer] = [
                    (matched[who], [c / max(1, tokens[who][layer]) for c in counts[who][layer]]) for who in live
                ]
                for index, distance in enumerate(distances):
                    if layer + distance < LAYERS:
                        predict(layer, layer + distance, index)
            live = [who for who in live if last[who] not in rows]
        return values, predictions


def best(similarities, chosen):
    """Whether ``chosen`` is a best one, up to rounding."""
    return similarities[chosen] > max(similarities) - 1e-9


def candidates(similarities):
    return [matrix for matrix in range(len(similarities)) if best(similarities, matrix)]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(0, 3),
    st.sampled_from(["decode", "verification", "batch"]),
    st.sampled_from(["matched", "running"]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_values_and_predictions_are_what_plain_python_makes_of_the_rules(seed, prompt, kind, values_of, depth):
    trace = sample(prompt=prompt, seed=seed)
    if prompt >= 2 and kind == "decode":
        trace = with_gaps(trace)
    steps = steps_of(kind, trace)
    epsilon = 0.01
    profile = ActivationProfile.fit(
        sample(seed=seed + 1, lengths=(5, 6, 4, 9, 3)),
        ActivationSettings(matrices=3, epsilon=epsilon, values_of=values_of, depth=depth),
    )
    plain = Plain(profile)
    values, predictions = plain.run(trace, steps, (1, 3))
    rows = activation_values(profile, trace, steps)
    found = activation_predictions(profile, trace, steps, (1, 3), EXPERTS)
    assert rows.rows.max() <= rows.most == int((1 + epsilon) * CERTAIN + 0.5)
    for (step, layer), sequences in values.items():
        weight = 1 - depth * layer / LAYERS
        for expert in range(EXPERTS):
            left = [1.0]
            for similarities, own in sequences:
                if similarities is None:
                    continue
                if values_of == "running":
                    left = [one * (1 - own[expert]) for one in left]
                else:
                    of = {plain.ratio(matrix, layer, expert) for matrix in candidates(similarities)}
                    left = [one * (1 - ratio) for one in left for ratio in of]
            expected = [((1 - one) + epsilon) * weight * CERTAIN for one in left]
            assert min(abs(rows.rows[step, layer, expert] - one) for one in expected) <= 0.51
    told_any = False
    for (step, gate, target, index), similar in predictions.items():
        chosen = found.experts[step, target, index]
        if not steps.timed[step] or not similar:
            assert (chosen < 0).all()
            continue
        told_any = True
        weight = 1 - (target - gate) / LAYERS
        chances = found.chances[step, target, index]
        for expert, chance in zip(chosen.tolist(), chances.tolist(), strict=True):
            if expert < 0:
                continue
            left = [1.0]
            for similarities in similar:
                of = {plain.ratio(matrix, target, expert) for matrix in candidates(similarities)}
                left = [one * (1 - ratio) for one in left for ratio in of]
            expected = [min(CERTAIN, ((1 - one) + epsilon) * weight * CERTAIN) for one in left]
            assert min(abs(chance - one) for one in expected) <= 0.51
        known = [(-chance, expert) for expert, chance in zip(chosen, chances, strict=True) if expert >= 0]
        assert known == sorted(known)
        assert len(known) == EXPERTS or weight * epsilon * CERTAIN < 0.5
    assert told_any


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(0, 4),
    st.sampled_from([(1,), (2,), (1, 2, 3)]),
    st.sampled_from(["matched", "running"]),
)
def test_activation_aware_foresight_online_is_the_arrays(seed, prompt, distances, values_of):
    trace = with_gaps(sample(prompt=prompt, seed=seed)) if prompt >= 2 else sample(prompt=prompt, seed=seed)
    steps = decode_steps(trace)
    profile = ActivationProfile.fit(sample(seed=seed + 1), ActivationSettings(epsilon=0.0, values_of=values_of))
    values = activation_values(profile, trace, steps)
    predictions = activation_predictions(profile, trace, steps, distances, 4)
    online = ActivationForesight(profile, distances, 4)
    assert told(online, trace, steps) == of_arrays(trace, steps, values, predictions)
    assert online.most == values.most


def test_a_policys_activation_aware_foresight_online_is_its_arrays():
    trace = sample()
    steps = decode_steps(trace)
    predictors = Predictors(activation=ActivationProfile.fit(trace), activation_distances=(1, 2, 9), prefetched=4)
    part = part_of(trace, steps, predictors)
    assert part.predictions[Prefetch.ACTIVATION].distances == (1, 2)
    for eviction, prefetch in (
        (Eviction.ACTIVATION, Prefetch.NONE),
        (Eviction.LRU, Prefetch.ACTIVATION),
        (Eviction.FREQUENCY, Prefetch.ACTIVATION),
        (Eviction.ACTIVATION, Prefetch.ACTIVATION),
    ):
        policy = Policy(eviction=eviction, prefetch=prefetch)
        online = online_foresight(policy, predictors, layers=LAYERS, experts=EXPERTS)
        expected = of_arrays(trace, steps, part.values.get(eviction), part.predictions.get(prefetch))
        assert told(online, trace, steps) == expected
    with pytest.raises(ForestageError, match="not given"):
        online_foresight(policy, Predictors(), layers=LAYERS, experts=EXPERTS)


def test_a_sequence_that_was_profiled_matches_itself():
    trace = sample(lengths=(40, 40, 40), prompt=0)
    profile = ActivationProfile.fit(trace, ActivationSettings(values_of="matched"))
    for index in range(3):
        part = trace.sequence(index)
        rows = activation_values(profile, part, decode_steps(part, prompts_decoded=True)).rows
        ratios = profile.counts[index, 0] / profile.tokens[index, 0]
        np.testing.assert_allclose(rows[-1, 0], (ratios + 1 / 1024) * CERTAIN, atol=0.51)


def test_a_sequence_that_was_never_seen_recorded_is_no_matrix():
    trace = with_gaps(sample(prompt=2))
    ids = trace.expert_ids.copy()
    ids[trace.sequence_index() == 1] = 255
    profile = ActivationProfile.fit(replace(trace, expert_ids=ids))
    assert len(profile.counts) == 3
    with pytest.raises(ForestageError, match="nothing is recorded"):
        ActivationProfile.fit(replace(trace, expert_ids=np.full_like(ids, 255)))


def test_of_more_sequences_than_matrices_each_cluster_keeps_one():
    """Two kinds of sequence, five of each: a collection of two holds one of each kind."""
    trace = sample(lengths=(6,) * 10, prompt=0)
    ids = trace.expert_ids.copy()
    kind = trace.sequence_index() // 5
    ids[...] = np.where(kind[:, None, None] == 0, [0, 1, 2], [6, 7, 8]).astype(ids.dtype)
    ids[trace.position == 3, 1] = [3, 4, 5]
    trace = replace(trace, expert_ids=ids)
    profile = ActivationProfile.fit(trace, ActivationSettings(matrices=2))
    assert len(profile.counts) == 2
    used = {tuple(np.flatnonzero(matrix[0])) for matrix in profile.counts}
    assert used == {(0, 1, 2), (6, 7, 8)}


def test_a_saved_profile_is_the_same_and_another_file_is_refused(tmp_path):
    trace = sample()
    profile = ActivationProfile.fit(trace, ActivationSettings(matrices=2, epsilon=0.5))
    path = tmp_path / "activation.safetensors"
    profile.save(path)
    loaded = ActivationProfile.load(path)
    assert (loaded.settings, loaded.top_k, loaded.model) == (profile.settings, profile.top_k, profile.model)
    steps = decode_steps(trace)
    np.testing.assert_array_equal(
        activation_values(loaded, trace, steps).rows, activation_values(profile, trace, steps).rows
    )
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ForestageError, match="checksum differs"):
        ActivationProfile.load(path)
    trace.save(path)
    with pytest.raises(ForestageError, match="no activation profile"):
        ActivationProfile.load(path)


def test_a_profile_of_another_model_is_refused():
    trace = sample()
    profile = ActivationProfile.fit(select_sequences(trace, np.array([0])))
    other = replace(trace, expert_ids=trace.expert_ids[:, :3].copy(), metadata=trace.metadata)
    with pytest.raises(ForestageError):
        activation_values(profile, other, decode_steps(other))
    with pytest.raises(ForestageError, match=r"the model has \(4, 8\)"):
        online_foresight(Policy(eviction=Eviction.ACTIVATION), Predictors(activation=profile), layers=LAYERS, experts=8)
    online = ActivationForesight(profile)
    online.start_sequence()
    online.start_token(None)
    with pytest.raises(ValueError, match="an expert that the model has not"):
        online.observe(0, np.array([0, 1, EXPERTS]))
    with pytest.raises(ValueError, match="before its sequence has begun"):
        ActivationForesight(profile).start_token(None)
