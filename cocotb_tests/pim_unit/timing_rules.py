"""Commands against the device: its table of constraints, the banks' state, the buses' slots, the refreshes.

Nothing here knows the sequencer or the program; the rules are those of `pim_model.dram.pim_unit`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.dram import DramRecord
from catalog.errors import ForestageError
from cocotb_tests.pim_unit.command_log import NONE, CommandLog
from cocotb_tests.pim_unit.violations import MOST, Violation
from pim_model.dram import commands as dram_commands
from pim_model.dram.commands import Scope, TimingConstraint
from pim_model.dram.devices import pim_blocks
from pim_model.dram.pim_unit import (
    HALVES,
    bank_of_block,
    bus_slots,
    pim_unit_constraints,
    refresh_rule,
    unit_geometry,
)
from pim_model.unit.schedule import UnitCommand

STATE_RULES = ("no such bank", "ACT to an open bank", "PIM to a closed bank", "REFab with an open bank")
SLOT_RULES = ("row bus slot", "column bus slot")
REFRESH_RULES = ("refresh not due", "refresh overdue", "refresh pending")
"""Refreshed before it was due; not refreshed in time; another command between its being due and its REFab."""

CLOSED = -2
"""The row that a PIM reads out of a half that is not open."""

_CODES = {dram_commands.UnitCommand[command.name]: int(command) for command in UnitCommand}
_SCOPES = (Scope.CHANNEL, Scope.BANK_GROUP, Scope.BANK, Scope.HALF)
_ACT, _PREH, _PREAB, _REFAB, _PIM = (
    int(command)
    for command in (UnitCommand.ACT, UnitCommand.PREH, UnitCommand.PREAB, UnitCommand.REFAB, UnitCommand.PIM)
)


def distance_violations(
    log: CommandLog, device: DramRecord, constraints: Sequence[TimingConstraint] | None = None
) -> list[Violation]:
    """Commands that came too early after an earlier one.

    Args:
        log: In order of clocks.
        device: Whose table of constraints holds.
        constraints: Another table.

    Raises:
        ForestageError: the log is out of order, or a constraint has a scope that the unit has not.
    """
    if np.any(np.diff(log.clock_ck) < 0):
        raise ForestageError("PIM command log: not in order of clocks; sort it first")
    table = pim_unit_constraints(device) if constraints is None else tuple(constraints)
    for constraint in table:
        if constraint.scope not in _SCOPES:
            raise ForestageError(f"PIM constraint '{constraint.name}': the unit has no scope '{constraint.scope}'")
    concerned = np.zeros((2, len(table), len(UnitCommand)), np.bool_)
    for number, constraint in enumerate(table):
        concerned[0, number, [_CODES[command] for command in constraint.preceding]] = True
        concerned[1, number, [_CODES[command] for command in constraint.following]] = True
    found = _too_close(
        log.clock_ck,
        log.command,
        _nodes(log, device),
        concerned[0],
        concerned[1],
        np.array([constraint.latency_ck for constraint in table], np.int64),
        np.array([_SCOPES.index(constraint.scope) for constraint in table], np.int64),
        np.array([constraint.window for constraint in table], np.int64),
    )
    return [Violation.between(table[rule].name, log, index, earlier) for rule, index, earlier in found.tolist()]


def _nodes(log: CommandLog, device: DramRecord) -> NDArray[np.int64]:
    """Which part of each scope a command concerns, ``[commands, scopes]``; `NONE` where it has none."""
    geometry = unit_geometry(device)
    blocks = pim_blocks(device).blocks
    nodes = np.full((len(log), len(_SCOPES)), NONE, np.int64)
    nodes[:, 0] = 0
    nodes[:, 3] = log.half
    banks = np.array([[bank_of_block(device, block, half) for half in range(HALVES)] for block in range(blocks)])
    act = (log.command == UnitCommand.ACT) & _exists(log, blocks)
    nodes[act, 2] = banks[log.block[act], log.half[act]]
    nodes[act, 1] = nodes[act, 2] // geometry.banks_per_group
    return nodes


def _exists(log: CommandLog, blocks: int) -> NDArray[np.bool_]:
    """Whether half and block of each command, as far as it has them, exist."""
    return (log.half >= NONE) & (log.half < HALVES) & (log.block >= NONE) & (log.block < blocks)


@njit()
def _too_close(clock, command, nodes, precedes, follows, latency, scope, window):  # type: ignore[no-untyped-def]
    """Rows (constraint, command, earlier command); at most `MOST`."""
    rules = len(latency)
    places = nodes.max() + 1 if len(nodes) else 1
    history = np.zeros((rules, places, window.max()), np.int64)
    count = np.zeros((rules, places), np.int64)
    found = np.empty((MOST, 3), np.int64)
    number = 0
    for index in range(len(clock)):
        for rule in range(rules):
            node = nodes[index, scope[rule]]
            if node < 0 or not follows[rule, command[index]] or count[rule, node] < window[rule]:
                continue
            earlier = history[rule, node, count[rule, node] % window[rule]]  # the oldest of the last ``window``
            if clock[index] - clock[earlier] < latency[rule] and number < MOST:
                found[number] = (rule, index, earlier)
                number += 1
        for rule in range(rules):
            node = nodes[index, scope[rule]]
            if node >= 0 and precedes[rule, command[index]]:
                history[rule, node, count[rule, node] % window[rule]] = index
                count[rule, node] += 1
    return found[:number]


def state_violations(log: CommandLog, device: DramRecord) -> tuple[list[Violation], NDArray[np.int64]]:
    """Commands that the banks' state forbids; and the row that each PIM reads.

    That row is `NONE` where the blocks disagree, and `CLOSED` where a bank of the half is closed.
    """
    blocks = pim_blocks(device).blocks
    missing = [Violation.between(STATE_RULES[0], log, index) for index in np.flatnonzero(~_exists(log, blocks))[:MOST]]
    if missing:
        return missing, np.full(len(log), NONE, np.int64)
    found, rows = _bank_state(log.command, log.half, log.block, log.row, blocks)
    return [Violation.between(STATE_RULES[rule], log, index) for rule, index in found.tolist()], rows


@njit()
def _bank_state(command, half, block, row, blocks):  # type: ignore[no-untyped-def]
    """Rows (rule, command), at most `MOST`; and the row that each PIM reads."""
    holds = np.full((2, blocks), -1)
    rows = np.full(len(command), -1)
    found = np.empty((MOST, 2), np.int64)
    number = 0
    for index in range(len(command)):
        rule = -1
        if command[index] == _ACT:
            if holds[half[index], block[index]] >= 0:
                rule = 1
            holds[half[index], block[index]] = row[index]
        elif command[index] == _PREH:
            holds[half[index]] = -1
        elif command[index] == _PREAB:
            holds[:] = -1
        elif command[index] == _REFAB:
            if holds.max() >= 0:
                rule = 3
        elif command[index] == _PIM:
            if holds[half[index]].min() < 0:
                rule = 2
                rows[index] = CLOSED
            elif holds[half[index]].min() == holds[half[index]].max():
                rows[index] = holds[half[index], 0]
        if rule >= 0 and number < MOST:
            found[number] = (rule, index)
            number += 1
    return found[:number], rows


def slot_violations(log: CommandLog, device: DramRecord, bus_phases: int, phase: int) -> list[Violation]:
    """Commands in clocks in which the bus is the other pseudo-channel's."""
    found: list[Violation] = []
    for rule, slots in zip(SLOT_RULES, bus_slots(device, bus_phases, phase), strict=True):
        ours = np.isin(log.command, [_CODES[command] for command in slots.commands])
        wrong = np.flatnonzero(ours & (log.clock_ck % slots.period_ck != slots.offset_ck))
        found += [Violation.between(rule, log, index) for index in wrong[:MOST]]
    return found


def refresh_bound_ck(device: DramRecord, bus_phases: int = 1) -> int:
    """Most clocks from a refresh's being due to its REFab.

    The last ACT and the last PIM may have come in the clock before; then PREab waits for tRAS or tRTP, REFab for tRP,
    each for the bus's slot.
    """
    period = bus_slots(device, bus_phases)[0].period_ck
    return max(device.tras_ck, device.trtp_l_ck) - 1 + device.trp_ck + 2 * (period - 1)


def refresh_violations(
    log: CommandLog, device: DramRecord, refresh_in_ck: int | None, end_ck: int, bus_phases: int = 1
) -> list[Violation]:
    """Refreshes that come at the wrong time, and commands that come while one is pending.

    Args:
        log: In order of clocks.
        device: Whose rule of refreshes holds.
        refresh_in_ck: When the first one is due; None: none ever is.
        end_ck: Clock in which the log ends.
        bus_phases: Pseudo-channels that take turns on the buses.
    """
    rule = refresh_rule(device)
    refreshes = np.flatnonzero(log.command == UnitCommand.REFAB)
    if refresh_in_ck is None:
        return [Violation.between("refresh not due", log, index) for index in refreshes[:MOST]]
    bound = refresh_bound_ck(device, bus_phases)
    blocked = np.flatnonzero(np.isin(log.command, [_CODES[command] for command in rule.blocked]))
    found = []
    number, due = 0, refresh_in_ck
    while due < end_ck:
        refresh = refreshes[number] if number < len(refreshes) else None
        at_ck = end_ck if refresh is None else int(log.clock_ck[refresh])
        if refresh is not None and at_ck < due:
            found.append(Violation.between("refresh not due", log, refresh))
        elif at_ck > due + bound:
            what = "no REFAB" if refresh is None else log.describe(refresh)
            found.append(
                Violation(
                    rule="refresh overdue",
                    clock_ck=at_ck,
                    command=what,
                    earlier_ck=due,
                    earlier=f"refresh {number} due",
                )
            )
        begin, end = np.searchsorted(log.clock_ck[blocked], [due, at_ck])
        found += [
            Violation(
                rule="refresh pending",
                clock_ck=int(log.clock_ck[index]),
                command=log.describe(index),
                earlier_ck=due,
                earlier=f"refresh {number} due",
            )
            for index in blocked[begin:end]
        ]
        number += 1
        due += rule.interval_ck
    found += [Violation.between("refresh not due", log, index) for index in refreshes[number:]]
    return found[:MOST]
