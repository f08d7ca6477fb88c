"""Programs through the PIM unit under Verilator, compared with the unit's twins: results bit for bit, commands clock by
clock, counters; every command is checked against the device's rules and the program's needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from cocotb_tests.build import AMARANTH_LINT_OFF, BuildOptions, build
from cocotb_tests.pim_unit import unit_script
from cocotb_tests.pim_unit.checker import device_violations
from cocotb_tests.pim_unit.command_log import CommandLog, log_of_schedule
from cocotb_tests.pim_unit.comparison import Comparison, compare_logs
from cocotb_tests.pim_unit.jobs import OutputBeats, UnitJob, input_beats, output_beats, results_of_beats
from cocotb_tests.pim_unit.ports import PORT_CK, bus_fields, first_refresh_ck, log_of_ports
from cocotb_tests.pim_unit.program_rules import program_violations
from cocotb_tests.pim_unit.timing_rules import state_violations
from cocotb_tests.pim_unit.violations import Violation
from cocotb_tests.simulation import SimulationResult
from cocotb_tests.simulation import run as run_simulation
from pim_model.numerics.floats import Bits32
from pim_model.unit.events import UnitCounter
from pim_model.unit.parameters import LANES, UnitParameters
from pim_model.unit.schedule import UnitCommand, UnitSchedule, schedule
from rtl.generate import pim_unit_verilog
from rtl.pim.base_die.layouts import ColumnCommand, RowCommand

X_CK = 1
"""Clocks from the cycle in which a chunk's last beat is taken to the one in which the chunk may be loaded."""

LINT_OFF = (*AMARANTH_LINT_OFF, "UNSIGNED", "SYMRSVDWORD")
"""Comparisons with 0, which Amaranth writes where a bound is one; a port named interrupt."""

_PATTERN_CYCLES = 4096


@dataclass(frozen=True, kw_only=True)
class UnitReplayResult:
    """A replay and its comparison.

    Attributes:
        mismatches: Beats of results, commands, clocks, status words and counters that differ from the twins', and
            breaches of the streams' and the bus's protocol.
        first_mismatch: The first of them in words; empty where there is none.
        violations: What the commands broke.
        cycles: Clocks from each program's first to its last command, added up.
        predicted_cycles: The same according to the twin. Where the output waits, the twin's without waits.
        outputs: For each program FP32 bits uint32 ``[tokens, rows]``; ``None`` where beats are missing.
        counters: The unit's, by name.
        wall_s: Seconds of the simulator, its start included.
        clocks_per_s: Simulated in a second, once it has started.
    """

    mismatches: int
    first_mismatch: str
    violations: list[Violation]
    cycles: int
    predicted_cycles: int
    outputs: list[Bits32 | None]
    counters: dict[str, int]
    wall_s: float
    clocks_per_s: float


def replay_unit(
    jobs: Sequence[UnitJob],
    parameters: UnitParameters,
    *,
    refresh: bool = False,
    waits: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> UnitReplayResult:
    """Run each job in the unit, one after the other, and compare it with its twins.

    Args:
        jobs: At least one; their rows in the banks do not overlap, or hold the same.
        parameters: The unit.
        refresh: Whether the banks are refreshed.
        waits: Whether both streams and the register bus wait at random; otherwise they run at full rate.
        seed: Of the waits, and of the noise where no column is due.
        progress: Called with the number of cycles simulated so far.

    Raises:
        ForestageError: no job, jobs that overlap, or hardware runs are not possible here.
        SimulationError: the simulation failed.
    """
    if not jobs:
        raise ForestageError("PIM unit replay: no job given; give at least one")
    about = sum(
        schedule(job.program, parameters, refresh_in_ck=0 if refresh else None).done_ck + job.x.size for job in jobs
    )
    script = unit_script.script(jobs, refresh=refresh, most_cycles=10 * about + 20_000)
    simulation = simulate(
        jobs, parameters, script, waits=waits, seed=seed, timeout_s=600 + about / 300, progress=progress
    )
    numbered = dict(enumerate(jobs))
    judgement = judge(numbered, parameters, simulation.values, refresh=refresh)
    comparison, values = judgement.comparison, simulation.values
    twins = [run.twin for run in judgement.runs]
    unit_script.compare_counters(comparison, jobs, parameters, values, twins, refresh=refresh, waits=waits)
    return UnitReplayResult(
        mismatches=comparison.mismatches,
        first_mismatch=comparison.first,
        violations=judgement.violations,
        cycles=sum(_length(run.log) for run in judgement.runs),
        predicted_cycles=sum(_length(run.twin_log) for run in judgement.runs),
        outputs=judgement.outputs,
        counters=values["counters"],
        wall_s=simulation.wall_s,
        clocks_per_s=values["cycles"] / values["simulating_s"],
    )


def simulate(
    jobs: Sequence[UnitJob],
    parameters: UnitParameters,
    script: Sequence[unit_script.Step],
    *,
    waits: bool = False,
    seed: int = 0,
    timeout_s: float = 600.0,
    progress: Callable[[int], None] | None = None,
) -> SimulationResult:
    """The unit with ``jobs``' weights in its banks and their inputs as packets, driven by ``script``.

    Raises:
        ForestageError: jobs that overlap, or hardware runs are not possible here.
        SimulationError: the simulation failed.
    """
    first_row, contents = _banks(jobs)
    generator = np.random.default_rng(seed)
    packets = [input_beats(job.x) for job in jobs]
    return run_simulation(
        build(pim_unit_verilog(parameters), unit_script.TOP, BuildOptions(lint_off=LINT_OFF)),
        "cocotb_tests.pim_unit.unit_test",
        stimulus={
            "parameters": parameters.model_dump(mode="json"),
            "contents": contents,
            "first_row": first_row,
            "latency": parameters.device.cl_ck,
            "fields": bus_fields(parameters),
            "row_commands": list(RowCommand.__members__),
            "column_commands": list(ColumnCommand.__members__),
            "seed": seed,
            **{f"x_{number}": beats for number, (beats, _) in enumerate(packets)},
            **{f"x_last_{number}": last for number, (_, last) in enumerate(packets)},
            "x_pattern": _pattern(generator, waits, busy=0.5),
            "y_pattern": _pattern(generator, waits, busy=0.5),
            "bus_waits": waits,
            "script": list(script),
        },
        seed=seed,
        timeout_s=timeout_s,
        progress=progress,
    )


def _pattern(generator: np.random.Generator, waits: bool, *, busy: float) -> NDArray[np.bool_]:
    """In which cycles a side of a stream moves: all, or a random share ``busy`` of a repeated stretch."""
    return generator.random(_PATTERN_CYCLES) < busy if waits else np.ones(1, np.bool_)


def _banks(jobs: Sequence[UnitJob]) -> tuple[int, NDArray[np.uint8]]:
    """The first row of the banks that is used, and the contents from there on."""
    begins = [job.program.base_row for job in jobs]
    ends = [begin + job.contents.shape[1] for begin, job in zip(begins, jobs, strict=True)]
    first = min(begins)
    contents = np.zeros((2, max(ends) - first, *jobs[0].contents.shape[2:]), np.uint8)
    used = np.zeros(contents.shape[:3], np.bool_)
    for begin, end, job in zip(begins, ends, jobs, strict=True):
        rows = slice(begin - first, end - first)
        if np.any(used[:, rows, :, None, None] & (contents[:, rows] != job.contents)):
            raise ForestageError(f"PIM unit replay: rows {begin} to {end} of the banks hold two jobs' weights")
        contents[:, rows] = job.contents
        used[:, rows] = True
    return first, contents


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a job's run left, and what it should have.

    Attributes:
        log: Its commands; clock 0 is the first in which the sequencer decides.
        ready_ck: For each chunk of the inputs the clock in which it may be loaded.
        beats: Of its output.
        twin, twin_log: Its schedule, given ``ready_ck``.
    """

    log: CommandLog
    ready_ck: NDArray[np.int64]
    beats: OutputBeats
    twin: UnitSchedule
    twin_log: CommandLog


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a record says.

    Attributes:
        comparison: Differences from the twins.
        violations: What the commands broke.
        runs: Of the jobs that began, in order.
        outputs: For each of them FP32 bits uint32 ``[tokens, rows]``; ``None`` where beats are missing.
    """

    comparison: Comparison
    violations: list[Violation]
    runs: list[Run]
    outputs: list[Bits32 | None]


def judge(
    jobs: Mapping[int, UnitJob], parameters: UnitParameters, values: Mapping[str, Any], *, refresh: bool
) -> Judgement:
    """Compare what the simulator recorded.

    Args:
        jobs: Those that are to be complete and right, by their numbers in the script. Commands of others need only keep
            the device's rules.
        parameters: The unit.
        values: What `simulate` gave back.
        refresh: Whether the banks were refreshed.
    """
    comparison = Comparison()
    comparison.note(len(values["refused"]), f"PIM to a closed or an empty row in cycles {values['refused'][:3]}")
    comparison.note(len(values["protocol"]), "; ".join(values["protocol"][:1]))
    marks, at = values["marks"], values["y_cycle"]
    begins = [name.removeprefix("begin ") for name in marks if name.startswith("begin ")]
    inside = [(at >= marks[f"begin {name}"]) & (at < marks[f"end {name}"]) for name in begins]
    comparison.note(int(np.sum(~np.any(inside, axis=0))) if inside else len(at), "beats of y without a program")
    # Clocks from reset on.
    whole = log_of_ports(values["row"], values["column"], parameters, 0)
    violations = device_violations(
        whole,
        parameters,
        end_ck=values["cycles"] - PORT_CK,
        refresh_in_ck=parameters.device.trefi_ck if refresh else None,
    )
    runs: list[Run] = []
    outputs: list[Bits32 | None] = []
    for number, job in jobs.items():
        run = _run(job, number, parameters, values, whole, refresh)
        if run is None:
            comparison.note(1, f"program {number}: no command")
            continue
        waited = values["counters"].get(UnitCounter.OUTPUT_WAIT_CLOCKS.name, 0) > 0
        compared = [_columns_in_order(log) if waited else log for log in (run.twin_log, run.log)]
        compare_logs(comparison, *compared)
        _, rows_read = state_violations(run.log, parameters.device)
        violations += program_violations(
            run.log, job.program, parameters, rows_read, inputs_ready_ck=run.ready_ck.tolist()
        )
        expected = output_beats(job.program, parameters, job.expected.bits)
        comparison.equal_arrays(f"program {number}, output beat", _rows(expected), _rows(run.beats))
        complete = len(run.beats.data) == len(expected.data)
        outputs.append(results_of_beats(job.program, parameters, run.beats) if complete else None)
        unit_script.compare_status(comparison, number, job, parameters, values, refresh=refresh)
        runs.append(run)
    return Judgement(comparison=comparison, violations=violations, runs=runs, outputs=outputs)


def _run(
    job: UnitJob, number: int, parameters: UnitParameters, values: Mapping[str, Any], whole: CommandLog, refresh: bool
) -> Run | None:
    """A job's share of the record; ``None`` if it never began."""
    begin, end = (values["marks"].get(f"{what} {number}") for what in ("begin", "end"))
    inside = (whole.clock_ck >= begin) & (whole.clock_ck < end)
    acts = np.flatnonzero(inside & (whole.command == UnitCommand.ACT))
    if not len(acts):
        return None
    # A program's first command opens a bank, in the first clock that is the row bus's slot.
    first_cycle = int(whole.clock_ck[acts[0]]) - parameters.timings.row_phase
    ready = _ready_ck(job, values, begin, end, first_cycle)
    twin = schedule(
        job.program,
        parameters,
        refresh_in_ck=first_refresh_ck(parameters, first_cycle) if refresh else None,
        inputs_ready_ck=ready.tolist(),
    )
    clock = whole.clock_ck - first_cycle
    idle = (clock >= twin.done_ck) & (whole.command == UnitCommand.REFAB)
    log = whole.take(np.flatnonzero(inside & (clock >= 0) & ~idle))
    of_run = (values["y_cycle"] >= begin) & (values["y_cycle"] < end)
    return Run(
        log=replace(log, clock_ck=log.clock_ck - first_cycle),
        ready_ck=ready,
        beats=OutputBeats(data=values["y_data"][of_run], keep=values["y_keep"][of_run], last=values["y_last"][of_run]),
        twin=twin,
        twin_log=log_of_schedule(twin, job.program, parameters),
    )


def _ready_ck(job: UnitJob, values: Mapping[str, Any], begin: int, end: int, first_cycle: int) -> NDArray[np.int64]:
    """For each chunk of the inputs the clock in which it may be loaded; of chunks that never came, the run's end."""
    tokens, inputs = job.x.shape
    taken = np.array(values["x_taken"], np.int64)
    taken = taken[(taken >= begin) & (taken < end)]
    complete = np.full(-(-inputs // LANES) * tokens, end)
    complete[: len(taken)] = taken[: len(complete)]
    of_chunks = complete.reshape(-1, tokens)[:, -1] + X_CK - first_cycle
    filled_up = job.program.phases[0].chunks - len(of_chunks)  # of zeros, there with the last
    return np.maximum(np.append(of_chunks, np.repeat(of_chunks[-1], filled_up)), 0)


def _columns_in_order(log: CommandLog) -> CommandLog:
    """PIMs alone, without their clocks: where a stream waits, these alone are certain."""
    pims = log.take(np.flatnonzero(log.command == UnitCommand.PIM))
    return replace(pims, clock_ck=np.zeros_like(pims.clock_ck))


def _rows(beats: OutputBeats) -> NDArray[np.uint64]:
    """Data that count, TKEEP and TLAST, ``[beats, 3]``."""
    counts = np.where(beats.keep == 0xFF, np.uint64(2**64 - 1), np.uint64(2**32 - 1))
    return np.stack([beats.data & counts, beats.keep.astype(np.uint64), beats.last.astype(np.uint64)], axis=1)


def _length(log: CommandLog) -> int:
    return int(log.clock_ck[-1]) + 1 if len(log) else 0
