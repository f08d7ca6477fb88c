"""Simulated hit rates against a plain cache, by hand, and on recorded traces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError, SettingError
from staging.events import NEVER, events_of, next_uses
from staging.results import Capacity
from staging.simulate import simulate
from tests.staging.staging_samples import EMA_SHIFT, UNKNOWN, plain_cache, plain_events, small_traces, trace_of
from traces.importers import import_trace, read_residency

MIB = 1 << 20
POLICIES = ("lru", "lfu", "ema", "belady")


@settings(max_examples=60, deadline=None)
@given(trace=small_traces(), by_token=st.booleans(), chunk=st.sampled_from([1, 5, 1000]))
def test_events_are_met_in_the_devices_order(trace, by_token, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.scattered.CHUNK_TOKENS", chunk)
        events = events_of(trace, by_token=by_token)
    expected = plain_events(trace, by_token=by_token)
    assert events.layer.tolist() == [layer for layer, _, _ in expected]
    assert events.decode.tolist() == [decode for _, decode, _ in expected]
    keys = np.split(events.keys, events.offsets[1:-1])
    assert [k.tolist() for k in keys] == [[layer * trace.experts + e for e in chosen] for layer, _, chosen in expected]


def test_a_prefill_pass_is_one_event_a_layer():
    trace = trace_of([[[1], [5]], [[2], [5]], [[1], [UNKNOWN]], [[3], [6]]], prompt=3)
    events = events_of(trace)
    assert events.keys.tolist() == [1, 2, 8 + 5, 3, 8 + 6]
    assert events.offsets.tolist() == [0, 2, 3, 4, 5]
    assert events.decode.tolist() == [False, False, True, True]


def test_next_uses():
    events = events_of(trace_of([[[1, 2]], [[2, 3]], [[1, 3]]]))
    assert next_uses(events).tolist() == [2, 1, NEVER, 2, NEVER, NEVER]


@settings(max_examples=100, deadline=None)
@given(
    trace=small_traces(max_tokens=20),
    capacity=st.integers(1, 12),
    policy=st.sampled_from(POLICIES),
    scope=st.sampled_from(["layer", "global"]),
    count=st.sampled_from(["decode", "all"]),
    prefill=st.sampled_from(["pass", "token"]),
    sizes=st.sampled_from([None, (1, 1, 1), (3, 2, 4)]),
)
def test_equals_a_plain_cache(trace, capacity, policy, scope, count, prefill, sizes):
    events = plain_events(trace, by_token=prefill == "token")
    counted = [i for i, event in enumerate(events) if event[1] or count == "all"]
    limits = {"capacity": capacity}
    if sizes is not None:
        limits = {"capacity_bytes": capacity, "expert_bytes": np.array(sizes[: trace.layers])}
    if not counted:
        with pytest.raises(ForestageError, match="count: the trace has no"):
            simulate(trace, policy=policy, scope=scope, count=count, prefill=prefill, **limits)
        return
    result = simulate(trace, policy=policy, scope=scope, count=count, prefill=prefill, ema_shift=EMA_SHIFT, **limits)
    hits = plain_cache(
        events, capacity=capacity, policy=policy, per_layer=scope == "layer", sizes=sizes or (1,) * trace.layers
    )
    # Of equals under Belady's rule (needed at the same event, or never again) whoever stays: the event's hits agree.
    assert result.lookups == sum(len(hits[i]) for i in counted)
    assert result.hits == sum(sum(hits[i]) for i in counted)


def test_figures_by_hand():
    # Capacity 2; events {1,2} {1,3} {2,3} {1,3}.
    trace = trace_of([[[1, 2]], [[1, 3]], [[2, 3]], [[1, 3]]])
    # LRU: 1 hits; 3 evicts 2; 3 hits, 2 evicts 1; 3 hits, 1 misses.
    assert simulate(trace, capacity=2).hits == 3
    # Room for three: only the three first uses miss.
    result = simulate(trace, capacity=3)
    assert (result.hits, result.lookups, result.loads, result.hit_rate) == (5, 8, 3, 5 / 8)
    assert result.hit_rate_by_layer == [5 / 8]


def test_bytes_and_layers():
    trace = trace_of([[[1], [1]], [[1], [2]], [[1], [1]]])
    result = simulate(trace, capacity_bytes=10, expert_bytes=np.array([6, 7]), scope="global")
    # 6 + 7 exceed 10: each layer's expert gives way to the other's.
    assert (result.hits, result.loaded_bytes) == (0, 3 * 6 + 3 * 7)
    result = simulate(trace, capacity_bytes=10, expert_bytes=np.array([6, 7]), scope="layer")
    assert (result.hits, result.loaded_bytes) == (2, 6 + 3 * 7)
    assert result.hit_rate_by_layer == [2 / 3, 0]
    assert result.model_dump(mode="json")["hit_rate"] == pytest.approx(1 / 3)


def test_least_frequent_counts_on_after_an_eviction():
    # One layer, room for one; 1 is used twice, evicted by 2, and later outranks it in nothing: 2 was forced in.
    trace = trace_of([[[1, 2]], [[1, 3]], [[4, 5]], [[1, 6]]])
    # Room for three: after {4,5} the most frequent of the others, 1, is still there.
    assert simulate(trace, capacity=3, policy="lfu").hits == 2
    # Least recent: 1 and 3 are equally old but 1 came first in its event.
    assert simulate(trace, capacity=3, policy="lru").hits == 1


@pytest.mark.parametrize(("scope", "most"), [("layer", 4), ("global", 8)])
def test_a_capacity_holds_one_expert_at_least_and_all_at_most(scope, most):
    sizes = np.array([6, 7])
    Capacity(bytes=7, expert_bytes=sizes, scope=scope).check_within(2, 4)
    with pytest.raises(SettingError, match="holds no expert"):
        Capacity(bytes=6, expert_bytes=sizes, scope=scope).check_within(2, 4)
    Capacity(most, scope=scope).check_within(2, 4)
    with pytest.raises(SettingError, match=f"choose 1 to {most}"):
        Capacity(most + 1, scope=scope).check_within(2, 4)
    assert Capacity(most, scope=scope).holds_everything(2, 4)
    assert not Capacity(most - 1, scope=scope).holds_everything(2, 4)


def test_faults_are_named():
    trace = trace_of([[[1, 2]]])
    sizes = np.array([5])
    for arguments, message in [
        ({}, "capacity: give either capacity"),
        ({"capacity": 2, "capacity_bytes": 2, "expert_bytes": sizes}, "capacity: give either capacity"),
        ({"capacity": 0}, "capacity: 0: give 1 or more"),
        ({"capacity_bytes": 5}, "capacity_bytes: needs expert_bytes"),
        ({"capacity_bytes": 5, "expert_bytes": np.array([5, 5])}, "expert_bytes: give 1 positive sizes"),
        ({"capacity_bytes": 5, "expert_bytes": np.array([0])}, "expert_bytes: give 1 positive sizes"),
        ({"capacity": 2, "policy": "mru"}, "policy: unknown 'mru'; choose lru or lfu or ema or belady"),
        ({"capacity": 2, "scope": "rack"}, "scope: unknown 'rack'"),
        ({"capacity": 2, "count": "prefill"}, "count: unknown 'prefill'"),
        ({"capacity": 2, "prefill": "chunk"}, "prefill: unknown 'chunk'"),
        ({"capacity": 2, "policy": "ema", "ema_shift": 0}, "ema_shift: 0: choose 1 to 15"),
        ({"capacity": 2, "policy": "ema", "ema_shift": 16}, "ema_shift: 16: choose 1 to 15"),
    ]:
        with pytest.raises(ForestageError, match=message):
            simulate(trace, **arguments)
    with pytest.raises(ForestageError, match="count: the trace has no decode event"):
        simulate(trace_of([[[1, 2]]], prompt=1), capacity=2, count="decode")


@pytest.fixture(scope="module")
def qwen(shared_file):
    path = shared_file("big_moe_on_edge_qwen.route.csv.gz")
    return import_trace(path), read_residency(path).expert_bytes


@pytest.mark.parametrize(
    ("policy", "percent"),
    [("lru", (37.7, 56.5, 80.3)), ("lfu", (40.2, 58.6, 80.8)), ("belady", (62.7, 79.4, 92.7))],
)
def test_qwen_decode_figures(qwen, policy, percent):
    """Figures measured by others: prefill warms one cache of 1000/2000/4000 MiB, decode alone is counted."""
    trace, expert_bytes = qwen
    rates = [
        100
        * simulate(
            trace, capacity_bytes=mib * MIB, expert_bytes=expert_bytes, policy=policy, scope="global", count="decode"
        ).hit_rate
        for mib in (1000, 2000, 4000)
    ]
    assert rates == pytest.approx(percent, abs=0.1)


def test_qwen_per_layer_figures(qwen):
    """Per-layer LFU, measured by others with an unstated rounding of the share of a layer."""
    trace, expert_bytes = qwen
    rates = [
        100 * simulate(trace, capacity_bytes=mib * MIB // 48, expert_bytes=expert_bytes, policy="lfu").hit_rate
        for mib in (1000, 2000, 4000)
    ]
    assert rates == pytest.approx((45.1, 63.3, 81.7), abs=1.0)


@pytest.mark.long
def test_gpt_oss_figures(shared_file):
    """Measured by others on a part of the trace that they do not name; docs/staging.md compares."""
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    for capacity, figures in {8: (0.628, 0.757), 12: (0.781, 0.882), 16: (0.881, 0.943)}.items():
        ours = [simulate(trace, capacity=capacity, policy=policy).hit_rate for policy in ("lru", "belady")]
        assert ours == pytest.approx(figures, abs=0.025)
    ours = [simulate(trace, capacity=24 * 32 // 4, policy=p, scope="global").hit_rate for p in ("lru", "belady")]
    assert ours == pytest.approx((0.600, 0.825), abs=0.01)
