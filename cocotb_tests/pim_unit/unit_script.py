"""What the bench does with the unit, step by step, and what the unit's registers must say after it.

A script is a list of steps, each a name and its arguments: the methods of `cocotb_tests.pim_unit.unit_test.Script`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cocotb_tests.pim_unit.comparison import Comparison
from cocotb_tests.pim_unit.jobs import UnitJob
from pim_model.unit.events import UnitCounter, UnitError
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program
from pim_model.unit.schedule import UnitCommand, UnitSchedule
from rtl.pim.unit import generate_verilog

TOP = "pim_unit"
Step = list[Any]

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


def compare_registers(
    comparison: Comparison,
    jobs: Sequence[UnitJob],
    values: Mapping[str, Any],
    twins: Sequence[UnitSchedule],
    waits: bool,
) -> dict[str, int]:
    """Status after each job, and the counters after the last; returns these by name.

    Args:
        comparison: Where differences are counted.
        jobs: That were run.
        values: What the simulator gave back.
        twins: The schedule of each job.
        waits: Whether the output waited.
    """
    for number, job in enumerate(jobs):
        expected = {
            "busy": False,
            "done": True,
            "aborted": False,
            "dropping": False,
            "errors": [UnitError.NONFINITE.name] if job.expected.nonfinite else [],
            "refusal": "NONE",
        }
        comparison.equal(f"program {number}, status", expected, values["status"].get(str(number)))
    counters: dict[str, int] = values["counters"]
    comparison.equal("counter PROGRAMS", len(jobs), counters[UnitCounter.PROGRAMS.name])
    if not waits:  # late columns may shift what a refresh closes and opens again
        for counter, commands in COUNTED.items():
            twin = sum(schedule.count(command) for schedule in twins for command in commands)
            comparison.equal(f"counter {counter.name}", twin, counters[counter.name])
        comparison.equal("counter OUTPUT_WAIT_CLOCKS", 0, counters[UnitCounter.OUTPUT_WAIT_CLOCKS.name])
    return counters
