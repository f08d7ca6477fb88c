"""Timing of the PIM expert unit's commands, as data: one pseudo-channel whose banks are two *halves*.

Half h is bank h of every block. The unit opens rows bank by bank (ACT), closes a half at once (PREH), reads columns of
a half into the blocks (PIM), and moves input vectors and results over the pseudo-channel's inner data bus (LDI, RDA).
Distances of row commands and of ACT to column are the device's own; those of the inner data bus follow the device's
read and write latencies: a PIM or RDA gives data ``cl_ck`` after its issue, an LDI's burst passes from ``cwl_ck`` to
``cwl_ck + burst_ck``. That an in-bank read has the latency of a read over the pins is an assumption.

What this table does not hold, because it depends on more than two commands and their place:

* *State*: ACT needs its bank closed; PIM needs an open row in every bank of its half; REFab needs all banks closed.
  PREH and PREab may meet closed banks.
* *Refresh*: `RefreshRule`.
* *Buses shared with another pseudo-channel*: `BusSlots`.
* *Data*: `DataLatencies`; which commands depend on each other is the program's knowledge.
"""

import math
from dataclasses import dataclass

from catalog import DramRecord, ForestageError
from pim_model.dram.commands import Scope, TimingConstraint, UnitCommand
from pim_model.dram.devices import Geometry, pim_blocks

ROW_COMMANDS = (UnitCommand.ACT, UnitCommand.PREH, UnitCommand.PREAB, UnitCommand.REFAB)
"""Commands on the row command bus."""

COLUMN_COMMANDS = (UnitCommand.PIM, UnitCommand.LDI, UnitCommand.RDA)
"""Commands on the column command bus."""

HALVES = 2
"""Halves of a unit: the banks that share a block take turns."""


@dataclass(frozen=True, kw_only=True)
class BusSlots:
    """The clocks in which a command may be issued, where two pseudo-channels take turns on a bus.

    Attributes:
        commands: The commands of the bus.
        period_ck: Clocks of a round.
        offset_ck: A command's clock, modulo ``period_ck``.
    """

    commands: tuple[UnitCommand, ...]
    period_ck: int
    offset_ck: int

    def allows(self, at_ck: int) -> bool:
        """Whether the bus is this pseudo-channel's in clock ``at_ck``."""
        return at_ck % self.period_ck == self.offset_ck


@dataclass(frozen=True, kw_only=True)
class RefreshRule:
    """When all banks are refreshed.

    Attributes:
        interval_ck: A refresh comes due every so often (tREFI); from when it counts is the unit's choice.
        blocked: From then until ``duration_ck`` after the REFab that serves it, none of these is issued.
        duration_ck: tRFC.
    """

    interval_ck: int
    blocked: tuple[UnitCommand, ...]
    duration_ck: int


@dataclass(frozen=True, kw_only=True)
class DataLatencies:
    """Clocks between commands of which the later needs what the earlier brings, or overwrites what it uses.

    Attributes:
        load_to_use_ck: An LDI to the first PIM whose column is multiplied with the register loaded. The last of the
            burst must be there when the column arrives: max(1, CWL + burst − CL).
        use_to_reload_ck: The last PIM that uses a register to an LDI into it. A column is used for a whole operation
            interval from its arrival, and the burst must end more than a clock after that: max(1, CL + interval − CWL −
            burst + 1).
        column_to_readout_ck: The last column of a tile to an RDA of that tile's accumulators: the interval of its
            passes and the lanes' pipeline.
    """

    load_to_use_ck: int
    use_to_reload_ck: int
    column_to_readout_ck: int


def unit_geometry(device: DramRecord) -> Geometry:
    """The banks that an ACT addresses: those of the pseudo-channel.

    Raises:
        ForestageError: a device without blocks, with other than two banks a block, or with an odd number of banks in a
            group.
    """
    blocks = pim_blocks(device)
    if blocks.banks_per_block != HALVES:
        raise ForestageError(
            f"dram '{device.name}': pim.banks_per_block is {blocks.banks_per_block}; the PIM unit needs {HALVES}"
        )
    if device.banks_per_group % HALVES:
        raise ForestageError(
            f"dram '{device.name}': banks_per_group is {device.banks_per_group}; the PIM unit needs an even number, "
            "because a block serves two banks of one group"
        )
    return Geometry(device.stack_ids, device.bank_groups, device.banks_per_group)


def bank_of_block(device: DramRecord, block: int, half: int) -> int:
    """Number (`Geometry.bank`) of the bank of ``block`` in ``half``.

    Blocks are numbered over the bank groups first, then over the pairs of banks in a group, then over stack IDs. The
    banks of a pair are neighbours: the even one is in half 0.
    """
    geometry = unit_geometry(device)
    pair, group = divmod(block, geometry.bank_groups)
    stack_id, pair = divmod(pair, geometry.banks_per_group // HALVES)
    return geometry.bank(stack_id, group, HALVES * pair + half)


def half_of(bank: int) -> int:
    """The half of a bank of `Geometry` (whose groups have an even number of banks)."""
    return bank % HALVES


def pim_unit_constraints(device: DramRecord) -> tuple[TimingConstraint[UnitCommand], ...]:
    """All constraints between two commands of the PIM unit on one pseudo-channel of ``device``.

    Raises:
        ForestageError: as `unit_geometry`.
    """
    unit_geometry(device)
    return (*_row_constraints(device), *_column_constraints(device))


def _row_constraints(device: DramRecord) -> tuple[TimingConstraint[UnitCommand], ...]:
    activate, precharge_half = (UnitCommand.ACT,), (UnitCommand.PREH,)
    precharge_all, refresh = (UnitCommand.PREAB,), (UnitCommand.REFAB,)
    precharges = (*precharge_half, *precharge_all)
    operation = (UnitCommand.PIM,)
    make = TimingConstraint[UnitCommand]
    return (
        make("ACT on the row bus", activate, ROW_COMMANDS, math.ceil(device.activate_command_ck), Scope.CHANNEL),
        make("row bus", (*precharges, *refresh), ROW_COMMANDS, 1, Scope.CHANNEL),
        make("tRRD_S", activate, activate, device.trrd_s_ck, Scope.CHANNEL),
        make("tRRD_L", activate, activate, device.trrd_l_ck, Scope.BANK_GROUP),
        make("tFAW", activate, activate, device.tfaw_ck, Scope.CHANNEL, window=4),
        make("tRC", activate, activate, device.trc_ck, Scope.BANK),
        make("tRCD", activate, operation, device.trcd_read_ck, Scope.HALF),
        make("tRAS", activate, precharge_half, device.tras_ck, Scope.HALF),
        make("tRAS, all banks", activate, precharge_all, device.tras_ck, Scope.CHANNEL),
        make("tRTP", operation, precharge_half, device.trtp_l_ck, Scope.HALF),
        make("tRTP, all banks", operation, precharge_all, device.trtp_l_ck, Scope.CHANNEL),
        make("tRP", precharge_half, activate, device.trp_ck, Scope.HALF),
        make("tRP, all banks", precharge_all, activate, device.trp_ck, Scope.CHANNEL),
        make("tRP before REFab", precharges, refresh, device.trp_ck, Scope.CHANNEL),
        make("tRFC", refresh, (*activate, *precharge_half, *refresh, *COLUMN_COMMANDS), device.trfc_ck, Scope.CHANNEL),
    )


def _column_constraints(device: DramRecord) -> tuple[TimingConstraint[UnitCommand], ...]:
    operation, load, readout = (UnitCommand.PIM,), (UnitCommand.LDI,), (UnitCommand.RDA,)
    interval = pim_blocks(device).operation_interval_ck
    # The inner data bus turns round in 2 clocks, as the pins do.
    to_write = device.cl_ck + device.burst_ck + 2 - device.cwl_ck
    to_read = device.cwl_ck + device.burst_ck + 2 - device.cl_ck
    make = TimingConstraint[UnitCommand]
    return (
        make("column bus", COLUMN_COMMANDS, COLUMN_COMMANDS, 1, Scope.CHANNEL),
        make("PIM interval", operation, operation, interval, Scope.CHANNEL),
        make("LDI interval", load, load, max(device.burst_ck, device.tccd_s_ck), Scope.CHANNEL),
        # The base die's epilogue takes two of a burst's eight values a clock.
        make("RDA interval", readout, readout, interval, Scope.CHANNEL),
        make("RDA to LDI", readout, load, max(1, to_write), Scope.CHANNEL),
        make("LDI to RDA", load, readout, max(1, to_read), Scope.CHANNEL),
    )


def data_latencies(device: DramRecord, lane_latency_ck: int) -> DataLatencies:
    """The latencies that depend on what commands carry.

    Args:
        device: The DRAM.
        lane_latency_ck: Clocks from a pass's operands to its accumulator holding the sum.

    Raises:
        ForestageError: a device without blocks.
    """
    interval = pim_blocks(device).operation_interval_ck
    return DataLatencies(
        load_to_use_ck=max(1, device.cwl_ck + device.burst_ck - device.cl_ck),
        use_to_reload_ck=max(1, device.cl_ck + interval - device.cwl_ck - device.burst_ck + 1),
        column_to_readout_ck=interval + lane_latency_ck,
    )


def refresh_rule(device: DramRecord) -> RefreshRule:
    """When all banks of the unit are refreshed: only closing and refreshing goes on from the time a refresh is due."""
    blocked = (UnitCommand.ACT, UnitCommand.PREH, *COLUMN_COMMANDS)
    return RefreshRule(interval_ck=device.trefi_ck, blocked=blocked, duration_ck=device.trfc_ck)


def bus_slots(device: DramRecord, bus_phases: int, phase: int = 0) -> tuple[BusSlots, BusSlots]:
    """The clocks of the row bus and of the column bus that belong to one of the pseudo-channels that share them.

    Args:
        device: The DRAM.
        bus_phases: Pseudo-channels that take turns; 1 if the buses are this one's own.
        phase: Which of them this one is, from 0.

    Raises:
        ForestageError: more phases than pseudo-channels share the device's buses, or no such phase.
    """
    if not 1 <= bus_phases <= device.pseudo_channels_per_command_bus:
        raise ForestageError(
            f"dram '{device.name}': bus_phases is {bus_phases}, but {device.pseudo_channels_per_command_bus} "
            f"pseudo-channels share the command buses; give 1 to {device.pseudo_channels_per_command_bus}"
        )
    if not 0 <= phase < bus_phases:
        raise ForestageError(f"dram '{device.name}': phase is {phase}; give 0 to {bus_phases - 1}")
    # A round of the row bus leaves each of them time for an ACT.
    width = math.ceil(device.activate_command_ck) if bus_phases > 1 else 1
    return (
        BusSlots(commands=ROW_COMMANDS, period_ck=bus_phases * width, offset_ck=phase * width),
        BusSlots(commands=COLUMN_COMMANDS, period_ck=bus_phases, offset_ck=phase),
    )
