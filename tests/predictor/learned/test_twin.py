"""The learned predictor's integers: streaming equals batch equals the sums written out."""

import functools
import operator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.base import stream_trace
from predictor.learned.config import LearnedConfig
from predictor.learned.context import DECAYED, SAME_TOKEN, TAGGED, rank_shifts, sources
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.tables import feeding_layers, table_bytes
from tests.learned_samples import SMALL, identified_trace, random_predictor
from traces import RoutingTrace


def written_out(predictor: LearnedPredictor, trace: RoutingTrace) -> np.ndarray:
    """The formulas of ``predictor.learned.tables`` in Python's integers, gathered instead of scattered."""
    tables, config = predictor.tables, predictor.config
    every = sources(config, predictor.lookahead)
    ranks = rank_shifts(trace.top_k, predictor.ranked)
    recorded = trace.recorded()
    scores = np.empty((trace.tokens, trace.layers, trace.experts), int)

    def choice(token: int, layer: int, start: int, *, held: bool) -> np.ndarray | None:
        while token >= start:
            if recorded[token, layer]:
                return trace.expert_ids[token, layer]
            if not held:
                return None
            token -= 1
        return None

    def row_sum(target: int, source: int, ids: np.ndarray | None) -> list[int]:
        if ids is None:
            return [0] * config.hidden
        shift = int(tables.source_shifts[target, source])
        rows = tables.rows[target, source]
        return [
            sum(int(rows[expert, i]) << rank << shift for expert, rank in zip(ids, ranks, strict=True))
            for i in range(config.hidden)
        ]

    def identity(token: int) -> int | None:
        if config.tagged_by == "identity":
            return int(trace.token_hash[token])
        if not recorded[token, 0]:
            return None
        products = [(int(expert) + 1) * 2654435761 % 2**32 for expert in trace.expert_ids[token, 0]]
        return functools.reduce(operator.xor, products)

    def key(token: int, start: int, length: int) -> int | None:
        """Of the ``length`` identities up to ``token``: bits rotated left by 7 before each is added without carry."""
        if token - length + 1 < start:
            return None
        bits = "0" * 32
        for one in map(identity, range(token - length + 1, token + 1)):
            if one is None:
                return None
            bits = f"{int(bits[7:] + bits[:7], 2) ^ one:032b}"
        return int(bits, 2)

    def tagged(token: int, start: int, length: int) -> int | None:
        """The latest earlier token with this token's entry, if it has its key too."""
        mine = key(token, start, length)
        for earlier in reversed(range(start, token)) if mine is not None else ():
            theirs = key(earlier, start, length)
            if theirs is not None and theirs % config.tagged_entries == mine % config.tagged_entries:
                return earlier if theirs == mine else None
        return None

    def rounded(value: int, shift: int) -> int:
        return (value + (1 << shift >> 1)) >> shift

    adapted = np.zeros((trace.layers, trace.experts), object)
    decayed = np.zeros((len(config.decays), trace.layers, config.hidden), object)
    for token in range(trace.tokens):
        start = int(trace.sequence_offsets[np.searchsorted(trace.sequence_offsets, token, side="right") - 1])
        if token == start:
            decayed[:] = 0
            adapted[:] = 0
        for target in range(trace.layers):
            total = [int(value) for value in tables.bias[target]]
            for index, source in enumerate(every):
                layer = target + source.offset
                if source.age == DECAYED or not 0 <= layer < trace.layers:
                    continue
                if source.age == TAGGED:
                    known = config.tagged_by == "identity" or target >= predictor.lookahead
                    named = tagged(token, start, config.tagged[source.index]) if known else None
                    ids = None if named is None else choice(named, layer, start, held=False)
                else:
                    same = source.age == SAME_TOKEN
                    ids = choice(token - source.age, layer, start, held=not same)
                total = [a + b for a, b in zip(total, row_sum(target, index, ids), strict=True)]
            for index, decay in enumerate(config.decays):
                right = 8 - decay // 2
                total = [a + rounded(int(b), right) for a, b in zip(total, decayed[index, target], strict=True)]
            for age in range(config.identities):
                if token - age < start:
                    continue
                known = np.flatnonzero(tables.identity_tokens == trace.token_hash[token - age])
                row = tables.identity_rows[known[0] if len(known) else config.identity_rows - 1, age, target]
                shift = int(tables.identity_shifts[target, age])
                total = [a + (int(b) << shift) for a, b in zip(total, row, strict=True)]
            units = [min(255, max(0, rounded(value, int(tables.hidden_shifts[target])))) for value in total]
            for expert in range(trace.experts):
                value = int(tables.output_bias[target, expert])
                value += sum(unit * int(tables.output[target, i, expert]) for i, unit in enumerate(units))
                moved = 0
                if tables.adaptations[target]:
                    moved = adapted[target, expert] >> int(tables.adaptations[target])
                value = rounded(value, int(tables.score_shifts[target])) + 2048 + moved
                scores[token, target, expert] = min(4095, max(1, value))
            for expert in range(trace.experts) if recorded[token, target] else ():
                wanted = 65535 * int(expert in trace.expert_ids[token, target])
                adapted[target, expert] += wanted - int(
                    tables.probabilities[target, scores[token, target, expert] >> 5]
                )
        for decay_index, decay in enumerate(config.decays):
            for target in range(trace.layers):
                fed = [0] * config.hidden
                for index, source in enumerate(every):
                    layer = target + source.offset
                    if source.age != DECAYED or source.index != decay_index or not 0 <= layer < trace.layers:
                        continue
                    ids = choice(token, layer, start, held=True)
                    fed = [a + b for a, b in zip(fed, row_sum(target, index, ids), strict=True)]
                for i in range(config.hidden):
                    state = int(decayed[decay_index, target, i])
                    decayed[decay_index, target, i] = state + (((fed[i] << 8) - state + (1 << (decay - 1))) >> decay)
    return scores


CONTEXTS = [
    {},
    {"identity_rows": 0, "identities": 0},
    {"layers_back": 0, "previous": (), "decays": (), "identities": 1, "tagged": ()},
    {"layers_back": 9, "previous": (4,), "decays": (3,), "decay_reach": 0, "identities": 3, "tagged": (3, 1)},
    {"layers_back": 0, "previous": (), "decays": (), "tagged": (1, 2), "tagged_entries": 1},
    {"identity_rows": 0, "identities": 0, "tagged_by": "routing", "layers_back": 1, "previous": (), "decays": ()},
]


@pytest.mark.parametrize("context", CONTEXTS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lookahead=st.integers(1, 4),
    top_k=st.integers(1, 5),
    ranked=st.booleans(),
    unrecorded=st.sampled_from([0.0, 0.3]),
    chunk_tokens=st.integers(1, 30),
)
def test_streaming_batch_and_formulas_agree(context, seed, lookahead, top_k, ranked, unrecorded, chunk_tokens):
    predictor = random_predictor(lookahead=lookahead, top_k=top_k, ranked=ranked, seed=seed, **context)
    trace = identified_trace(
        layers=5, experts=9, top_k=top_k, lengths=(6, 1, 1, 19), unrecorded=unrecorded, seed=seed + 1
    )
    streamed = stream_trace(predictor, trace)
    batch = np.empty_like(streamed)
    for first, scores in predictor.score_chunks(trace, chunk_tokens=chunk_tokens):
        batch[first : first + len(scores)] = scores
    np.testing.assert_array_equal(batch, streamed)
    np.testing.assert_array_equal(streamed, written_out(predictor, trace))
    np.testing.assert_array_equal(stream_trace(predictor, trace), streamed, err_msg="reset forgets nothing or too much")


def test_the_samples_neither_saturate_nor_stand_still():
    """Else the test above would compare constants."""
    scores = random_predictor().score_trace(identified_trace(layers=5, experts=9))
    assert ((scores > 1) & (scores < 4095)).mean() > 0.5
    assert len(np.unique(scores)) > 100


@pytest.mark.parametrize("lookahead", [1, 3])
def test_the_answer_does_not_depend_on_when_it_is_asked(lookahead):
    predictor = random_predictor(layers=6, lookahead=lookahead)
    trace = identified_trace(layers=6, experts=9, lengths=(8, 4), unrecorded=0.2)
    earliest = stream_trace(predictor, trace)
    predictor.reset()
    recorded = trace.recorded()
    latest = np.empty_like(earliest)
    for token in range(trace.tokens):
        if token in trace.sequence_offsets:
            predictor.start_sequence()
        predictor.start_token(int(trace.token_hash[token]))
        for layer in range(trace.layers):
            latest[token, layer] = predictor.predict(layer)
            predictor.observe(layer, trace.expert_ids[token, layer] if recorded[token, layer] else None)
    np.testing.assert_array_equal(latest, earliest)


def test_the_future_does_not_change_the_past():
    predictor = random_predictor()
    trace = identified_trace(layers=5, experts=9, lengths=(10,))
    part = trace.token_range(0, 6)
    np.testing.assert_array_equal(predictor.score_trace(part), predictor.score_trace(trace)[:6])


def test_the_target_layer_and_nearer_ones_are_not_looked_at():
    """With lookahead 2, layers from ``target − 1`` on may change without changing the target's scores."""
    predictor = random_predictor(lookahead=2)
    trace = identified_trace(layers=5, experts=9, lengths=(1,))
    before = predictor.score_trace(trace)
    for layer in range(5):
        ids = trace.expert_ids.copy()
        ids[0, layer] = [8, 7, 6]
        after = predictor.score_trace(replace(trace, expert_ids=ids, content="unchecked"))
        changed = (after != before).any(axis=(0, 2))
        assert not changed[: layer + 2].any()
        assert layer + 2 >= 5 or changed[layer + 2]


def test_a_trace_without_identity_is_refused():
    trace = replace(identified_trace(layers=5, experts=9), token_hash=None)
    with pytest.raises(ForestageError, match=r"token identity.*no-identity"):
        random_predictor().score_trace(trace)


def test_unranked_ids_are_refused_where_ranks_count():
    trace = identified_trace(layers=5, experts=9)
    unranked = replace(trace, metadata=trace.metadata.model_copy(update={"ranked": False}))
    with pytest.raises(ForestageError, match=r"rank order.*ranks=false"):
        random_predictor().score_trace(unranked)
    random_predictor(ranked=False).score_trace(unranked)


def test_an_accumulator_beyond_32_bits_is_refused():
    predictor = random_predictor()
    tables = replace(predictor.tables, source_shifts=np.full_like(predictor.tables.source_shifts, 20))
    with pytest.raises(ForestageError, match="32 bits"):
        LearnedPredictor(tables, predictor.config, top_k=3, lookahead=1, ranked=True, provenance=predictor.provenance)


def test_widths_bound_what_is_reached():
    """No sum that occurs is wider than what the constructor reports."""
    predictor = random_predictor(seed=3)
    trace = identified_trace(layers=5, experts=9, lengths=(200,))
    predictor.reset()
    highest = 0
    for token in range(trace.tokens):
        predictor.start_token(int(trace.token_hash[token]))
        for layer in range(5):
            predictor.observe(layer, trace.expert_ids[token, layer])
        highest = max(highest, *(int(np.abs(part).max()) for part in predictor._state[:4]))
    assert 2 ** (predictor.accumulator_bits - 6) < highest < 2 ** (predictor.accumulator_bits - 1)


def test_bytes_by_hand():
    """3 layers, 4 experts, hidden 6; one layer back and the layer itself a token ago: layer 0 has one source."""
    config = LearnedConfig(
        hidden=6,
        layers_back=1,
        previous=(0,),
        decays=(),
        identity_rows=10,
        identities=2,
        tagged=(1, 4),
        tagged_entries=8,
    )
    size = table_bytes(config, layers=3, experts=4, top_k=2, lookahead=1)
    fixed = 6 * 4 + 4 * 6 + 4 * 4 + 2 * 128 + (4 + 2 + 3)
    assert size.sram_per_layer == (72 + fixed, 96 + fixed, 96 + fixed)
    assert size.burst_bytes == 2 * 3 * 6
    assert size.identity_bytes == 10 * 36
    assert size.state_per_slot_layer == 4 * 6 * 2 + 6 + 4 * 4
    assert size.entry_bytes == 64  # 8 + 3 · 2
    assert size.tagged_per_slot == 2 * 8 * 64
    assert size.far_per_token == 36 + 2 * (64 + 64)
    wide = table_bytes(config, layers=10, experts=256, top_k=4, lookahead=1)
    assert wide.entry_bytes == 128  # 8 + 10 · 4 · 2
    plain = table_bytes(LearnedConfig(tagged=()), layers=3, experts=4, top_k=2, lookahead=1)
    assert (plain.entry_bytes, plain.far_per_token) == (0, plain.burst_bytes)


def test_sources_and_their_layers():
    config = LearnedConfig(**{**SMALL, "decays": (2,), "previous": (1,)})
    offsets = [(source.age, source.offset) for source in sources(config, 2)]
    assert offsets == [(0, -2), (0, -3), (1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (-2, 0), (-2, 0)]
    assert feeding_layers(config, layers=3, lookahead=2)[2].tolist() == [0, -1, 1, 2, -1, 1, 2, -1, 2, 2]


@pytest.mark.parametrize(("top_k", "expected"), [(1, (0,)), (2, (2, 0)), (4, (2, 1, 1, 0))])
def test_rank_shifts(top_k, expected):
    assert rank_shifts(top_k, True) == expected
    assert rank_shifts(top_k, False) == (0,) * top_k


def test_probabilities_are_read_from_the_layers_table():
    predictor = random_predictor()
    scores = np.array([1, 31, 32, 4095])
    expected = predictor.tables.probabilities[2][[0, 0, 1, 127]] / 65535
    np.testing.assert_array_equal(predictor.probabilities(2, scores), expected)
