"""The bench around the PIM unit, with a stand-in that plays the twins' recordings: it agrees, and a fault shows."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from catalog.errors import ForestageError
from cocotb_tests.pim_unit import replay
from cocotb_tests.pim_unit.command_log import CommandLog, log_of_schedule
from cocotb_tests.pim_unit.jobs import OutputBeats, UnitJob
from cocotb_tests.pim_unit.replay import UnitReplayResult, replay_unit
from cocotb_tests.simulation import run as run_simulation
from pim_model.dram.devices import find_device
from pim_model.numerics.expert import Layer
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.formats import Bf16Matrix
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.schedule import UnitCommand, schedule
from tests.cocotb_tests.pim_unit.recorded_unit import Recording, recorded_unit_verilog

PARAMETERS = UnitParameters(device=find_device("HBM2-PIM"), max_inputs=256)
Change = Callable[[Recording], None]


def job(seed: int = 3) -> UnitJob:
    generator = np.random.default_rng(seed)
    weights = bf16_from_float(generator.normal(size=(77, 70)).astype(np.float32))
    x = bf16_from_float(generator.normal(size=(2, 70)).astype(np.float32))
    return UnitJob.of_gemv(PARAMETERS, Layer(Bf16Matrix(weights)), x, base_row=5)


def run(monkeypatch: pytest.MonkeyPatch, change: Change | None = None, *, waits: bool = False) -> UnitReplayResult:
    """A job through the stand-in, its recording changed."""
    work = job()
    twin = schedule(work.program, PARAMETERS)
    recording = Recording.of(work, PARAMETERS, log_of_schedule(twin, work.program, PARAMETERS))
    if change is not None:
        change(recording)
    stand_in = SimpleNamespace(
        TOP="pim_unit",
        script=lambda jobs, *_, **__: [
            ["mark", "begin 0"],
            ["send", 0],
            ["until_beats", len(recording.beats.data), 20_000],
            ["pause", 20],
            ["mark", "end 0"],
        ],
        compare_status=lambda *_, **__: None,
        compare_counters=lambda *_, **__: None,
    )
    monkeypatch.setattr(replay, "unit_script", stand_in)
    monkeypatch.setattr(replay, "pim_unit_verilog", recorded_unit_verilog)
    with tempfile.TemporaryDirectory() as folder:
        with_recording = partial(run_simulation, plusargs=recording.write(Path(folder), PARAMETERS))
        monkeypatch.setattr(replay, "run_simulation", with_recording)
        return replay_unit([work], PARAMETERS, waits=waits)


def test_the_recording_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch)
    assert not result.mismatches, result.first_mismatch
    assert not result.violations
    assert result.cycles == result.predicted_cycles > 0
    (output,) = result.outputs
    assert output is not None
    assert output.tobytes() == job().expected.bits.tobytes()


def test_the_recording_agrees_where_streams_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, waits=True)
    assert not result.mismatches, result.first_mismatch


def beats(recording: Recording, **changes: np.ndarray) -> None:
    recording.beats = OutputBeats(**{**vars(recording.beats), **changes})


def wrong_bit(recording: Recording) -> None:
    beats(recording, data=recording.beats.data ^ (np.arange(len(recording.beats.data)) == 7).astype(np.uint64))


def wrong_keep(recording: Recording) -> None:
    beats(recording, keep=recording.beats.keep ^ (np.arange(len(recording.beats.keep)) == 7) * 0xF0)


def early_last(recording: Recording) -> None:
    beats(recording, last=recording.beats.last | (np.arange(len(recording.beats.last)) == 40))


def no_last(recording: Recording) -> None:
    beats(recording, last=0 * recording.beats.last)


def beat_missing(recording: Recording) -> None:
    recording.beats = OutputBeats(**{name: np.delete(values, 5) for name, values in vars(recording.beats).items()})


def wrong_answers(recording: Recording) -> None:
    recording.checksum ^= 1 << 40


def command(recording: Recording, code: UnitCommand, number: int) -> int:
    return int(np.flatnonzero(recording.log.command == code)[number])


def late_load(recording: Recording) -> None:
    clock = recording.log.clock_ck.copy()
    clock[command(recording, UnitCommand.LDI, 2)] += 1
    recording.log = replace(recording.log, clock_ck=clock).sorted()


def wrong_column(recording: Recording) -> None:
    address = recording.log.address.copy()
    address[command(recording, UnitCommand.PIM, 9)] ^= 1
    recording.log = replace(recording.log, address=address)


def closed_bank(recording: Recording) -> None:
    recording.log = without(recording.log, command(recording, UnitCommand.ACT, 3))


def no_readback(recording: Recording) -> None:
    recording.log = without(recording.log, command(recording, UnitCommand.RDA, 30))


def without(log: CommandLog, index: int) -> CommandLog:
    return log.take(np.delete(np.arange(len(log)), index))


FAULTS: dict[Change, tuple[str, str]] = {
    wrong_bit: ("program 0, output beat 7", ""),
    wrong_keep: ("program 0, output beat 7", ""),
    early_last: ("program 0, output beat 40", ""),
    no_last: ("program 0, output beat", ""),
    beat_missing: ("program 0, output beat 5", ""),
    wrong_answers: ("program 0, output beat 0", ""),
    late_load: ("command", ""),
    wrong_column: ("command", "column order"),
    closed_bank: ("PIM to a closed or an empty row", "PIM to a closed bank"),
    no_readback: ("command", "readbacks missing"),
}


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: change.__name__)
def test_a_changed_recording_is_seen(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    result = run(monkeypatch, change)
    first, rule = FAULTS[change]
    assert result.mismatches
    assert result.first_mismatch.startswith(first)
    assert {violation.rule for violation in result.violations} >= ({rule} if rule else set())


def test_jobs_must_not_share_rows() -> None:
    with pytest.raises(ForestageError, match="hold two jobs' weights"):
        replay_unit([job(3), job(4)], PARAMETERS)
    with pytest.raises(ForestageError, match="no job given"):
        replay_unit([], PARAMETERS)
