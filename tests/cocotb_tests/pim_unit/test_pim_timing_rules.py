"""Each constraint of the PIM unit's table is seen where it is broken, by its own name and no other."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from catalog.dram import DramRecord
from catalog.errors import ForestageError
from cocotb_tests.pim_unit.command_log import NONE, CommandLog
from cocotb_tests.pim_unit.timing_rules import (
    distance_violations,
    refresh_bound_ck,
    refresh_violations,
    slot_violations,
    state_violations,
)
from pim_model.dram.commands import Scope, TimingConstraint
from pim_model.dram.devices import find_device, pim_blocks
from pim_model.dram.pim_unit import bank_of_block, pim_unit_constraints, unit_geometry
from pim_model.unit.schedule import UnitCommand

ACT, PREH, PREAB, REFAB, PIM, LDI, RDA = UnitCommand
Command = tuple[int, UnitCommand, int, int, int, int]


def act(at_ck: int, block: int, half: int = 0, row: int = 0) -> Command:
    return at_ck, ACT, half, block, row, NONE


def close(at_ck: int, half: int = 0) -> Command:
    return at_ck, PREH, half, NONE, NONE, NONE


def pim(at_ck: int, half: int = 0, column: int = 0) -> Command:
    return at_ck, PIM, half, NONE, NONE, column


def plain(at_ck: int, command: UnitCommand) -> Command:
    return at_ck, command, NONE, NONE, NONE, NONE


def opened(half: int = 0) -> list[Command]:
    """All banks of a half of HBM2-PIM, the last in clock 28."""
    return [act(4 * block, block, half) for block in range(8)]


# For each constraint of the table: what of HBM2-PIM is changed so that no other binds before it, and commands of which
# the last comes as early as it may.
BINDING: dict[str, tuple[dict[str, float], Callable[[DramRecord], list[Command]]]] = {
    "ACT on the row bus": ({"activate_command_ck": 1.5}, lambda d: [act(0, 0), close(2, half=1)]),
    "row bus": ({}, lambda d: [close(0, half=1), close(1, half=0)]),
    "tRRD_S": ({}, lambda d: [act(0, 0), act(d.trrd_s_ck, 1)]),
    "tRRD_L": ({}, lambda d: [act(0, 0), act(d.trrd_l_ck, 4)]),
    "tFAW": ({"tfaw_ck": 20}, lambda d: [*(act(4 * block, block) for block in range(4)), act(d.tfaw_ck, 5)]),
    "tRC": ({"trc_ck": 50}, lambda d: [act(0, 0), close(33), act(d.trc_ck, 0)]),
    "tRCD": ({}, lambda d: [*opened(), pim(28 + d.trcd_read_ck)]),
    "tRAS": ({}, lambda d: [act(0, 0), close(d.tras_ck)]),
    "tRAS, all banks": ({}, lambda d: [act(0, 0), plain(d.tras_ck, PREAB)]),
    "tRTP": ({}, lambda d: [*opened(), pim(100), close(100 + d.trtp_l_ck)]),
    "tRTP, all banks": ({}, lambda d: [*opened(), pim(100), plain(100 + d.trtp_l_ck, PREAB)]),
    "tRP": ({}, lambda d: [act(0, 0), close(40), act(40 + d.trp_ck, 0)]),
    "tRP, all banks": ({}, lambda d: [act(0, 0), plain(40, PREAB), act(40 + d.trp_ck, 0)]),
    "tRP before REFab": ({}, lambda d: [plain(40, PREAB), plain(40 + d.trp_ck, REFAB)]),
    "tRFC": ({}, lambda d: [plain(0, REFAB), plain(d.trfc_ck, LDI)]),
    "column bus": ({}, lambda d: [*opened(), plain(100, LDI), pim(101)]),
    "PIM interval": ({}, lambda d: [*opened(), pim(100), pim(104)]),
    "LDI interval": ({}, lambda d: [plain(0, LDI), plain(2, LDI)]),
    "RDA interval": ({}, lambda d: [plain(0, RDA), plain(4, RDA)]),
    "RDA to LDI": ({}, lambda d: [plain(0, RDA), plain(16, LDI)]),
    "LDI to RDA": ({"cwl_ck": 30}, lambda d: [plain(0, LDI), plain(14, RDA)]),
}


def test_the_whole_table_is_tried() -> None:
    assert set(BINDING) == {constraint.name for constraint in pim_unit_constraints(find_device("HBM2-PIM"))}


@pytest.mark.parametrize("name", BINDING)
def test_one_clock_too_early_breaks_that_constraint_alone(name: str) -> None:
    changes, commands_of = BINDING[name]
    device = find_device("HBM2-PIM", changes)
    commands = commands_of(device)
    in_time = CommandLog.of(commands)
    assert not distance_violations(in_time, device)
    assert not state_violations(in_time, device)[0]
    (at_ck, *rest) = commands[-1]
    early = CommandLog.of([*commands[:-1], (at_ck - 1, *rest)])  # type: ignore[list-item]
    (violation,) = distance_violations(early, device)
    assert violation.rule == name
    assert violation.clock_ck == at_ck - 1
    assert violation.earlier_ck is not None
    assert not state_violations(early, device)[0]


@pytest.mark.parametrize("name", ["HBM2-PIM", "HBM3", "HBM3E", "HBM4"])
def test_every_pair_of_every_constraint_is_blocked_one_clock_before_and_free_then(name: str) -> None:
    device = find_device(name)
    for constraint in pim_unit_constraints(device):
        for earlier in constraint.preceding:
            for later in constraint.following:
                codes = [UnitCommand[command.name] for command in (earlier, later)]
                # The same place for all: bank 0 of half 0, so that every scope holds.
                first, last = [(code, 0, 0, 0, 0) for code in codes]
                before = [(n, *first) for n in range(constraint.window)]
                for at_ck, breaks in ((constraint.latency_ck - 1, True), (constraint.latency_ck, False)):
                    log = CommandLog.of([*before, (at_ck, *last)])
                    assert bool(distance_violations(log, device, [constraint])) is breaks, (constraint, at_ck)


@pytest.mark.parametrize(
    ("scope", "place", "holds"),
    [
        (Scope.BANK, (0, 0), True),
        (Scope.BANK, (1, 0), False),
        (Scope.BANK, (0, 4), False),
        (Scope.BANK_GROUP, (1, 4), True),
        (Scope.BANK_GROUP, (0, 1), False),
        (Scope.HALF, (0, 3), True),
        (Scope.HALF, (1, 0), False),
        (Scope.CHANNEL, (1, 7), True),
    ],
)
def test_a_constraint_holds_within_its_scope(scope: Scope, place: tuple[int, int], holds: bool) -> None:
    device = find_device("HBM2-PIM")
    (like,) = [constraint for constraint in pim_unit_constraints(device) if constraint.name == "tRRD_S"]
    constraint = TimingConstraint("any", like.preceding, like.following, 10, scope)
    half, block = place
    found = distance_violations(CommandLog.of([act(0, 0), act(9, block, half)]), device, [constraint])
    assert bool(found) is holds


def oracle(log: CommandLog, device: DramRecord) -> set[tuple[str, int]]:
    """Constraint and clock of every violation, each pair looked at by itself."""
    geometry = unit_geometry(device)
    names = [command.name for command in UnitCommand]

    def place(index: int, scope: Scope) -> int | None:
        half, block = int(log.half[index]), int(log.block[index])
        if scope is Scope.CHANNEL:
            return 0
        if scope is Scope.HALF:
            return half if half != NONE else None
        if log.command[index] != ACT:
            return None
        bank = bank_of_block(device, block, half)
        return bank if scope is Scope.BANK else geometry.bank_group_of(bank)

    found = set()
    for constraint in pim_unit_constraints(device):
        preceding = {command.name for command in constraint.preceding}
        following = {command.name for command in constraint.following}
        for later in range(len(log)):
            node = place(later, constraint.scope)
            if node is None or names[log.command[later]] not in following:
                continue
            before = [
                earlier
                for earlier in range(later)
                if names[log.command[earlier]] in preceding and place(earlier, constraint.scope) == node
            ]
            if len(before) >= constraint.window:
                apart = int(log.clock_ck[later] - log.clock_ck[before[-constraint.window]])
                if apart < constraint.latency_ck:
                    found.add((constraint.name, int(log.clock_ck[later])))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_random_commands_are_judged_as_pair_by_pair(seed: int) -> None:
    generator = np.random.default_rng(seed)
    device = find_device(("HBM2-PIM", "HBM3", "HBM4")[seed % 3])
    clocks = np.cumsum(generator.integers(0, 30, 150))
    commands: list[Command] = []
    for at_ck in clocks.tolist():
        command = UnitCommand(generator.integers(len(UnitCommand)))
        half, block = int(generator.integers(2)), int(generator.integers(pim_blocks(device).blocks))
        has_half, has_block = command in (ACT, PREH, PIM), command in (ACT, RDA)
        commands.append((at_ck, command, half if has_half else NONE, block if has_block else NONE, 0, 0))
    log = CommandLog.of(commands)
    found = {(violation.rule, violation.clock_ck) for violation in distance_violations(log, device)}
    assert found == oracle(log, device)
    assert len(found) > 20


def rules(violations: Sequence) -> set[str]:
    return {violation.rule for violation in violations}


def test_state_of_the_banks() -> None:
    device = find_device("HBM2-PIM")

    def broken(*commands: Command) -> set[str]:
        return rules(state_violations(CommandLog.of(commands), device)[0])

    assert not broken(*opened(), pim(50))
    assert broken(*opened(), act(50, 3)) == {"ACT to an open bank"}
    assert broken(*opened()[:-1], pim(50)) == {"PIM to a closed bank"}
    assert broken(*opened(), pim(50, half=1)) == {"PIM to a closed bank"}
    assert broken(*opened(), close(50), pim(51)) == {"PIM to a closed bank"}
    assert not broken(*opened(), close(50), plain(70, REFAB))
    assert broken(*opened(), close(50, half=1), plain(70, REFAB)) == {"REFab with an open bank"}
    assert broken(act(0, 8)) == {"no such bank"}
    assert broken(close(0, half=2)) == {"no such bank"}


def test_slots_of_a_shared_bus() -> None:
    device = find_device("HBM3")
    log = CommandLog.of([act(2, 0), plain(3, LDI)])
    assert not slot_violations(log, device, 2, 1)
    assert rules(slot_violations(log, device, 2, 0)) == {"row bus slot", "column bus slot"}
    later = CommandLog.of([act(3, 0), plain(4, LDI)])
    assert rules(slot_violations(later, device, 2, 1)) == {"row bus slot", "column bus slot"}
    assert not slot_violations(later, device, 1, 0)


def test_refreshes_come_when_they_are_due() -> None:
    device = find_device("HBM2-PIM")
    bound = refresh_bound_ck(device)
    assert bound == 32 + 14  # an ACT in the clock before: tRAS, tRP

    def broken(*commands: Command, end_ck: int = 3000) -> set[str]:
        return rules(refresh_violations(CommandLog.of(commands), device, 1000, end_ck))

    assert not broken(plain(1000 + bound, REFAB))
    assert broken(plain(1001 + bound, REFAB)) == {"refresh overdue"}
    assert broken(plain(999, REFAB)) == {"refresh not due"}
    assert broken(plain(1000, REFAB), plain(2000, REFAB)) == {"refresh not due"}
    assert broken(end_ck=3000) == {"refresh overdue"}
    assert not broken(end_ck=1000 + bound)
    assert not broken(plain(999, LDI), plain(1010, REFAB))
    assert broken(plain(1000, LDI), plain(1010, REFAB)) == {"refresh pending"}
    assert broken(close(1009), plain(1010, REFAB)) == {"refresh pending"}
    assert broken(act(1004, 0), plain(1040, REFAB)) == {"refresh pending"}
    assert not broken(plain(1005, PREAB), plain(1019, REFAB))
    # The next is due a tREFI after the first was, whenever that came.
    second = 1000 + device.trefi_ck
    assert not broken(plain(1040, REFAB), plain(second, REFAB), end_ck=6000)
    assert broken(plain(1040, REFAB), plain(second - 1, REFAB), end_ck=6000) == {"refresh not due"}
    assert broken(plain(1040, REFAB), end_ck=6000) == {"refresh overdue"}


def test_a_log_out_of_order_is_refused() -> None:
    log = CommandLog.of([plain(0, LDI), plain(5, LDI)]).take(np.array([1, 0]))
    with pytest.raises(ForestageError, match="not in order of clocks"):
        distance_violations(log, find_device("HBM2-PIM"))
