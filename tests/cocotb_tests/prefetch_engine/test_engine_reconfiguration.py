"""An engine is given another mode and another model while it runs on, without a reset: each time as if it were new."""

import pytest

from cocotb_tests.prefetch_engine.replay import Replay, replay_in_turn
from predictor.engine.settings import LinkSettings, Missing, Mode
from tests.cocotb_tests.prefetch_engine.small_engines import SMALL, Model, replay_of, skip_without_tools

pytestmark = pytest.mark.long  # its build takes a minute or more; it is that of ``test_whole_engine``

LARGE, MIDDLE, LEAST = Model(), Model(layers=3, experts=7), Model(layers=2, experts=3)


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    skip_without_tools()


def in_turn(waits: int) -> list[Replay]:
    """Modes and models; between two of the same model one of another, and addresses and chunks differ."""
    link = LinkSettings(chunk_bytes=128, expert_base=1 << 20, staging_base=1 << 16, expert_stride=2048)
    given = [
        LARGE.learned(),
        {
            "settings": MIDDLE.settings(Mode.TABLES, link=link),
            "events": MIDDLE.random_events(50, 2),
            "tables": MIDDLE.tables(SMALL),
        },
        {
            "settings": LEAST.settings(Mode.OFF, share=1, prefetched=2, missing=Missing.ELSEWHERE),
            "events": LEAST.random_events(30, 1),
            "preloaded": ((0, 2, True), (1, 0, False)),
        },
        {"settings": LARGE.settings(Mode.OFF), "events": LARGE.random_events(30, 2)},
        MIDDLE.learned(plain=True, distance=2),
        LARGE.learned(LARGE.trace(lengths=(14, 11, 9))),
    ]
    return [replay_of(**of, waits=waits) for of in given]


@pytest.mark.parametrize("waits", [0, 100])
def test_each_run_after_another_is_in_lock_step(waits: int) -> None:
    """Commands, counters, bytes of the staging buffer, and without text and waits cycles."""
    replays = in_turn(waits)
    for nth, (replay, result) in enumerate(zip(replays, replay_in_turn(replays), strict=True)):
        assert result.mismatches == 0, f"run {nth}: {result.first_mismatch}"
        assert (result.breaches, result.errors) == (0, 0), nth
        assert result.commands > 0
        assert result.events == replay.events.size
        assert replay.settings.mode is Mode.OFF or result.counters["predictions"] > 20, nth
