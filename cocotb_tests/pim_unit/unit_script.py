"""What the bench does with the unit, step by step, and what the unit's registers must say after it.

A script is a list of steps, each a name and its arguments: the methods of `cocotb_tests.pim_unit.unit_test.Script`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cocotb_tests.pim_unit.comparison import Comparison
from cocotb_tests.pim_unit.jobs import UnitJob
from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import MOST_POSTPONED_REFRESHES, UnitParameters
from pim_model.unit.program import ExpertKind, Program
from pim_model.unit.schedule import UnitCommand, UnitSchedule
from rtl.pim.unit import generate_verilog

TOP = "pim_unit"
Step = list[Any]

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


def unit_verilog(parameters: UnitParameters) -> str:
    """The unit as Verilog, top module `TOP`."""
    return _verilog(parameters.model_dump_json())


@lru_cache(maxsize=4)
def _verilog(parameters: str) -> str:
    return generate_verilog(UnitParameters.model_validate_json(parameters))


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


def compare_counters(comparison: Comparison, counters: Mapping[str, int], twins: Sequence[UnitSchedule]) -> None:
    """The counters after programs of which each ran to its end."""
    comparison.equal("counter PROGRAMS", len(twins), counters[UnitCounter.PROGRAMS.name])
    if counters[UnitCounter.OUTPUT_WAIT_CLOCKS.name]:
        return  # late columns may shift what a refresh closes and opens again
    for counter, commands in COUNTED.items():
        twin = sum(schedule.count(command) for schedule in twins for command in commands)
        comparison.equal(f"counter {counter.name}", twin, counters[counter.name])
