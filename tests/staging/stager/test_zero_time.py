"""The compiled form against the streaming stager, event by event, where every transfer takes no time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.sized_cache import SizedCache
from staging.stager.directory import Status
from staging.stager.zero_time import ZeroTimeStager
from tests.staging.staging_samples import at_zero_time, streaming


@st.composite
def events(draw):
    """(layers, experts, shares, [(layer, experts of the event)], generator)."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    shares = draw(
        st.lists(st.integers(0, experts * layers), min_size=1, max_size=1)
        | st.lists(st.integers(0, experts), min_size=layers, max_size=layers)
    )
    generator = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    count = draw(st.integers(1, 60))
    chosen = []
    for _ in range(count):
        wanted = generator.permutation(experts)[: generator.integers(1, experts + 1)]
        chosen.append((int(generator.integers(layers)), wanted.tolist()))
    return layers, experts, tuple(shares), chosen, generator


@settings(max_examples=150, deadline=None)
@given(
    given_=events(),
    kind=st.sampled_from(["recency", "uses", "rows", "rows ahead"]),
    by_recency=st.booleans(),
    lookahead=st.integers(1, 2),
    cut=st.integers(0, 60),
)
def test_compiled_equals_streaming(given_, kind, by_recency, lookahead, cut):
    layers, experts, shares, chosen, generator = given_
    count = len(chosen)
    keys = np.array([layer * experts + e for layer, wanted in chosen for e in wanted], np.int32)
    offsets = np.cumsum([0] + [len(wanted) for _, wanted in chosen])
    layer_of = np.array([layer for layer, _ in chosen], np.int32)
    rows, ahead = generator.integers(-3, 3, (2, count, experts)).astype(np.int32)
    use_values = generator.integers(0, 4, len(keys)).astype(np.int32)
    stager = streaming(layers, experts, shares, by_recency=by_recency)
    compiled = ZeroTimeStager.empty(layers, experts, shares, by_recency=by_recency)
    values = np.zeros((layers, experts), np.int64)
    expected, residents = [], []
    for event, (layer, wanted) in enumerate(chosen):
        if kind == "uses":
            values[layer, wanted] = use_values[offsets[event] : offsets[event + 1]]
            stager.set_values(layer, values[layer])
        if kind.startswith("rows"):
            stager.set_values(layer, rows[event])
        if kind == "rows ahead" and layer + lookahead < layers:
            stager.set_values(layer + lookahead, ahead[event])
        expected += at_zero_time(stager, layer, wanted)
        residents.append((stager.directory.status == Status.RESIDENT).tolist())
    hit = np.zeros(len(keys), np.bool_)
    for first, last in [(0, min(cut, count)), (min(cut, count), count)]:  # state lives on from run to run
        compiled.run(
            keys, offsets[first : last + 1], layer_of[first:last], hit,
            use_values=use_values if kind == "uses" else None,
            rows=rows[first:last] if kind.startswith("rows") else None,
            ahead_rows=ahead[first:last] if kind == "rows ahead" else None,
            lookahead=lookahead,
        )  # fmt: skip
    assert hit.tolist() == expected
    assert (compiled.order != np.iinfo(np.int64).max).ravel().tolist() == residents[-1]
    one_by_one = ZeroTimeStager.empty(layers, experts, shares, by_recency=by_recency)
    if kind == "recency":
        hits = [one_by_one.access(layer, layer * experts + np.array(wanted, np.int32)) for layer, wanted in chosen]
        assert np.concatenate(hits).tolist() == expected


@pytest.mark.parametrize("by_recency", [True, False])
def test_a_layer_whose_lowest_was_used_is_looked_at_anew(by_recency):
    """One cache of many layers: that of a layer was mostly found already, when others needed room."""
    generator = np.random.default_rng(3)
    layers, experts, uses, events = 4, 8, 2, 400
    layer_of = (np.arange(events) % layers).astype(np.int32)
    wanted = [generator.permutation(experts)[:uses].tolist() for _ in range(events)]
    keys = (np.repeat(layer_of, uses) * experts + np.concatenate(wanted)).astype(np.int32)
    offsets = np.arange(events + 1) * uses
    stager = streaming(layers, experts, (13,), by_recency=by_recency)
    expected = np.concatenate([at_zero_time(stager, *event) for event in zip(layer_of.tolist(), wanted, strict=True)])
    compiled = ZeroTimeStager.empty(layers, experts, (13,), by_recency=by_recency)
    sized = SizedCache.empty(np.full(layers, 5), experts, 5 * 13 + 4, per_layer=False, by_recency=by_recency)
    for cache in (compiled, sized):
        hit = np.zeros(len(keys), np.bool_)
        for first, last in ((0, 150), (150, events)):
            cache.run(keys, offsets[first : last + 1], layer_of[first:last], hit)
        assert hit.tolist() == expected.tolist()


def test_an_event_larger_than_its_share_keeps_the_ones_of_most_worth():
    stager = streaming(1, 8, (2,), by_recency=True)
    assert at_zero_time(stager, 0, [1]) == [False]
    assert at_zero_time(stager, 0, [1, 2, 3]) == [True, False, False]
    assert stager.lookup(0, range(8)).tolist() == [e in (2, 3) for e in range(8)]  # the latest uses
    stager.set_values(0, [0, 9, 5, 1, 0, 0, 0, 0])
    at_zero_time(stager, 0, [1, 2, 3])
    assert stager.lookup(0, range(8)).tolist() == [e in (1, 2) for e in range(8)]


def test_an_event_does_not_evict_what_it_needs():
    stager = streaming(1, 8, (3,), by_recency=True)
    at_zero_time(stager, 0, [1, 2, 3])
    # 1 is the least recent, but the event needs it: 2 and 3 give way to 4 and 5.
    assert at_zero_time(stager, 0, [4, 5, 1]) == [False, False, True]
    assert stager.lookup(0, range(8)).tolist() == [e in (1, 4, 5) for e in range(8)]


def test_a_fixed_placement_hits_what_it_holds_and_never_moves():
    stager = streaming(2, 6, (2, 1), by_recency=True)
    for layer, held in ((0, [0, 4]), (1, [3])):
        stager.preload(layer, held)
        stager.fix(layer, held)
    generator = np.random.default_rng(0)
    for _ in range(50):
        layer, wanted = int(generator.integers(2)), generator.permutation(6)[:3].tolist()
        assert at_zero_time(stager, layer, wanted) == [e in ((0, 4), (3,))[layer] for e in wanted]
    assert stager.counters.evicted == stager.counters.waits  # all that came was let go when its layer had run


def test_shares_of_another_number_are_refused():
    with pytest.raises(ValueError, match="give 1 or 3"):
        ZeroTimeStager.empty(3, 4, (1, 1), by_recency=True)
    with pytest.raises(ValueError, match="of 0 or more"):
        ZeroTimeStager.empty(3, 4, (-1,), by_recency=True)
