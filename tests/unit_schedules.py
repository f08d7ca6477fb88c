"""Check a schedule of the PIM expert unit against the device's constraint table, independently of the sequencer."""

import numpy as np
from numpy.typing import NDArray

from pim_model.dram.commands import Scope, TimingConstraint
from pim_model.dram.commands import UnitCommand as TableCommand
from pim_model.dram.pim_unit import (
    COLUMN_COMMANDS,
    ROW_COMMANDS,
    bank_of_block,
    bus_slots,
    half_of,
    pim_unit_constraints,
    unit_geometry,
)
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Program
from pim_model.unit.schedule import UnitCommand, UnitSchedule

NAMES = {command: TableCommand[command.name] for command in UnitCommand}


class IssuedCommands:
    """A schedule's commands as arrays that a test may change."""

    def __init__(self, schedule: UnitSchedule, parameters: UnitParameters, program: Program) -> None:
        self.parameters = parameters
        self.clock = schedule.clock_ck.copy()
        self.command = schedule.command.copy()
        self.half, self.block, self.number = schedule.half.copy(), schedule.block.copy(), schedule.number.copy()
        device = parameters.device
        self.geometry = unit_geometry(device)
        self.blocks = parameters.blocks.blocks
        self.row_set_of_column = np.concatenate(
            [
                phase.first_row_set + np.arange(sum(map(phase.columns_of_tile, phase.tiles))) // device.row_bursts
                for phase in program.phases
            ]
        )
        self.table = pim_unit_constraints(device)
        self.bank, self.group = np.full(len(self.clock), -1), np.full(len(self.clock), -1)
        acts = self.command == UnitCommand.ACT
        banks = np.array([[bank_of_block(device, block, half) for block in range(self.blocks)] for half in (0, 1)])
        groups = np.array([self.geometry.bank_group_of(bank) for bank in range(self.geometry.banks)])
        self.bank[acts] = banks[self.half[acts], self.block[acts]]
        self.group[acts] = groups[self.bank[acts]]

    def of(self, *commands: UnitCommand) -> NDArray[np.bool_]:
        """Which are any of ``commands``."""
        return np.isin(self.command, [int(command) for command in commands])

    def violations(self) -> list[str]:
        """Everything that the table, the state of the banks or the slots of the buses forbid."""
        return [*self.too_early(), *self._states(), *self._slots()]

    def too_early(self) -> list[str]:
        """What the table of constraints forbids."""
        return [text for rule in self.table for text in self._distance(rule)]

    def _distance(self, rule: TimingConstraint[TableCommand]) -> list[str]:
        preceding = self.of(*(own for own, name in NAMES.items() if name in rule.preceding))
        following = self.of(*(own for own, name in NAMES.items() if name in rule.following))
        found = []
        nodes = self._nodes(rule.scope)
        for node in np.unique(nodes[nodes >= 0]):
            before = np.sort(self.clock[preceding & (nodes == node)])
            after = self.clock[following & (nodes == node)]
            index = np.searchsorted(before, after) - rule.window
            if len(before):
                distance = np.where(index >= 0, after - before[np.maximum(index, 0)], rule.latency_ck)
                found += [f"{rule.name} at {clock}" for clock in after[distance < rule.latency_ck]]
        return found

    def _nodes(self, scope: Scope) -> NDArray[np.int64]:
        """Of each command the node of ``scope`` that it belongs to; −1: none."""
        if scope is Scope.CHANNEL:
            return np.zeros(len(self.clock), np.int64)
        if scope is Scope.HALF:
            return self.half.astype(np.int64)
        if scope is Scope.BANK:
            return self.bank
        assert scope is Scope.BANK_GROUP
        return self.group

    def _states(self) -> list[str]:
        """ACT finds its bank closed, PIM the right row set in every bank of its half, REFAB all banks closed."""
        found = []
        holds: list[dict[int, int]] = [{}, {}]  # of each half: bank → row set
        for index in np.argsort(self.clock, kind="stable"):
            command, half = UnitCommand(int(self.command[index])), int(self.half[index])
            where = f"at {self.clock[index]}"
            if command is UnitCommand.ACT:
                bank, row_set = int(self.bank[index]), int(self.number[index])
                if bank in holds[half]:
                    found.append(f"ACT of an open bank {where}")
                if half_of(bank) != half or row_set % 2 != half:
                    found.append(f"ACT of the wrong half {where}")
                holds[half][bank] = row_set
            elif command is UnitCommand.PREH:
                holds[half] = {}
            elif command is UnitCommand.PREAB:
                holds = [{}, {}]
            elif command is UnitCommand.REFAB and (holds[0] or holds[1]):
                found.append(f"REFAB with open banks {where}")
            elif command is UnitCommand.PIM:
                row_set = self.row_set_of_column[self.number[index]]
                if len(holds[half]) != self.blocks or set(holds[half].values()) != {row_set}:
                    found.append(f"PIM of a half that does not hold its row set {where}")
        return found

    def _slots(self) -> list[str]:
        found = []
        parameters = self.parameters
        row, column = bus_slots(parameters.device, parameters.bus_phases, parameters.phase)
        for slots, bus in ((row, ROW_COMMANDS), (column, COLUMN_COMMANDS)):
            if parameters.bus_phases == 1:
                continue
            on_bus = self.of(*(own for own, name in NAMES.items() if name in bus))
            wrong = self.clock[on_bus] % slots.period_ck != slots.offset_ck
            found += [f"not this pseudo-channel's slot at {clock}" for clock in self.clock[on_bus][wrong]]
        return found
