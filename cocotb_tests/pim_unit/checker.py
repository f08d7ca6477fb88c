"""All rules together: what a run's commands break, of the device's and of the program's."""

from collections.abc import Sequence

from cocotb_tests.pim_unit.command_log import CommandLog
from cocotb_tests.pim_unit.program_rules import program_violations
from cocotb_tests.pim_unit.timing_rules import (
    distance_violations,
    refresh_violations,
    slot_violations,
    state_violations,
)
from cocotb_tests.pim_unit.violations import Violation
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Program


def check(
    log: CommandLog,
    program: Program,
    parameters: UnitParameters,
    *,
    end_ck: int,
    refresh_in_ck: int | None = None,
    inputs_ready_ck: Sequence[int] | None = None,
    complete: bool = True,
) -> list[Violation]:
    """Everything that ``log`` breaks, in order of clocks.

    Args:
        log: The commands, in order of clocks; all banks are closed and nothing is pending at its beginning.
        program: What is run.
        parameters: The unit.
        end_ck: Clock in which the log ends.
        refresh_in_ck: When the first refresh is due; None: none ever is.
        inputs_ready_ck: For each chunk of the first phase, the first clock in which it may be loaded; None: from the
            first clock on.
        complete: Whether the log holds a whole run; else it may end anywhere.

    Raises:
        ForestageError: a log that is out of order, or other than a clock for each chunk.
    """
    _, rows_read = state_violations(log, parameters.device)
    found = [
        *device_violations(log, parameters, end_ck=end_ck, refresh_in_ck=refresh_in_ck),
        *program_violations(log, program, parameters, rows_read, inputs_ready_ck=inputs_ready_ck, complete=complete),
    ]
    return sorted(found, key=lambda violation: violation.clock_ck)


def device_violations(
    log: CommandLog, parameters: UnitParameters, *, end_ck: int, refresh_in_ck: int | None = None
) -> list[Violation]:
    """What ``log`` breaks of the device's rules, whatever the programs are.

    Args:
        log: The commands, in order of clocks; all banks are closed and nothing is pending at its beginning.
        parameters: The unit.
        end_ck: Clock in which the log ends.
        refresh_in_ck: When the first refresh is due; None: none ever is.

    Raises:
        ForestageError: a log that is out of order.
    """
    device = parameters.device
    return [
        *distance_violations(log, device),
        *state_violations(log, device)[0],
        *slot_violations(log, device, parameters.bus_phases, parameters.phase),
        *refresh_violations(log, device, refresh_in_ck, end_ck, parameters.bus_phases),
    ]
