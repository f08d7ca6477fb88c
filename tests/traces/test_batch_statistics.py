"""Sampled batches and working sets against hand figures, plain loops and the uniform formula."""

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from catalog.errors import ForestageError
from tests.routing import trace_of
from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace, scattered
from traces.statistics import batch_statistics, batches, walk, working_set_statistics
from traces.statistics.batches import _Sampler, distinct_experts
from traces.statistics.walk import contiguous_runs, eligible, phase_of_interest, sequence_groups


def test_sequences_that_always_choose_alike() -> None:
    # Sequence s uses experts s // 2 alone, so a batch of all 4 sequences has 2 experts with 2 tokens each.
    ids = np.array([[[sequence // 2]] for sequence in range(4) for _ in range(5)])
    figures = batch_statistics(trace_of(ids, experts=8, lengths=[5] * 4), samples=50, seed=1)
    assert [size.batch for size in figures.by_size] == [1, 2, 4]
    one, whole = figures.of_size(1), figures.of_size(4)
    assert one is not None
    assert whole is not None
    assert (one.distinct_experts, one.single_token_share, one.tokens_per_expert) == (1.0, 1.0, (1.0,))
    assert (whole.distinct_experts, whole.distinct_experts_std) == (2.0, 0.0)
    assert (whole.single_token_share, whole.at_most_four_share, whole.tokens_per_expert) == (0.0, 1.0, (0.0, 1.0))
    assert whole.uniform_distinct_experts == pytest.approx(8 * (1 - (7 / 8) ** 4))
    assert figures.of_size(8) is None


def test_independent_uniform_choices_give_the_formula() -> None:
    keys = np.random.default_rng(0).random((40 * 50, 3, 16))
    trace = trace_of(np.argsort(keys, axis=-1)[..., :2], experts=16, lengths=[50] * 40)
    figures = batch_statistics(trace, samples=400)
    for size in figures.by_size:
        assert size.distinct_experts == pytest.approx(size.uniform_distinct_experts, rel=0.02)
    sets = working_set_statistics(trace)
    assert [one.window for one in sets.by_window] == [1, 2, 4, 8, 16, 32]
    for window in sets.by_window:
        assert window.distinct_experts == pytest.approx(window.uniform_distinct_experts, rel=0.02)


def test_a_batch_has_different_sequences_in_proportion_to_their_length() -> None:
    trace = make_trace(lengths=(60, 20, 20), prompt=0)
    sampler = _Sampler(trace, "decode")
    owner = trace.sequence_index()[sampler.draw(1, 4000, np.random.default_rng(0))]
    assert np.bincount(owner.ravel()) / 4000 == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    pairs = trace.sequence_index()[sampler.draw(2, 500, np.random.default_rng(0))]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    alone = sampler.draw(1, 4000, np.random.default_rng(1))
    assert len(np.unique(alone)) == 100


def test_the_seed_decides_and_sizes_do_not_disturb_each_other() -> None:
    trace = make_trace(lengths=(9,) * 12, layers=2, experts=32, top_k=4)
    first = batch_statistics(trace, seed=3, samples=20)
    assert batch_statistics(trace, seed=3, samples=20) == first
    assert batch_statistics(trace, seed=4, samples=20) != first
    assert batch_statistics(trace, seed=3, samples=20, sizes=[8]).of_size(8) == first.of_size(8)


def test_decode_tokens_are_preferred_and_unrecorded_ones_left_out() -> None:
    trace = make_trace(lengths=(6, 4), prompt=2)
    assert phase_of_interest(trace) == "decode"
    assert np.flatnonzero(eligible(trace, "decode")).tolist() == [2, 3, 4, 5, 8, 9]
    assert phase_of_interest(make_trace(lengths=(6, 4), prompt=9)) == "prefill"
    partial = make_trace(lengths=(6, 4), prompt=0, unrecorded=True)
    kept = np.flatnonzero(eligible(partial, "decode"))
    assert 0 < len(kept) < 10
    assert partial.recorded()[kept].all()
    drawn = _Sampler(partial, "decode").draw(1, 300, np.random.default_rng(0))
    assert np.unique(drawn).tolist() == kept.tolist()


def test_rare_tokens_are_looked_up_and_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(lengths=(6, 4), prompt=2)
    for redraws in (0, 1):
        monkeypatch.setattr(batches, "REDRAWS", redraws)
        drawn = _Sampler(trace, "decode").draw(2, 2000, np.random.default_rng(0))
        assert (np.sort(drawn, axis=1) // 6 == [0, 1]).all()  # a token of either sequence
        times = np.bincount(drawn.ravel(), minlength=10)
        expected = [0, 0, 500, 500, 500, 500, 0, 0, 1000, 1000]
        assert times == pytest.approx(expected, abs=100)
        assert (times > 0).tolist() == (np.array(expected) > 0).tolist()


def test_a_rare_token_is_not_drawn_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of(np.zeros((5000, 1, 1)), experts=2, prompt=4999)
    asked: list[int] = []
    find = _Sampler._eligible

    def counting(self: _Sampler, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        asked.append(len(tokens))
        return find(self, tokens)

    monkeypatch.setattr(_Sampler, "_eligible", counting)
    assert set(_Sampler(trace, "decode").draw(1, 10, np.random.default_rng(0)).ravel()) == {4999}
    assert len(asked) <= batches.REDRAWS


def test_bad_sizes_are_refused() -> None:
    trace = make_trace()
    for sizes, samples in (([0], 5), ([2], 0)):
        with pytest.raises(ForestageError, match="1 or more"):
            batch_statistics(trace, sizes=sizes, samples=samples)
    with pytest.raises(ForestageError, match="at most 10000"):
        batch_statistics(trace, samples=10_001)
    with pytest.raises(ForestageError, match="seed -1: give 0 or more"):
        batch_statistics(trace, seed=-1)
    with pytest.raises(ForestageError, match="1 token or more"):
        working_set_statistics(trace, [0])


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_distinct_experts_agree_with_sets(trace: RoutingTrace) -> None:
    offsets = trace.sequence_offsets
    counted = distinct_experts(trace.expert_ids, offsets, trace.experts)
    for group, layer in np.ndindex(counted.shape):
        ids = trace.expert_ids[offsets[group] : offsets[group + 1], layer]
        assert counted[group, layer] == len({i for i in ids.ravel().tolist() if i < trace.experts})


@settings(max_examples=30, deadline=None)
@given(trace=traces())
def test_the_histogram_is_that_of_the_batches_drawn(trace: RoutingTrace) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scattered, "CHUNK_TOKENS", 3)
        figures = batch_statistics(trace, samples=7, seed=5)
    sampler = _Sampler(trace, phase_of_interest(trace))
    for size in figures.by_size:
        drawn = sampler.draw(size.batch, 7, np.random.default_rng([5, size.batch]))
        counts: Counter[int] = Counter()
        distinct = []
        for batch in drawn:
            for layer in range(trace.layers):
                uses = Counter(trace.expert_ids[batch, layer].ravel().tolist())
                counts.update(uses.values())
                distinct.append(len(uses))
        assert size.distinct_experts == pytest.approx(np.mean(distinct))
        active = sum(counts.values())
        assert size.single_token_share == pytest.approx(counts[1] / active)
        assert size.at_most_four_share == pytest.approx(sum(counts[n] for n in range(1, 5)) / active)
        assert [share * active for share in size.tokens_per_expert] == pytest.approx(
            [counts[n] for n in range(1, max(counts) + 1)]
        )


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_working_sets_agree_with_sets_over_every_window(trace: RoutingTrace) -> None:
    windows = (1, 2, 3, 5)
    result = {figures.window: figures for figures in working_set_statistics(trace, windows).by_window}
    runs = contiguous_runs(trace, eligible(trace, phase_of_interest(trace)))
    for window in windows:
        sizes = [
            len(set(trace.expert_ids[start : start + window, layer].ravel().tolist()))
            for first, stop in runs.tolist()
            for start in range(first, stop - window + 1)
            for layer in range(trace.layers)
        ]
        assert (window in result) == bool(sizes)
        if sizes:
            assert result[window].windows == len(sizes) // trace.layers
            assert result[window].distinct_experts == pytest.approx(np.mean(sizes))


def test_runs_end_at_sequences_gaps_and_phases() -> None:
    trace = trace_of(np.zeros((7, 1, 1)), experts=2, lengths=[4, 3], prompt=1)
    assert contiguous_runs(trace, eligible(trace, "decode")).tolist() == [[1, 4], [5, 7]]
    some = np.array([1, 1, 0, 1, 1, 0, 0], np.bool_)
    assert contiguous_runs(trace, some).tolist() == [[0, 2], [3, 4], [4, 5]]
    assert contiguous_runs(trace, np.zeros(7, np.bool_)).tolist() == []
    everything = np.ones(7, np.bool_)
    going_on = replace(trace, position=np.arange(7, dtype=np.int32), content="unchecked")
    assert contiguous_runs(going_on, everything).tolist() == [[0, 4], [4, 7]]
    gap = replace(trace, position=np.array([0, 1, 5, 6, 0, 1, 2], np.int32), content="unchecked")
    assert contiguous_runs(gap, everything).tolist() == [[0, 2], [2, 4], [4, 7]]


def test_groups_are_whole_neighbouring_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "CHUNK_TOKENS", 6)
    trace = make_trace(lengths=(3, 2, 2, 9, 1))
    starts = trace.sequence_offsets
    for wanted, expected in ((None, [(0, 2), (2, 3), (3, 4), (4, 5)]), ([0, 2, 4], [(0, 1), (2, 3), (4, 5)])):
        parts = list(sequence_groups(trace, wanted))
        assert len(parts) == len(expected)
        for part, (first, stop) in zip(parts, expected, strict=True):
            assert part.equals(trace.token_range(int(starts[first]), int(starts[stop])))


def test_five_tokens_are_more_than_four() -> None:
    trace = trace_of(np.zeros((5, 1, 1)), experts=2, lengths=[1] * 5)
    figures = batch_statistics(trace, sizes=[4, 5], samples=2)
    assert [size.at_most_four_share for size in figures.by_size] == [1.0, 0.0]
