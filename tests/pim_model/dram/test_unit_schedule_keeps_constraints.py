"""The PIM unit's cycle twin against the constraint table, which it does not read."""

import pytest

from catalog import DramRecord
from pim_model.dram import pim_unit
from pim_model.dram.commands import Scope, UnitCommand
from pim_model.dram.devices import find_device
from pim_model.unit import schedule as twin
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program

Issued = tuple[int, UnitCommand, int, int]
"""Clock, command, half, bank; −1 where the command has none."""

NAMES = {int(command): UnitCommand[command.name] for command in twin.UnitCommand}


def issued(parameters: UnitParameters, program: Program, refresh_in_ck: int | None) -> list[Issued]:
    """The twin's schedule, in the names of the table."""
    result = twin.schedule(program, parameters, refresh_in_ck=refresh_in_ck)
    found = []
    for clock, number, half, block in zip(result.clock_ck, result.command, result.half, result.block, strict=True):
        name = NAMES[int(number)]
        bank = pim_unit.bank_of_block(parameters.device, int(block), int(half)) if name is UnitCommand.ACT else -1
        found.append((int(clock), name, int(half), bank))
    return found


def violations(device: DramRecord, commands: list[Issued]) -> list[str]:
    """Every constraint against every pair that it joins."""
    group = pim_unit.unit_geometry(device).bank_group_of
    joins = {
        Scope.CHANNEL: lambda a, b: True,
        Scope.BANK_GROUP: lambda a, b: group(a[3]) == group(b[3]),
        Scope.BANK: lambda a, b: a[3] == b[3],
        Scope.HALF: lambda a, b: a[2] == b[2],
    }
    found = []
    for constraint in pim_unit.pim_unit_constraints(device):
        joined = joins[constraint.scope]
        for index, later in enumerate(commands):
            if later[1] not in constraint.following:
                continue
            near, place = 0, index - 1
            while place >= 0 and commands[place][0] > later[0] - constraint.latency_ck:
                near += commands[place][1] in constraint.preceding and joined(commands[place], later)
                place -= 1
            if near >= constraint.window:
                found.append(f"{constraint.name}: {later}")
    return found


@pytest.mark.parametrize("refresh_in_ck", [None, 500])
@pytest.mark.parametrize(("name", "phases"), [("HBM2-PIM", 1), ("HBM2-PIM", 2), ("HBM3", 2), ("HBM3E", 1), ("HBM4", 2)])
def test_the_cycle_twin_keeps_every_constraint(name: str, phases: int, refresh_in_ck: int | None) -> None:
    parameters = UnitParameters(device=find_device(name), bus_phases=phases, phase=phases - 1)  # type: ignore[arg-type]
    programs = [
        expert_program(parameters, 96, 64, WeightFormat.MXFP4, ExpertKind.GPT_OSS, gate_up_bias=True, down_bias=True),
        gemv_program(parameters, 300, 200, WeightFormat.INT8, tokens=2, bias=True),
        gemv_program(parameters, 700, 64, WeightFormat.BF16, tokens=4),
    ]
    for program in programs:
        commands = issued(parameters, program, refresh_in_ck)
        assert violations(parameters.device, commands) == []
        for slots in pim_unit.bus_slots(parameters.device, phases, phases - 1):
            assert all(slots.allows(clock) for clock, command, *_ in commands if command in slots.commands)
        rule = pim_unit.refresh_rule(parameters.device)
        due, refreshed = refresh_in_ck, [clock for clock, command, *_ in commands if command is UnitCommand.REFAB]
        assert (due is not None and due < commands[-1][0]) == bool(refreshed)
        for clock in refreshed:
            assert due is not None
            assert not [c for c in commands if due <= c[0] < clock + rule.duration_ck and c[1] in rule.blocked]
            due += rule.interval_ck


def test_the_check_sees_a_command_that_comes_too_early() -> None:
    parameters = UnitParameters(device=find_device("HBM2-PIM"))
    commands = issued(parameters, gemv_program(parameters, 64, 64, WeightFormat.BF16), 100)
    seen = set()
    for index, (clock, command, half, bank) in enumerate(commands):
        if command in {UnitCommand.ACT, UnitCommand.PIM, UnitCommand.REFAB} and index:
            moved = [*commands[:index], (clock - 1, command, half, bank), *commands[index + 1 :]]
            if violations(parameters.device, moved):
                seen.add(command)
    assert seen == {UnitCommand.ACT, UnitCommand.PIM, UnitCommand.REFAB}
