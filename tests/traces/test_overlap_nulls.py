"""The nulls of the overlap and of distinct experts, against shuffles that were really made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.routing import trace_of
from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace
from traces.importers import import_trace
from traces.scattered import gather_ids
from traces.selection import select_sequences
from traces.statistics import batch_statistics, statistics, working_set_statistics
from traces.statistics.batches import popularity_distinct_experts


def walk(seed: int, lengths: tuple[int, ...] = (30, 2, 1, 50, 17)) -> RoutingTrace:
    """Sequences with favourites of their own, whose tokens resemble the one before; some rows not recorded."""
    generator = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        keys = generator.random((3, 8)) * 2
        for _ in range(length):
            keys = 0.7 * keys + generator.random((3, 8)) * (0.5 + np.arange(8) / 8)
            rows.append(np.argsort(-keys, axis=1)[:, :2])
    ids = np.array(rows, np.uint8)
    ids[generator.random(ids.shape[:2]) < 0.1] = 255
    return trace_of(ids, experts=8, lengths=lengths, domains=["a", "b", "a", "b", "a"][: len(lengths)])


def shuffled(trace: RoutingTrace, generator: np.random.Generator, *, within: bool) -> RoutingTrace:
    """Each layer's recorded rows shuffled over the places where there are any: of the trace, or of each sequence."""
    ids = trace.expert_ids.copy()
    groups = [trace.sequence_slice(i) for i in range(trace.sequences)] if within else [slice(0, trace.tokens)]
    for tokens in groups:
        for layer in range(trace.layers):
            places = tokens.start + np.flatnonzero(trace.recorded()[tokens, layer])
            ids[places, layer] = ids[generator.permutation(places), layer]
    return replace(trace, expert_ids=ids, content="unchecked")


@pytest.mark.parametrize("within", [False, True])
def test_the_nulls_are_what_real_shuffles_share_on_average(within: bool) -> None:
    trace, generator = walk(0), np.random.default_rng(1)
    gap = (np.arange(trace.tokens) + (np.arange(trace.tokens) > 20)).astype(np.int32)
    trace = replace(trace, position=gap, content="unchecked")
    field = "sequence_overlap" if within else "popularity_overlap"
    expected = [getattr(layer, field) for layer in statistics(trace).by_layer]
    drawn = np.array(
        [
            [layer.temporal_overlap for layer in statistics(shuffled(trace, generator, within=within)).by_layer]
            for _ in range(300)
        ]
    )
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected) < 4 * error).all()
    assert (error < 0.01).all()
    measured = [layer.temporal_overlap for layer in statistics(trace).by_layer]
    assert all(m > 1.1 * e for m, e in zip(measured, expected, strict=True))


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_every_layers_nulls_agree_with_plain_loops(trace: RoutingTrace) -> None:
    result = statistics(trace)
    for layer, figures in enumerate(result.by_layer):
        within, pairs, everyone = 0.0, 0, []
        for index in range(trace.sequences):
            tokens = range(trace.tokens)[trace.sequence_slice(index)]
            rows = [set(trace.expert_ids[t, layer].tolist()) for t in tokens if trace.recorded()[t, layer]]
            together = sum(
                bool(trace.recorded()[t, layer] and trace.recorded()[t - 1, layer])
                for t in tokens[1:]
                if trace.position[t] == trace.position[t - 1] + 1
            )
            everyone += rows
            if together:
                within += together * np.mean([len(a & b) for i, a in enumerate(rows) for b in rows[:i]])
                pairs += together
        if not pairs:
            assert figures.sequence_overlap is figures.popularity_overlap is figures.over_sequence is None
            continue
        shared = np.mean([len(a & b) for i, a in enumerate(everyone) for b in everyone[:i]])
        assert figures.popularity_overlap == pytest.approx(shared)
        assert figures.sequence_overlap == pytest.approx(within / pairs)


def test_means_are_over_layers_and_ratios_are_of_the_means() -> None:
    result = statistics(walk(2))
    for part, layers in ((result.overall, result.by_layer),):
        overlap = np.mean([layer.temporal_overlap for layer in layers])
        for name in ("popularity", "sequence"):
            null = np.mean([getattr(layer, f"{name}_overlap") for layer in layers])
            assert getattr(part, f"over_{name}") == pytest.approx(overlap / null)
    assert result.overall.over_uniform == pytest.approx(result.overall.temporal_overlap / result.uniform_overlap)


def test_a_domains_nulls_are_of_its_own_tokens() -> None:
    trace = walk(3)
    alone = statistics(select_sequences(trace, [1, 3])).overall
    domain = statistics(trace).by_domain["b"]
    assert domain.popularity_overlap == alone.popularity_overlap
    assert domain.sequence_overlap == alone.sequence_overlap


def independent(tokens: int = 2000) -> RoutingTrace:
    """Independent tokens of skewed popularity: no locality whatever."""
    keys = np.log(1 / np.arange(1, 65) ** 1.1) + np.random.default_rng(0).gumbel(size=(tokens, 4, 64))
    return trace_of(np.argsort(-keys, axis=-1)[..., :4], experts=64, lengths=[100] * (tokens // 100))


def check_independent(trace: RoutingTrace) -> None:
    overall = statistics(trace).overall
    assert overall.over_uniform == pytest.approx(4.09, abs=0.01)
    assert overall.over_popularity == pytest.approx(1, abs=0.01)
    assert overall.over_sequence == pytest.approx(1, abs=0.01)


def test_independent_tokens_share_what_shuffled_ones_do_however_skewed_they_are() -> None:
    check_independent(independent())


def test_the_independent_tokens_met_in_the_field(field_case: Callable[[str], Path]) -> None:
    arrays = np.load(field_case("independent.npz"))
    lengths = np.diff(arrays["seq_offsets"]).tolist()
    check_independent(trace_of(arrays["expert_ids"], experts=64, lengths=lengths))


def test_gpt_oss_beside_its_nulls(shared_file: Callable[[str], Path]) -> None:
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    for part, expected in ((trace, (3.50, 2.27, 1.39)), (trace.token_range(0, 20_000), (3.69, 2.16, 1.42))):
        overall = statistics(part).overall
        ratios = (overall.over_uniform, overall.over_popularity, overall.over_sequence)
        assert ratios == pytest.approx(expected, abs=0.005)


def test_popularity_kept_is_what_independent_draws_touch() -> None:
    trace = independent()
    statistic = batch_statistics(trace, sizes=(1, 4, 16)).by_size
    # Independent tokens: batches of several sequences touch what popularity alone makes them touch.
    for size in statistic:
        assert size.distinct_experts == pytest.approx(size.popularity_distinct_experts, rel=0.02)
    assert statistic[-1].uniform_distinct_experts > 1.4 * statistic[-1].popularity_distinct_experts
    for one in working_set_statistics(trace, (1, 8, 32)).by_window:
        assert one.distinct_experts == pytest.approx(one.popularity_distinct_experts, rel=0.02)
    generator, shares = np.random.default_rng(0), np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    drawn = [np.mean([len(set(generator.choice(3, 5, p=p))) for p in shares]) for _ in range(4000)]
    assert popularity_distinct_experts(shares, 5) == pytest.approx(np.mean(drawn), abs=0.02)


def test_popularity_is_that_of_the_tokens_looked_at() -> None:
    trace = make_trace((30, 40, 50), prompt=10, unrecorded=True)
    decode = np.flatnonzero((trace.phase == 1) & trace.recorded().all(axis=1))
    ids = gather_ids(trace, decode)
    shares = np.stack([np.bincount(ids[:, layer].ravel(), minlength=8) / len(decode) for layer in range(3)])
    (size,) = batch_statistics(trace, sizes=(2,)).by_size
    assert size.popularity_distinct_experts == pytest.approx(popularity_distinct_experts(shares, 2))
