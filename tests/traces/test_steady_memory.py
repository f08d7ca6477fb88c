"""Walking a trace larger than what may be in memory, and selecting from one."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace, traces
from traces import DECODE, PREFILL, RoutingTrace, selection
from traces import trace as trace_module
from traces.selection import select_phase, select_sequences
from traces.writer import TraceWriter

FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

PARTS = 700  # of 2,500 tokens: 1.75 million tokens, 90 MB
WALK = """
import resource, sys
from traces import RoutingTrace
from traces.describe import describe
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sample = RoutingTrace.load(sys.argv[1], validate=True)
describe(sample)
sample.checked().save(sys.argv[3])
before = peak()
trace = RoutingTrace.load(sys.argv[2], validate=True)
ids = sum(int(part.expert_ids.sum()) for part in trace.chunks() if part.gate_weights.max() <= 1)
described = describe(trace)
trace.save(sys.argv[3])
same = trace.equals(RoutingTrace.load(sys.argv[3], validate=False))
print(described.tokens, ids, int(same), (peak() - before) * 1024, trace.nbytes)
"""


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(trace_module, "KEEP_MAPPED_BYTES", 0)
    monkeypatch.setattr(selection, "CHUNK_TOKENS", 3)


def test_a_walk_holds_a_part_of_the_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("sample.safetensors", "large.safetensors", "copy.safetensors")]
    part = make_trace((2500,), layers=4, top_k=4, hashes=False)
    part.save(paths[0])
    with TraceWriter(paths[1], part.metadata) as writer:
        for _ in range(PARTS):
            writer.append(part)
    result = subprocess.run([sys.executable, "-c", WALK, *paths], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    tokens, ids, same, grown, size = (int(text) for text in result.stdout.split())
    assert (tokens, ids, same) == (2500 * PARTS, int(part.expert_ids.sum()) * PARTS, 1)
    assert size > 90e6
    assert grown < 30e6  # 8 MiB of ids with the weights of the same tokens, and what is computed from them


@FUZZ
@given(trace=traces(), data=st.data())
@pytest.mark.usefixtures("small_limits")
def test_a_selection_in_a_file_is_the_selection(trace: RoutingTrace, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, trace.sequences - 1), min_size=1, max_size=6))
    selected = select_sequences(trace, chosen)
    parts = [trace.sequence(index) for index in chosen]
    assert selected.sequences == len(chosen)
    assert all(selected.sequence(index).equals(part) for index, part in enumerate(parts))
    assert selected.metadata == trace.metadata


def test_short_sequences_are_gathered_by_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "IN_MEMORY_BYTES", 0)
    appended: list[int] = []
    append = TraceWriter.append

    def counting(writer: TraceWriter, part: RoutingTrace, *, continues: bool = False) -> None:
        appended.append(part.tokens)
        append(writer, part, continues=continues)

    monkeypatch.setattr(TraceWriter, "append", counting)
    trace = make_trace((2, 1, 25, 2) * 10)
    chosen = [*range(0, 40, 2), 7, 39]
    monkeypatch.setattr(selection, "CHUNK_TOKENS", 30)
    selected = select_sequences(trace, chosen)
    assert all(selected.sequence(place).equals(trace.sequence(index)) for place, index in enumerate(chosen))
    assert appended == [29, *[27] * 8, 29]  # of at most 30 tokens
    appended.clear()
    monkeypatch.setattr(selection, "PART_BYTES", trace.nbytes // trace.tokens * 10)
    select_sequences(trace, [0, 1, 2, 3])
    assert appended == [3, 10, 10, 5, 2]


def test_a_selection_of_a_file_checks_what_it_takes(tmp_path: Path) -> None:
    whole = make_trace((4, 3, 5))
    path = tmp_path / "t.safetensors"
    whole.save(path)
    ids = whole.expert_ids.copy()
    ids[5, 1] = 0  # one expert twice, in sequence 1
    data = path.read_bytes()
    assert data.count(whole.expert_ids.tobytes()) == 1
    path.write_bytes(data.replace(whole.expert_ids.tobytes(), ids.tobytes()))
    lazy = RoutingTrace.load(path, validate=False)
    assert select_sequences(lazy, [0, 2]).sequence(1).equals(whole.sequence(2))
    with pytest.raises(ForestageError, match=r"expert_ids\[5, 1\]"):
        select_sequences(lazy, [0, 1])


@FUZZ
@given(trace=traces())
@pytest.mark.usefixtures("small_limits")
def test_a_phase_in_a_file_is_the_phase(trace: RoutingTrace) -> None:
    for phase in (PREFILL, DECODE):
        inside = trace.phase == phase
        if not inside.any():
            with pytest.raises(ForestageError, match=r"has no (prefill|decode) tokens"):
                select_phase(trace, phase)
            continue
        selected = select_phase(trace, phase)
        for name in ("expert_ids", "position", "phase"):
            np.testing.assert_array_equal(getattr(selected, name), getattr(trace, name)[inside])
        counts = np.bincount(trace.sequence_index()[inside], minlength=trace.sequences)
        np.testing.assert_array_equal(np.diff(selected.sequence_offsets), counts[counts > 0])
        assert selected.domains == tuple(d for d, count in zip(trace.domains, counts, strict=True) if count)


@pytest.mark.usefixtures("small_limits")
def test_the_temporary_file_has_no_name_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trace = make_trace()
    selected = select_sequences(trace, [2, 0])
    assert list(tmp_path.iterdir()) == []
    assert selected.expert_ids.base is not None
    assert selected.sequence(0).equals(trace.sequence(2))


def test_a_small_selection_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a file for a small selection")

    monkeypatch.setattr(selection, "gather_in_file", refuse)
    uses: list[Callable[[RoutingTrace], RoutingTrace]] = [
        lambda trace: select_sequences(trace, [0]),
        lambda trace: select_phase(trace, DECODE),
    ]
    for use in uses:
        use(make_trace())
