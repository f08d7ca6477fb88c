"""Views and selections of a trace, its constructor's checks, and the split."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace, traces
from traces import DECODE, PREFILL, RoutingTrace, split
from traces.selection import select_phase, select_sequences

FAST = settings(max_examples=50, deadline=None)


def test_shape_and_repr() -> None:
    trace = make_trace(lengths=(5, 3, 4), layers=3, experts=8, top_k=2)
    assert (trace.tokens, trace.layers, trace.top_k, trace.experts, trace.sequences) == (12, 3, 2, 8, 3)
    assert repr(trace) == "RoutingTrace(test: 3 sequences, 12 tokens, 3 layers, top-2 of 8)"
    assert trace.sequence_index().tolist() == [0] * 5 + [1] * 3 + [2] * 4


def test_arrays_are_read_only_and_the_callers_stay_writable() -> None:
    trace = make_trace()
    ids = trace.expert_ids.copy()
    again = replace(trace, expert_ids=ids)
    with pytest.raises(ValueError, match="read-only"):
        again.expert_ids[0, 0, 0] = 1
    ids[0, 0, 0] = 1


def test_a_sequence_is_a_view_of_its_tokens() -> None:
    trace = make_trace(lengths=(5, 3, 4))
    part = trace.sequence(1)
    assert np.shares_memory(part.expert_ids, trace.expert_ids)
    np.testing.assert_array_equal(part.expert_ids, trace.expert_ids[5:8])
    np.testing.assert_array_equal(part.position, trace.position[5:8])
    assert part.sequence_offsets.tolist() == [0, 3]
    assert (part.domains, part.datasets) == (("domain 1",), ("dataset 1",))
    assert trace.sequence(-1).equals(trace.sequence(2))
    for index in (3, -4):
        with pytest.raises(ForestageError, match="the trace has sequences 0 to 2"):
            trace.sequence(index)


@FAST
@given(trace=traces(), data=st.data())
def test_a_token_range_cuts_sequences_where_it_must(trace: RoutingTrace, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, trace.tokens - 1))
    stop = data.draw(st.integers(start + 1, trace.tokens))
    part = trace.token_range(start, stop)
    part.validate()
    np.testing.assert_array_equal(part.expert_ids, trace.expert_ids[start:stop])
    whole = trace.sequence_index()[start:stop]
    np.testing.assert_array_equal(part.sequence_index(), whole - whole[0])
    assert part.domains == tuple(trace.domains[i] for i in dict.fromkeys(whole.tolist()))
    for outside in ((-1, 1), (1, 1), (0, trace.tokens + 1)):
        with pytest.raises(ForestageError, match="choose a non-empty range"):
            trace.token_range(*outside)


@FAST
@given(trace=traces(), data=st.data())
def test_selected_sequences_are_those_sequences_in_order(trace: RoutingTrace, data: st.DataObject) -> None:
    last = trace.sequences - 1
    chosen = data.draw(st.lists(st.integers(-trace.sequences, last), min_size=1, max_size=6))
    part = select_sequences(trace, np.array(chosen))
    part.validate()
    assert part.sequences == len(chosen)
    for place, index in enumerate(chosen):
        assert part.sequence(place).equals(trace.sequence(index))


@pytest.mark.parametrize("beyond", [3, -4])
def test_a_selection_of_what_is_not_there_is_refused(beyond: int) -> None:
    with pytest.raises(ForestageError, match=f"sequence {beyond}: the trace has sequences 0 to 2"):
        select_sequences(make_trace(), [0, beyond, 1])


def test_an_empty_selection_is_refused() -> None:
    with pytest.raises(ForestageError, match="selection of sequences is empty"):
        select_sequences(make_trace(), [])


def test_chunks_cover_the_trace_once() -> None:
    trace = make_trace(lengths=(5, 3, 4))
    parts = list(trace.chunks(5))
    assert [part.tokens for part in parts] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate([part.expert_ids for part in parts]), trace.expert_ids)
    assert parts[1].sequence_offsets.tolist() == [0, 3, 5]


def test_a_phase_keeps_its_tokens_and_drops_sequences_without_any() -> None:
    trace = make_trace(lengths=(5, 1, 4), prompt=2)
    decode = select_phase(trace, DECODE)
    assert np.all(decode.phase == DECODE)
    assert np.diff(decode.sequence_offsets).tolist() == [3, 2]
    assert decode.domains == ("domain 0", "domain 0")
    np.testing.assert_array_equal(decode.position, trace.position[trace.phase == DECODE])
    assert select_phase(trace, PREFILL).tokens == 5
    with pytest.raises(ForestageError, match="has no prefill tokens"):
        select_phase(decode, PREFILL)


def test_recorded_rows() -> None:
    trace = make_trace(unrecorded=True)
    np.testing.assert_array_equal(trace.recorded(), trace.expert_ids[..., 0] < trace.experts)
    assert not trace.recorded().all()
    assert make_trace().recorded().all()


def test_an_invalid_trace_cannot_be_built() -> None:
    trace = make_trace()
    ids = trace.expert_ids.copy()
    ids[4, 2] = 3
    with pytest.raises(ForestageError, match=r"^trace: expert_ids\[4, 2\].*chosen twice"):
        replace(trace, expert_ids=ids, content="unchecked")
    with pytest.raises(ForestageError, match="domains: 2 labels for 3 sequences"):
        replace(trace, domains=("a", "b"), content="unchecked")
    with pytest.raises(ForestageError, match="position: missing"):
        replace(trace, position=None, content="unchecked")  # type: ignore[arg-type]


def test_positions_are_compared_across_the_chunks_of_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace(lengths=(6, 6))
    monkeypatch.setattr("traces.validation.CHUNK_BYTES", 1)  # a token a chunk
    trace.validate()
    position = trace.position.copy()
    position[3] = position[2]
    with pytest.raises(ForestageError, match=r"position\[3\]"):
        replace(trace, position=position, content="unchecked")


def test_equality_sees_every_field() -> None:
    trace = make_trace()
    assert trace.equals(make_trace())
    assert not trace.equals(make_trace(seed=1))
    assert not trace.equals(replace(trace, token_hash=None))
    assert not trace.equals(replace(trace, domains=("a", "b", "c")))
    assert not trace.equals(make_trace(licence="MIT"))


@FAST
@given(
    names=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40),
    seed=st.integers(0, 3),
)
def test_the_split_is_a_stratified_partition(names: list[str], seed: int) -> None:
    trace = make_trace(lengths=(1,) * len(names), datasets=tuple(names))
    train, test = split(trace, seed)
    assert sorted([*train, *test]) == list(range(len(names)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(test) > 0)
    for dataset in set(names):
        count = names.count(dataset)
        expected = 0 if count == 1 else max(1, int(0.2 * count + 0.5))
        assert sum(names[i] == dataset for i in test) == expected
    again = split(trace, seed)
    assert (again[0].tolist(), again[1].tolist()) == (train.tolist(), test.tolist())


def test_the_split_is_the_published_one() -> None:
    """Fixed once and for all: figures are quoted on it."""
    trace = make_trace(lengths=(1,) * 14, datasets=("a", "b") * 6 + ("c", "a"))
    assert split(trace)[1].tolist() == [4, 9]
    assert split(trace, seed=1)[1].tolist() == [3, 10]
