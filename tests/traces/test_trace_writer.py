"""The streaming writer: the file of ``save`` byte for byte, or no file at all."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace, TraceMetadata
from traces.writer import TraceWriter

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_in_parts(path: Path, trace: RoutingTrace, cuts: list[int]) -> None:
    """Write ``trace`` cut before each token of ``cuts``."""
    edges = sorted({0, *cuts, trace.tokens})
    with TraceWriter(path, trace.metadata) as writer:
        for start, stop in pairwise(edges):
            writer.append(trace.token_range(start, stop), continues=start not in trace.sequence_offsets)


@FUZZ
@given(trace=traces(), data=st.data())
def test_the_file_is_what_save_writes_wherever_the_parts_are_cut(
    trace: RoutingTrace, data: st.DataObject, tmp_path: Path
) -> None:
    cuts = data.draw(st.lists(st.integers(0, trace.tokens)))
    trace.save(tmp_path / "saved.safetensors")
    write_in_parts(tmp_path / "written.safetensors", trace, cuts)
    assert (tmp_path / "written.safetensors").read_bytes() == (tmp_path / "saved.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved.safetensors", "written.safetensors"]


def test_counts_run_along(tmp_path: Path) -> None:
    trace = make_trace((5, 3))
    with TraceWriter(tmp_path / "t.safetensors", trace.metadata) as writer:
        assert (writer.tokens, writer.sequences) == (0, 0)
        writer.append(trace.token_range(0, 2))
        assert (writer.tokens, writer.sequences) == (2, 1)
        writer.append(trace.token_range(2, 8), continues=True)
        assert (writer.tokens, writer.sequences) == (8, 2)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_text("old")
    trace = make_trace()

    def fail() -> None:
        with TraceWriter(path, trace.metadata) as writer:
            writer.append(trace)
            raise error

    with pytest.raises(error):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.safetensors"]
    assert path.read_text() == "old"


def test_an_interrupt_while_the_file_is_put_together_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    trace = make_trace()
    writer = TraceWriter(tmp_path / "trace.safetensors", trace.metadata)
    writer.append(trace)
    monkeypatch.setattr("traces.writer.shutil.copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_writer_takes_nothing(tmp_path: Path) -> None:
    trace = make_trace()
    writer = TraceWriter(tmp_path / "trace.safetensors", trace.metadata)
    writer.append(trace)
    writer.close()
    for use in (lambda: writer.append(trace), writer.close, lambda: writer.amend(ranked=False)):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert RoutingTrace.load(writer.path).equals(trace)


def test_nothing_appended_is_no_trace(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace.safetensors", make_trace().metadata)
    with pytest.raises(ForestageError, match=r"trace\.safetensors: not written: no tokens"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


TRACE = make_trace((5, 3), unrecorded=False)

MISFITS: dict[str, tuple[Callable[[], RoutingTrace], bool, str]] = {
    # the part appended after TRACE → whether it continues it, what the error says
    "experts": (lambda: make_trace(experts=9), False, r"metadata\.experts: 9 in trace, 8 in the file"),
    "top-k": (lambda: make_trace(top_k=3), False, r"metadata\.top_k: 3"),
    "layers": (lambda: make_trace(layers=2), False, r"metadata\.layer_map"),
    "weights": (lambda: make_trace(weights=False, ranked=True), False, r"metadata\.gate_weight_kind"),
    "unrecorded": (lambda: make_trace(unrecorded=True), False, r"metadata\.has_unrecorded: True"),
    "hashes": (lambda: make_trace(hashes=False), False, r"token_hash: None in trace, uint32 in the parts before it"),
    "dtype": (
        lambda: replace(TRACE, expert_ids=TRACE.expert_ids.astype(np.uint16), content="unchecked"),
        False,
        r"expert_ids: uint16 in trace, uint8",
    ),
    "label": (lambda: TRACE.sequence(0), True, r"domains: trace continues a sequence of 'domain 1' as one of"),
    "same position": (lambda: TRACE.token_range(7, 8), True, r"position\[8\]: (\d+) after \1;"),
    "position": (lambda: TRACE.sequence(1), True, r"position\[8\]: \d+ after \d+"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_part_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    make, continues, message = MISFITS[name]
    with TraceWriter(tmp_path / "t.safetensors", TRACE.metadata) as writer:
        writer.append(TRACE)
        with pytest.raises(ForestageError, match=rf"t\.safetensors: {message}") as caught:
            writer.append(make(), continues=continues)
    assert "\n" not in str(caught.value)
    assert RoutingTrace.load(tmp_path / "t.safetensors").equals(TRACE)


def test_the_first_part_cannot_continue_one(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t.safetensors", TRACE.metadata)
    with pytest.raises(ForestageError, match="none was begun"):
        writer.append(TRACE, continues=True)
    writer.discard()


def amended(path: Path, trace: RoutingTrace, **facts: Any) -> TraceMetadata:
    with TraceWriter(path, trace.metadata) as writer:
        writer.append(trace)
        writer.amend(**facts)
    return RoutingTrace.load(path).metadata


def test_metadata_are_amended_at_the_end(tmp_path: Path) -> None:
    loose = make_trace(gate_weight_kind="unknown", has_unrecorded=True)
    facts = {"gate_weight_kind": "normalised", "has_unrecorded": False, "source": "elsewhere"}
    found = amended(tmp_path / "t.safetensors", loose, **facts)
    assert found == TraceMetadata(**{**loose.metadata.model_dump(), **facts})


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"experts": 3}, r"expert_ids\[\d+, \d+\].*below metadata\.experts \(3\)"),
        ({"has_unrecorded": False}, r"expert_ids\[\d+, \d+\].*not recorded"),
        ({"sinthetic": True}, r"metadata: unknown key 'sinthetic'"),
    ],
)
def test_amendments_that_do_not_hold_are_refused_and_nothing_is_written(
    facts: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ForestageError, match=rf"t\.safetensors: {message}"):
        amended(tmp_path / "t.safetensors", make_trace(unrecorded=True), **facts)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForestageError, match=r"t\.safetensors: cannot write"):
        TraceWriter(tmp_path / "file" / "t.safetensors", TRACE.metadata)
