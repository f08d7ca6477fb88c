"""The integers of a row network: streaming equals batch equals the sums written out, for both heads."""

import functools
import operator
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.base import stream_trace
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import NextLayerConfig
from predictor.next_use.recipes import NextUseConfig, recipe_for
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import CHANCE_BINS, table_bytes
from predictor.row_network.sources import DECAYED, LONGEST, MATCHED, SAME_TOKEN, feeding_layers, rank_shifts, sources
from predictor.row_network.twin import RowNetwork
from tests.learned_samples import SMALL, identified_trace, random_next_use, random_predictor
from traces import RoutingTrace


def written_out(network: RowNetwork, trace: RoutingTrace) -> np.ndarray:
    """The formulas of ``predictor.row_network.integers`` in Python's integers, gathered instead of scattered: scores
    ``[tokens, layers, answers]``."""
    tables, config, lookahead = network.tables, network.config, network.lookahead
    every = sources(config)
    ranks = rank_shifts(trace.top_k, network.ranked)
    recorded = trace.recorded()
    answers = config.questions * trace.experts
    scores = np.empty((trace.tokens, trace.layers, answers), int)

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
        if config.ngram_by == "identity":
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

    def named(token: int, start: int, length: int) -> int | None:
        """The latest earlier token with this token's entry, if it has its key too."""
        mine = key(token, start, length)
        for earlier in reversed(range(start, token)) if mine is not None else ():
            theirs = key(earlier, start, length)
            if theirs is not None and theirs % config.ngram_entries == mine % config.ngram_entries:
                return earlier if theirs == mine else None
        return None

    def read_from_the_log(token: int, start: int, index: int, first: int, last: int) -> list[int]:
        """The tokens that a matched source reads."""
        lengths = config.ngram_tables if index == LONGEST else (config.ngram_tables[index],)
        found = [place for place in (named(token, start, length) for length in lengths) if place is not None]
        if not found:
            return []
        return [t for t in range(found[-1] + first, found[-1] + last + 1) if token - config.log_tokens < t < token]

    def rounded(value: int, shift: int) -> int:
        return (value + (1 << shift >> 1)) >> shift

    adapted = np.zeros((trace.layers, answers), object)
    decayed = np.zeros((len(config.decays), trace.layers, config.hidden), object)
    for token in range(trace.tokens):
        start = int(trace.sequence_offsets[np.searchsorted(trace.sequence_offsets, token, side="right") - 1])
        if token == start:
            decayed[:] = 0
            adapted[:] = 0
        for target in range(trace.layers):
            # Before layer 0 no gate is known: as if asked at a lookahead of one more than there are layers below.
            distance = max(min(lookahead, target + 1), config.nearest) - config.nearest
            total = [int(value) for value in tables.bias[target, distance]]
            for index, source in enumerate(every):
                layer = target + source.offset
                if source.age == DECAYED or not 0 <= layer < trace.layers:
                    continue
                if source.age == MATCHED:
                    known = config.ngram_by == "identity" or target >= lookahead
                    span = (source.index, source.first, source.last)
                    read = [choice(t, layer, start, held=False) for t in read_from_the_log(token, start, *span)]
                    found = read if known else []
                elif source.age == SAME_TOKEN:
                    found = [choice(token, layer, start, held=False)] if layer <= target - lookahead else []
                else:
                    found = [choice(token - source.age, layer, start, held=True)]
                for ids in found:
                    total = [a + b for a, b in zip(total, row_sum(target, index, ids), strict=True)]
            for index, (decay, _) in enumerate(config.decays):
                right = 8 - decay // 2
                total = [a + rounded(int(b), right) for a, b in zip(total, decayed[index, target], strict=True)]
            for age in range(config.identities):
                if token - age < start:
                    continue
                known_rows = np.flatnonzero(tables.identity_tokens == trace.token_hash[token - age])
                row = tables.identity_rows[known_rows[0] if len(known_rows) else config.identity_rows - 1, age, target]
                shift = int(tables.identity_shifts[target, age])
                total = [a + (int(b) << shift) for a, b in zip(total, row, strict=True)]
            units = [min(255, max(0, rounded(value, int(tables.hidden_shifts[target])))) for value in total]
            for answer in range(answers):
                value = int(tables.output_bias[target, answer])
                value += sum(unit * int(tables.output[target, i, answer]) for i, unit in enumerate(units))
                moved = 0
                if tables.adaptations[target]:
                    moved = adapted[target, answer] >> int(tables.adaptations[target])
                value = rounded(value, int(tables.score_shifts[target])) + 2048 + moved
                scores[token, target, answer] = min(4095, max(1, value))
            for expert in range(trace.experts) if recorded[token, target] and tables.adaptations[target] else ():
                wanted = 65535 * int(expert in trace.expert_ids[token, target])
                adapted[target, expert] += wanted - int(
                    tables.chances[target, distance, 0, scores[token, target, expert] >> 4]
                )
        for decay_index, (decay, _) in enumerate(config.decays):
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
    {"layers_back": 0, "previous": (), "decays": (), "identities": 1, "ngram_tables": ()},
    {"layers_back": 9, "previous": ((4, 4),), "decays": ((3, 0),), "identities": 3, "ngram_tables": (1, 3)},
    {"layers_back": 0, "previous": (), "decays": (), "ngram_tables": (1, 2), "ngram_entries": 1},
    {"identity_rows": 0, "identities": 0, "ngram_by": "routing", "layers_back": 1, "previous": (), "decays": ()},
    {"nearest": 1, "farthest": 4, "layers_back": 4, "previous": ((0, 2),), "at_match": False},
    {"nearest": 1, "farthest": 4, "identity_rows": 0, "identities": 0, "ngram_by": "routing"},
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
    np.testing.assert_array_equal(streamed, written_out(predictor.network, trace))
    np.testing.assert_array_equal(stream_trace(predictor, trace), streamed, err_msg="reset forgets nothing or too much")


@pytest.mark.parametrize("context", [{}, {"ngram_by": "routing"}, {"identity_rows": 5, "identities": 1}])
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lookahead=st.integers(0, 2),
    top_k=st.integers(1, 3),
    ranked=st.booleans(),
    chunk_tokens=st.integers(1, 30),
)
def test_several_questions_are_answered_alike(context, seed, lookahead, top_k, ranked, chunk_tokens):
    """The next-use head, at lookahead 0 too: scores, and the priorities that follow."""
    shape = {"layers": 4, "experts": 7, "top_k": top_k}
    predictor = random_next_use(np.random.default_rng(seed), **shape, lookahead=lookahead, ranked=ranked, **context)
    trace = identified_trace(**shape, lengths=(6, 1, 19), unrecorded=0.2, seed=seed)
    expected = written_out(predictor.network, trace)
    batch = np.concatenate(
        [part.reshape(len(part), 4, -1) for _, part in predictor.score_chunks(trace, chunk_tokens=chunk_tokens)]
    )
    np.testing.assert_array_equal(batch, expected)
    priorities = np.concatenate([part for _, part in predictor.priority_chunks(trace, chunk_tokens=chunk_tokens)])
    recorded = trace.recorded()
    for token in range(trace.tokens):
        if token in trace.sequence_offsets:
            predictor.start_sequence()
        predictor.start_token(int(trace.token_hash[token]))
        for layer in range(4):
            predictor.observe(layer, trace.expert_ids[token, layer] if recorded[token, layer] else None)
            target = layer + lookahead
            if target < 4:
                np.testing.assert_array_equal(predictor.network.scores(target).ravel(), expected[token, target])
                np.testing.assert_array_equal(predictor.priorities(target), priorities[token, target])


def test_a_sum_is_asked_at_any_lookahead():
    """One bank: what it says at lookahead d is not what it says at another, nor does it know nearer gates."""
    serving = {"nearest": 1, "farthest": 3, "layers_back": 4}
    trace = identified_trace(layers=5, experts=9, lengths=(12,))
    near, far = (random_predictor(lookahead=lookahead, **serving) for lookahead in (1, 3))
    assert (near.at(3).score_trace(trace) == far.score_trace(trace)).all()
    assert (near.score_trace(trace) != far.score_trace(trace)).any()
    ids = trace.expert_ids.copy()
    ids[-1, 2] = [8, 7, 6]
    changed = (far.score_trace(replace(trace, expert_ids=ids, content="unchecked")) != far.score_trace(trace))[-1]
    assert not changed.any()  # layer 4 is asked when layer 1 is known
    with pytest.raises(ForestageError, match=r"trained for lookahead 1…3, not 4"):
        near.at(4)


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
    with pytest.raises(ForestageError, match=r"identity of tokens.*no-identity"):
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
        NextLayerPredictor(tables, predictor.config, top_k=3, ranked=True, provenance=predictor.provenance)


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
        highest = max(highest, *(int(np.abs(part).max()) for part in predictor.network._state[:4]))
    assert 2 ** (predictor.network.accumulator_bits - 6) < highest < 2 ** (predictor.network.accumulator_bits - 1)


def test_bytes_by_hand():
    """3 layers, 4 experts, hidden 6; one layer back and the layer itself a token ago: layer 0 has one source."""
    config = NextLayerConfig(
        hidden=6,
        layers_back=1,
        previous=((0, 0),),
        decays=(),
        identity_rows=10,
        identities=2,
        ngram_tables=(1, 4),
        ngram_entries=8,
        log_tokens=16,
    )
    size = table_bytes(config, layers=3, experts=4, top_k=2, adapts=True)
    fixed = 6 * 4 + 4 * 6 + 4 * 4 + 2 * 256 + (4 + 2 + 3)
    assert size.sram_per_layer == (72 + fixed, 96 + fixed, 96 + fixed)
    assert size.burst_bytes == 2 * 3 * 64  # a row of 6 bytes takes a beat
    assert size.identity_bytes == 10 * 384
    assert size.state_per_slot_layer == 4 * 6 * 2 + 6 + 2 * 2 + 4 * 4
    assert size.record_bytes == 64  # 3 · 2
    assert size.text_per_slot == 2 * 8 * 16 + 16 * 64
    assert (size.text_read, size.text_written) == (2 * 64 + 2 * 64, 2 * 64 + 64)
    assert size.far_per_token == 384 + size.text_read + size.text_written
    wide = table_bytes(config, layers=10, experts=256, top_k=4, adapts=False)
    assert wide.record_bytes == 128  # 10 · 4 · 2
    assert wide.state_per_slot_layer == 4 * 6 * 2 + 6 + 2 * 4 * 2
    plain = table_bytes(NextLayerConfig(ngram_tables=()), layers=3, experts=4, top_k=2, adapts=True)
    assert (plain.record_bytes, plain.text_per_slot, plain.far_per_token) == (0, 0, plain.burst_bytes)


def test_bytes_of_what_followed():
    """gpt-oss-20b: records of 96 bytes in two beats, eight of them read; three entries read and written."""
    config = NextUseConfig(log_tokens=1024, continuation_windows=((1, 1), (4, 8)))
    size = table_bytes(config, layers=24, experts=32, top_k=4, adapts=False)
    assert size.text_per_slot == 3 * 4096 * 16 + 1024 * 128
    assert (size.text_read, size.text_written) == (3 * 64 + 8 * 128, 3 * 64 + 128)
    bare = table_bytes(config.model_copy(update={"ngram_tables": ()}), layers=24, experts=32, top_k=4, adapts=False)
    assert (bare.text_per_slot, bare.text_read, bare.text_written) == (0, 0, 0)
    # Two windows of rows and their shifts; eight records of four ids.
    assert size.sram_largest - bare.sram_largest == 2 * (32 * 64 + 1)
    assert size.state_per_slot_layer - bare.state_per_slot_layer == 8 * 4


@pytest.mark.parametrize("identity", [True, False])
def test_the_next_use_default_keeps_to_its_limit(identity):
    """64 KiB a layer of gpt-oss-20b with a sequence's state, and as much without identity."""
    config = recipe_for({}, identity=identity, tokens=0, origin="test").predictor
    size = table_bytes(config, layers=24, experts=32, top_k=4, adapts=False)
    assert config.looks_at_identity == identity
    assert 60_000 < size.sram_largest + size.state_per_slot_layer <= 1 << 16


def test_the_default_is_the_one_that_the_guide_describes():
    guide = Path(__file__).resolve().parents[3] / "docs" / "learned-predictor.md"
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", guide.read_text(encoding="utf-8"), re.MULTILINE))
    starts = ("this token's", "the previous token's", "exponentially decayed", "identity of this", "layer *l*, of")
    said = {start: next(rows[what] for what in rows if what.startswith(start)) for start in starts}
    default = NetworkConfig()
    assert said["this token's"] == str(default.layers_back)
    assert said["the previous token's"] == f"{len(default.previous)} token"
    assert default.previous == ((1, 1),)  # l − 1, l, l + 1
    assert said["exponentially decayed"] == "decays 2⁻², 2⁻⁴"
    assert default.decays == ((2, 0), (4, 0))
    assert said["identity of this"] == f"{default.identity_rows - 1:,} rows of their own, one for all others"
    assert default.identities == 2  # of this and of the previous token
    assert said["layer *l*, of"].startswith(f"{len(default.ngram_tables)} *n-gram tables*")
    assert default.ngram_tables == (1, 2, 3)
    assert default.at_match
    assert f"newest {default.log_tokens:,} tokens" in guide.read_text(encoding="utf-8")


def test_sources_and_their_layers():
    config = NetworkConfig(
        **{**SMALL, "decays": ((2, 1),), "previous": ((1, 2),), "nearest": 2, "farthest": 2, "ngram_tables": (3,)}
    )
    found = [(source.age, source.offset, source.index, source.first, source.last) for source in sources(config)]
    assert found == [
        (0, -2, 0, 0, 0), (0, -3, 0, 0, 0),
        (1, -1, 0, 0, 0), (1, 0, 0, 0, 0), (1, 1, 0, 0, 0), (1, 2, 0, 0, 0),
        (-1, -1, 0, 0, 0), (-1, 0, 0, 0, 0), (-1, 1, 0, 0, 0),
        (-2, 0, 0, 0, 0), (-2, 0, -1, 0, 1), (-2, 0, -1, 2, 4),
    ]  # fmt: skip
    assert feeding_layers(config, layers=3)[2].tolist() == [0, -1, 1, 2, -1, -1, 1, 2, -1, 2, 2, 2]


@pytest.mark.parametrize(("top_k", "expected"), [(1, (0,)), (2, (2, 0)), (4, (2, 1, 1, 0))])
def test_rank_shifts(top_k, expected):
    assert rank_shifts(top_k, True) == expected
    assert rank_shifts(top_k, False) == (0,) * top_k


def test_probabilities_are_read_from_the_layers_table():
    predictor = random_predictor()
    scores = np.array([1, 15, 16, 4095, 7, 7, 7, 7, 7])
    expected = predictor.tables.chances[2, 0, 0][scores >> 4] / 65535
    np.testing.assert_array_equal(predictor.probabilities(2, scores), expected)
    assert (scores >> 4).tolist()[:4] == [0, 0, 1, CHANCE_BINS - 1]
    np.testing.assert_array_equal(predictor.probabilities(2, np.stack([scores] * 3)), [expected] * 3)


def test_chances_are_read_at_the_lookahead_asked_for():
    """Layer 0 of a bank is asked before any gate, which is lookahead 1, whatever the others are asked at."""
    predictor = random_predictor(lookahead=3, nearest=1, farthest=3)
    scores = np.arange(9) * 450
    for layer, distance in ((0, 0), (1, 1), (2, 2), (4, 2)):
        expected = predictor.tables.chances[layer, distance, 0][scores >> 4] / 65535
        np.testing.assert_array_equal(predictor.probabilities(layer, scores), expected)


def test_a_token_of_which_nothing_is_told_has_no_identity():
    predictor = random_next_use(np.random.default_rng(4), layers=1, experts=6, top_k=2)

    def last(identities: list[int | None]) -> list[int]:
        predictor.start_sequence()
        for token, identity in enumerate(identities):
            if identity is not None:
                predictor.start_token(identity)
            predictor.observe(0, np.array([token % 3, 5]))
        return predictor.priorities(0).tolist()

    unmatched = last([1, 2, 3, 4])
    assert last([1, 2, 3, None]) == last([1, None, 3, None]) == unmatched
    assert last([1, 2, 3, 2]) != unmatched
    # A pair in which one is unknown is not met again, its known word alone is.
    assert last([1, None, 3, 1]) == last([1, 7, 3, 1]) != unmatched


def test_asking_changes_nothing():
    predictor = random_next_use(np.random.default_rng(1), layers=3, experts=6, top_k=2, lookahead=1)
    predictor.start_token(3)
    first = predictor.chances(0)  # before any gate
    assert predictor.chances(0).tolist() == first.tolist()
    predictor.observe(0, np.array([1, 2]))
    assert predictor.chances(0).tolist() == first.tolist()
    second = predictor.chances(1)
    predictor.observe(1, np.array([3, 2]))
    assert predictor.chances(1).tolist() == second.tolist()
    assert predictor.priorities(1).tolist() == second.sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decays": ((3, 0), (13, 0))}, r"decays: .*a shift is 1 to 12"),
        ({"decays": ((3, -1),)}, "decays"),
        ({"previous": ((1, -1),)}, "previous"),
        ({"hidden": 0}, "hidden"),
        ({"ngram_tables": (2, 1)}, "ngram_tables: .*ascending numbers of tokens in 1…8"),
        ({"ngram_tables": (9,)}, "ngram_tables"),
        ({"ngram_entries": 3}, "ngram_entries: .*power of two"),
        ({"log_tokens": 12}, "log_tokens: .*power of two"),
        ({"continuation_windows": ((2, 1),)}, "continuation_windows: .*in 0…64"),
        ({"continuation_windows": ((1, 65),)}, "continuation_windows"),
        ({"nearest": 3, "farthest": 2}, "nearest 3 is beyond farthest 2"),
        ({"identities": 0}, "go together"),
    ],
)
def test_configurations_out_of_range_are_refused(values, message):
    with pytest.raises(ForestageError, match=message):
        NetworkConfig.parse(values, origin="test")


@pytest.mark.parametrize("name", ["source_shifts", "hidden_shifts", "score_shifts", "adaptations"])
def test_shifts_out_of_range_are_refused(name):
    predictor = random_predictor()
    changed = np.full_like(getattr(predictor.tables, name), 31)
    with pytest.raises(ForestageError, match=f"{name}: a shift beyond 30"):
        NextLayerPredictor(
            replace(predictor.tables, **{name: changed}), predictor.config, top_k=3, ranked=True,
            provenance=predictor.provenance,
        )  # fmt: skip


def test_a_decayed_sum_that_would_overflow_is_refused():
    generator = np.random.default_rng(2)
    random_next_use(generator, layers=2, experts=600, top_k=8, decays=((3, 2),))
    with pytest.raises(ForestageError, match="beyond 32 bits"):
        random_next_use(generator, layers=2, experts=600, top_k=512, decays=((3, 20),), ranked=True)
