"""What is told while a model runs is what the arrays say, call by call."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError, SettingError
from predictor import registry
from predictor.foresight.arrays import Predictions, Values
from predictor.foresight.frequency_values import decayed_frequency
from predictor.foresight.issued_predictions import issued_predictions
from predictor.foresight.learned_predictions import learned_predictions
from predictor.foresight.learned_values import learned_values
from predictor.foresight.online import Joined
from predictor.foresight.online_frequency import FrequencyValues
from predictor.foresight.online_issued import IssuedPredictions
from predictor.foresight.online_learned import LearnedPredictions, LearnedValues
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.policies.online import online_foresight
from predictor.policies.parts import Predictors, part_of
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.steps import decode_steps, step_experts
from tests.learned_samples import random_next_use, random_predictor
from tests.predictor.foresight.test_values import SHAPE, sample
from traces import DECODE, RoutingTrace
from traces.importers import import_trace
from traces.selection import select_sequences


def told(online, trace, steps):
    """Everything that ``online`` tells over the steps, in order, as the calls that a runtime would make of it."""
    calls = []
    starts = set(trace.sequence_offsets[:-1].tolist())
    for step in range(len(steps)):
        tokens = steps.tokens[steps.offsets[step] : steps.offsets[step + 1]]
        ids, recorded = trace.expert_ids[tokens], trace.recorded()[tokens]
        hashes = None if trace.token_hash is None else trace.token_hash[tokens].astype(np.int64)
        if int(tokens[0]) in starts:
            online.start_sequence()
        if steps.timed[step]:
            put_predictions(calls, step, "begin", online.start_token(None if hashes is None else int(hashes[0])))
            for layer in range(trace.layers):
                online.observe(layer, ids[0, layer] if recorded[0, layer] else None)
                put_values(calls, step, layer, online.values(layer))
                put_predictions(calls, step, layer, online.predictions(layer))
            continue
        online.start_pass(hashes, len(tokens))
        for layer in range(trace.layers):
            online.observe_pass(layer, ids[:, layer], None if recorded.all() else recorded[:, layer])
            if not online.values_after_pass:
                put_values(calls, step, layer, online.values(layer))
            else:
                assert online.values(layer) is None
        online.end_pass()
        for layer in range(trace.layers if online.values_after_pass else 0):
            put_values(calls, step, layer, online.values(layer))
    return calls


def put_values(calls, step, layer, row):
    if row is not None:
        calls.append((step, layer, "values", row.tolist()))


def put_predictions(calls, step, layer, predictions):
    for one in predictions:
        calls.append((step, layer, "predictions", one.target, one.experts.tolist(), one.chances.tolist()))


def of_arrays(trace, steps, values: Values | None, predictions: Predictions | None):
    """The calls that the system model makes of the arrays (`perfmodel.engine.simulation`)."""
    calls = []

    def put(step, layer, target, index):
        row = predictions.experts[step, target, index]
        chosen = row >= 0
        if chosen.any():
            chances = predictions.chances[step, target, index][chosen]
            calls.append((step, layer, "predictions", target, row[chosen].tolist(), chances.tolist()))

    for step in range(len(steps)):
        if predictions is not None and steps.timed[step]:
            for target in range(min(predictions.distances[-1], trace.layers)):
                nearest = next(i for i, distance in enumerate(predictions.distances) if distance > target)
                put(step, "begin", target, nearest)
        for layer in range(trace.layers):
            if values is not None:
                put_values(calls, step, layer, values.rows[step, layer])
            if predictions is not None and steps.timed[step]:
                for index, distance in enumerate(predictions.distances):
                    if layer + distance < trace.layers:
                        put(step, layer, layer + distance, index)
    return calls


def with_gaps(trace):
    """The same with a layer of the prompts, and a row here and there of them, not recorded."""
    ids = trace.expert_ids.copy()
    ids[trace.position == 1, 1] = 255
    ids[(trace.position == 0) & (trace.sequence_index() % 2 == 1)] = 255
    return replace(trace, expert_ids=ids, metadata=trace.metadata.model_copy(update={"has_unrecorded": True}))


SEEDS = st.integers(0, 1000)


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.integers(0, 4), st.booleans())
def test_learned_values_online_are_the_arrays(seed, prompt, gaps):
    trace = sample(prompt=prompt, seed=seed)
    if gaps and prompt >= 2:
        trace = with_gaps(trace)
    steps = decode_steps(trace)
    predictor = random_next_use(np.random.default_rng(seed), **SHAPE)
    arrays = learned_values(predictor, trace, steps)
    online = LearnedValues(predictor)
    assert told(online, trace, steps) == of_arrays(trace, steps, arrays, None)
    assert online.most == arrays.most


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.integers(0, 4), st.sampled_from([(1,), (2,), (1, 3), (1, 2, 3)]), st.booleans(), st.booleans())
def test_learned_predictions_online_are_the_arrays(seed, prompt, distances, adaptation, by_routing):
    trace = with_gaps(sample(prompt=prompt, seed=seed)) if prompt >= 2 else sample(prompt=prompt, seed=seed)
    steps = decode_steps(trace)
    ngrams = {"ngram_by": "routing"} if by_routing else {}
    bank = random_predictor(**SHAPE, lookahead=1, nearest=1, farthest=3, seed=seed, adaptation=adaptation, **ngrams)
    arrays = learned_predictions([bank.at(distance) for distance in distances], trace, steps, 5)
    expected = of_arrays(trace, steps, None, arrays)
    assert told(LearnedPredictions(bank, distances, 5), trace, steps) == expected
    assert any(layer == "begin" for _, layer, *_ in expected)


@pytest.mark.parametrize("most", [3, 9])
def test_an_expert_of_no_chance_is_not_told(most):
    trace = sample()
    steps = decode_steps(trace)
    bank = random_predictor(**SHAPE, lookahead=1, nearest=1, farthest=3)
    rare = replace(
        bank.tables, chances=np.where(bank.tables.chances < 25_000, 0, bank.tables.chances).astype(np.uint16)
    )
    bank = NextLayerPredictor(rare, bank.config, top_k=3, ranked=True, provenance=bank.provenance, lookahead=1)
    arrays = learned_predictions([bank, bank.at(2)], trace, steps, most)
    decoded = arrays.experts[steps.timed]
    assert (decoded[..., 0] >= 0).any()
    assert (decoded[:, :, 0, -1] < 0).any() == (most == 9)
    assert told(LearnedPredictions(bank, (1, 2), most), trace, steps) == of_arrays(trace, steps, None, arrays)


@pytest.mark.parametrize("name", ["st-moe", "previous-token", "markov-spatial"])
@pytest.mark.parametrize("lookahead", [1, 2])
def test_issue_sets_online_are_the_arrays(name, lookahead):
    trace = with_gaps(sample())
    steps = decode_steps(trace)
    predictor = registry.fit(name, select_sequences(trace, np.array([0, 2])), lookahead=lookahead)
    expected = of_arrays(trace, steps, None, issued_predictions(predictor, trace, steps, 4))
    assert expected
    assert told(IssuedPredictions(predictor, 4), trace, steps) == expected


def test_issue_sets_online_begin_with_the_state_just_after_the_fit():
    trace = sample()
    steps = decode_steps(trace)
    predictor = registry.fit("st-moe", trace)
    expected = of_arrays(trace, steps, None, issued_predictions(predictor, trace, steps, 4))
    for _ in range(2):
        assert told(IssuedPredictions(predictor, 4), trace, steps) == expected


@pytest.mark.parametrize("gaps", [False, True])
def test_decayed_frequency_online_is_the_arrays(gaps):
    trace = with_gaps(sample(prompt=3)) if gaps else sample(prompt=3)
    steps = decode_steps(trace)
    arrays = decayed_frequency(trace, step_experts(trace, steps))
    online = FrequencyValues(trace.layers, trace.experts)
    assert told(online, trace, steps) == of_arrays(trace, steps, arrays, None)
    assert online.most == arrays.most


def test_a_policys_foresight_online_is_its_arrays():
    trace = sample()
    steps = decode_steps(trace)
    predictors = Predictors(
        next_use=random_next_use(np.random.default_rng(0), **SHAPE),
        next_layer=random_predictor(**SHAPE, lookahead=1, nearest=1, farthest=3),
        st_moe=registry.fit("st-moe", trace),
        distances=(1, 3),
        prefetched=4,
    )
    shape = {"layers": trace.layers, "experts": trace.experts}
    part = part_of(trace, steps, predictors)
    assert online_foresight(Policy(eviction=Eviction.LRU), predictors, **shape) is None
    for eviction in (Eviction.LRU, Eviction.FREQUENCY, Eviction.LEARNED):
        for prefetch in (Prefetch.NONE, Prefetch.ST_MOE, Prefetch.LEARNED):
            online = online_foresight(Policy(eviction=eviction, prefetch=prefetch), predictors, **shape)
            if online is not None:
                expected = of_arrays(trace, steps, part.values.get(eviction), part.predictions.get(prefetch))
                assert sorted(map(str, told(online, trace, steps))) == sorted(map(str, expected))


def test_foresight_online_refuses_oracles_what_is_not_given_and_other_models():
    given, shape = Predictors(next_use=random_next_use(np.random.default_rng(0), **SHAPE)), {"layers": 4, "experts": 9}
    with pytest.raises(ForestageError, match="has not happened yet"):
        online_foresight(Policy(eviction=Eviction.BELADY), given, **shape)
    with pytest.raises(ForestageError, match="predictions of 'learned' are not given"):
        online_foresight(Policy(eviction=Eviction.LRU, prefetch=Prefetch.LEARNED), given, **shape)
    with pytest.raises(ForestageError, match=r"made for \(layers, experts\) = \(4, 9\), the model has \(4, 8\)"):
        online_foresight(Policy(eviction=Eviction.LEARNED), given, layers=4, experts=8)
    with pytest.raises(ForestageError, match="give one of lookahead 0"):
        LearnedValues(random_next_use(np.random.default_rng(0), **SHAPE, lookahead=1))
    with pytest.raises(SettingError, match="distances"):
        LearnedPredictions(random_predictor(**SHAPE), (1, 1), 4)
    with pytest.raises(ForestageError, match="lookahead"):
        LearnedPredictions(random_predictor(**SHAPE, lookahead=1, nearest=1, farthest=1), (1, 2), 4)


@pytest.mark.parametrize("kind", ["learned", "frequency", "issued"])
def test_a_gate_left_out_or_told_twice_is_refused(kind):
    trace = sample()
    online = {
        "learned": lambda: LearnedValues(random_next_use(np.random.default_rng(0), **SHAPE)),
        "frequency": lambda: FrequencyValues(trace.layers, trace.experts),
        "issued": lambda: IssuedPredictions(registry.fit("st-moe", trace), 4),
    }[kind]()
    joined = Joined(online, None)
    joined.start_sequence()
    with pytest.raises(ValueError, match="a step is to begin"):
        joined.observe(0, trace.expert_ids[0, 0])
    joined.start_token(3)
    joined.observe(0, trace.expert_ids[0, 0])
    with pytest.raises(ValueError, match="layer 1 is to come"):
        joined.observe(0, trace.expert_ids[0, 0])
    with pytest.raises(ValueError, match="gate of layer 1"):
        joined.start_token(3)
    joined.start_sequence()
    joined.start_pass(None, 2)
    with pytest.raises(ValueError, match="gate of layer 0 is still to come"):
        joined.end_pass()


@pytest.mark.parametrize(
    ("ids", "said"), [([0, 1, 9], "an expert that"), ([0, 1, -1], "an expert that"), ([0, 1], "number of experts")]
)
def test_a_choice_that_the_model_cannot_make_is_refused(ids, said):
    online = LearnedValues(random_next_use(np.random.default_rng(0), **SHAPE))
    online.start_sequence()
    online.start_token(3)
    with pytest.raises(ValueError, match=said):
        online.observe(0, np.array(ids))


RECORDED = ["shipped", "gpt_oss_20b_decode.npz", "deepseek_v2_lite_esft.npz"]


@pytest.mark.parametrize("name", RECORDED)
def test_foresight_online_is_the_arrays_over_recorded_traces(name, shipped_trace, request):
    if name == "shipped":
        whole = RoutingTrace.load(shipped_trace)
    else:
        whole = import_trace(request.getfixturevalue("shared_file")(name))
    shortest = np.argsort(np.diff(whole.sequence_offsets), kind="stable")[:3]
    trace = select_sequences(whole, np.sort(shortest))
    steps = decode_steps(trace, prompts_decoded=not (trace.phase == DECODE).any())
    shape = {"layers": trace.layers, "experts": trace.experts, "top_k": trace.top_k}
    blind = {} if trace.token_hash is not None else {"ngram_by": "routing"}
    unidentified = {"identity_rows": 0, "identities": 0} if blind else {}
    shape = {**shape, "ranked": trace.metadata.ranked, **blind}
    predictors = Predictors(
        next_use=random_next_use(np.random.default_rng(0), **shape),
        next_layer=random_predictor(**shape, **unidentified, lookahead=1, nearest=1, farthest=3),
        st_moe=registry.fit("st-moe", trace),
        distances=(1, 3),
    )
    part = part_of(trace, steps, predictors, oracles=False)
    for eviction, prefetch in ((Eviction.LEARNED, Prefetch.LEARNED), (Eviction.FREQUENCY, Prefetch.ST_MOE)):
        online = online_foresight(
            Policy(eviction=eviction, prefetch=prefetch), predictors, layers=trace.layers, experts=trace.experts
        )
        expected = of_arrays(trace, steps, part.values[eviction], part.predictions[prefetch])
        assert len(expected) > trace.tokens
        assert sorted(told(online, trace, steps), key=str) == sorted(expected, key=str)
