"""The sequencer by itself under Verilator: its commands against the twin's schedule, and under the checker.

Without the blocks' arithmetic it runs much faster than the whole unit, so that large shapes can be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cocotb_tests.build import build
from cocotb_tests.pim_unit.checker import check
from cocotb_tests.pim_unit.command_log import log_of_schedule
from cocotb_tests.pim_unit.comparison import Comparison, compare_logs
from cocotb_tests.pim_unit.plans import plan_of
from cocotb_tests.pim_unit.ports import first_refresh_ck, log_of_ports
from cocotb_tests.pim_unit.violations import Violation
from cocotb_tests.simulation import SimulationError
from cocotb_tests.simulation import run as run_simulation
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Program
from pim_model.unit.schedule import UnitCommand, schedule
from rtl.pim.base_die.layouts import plan_layout
from rtl.pim.base_die.sequencer import Sequencer
from rtl.verilog import to_verilog


@dataclass(frozen=True, kw_only=True)
class SequencerReplayResult:
    """A replay and its comparison.

    Attributes:
        mismatches: Commands, and the clock of the end, that differ from the twin's.
        first_mismatch: The first of them in words; empty where there is none.
        violations: What the commands broke.
        cycles: Clocks until the sequencer was done.
        predicted_cycles: The same according to the twin.
        commands: Issued.
        wall_s: Seconds of the simulator, its start included.
    """

    mismatches: int
    first_mismatch: str
    violations: list[Violation]
    cycles: int
    predicted_cycles: int
    commands: int
    wall_s: float


def sequencer_verilog(parameters: UnitParameters) -> str:
    """The sequencer as Verilog, top module ``pim_sequencer``."""
    return _verilog(parameters.model_dump_json())


@lru_cache(maxsize=4)
def _verilog(parameters: str) -> str:
    return to_verilog(Sequencer(UnitParameters.model_validate_json(parameters)), "pim_sequencer")


def replay_sequencer(
    program: Program,
    parameters: UnitParameters,
    *,
    refresh: bool = False,
    start_cycle: int = 100,
    progress: Callable[[int], None] | None = None,
) -> SequencerReplayResult:
    """Run ``program`` in the sequencer and compare every command with the twin's.

    Args:
        program: What is run.
        parameters: The unit.
        refresh: Whether the banks are refreshed.
        start_cycle: After how many cycles from reset the program is started.
        progress: Called with the number of cycles simulated so far.

    Raises:
        ForestageError: hardware runs are not possible here.
        SimulationError: the simulation failed, or the sequencer did not start.
    """
    about = schedule(program, parameters, refresh_in_ck=parameters.device.trefi_ck if refresh else None)
    chunks = program.phases[0].chunks
    simulation = run_simulation(
        build(sequencer_verilog(parameters), "pim_sequencer"),
        "cocotb_tests.pim_unit.sequencer_test",
        stimulus={
            "plan": f"{_plan_word(program, parameters):x}",
            "inputs": {"x_chunks": chunks, "x_complete": 1, "output_room": 1},
            "refresh": refresh,
            "start_cycle": start_cycle,
            "max_cycles": start_cycle + 2 * about.done_ck + 2000,
            "surplus_cycles": 20,
        },
        timeout_s=600 + about.done_ck / 1000,
        progress=progress,
    )
    values = simulation.values
    first_cycle, done_cycle = values["first_cycle"], values["done_cycle"]
    if first_cycle < 0:
        raise SimulationError("PIM sequencer: it did not start")
    refresh_in_ck = first_refresh_ck(parameters, first_cycle) if refresh else None
    twin = schedule(program, parameters, refresh_in_ck=refresh_in_ck)
    log = log_of_ports(values["row"], values["column"], parameters, first_cycle)
    log = log.take(np.flatnonzero((log.clock_ck < twin.done_ck) | (log.command != UnitCommand.REFAB)))
    comparison = Comparison()
    compare_logs(comparison, log_of_schedule(twin, program, parameters), log)
    cycles = done_cycle - first_cycle
    comparison.equal("clock of the end", twin.done_ck, cycles)
    return SequencerReplayResult(
        mismatches=comparison.mismatches,
        first_mismatch=comparison.first,
        violations=check(log, program, parameters, end_ck=max(cycles, twin.done_ck), refresh_in_ck=refresh_in_ck),
        cycles=cycles,
        predicted_cycles=twin.done_ck,
        commands=len(log),
        wall_s=simulation.wall_s,
    )


def _plan_word(program: Program, parameters: UnitParameters) -> int:
    """The plan as its port carries it."""
    return plan_layout(parameters).const(plan_of(program)).as_value().value
