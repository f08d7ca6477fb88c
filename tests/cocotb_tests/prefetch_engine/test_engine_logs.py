"""The bench's files: logs are read as they were written, events are words that the runner reads."""

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import unsigned
from amaranth.lib import data

from catalog.errors import ForestageError
from cocotb_tests.models.files import loaded_addresses, word_records
from cocotb_tests.prefetch_engine.logs import CYCLE_DIGITS, growing_log, log_path, read_log
from cocotb_tests.prefetch_engine.replay import GrowingLogs
from cocotb_tests.prefetch_engine.run import log_layouts
from cocotb_tests.prefetch_engine.stimulus import events_text, word_layout
from predictor.engine.events import Gate, Release, Token, event_arrays
from predictor.engine.limits import PrefetchEngineLimits

LIMITS = PrefetchEngineLimits(slots_max=2, layers_max=4, experts_max=8, top_k_max=3, candidates_max=2)


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    layout = data.StructLayout({"a": unsigned(5), "b": unsigned(13)})
    path = tmp_path / "log"
    path.write_text("".join(f"{cycle:010x}{a | b << 5:05x}\n" for cycle, a, b in [(3, 31, 7), (1 << 36, 0, 8191)]))
    log = read_log(path, layout)
    assert log.cycle.tolist() == [3, 1 << 36]
    assert {name: column.tolist() for name, column in log.fields().items()} == {"a": [31, 0], "b": [7, 8191]}
    path.write_text("")
    assert read_log(path, layout).count == 0
    path.write_text("00000000010000\n0")
    with pytest.raises(ValueError, match="not lines"):
        read_log(path, layout)
    path.write_text("000000000x00001\n")
    with pytest.raises(ValueError, match="hexadecimal"):
        read_log(path, layout)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_log_that_grows_is_read_line_by_line_and_never_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    layout = data.StructLayout({"a": unsigned(8)})
    steps = iter(
        [
            lambda: None,  # no file yet
            lambda: _append(path, "00000000010a\n0000"),
            lambda: _append(path, "0000020b"),  # all but its end
            lambda: _append(path, "\n00000000030c\n"),
        ]
    )

    def is_over() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is None

    read = [(log.cycle.tolist(), log.fields()["a"].tolist()) for log in growing_log(path, layout, is_over)]
    assert read == [([1], [10]), ([2, 3], [11, 12])]


def test_a_log_that_is_over_within_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("00000000010a\n0000")
    grown = growing_log(path, data.StructLayout({"a": unsigned(8)}), lambda: True)
    with pytest.raises(ValueError, match="not lines"):
        list(grown)


def test_a_run_is_over_when_the_next_begins_or_the_simulation_has_ended(tmp_path: Path) -> None:
    ended: list[bool] = []
    logs = GrowingLogs(tmp_path, 0, LIMITS, lambda: bool(ended))
    line = "0" * (CYCLE_DIGITS + -(-log_layouts(LIMITS)["stops"].size // 4)) + "\n"
    log_path(tmp_path, 0, "stops").write_text(line)
    stops = logs.of("stops")
    assert next(stops).count == 1
    log_path(tmp_path, 1, "stops").write_text(line)
    assert list(stops) == []
    ended.append(True)
    last = GrowingLogs(tmp_path, 1, LIMITS, lambda: bool(ended))
    assert [log.count for log in last.of("stops")] == [1]
    assert list(last.of("commands")) == []


def test_a_memorys_words_are_records_from_the_highest_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "text.load"
    path.write_bytes(word_records({0: bytes(range(64)), 1 << 40: bytes(64)}))
    content = path.read_bytes()
    assert content[:72] == bytes(8) + bytes(reversed(range(64)))
    assert loaded_addresses(path, 64).tolist() == [0, 1 << 40]
    path.write_bytes(word_records({}))
    assert loaded_addresses(path, 64).tolist() == []


def test_an_event_is_the_word_that_the_layout_says() -> None:
    events = event_arrays(
        [Token(1, starts_sequence=True, identity=0xDEADBEEF, row=5), Gate(1, 2, (4, 3)), Release(1, 2)], top_k=2
    )
    text = events_text(LIMITS, events, bad=np.array([False, True, False]))
    words = [int(line, 16) for line in text.split()]
    layout = word_layout(LIMITS)
    views = [layout.from_bits(word & (1 << layout.size) - 1) for word in words]
    assert [view.event.kind for view in views] == [0, 1, 2]
    assert [view.bad for view in views] == [0, 1, 0]
    assert (views[0].event.identity, views[0].event.row, views[0].event.starts_sequence) == (0xDEADBEEF, 5, 1)
    assert (views[1].event.layer, views[1].event.experts[0], views[1].event.experts[1]) == (2, 4, 3)
    assert views[1].event.slot == 1


def test_a_stimulus_beyond_the_runners_memory_is_refused() -> None:
    with pytest.raises(ForestageError, match="0 events"):
        events_text(LIMITS, event_arrays([], top_k=2))
    with pytest.raises(ForestageError, match="gates of 4 experts"):
        events_text(LIMITS, event_arrays([Gate(0, 0, (1, 2, 3, 4))], top_k=4))
