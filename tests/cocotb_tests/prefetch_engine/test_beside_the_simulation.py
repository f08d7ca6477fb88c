"""The twin beside a simulation that fails, and one whose order no engine could have: one clear error."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cocotb_tests.prefetch_engine import replay
from cocotb_tests.prefetch_engine.logs import CYCLE_DIGITS, log_path
from cocotb_tests.prefetch_engine.run import EngineRun, log_layouts
from cocotb_tests.simulation import SimulationError
from predictor.engine.following import OutOfOrder
from predictor.engine.settings import Mode
from rtl.prefetch.stager.layouts import Command
from tests.cocotb_tests.prefetch_engine.small_engines import SMALL, Model, replay_of

MODEL = Model()


def _follow(monkeypatch: pytest.MonkeyPatch, kinds: list[Command], simulate: Any) -> None:
    """Replay with a simulation that logs commands of these kinds, then does what ``simulate`` does."""
    layout = log_layouts(SMALL)["commands"]
    digits = -(-layout.size // 4)

    def run_in_turn(*_: object, folder: Path, **__: object) -> list[EngineRun]:
        words = [kind.value << layout["kind"].offset for kind in kinds]
        text = "".join(f"{0:0{CYCLE_DIGITS}x}{word:0{digits}x}\n" for word in words)
        log_path(folder, 0, "commands").write_text(text)
        return list(simulate())

    monkeypatch.setattr(replay, "build_bench", lambda *_, **__: None)
    monkeypatch.setattr(replay, "run_in_turn", run_in_turn)
    replay.replay_engine(replay_of(settings=MODEL.settings(Mode.OFF), events=MODEL.random_events(6, 1), waits=100))


def _fails() -> list[EngineRun]:
    time.sleep(0.3)  # the twin has seen by then what was logged
    raise SimulationError("a check of the circuit failed")


@pytest.mark.parametrize("kinds", [[], [Command.DEMAND], [Command.ARRIVE]])
def test_a_simulation_that_fails_is_told_whatever_it_logged(
    monkeypatch: pytest.MonkeyPatch, kinds: list[Command]
) -> None:
    with pytest.raises(SimulationError, match="a check of the circuit failed"):
        _follow(monkeypatch, kinds, _fails)
    assert threading.active_count() == 1


def test_an_order_that_no_engine_could_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfOrder, match="nothing moves"):
        _follow(monkeypatch, [Command.ARRIVE], list)
    with pytest.raises(OutOfOrder, match="never given"):
        _follow(monkeypatch, [Command.DEMAND, Command.GRANT], list)
