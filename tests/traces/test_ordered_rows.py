"""Rows that came in order are walked in pieces, and are what they would be at once."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers.assembly import ordered_rows
from traces.importers.assembly.ordered_rows import OrderedRows
from traces.importers.assembly.routing_rows import RoutingRows
from traces.importers.assembly.row_trace import trace_of_rows
from traces.importers.options import ImportOptions
from traces.importers.report import Report

Row = tuple[int, int, int]


@st.composite
def recordings(draw: st.DrawFn) -> list[Row]:
    """(sequence, position, layer) in order; rows may be missing, come twice or be out of place."""
    rows = []
    for sequence in range(draw(st.integers(1, 3))):
        position = 0
        for _ in range(draw(st.integers(1, 4))):
            rows += [(sequence, position, layer) for layer in range(3)]
            position += draw(st.sampled_from([1, 1, 2]))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(rows) - 1))
        change = draw(st.sampled_from(["drop", "repeat", "swap"]))
        if change == "drop" and len(rows) > 1:
            del rows[place]
        elif change == "repeat":
            rows.insert(place, rows[place])
        elif change == "swap":
            rows[place], rows[-1] = rows[-1], rows[place]
    return rows


def outcome(rows: list[Row], tokens: bool, named: int) -> tuple[RoutingTrace | str, list[str]]:
    """The trace of such rows, or the error; and the warnings."""
    collected = RoutingRows("position")
    collected.begin("some.csv")
    for line, (sequence, position, layer) in enumerate(rows):
        ids = [(sequence + position) % 5, 5 + layer]
        more: dict[str, Any] = {"token": position} if tokens and line < named else {}
        collected.add(line, sequence=sequence, position=position, layer=layer, ids=ids, weights=[0.5, 0.25], **more)
    report = Report()
    options = ImportOptions(model="our/own", experts=8)
    labels = [(f"d{number}", None) for number in range(3)]
    try:
        trace = trace_of_rows(collected, labels, options, report, origin=Path("some.csv"), format="test")
    except ForestageError as error:
        return str(error), report.warnings
    return trace, report.warnings


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(rows=recordings(), tokens=st.booleans(), named=st.sampled_from([6, 9, 99]), piece=st.integers(1, 9))
def test_pieces_are_the_whole(rows: list[Row], tokens: bool, named: int, piece: int) -> None:
    whole, told = outcome(rows, tokens, named)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered_rows, "PIECE_ROWS", piece)
        parts, told_of_parts = outcome(rows, tokens, named)
    assert told_of_parts == told
    if isinstance(whole, str):
        assert isinstance(parts, str)
    else:
        assert isinstance(parts, RoutingTrace)
        assert parts.equals(whole)


def test_rows_in_order_take_no_more_memory_where_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_rows, "PIECE_ROWS", 1 << 12)
    monkeypatch.setattr("traces.importers.assembly.spool.SPILL_BYTES", 1 << 18)
    peaks = []
    for tokens in (4_000, 16_000):
        rows = RoutingRows("position")
        rows.begin("some.csv")
        tracemalloc.start()
        for first in range(0, tokens, 500):
            position, layer = np.divmod(np.arange(first * 8, (first + 500) * 8), 8)
            ids = np.stack([layer, 8 + position % 8], axis=1)
            rows.add_block(position, sequence=0, position=position, layer=layer, ids=ids, weights=None)
        assert isinstance(rows.sort(), OrderedRows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # of four times the rows
