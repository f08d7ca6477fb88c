"""How many damaged inputs each importer is tried with, damage to small text files, and what must become of them."""

import copy
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers import ImportOptions, import_recording

Choice = dict[tuple[int, int, int], tuple[int, ...]]
"""Expert ids by (sequence, position, the model's layer)."""


def fuzz(examples: int = 40) -> Callable[[Any], Any]:
    """Marks a test of ``@given`` as one of the importers' fuzz tests, with so many inputs.

    FORESTAGE_FUZZ_INPUTS is shared out by `make test-long`: with it, each such test has so many.
    """
    number = int(os.environ.get("FORESTAGE_FUZZ_INPUTS", examples))
    chosen = settings(
        max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=True
    )
    return lambda test: pytest.mark.fuzz(chosen(test))


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """``text`` with a few faults: lines dropped, repeated, swapped or cut, bytes or numbers changed."""
    data = text.encode()
    for _ in range(draw(st.integers(1, 2))):
        lines = data.splitlines(keepends=True)
        if not lines:
            break
        kind = draw(st.sampled_from(["drop", "repeat", "swap", "truncate", "byte", "number", "number"]))
        first = draw(st.integers(0, len(lines) - 1))
        second = draw(st.integers(0, len(lines) - 1))
        if kind == "drop":
            del lines[first]
        elif kind == "repeat":
            lines.insert(second, lines[first])
        elif kind == "swap":
            lines[first], lines[second] = lines[second], lines[first]
        elif kind == "byte":
            place = draw(st.integers(0, len(lines[first]) - 1))
            byte = draw(st.one_of(st.sampled_from(b'0123456789,.:-"[]{}\t\n eN\\'), st.integers(0, 255)))
            lines[first] = lines[first][:place] + bytes([byte]) + lines[first][place + 1 :]
        elif kind == "number":
            numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", lines[first]))
            if numbers:
                found = draw(st.sampled_from(numbers))
                other = draw(
                    st.sampled_from(["0", "1", "2", "5", "-1", "7", "1.5", "99", "4294967296", "1e400", "NaN"])
                )
                lines[first] = lines[first][: found.start()] + other.encode() + lines[first][found.end() :]
        data = b"".join(lines)
        if kind == "truncate":
            data = data[: draw(st.integers(0, len(data)))]
    return data


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a path."""
    if not at:
        return new
    made = copy.deepcopy(value)
    holder = made
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = new
    return made


def lines_of(content: bytes) -> list[str]:
    """The lines of a UTF-8 text as a file has them: ``splitlines`` would also cut at a form feed, which ends none."""
    return [line.rstrip("\n") for line in io.StringIO(content.decode(), newline=None)]


def import_or_refuse(path: Path, format: str, **options: object) -> RoutingTrace | None:
    """The trace in ``path``, or ``None`` where it is refused in one line that names it."""
    try:
        recording = import_recording(path, format, ImportOptions.parse(dict(options), origin="test")).recording
    except ForestageError as error:
        message = str(error)
        assert str(path) in message, message
        assert "\n" not in message, message
        return None
    assert isinstance(recording, RoutingTrace)
    return recording


def choices(trace: RoutingTrace) -> Choice:
    """What a trace says, row by row."""
    recorded, sequence = trace.recorded(), trace.sequence_index()
    return {
        (int(sequence[token]), int(trace.position[token]), trace.metadata.layer_map[layer]): tuple(
            trace.expert_ids[token, layer].tolist()
        )
        for token in range(trace.tokens)
        for layer in range(trace.layers)
        if recorded[token, layer]
    }
