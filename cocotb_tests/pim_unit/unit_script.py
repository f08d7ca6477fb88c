"""What the bench does with the unit, step by step, and what the unit's registers must say after it.

A script is a list of steps, each a name and its arguments: the methods of `cocotb_tests.pim_unit.unit_test.Script`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cocotb_tests.pim_unit.comparison import Comparison
from cocotb_tests.pim_unit.jobs import UnitJob
from cocotb_tests.pim_unit.timing_rules import refresh_bound_ck
from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import MOST_POSTPONED_REFRESHES, UnitParameters
from pim_model.unit.program import ExpertKind, Program
from pim_model.unit.schedule import UnitCommand, UnitSchedule
from rtl.pim.unit import start_ck

TOP = "pim_unit"
Step = list[Any]

_MOST_DRAIN_CK = 120
"""From the last command to the last result's being taken, and the clocks of a bus's slot."""

_READ_CYCLES = 100
"""A read of STATUS takes less."""

COUNTED = {
    UnitCounter.ACTIVATES: (UnitCommand.ACT,),
    UnitCounter.CLOSES: (UnitCommand.PREH, UnitCommand.PREAB),
    UnitCounter.COLUMNS: (UnitCommand.PIM,),
    UnitCounter.LOADS: (UnitCommand.LDI,),
    UnitCounter.READBACKS: (UnitCommand.RDA,),
}
"""Counters of commands of the programs alone; refreshes go on between them."""


def descriptor(program: Program) -> dict[str, int]:
    """The fields of `rtl.pim.driver.Descriptor` that say ``program``."""
    first, last = program.phases[0], program.phases[-1]
    is_expert = program.kind is not ExpertKind.NONE
    return {
        "format": int(program.format),
        "kind": int(program.kind),
        "tokens": program.tokens,
        "inputs": first.inputs,
        "rows": last.inputs if is_expert else first.rows,
        "first_bias": int(first.bias),
        "second_bias": int(is_expert and last.bias),
        "base_row": program.base_row,
    }


def run_steps(number: int, job: UnitJob, most_cycles: int) -> list[Step]:
    """Job ``number`` from START to its end."""
    return [
        ["mark", f"begin {number}"],
        ["send", number],
        ["start", descriptor(job.program)],
        ["finish", str(number), most_cycles],
        ["mark", f"end {number}"],
    ]


def script(jobs: Sequence[UnitJob], *, refresh: bool, most_cycles: int) -> list[Step]:
    """All jobs, one after the other."""
    steps: list[Step] = [["identify"], ["control", refresh], ["clear_counters"]]
    for number, job in enumerate(jobs):
        steps += run_steps(number, job, most_cycles)
    return steps


def compare_status(
    comparison: Comparison,
    number: int,
    job: UnitJob,
    parameters: UnitParameters,
    values: Mapping[str, Any],
    *,
    refresh: bool,
) -> None:
    """What STATUS says after job ``number``, which ran to its end."""
    found = values["status"].get(str(number))
    errors = {UnitError.NONFINITE} if job.expected.nonfinite else set()
    overdue = (MOST_POSTPONED_REFRESHES + 1) * parameters.device.trefi_ck
    read_at = values["marks"].get(f"status {number}", 0)
    if not refresh and read_at >= overdue - _READ_CYCLES:
        at_that_time = (
            read_at < overdue + _READ_CYCLES and found is not None and UnitError.REFRESH.name not in found["errors"]
        )
        errors |= set() if at_that_time else {UnitError.REFRESH}
    expected = {
        "busy": False,
        "done": True,
        "aborted": False,
        "dropping": False,
        "errors": sorted(error.name for error in errors),
        "refusal": Refusal.NONE.name,
    }
    comparison.equal(f"program {number}, status", expected, found)


def compare_counters(
    comparison: Comparison,
    jobs: Sequence[UnitJob],
    parameters: UnitParameters,
    values: Mapping[str, Any],
    twins: Sequence[UnitSchedule],
    *,
    refresh: bool,
    waits: bool,
) -> None:
    """The counters after programs of which each ran to its end.

    Args:
        comparison: Where differences are counted.
        jobs, twins: The programs, and the schedules of those that began.
        parameters: The unit.
        values: What the simulator gave back.
        refresh: Whether the banks were refreshed.
        waits: Whether the output may have waited.
    """
    counters: Mapping[str, int] = values["counters"]
    comparison.equal("counter PROGRAMS", len(jobs), counters[UnitCounter.PROGRAMS.name])
    refreshed = values["row"][values["row"][:, 1] >> 1 & 3 == int(UnitCommand.REFAB), 0]
    read_in = [values["marks"][f"{what} {len(jobs) - 1}"] for what in ("status", "end")]
    least, most = (int(np.count_nonzero(refreshed < at)) for at in read_in)
    if not least <= counters[UnitCounter.REFRESHES.name] <= most:
        comparison.equal("counter REFRESHES", most, counters[UnitCounter.REFRESHES.name])
    if counters[UnitCounter.OUTPUT_WAIT_CLOCKS.name]:
        return  # late columns may shift what a refresh closes and opens again
    for counter, commands in COUNTED.items():
        twin = sum(schedule.count(command) for schedule in twins for command in commands)
        comparison.equal(f"counter {counter.name}", twin, counters[counter.name])
    if not waits:
        at_work = sum(start_ck(len(job.program.phases)) for job in jobs) + sum(twin.done_ck for twin in twins)
        until_begin = refresh_bound_ck(parameters.device, parameters.bus_phases) + parameters.device.trfc_ck
        most_more = len(jobs) * (_MOST_DRAIN_CK + (until_begin if refresh else 0))
        more = counters[UnitCounter.BUSY_CLOCKS.name] - at_work
        comparison.note(int(not 0 <= more <= most_more), f"counter BUSY_CLOCKS: {more} beyond the twin's {at_work}")
