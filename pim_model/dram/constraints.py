"""HBM timing as data: the minimum distances between the commands of a pseudo-channel.

Form and constraints follow Ramulator 2 (`HBM3.cpp`, after JESD235/JESD238); the numbers are the catalogue's. Choices
of this module where the presets are silent: a per-bank refresh keeps the distance of an ACT (tRRD) from ACTs and other
refreshes; it does not count for tFAW; tRRD and tFAW hold across stack IDs; tRTP is the same-bank-group value, since
only a bank's own reads keep it open. An all-bank ACT counts as one ACT for tRRD and tFAW (as PIMSimulator's controller
has it). The row and column buses, which two pseudo-channels share, are assumed to be this one's own.
"""

import math

from catalog import DramRecord
from pim_model.dram.commands import Command, Scope, TimingConstraint
from pim_model.dram.devices import Access, pim_blocks


def timing_constraints(device: DramRecord, access: Access = Access.HOST_READ) -> tuple[TimingConstraint[Command], ...]:
    """All constraints between the commands of one pseudo-channel.

    Raises:
        ForestageError: in-bank access to a device without blocks.
    """
    return (*_row_constraints(device), *_refresh_constraints(device), *_column_constraints(device, access))


def _row_constraints(device: DramRecord) -> tuple[TimingConstraint[Command], ...]:
    """Opening and closing rows, and the row command bus."""
    activate, precharge, both = (Command.ACT,), (Command.PRE,), (Command.PREAB,)
    rest_of_row_bus = (Command.PRE, Command.PREAB, Command.REFAB, Command.REFPB)
    row_bus = (*activate, *rest_of_row_bus)
    write_recovery = device.cwl_ck + device.burst_ck + device.twr_ck
    make = TimingConstraint[Command]
    return (
        # A row command starts on a rising edge, so an ACT of 1.5 clocks occupies the bus for 2.
        make("ACT on the row bus", activate, row_bus, math.ceil(device.activate_command_ck), Scope.COMMAND_BUS),
        make("row bus", rest_of_row_bus, row_bus, 1, Scope.COMMAND_BUS),
        make("tRRD_S", activate, activate, device.trrd_s_ck, Scope.CHANNEL),
        make("tRRD_L", activate, activate, device.trrd_l_ck, Scope.BANK_GROUP),
        make("tFAW", activate, activate, device.tfaw_ck, Scope.CHANNEL, window=4),
        make("tRC", activate, activate, device.trc_ck, Scope.BANK),
        make("tRCD read", activate, (Command.RD,), device.trcd_read_ck, Scope.BANK),
        make("tRCD write", activate, (Command.WR,), device.trcd_write_ck, Scope.BANK),
        make("tRAS", activate, precharge, device.tras_ck, Scope.BANK),
        make("tRAS, all banks", activate, both, device.tras_ck, Scope.CHANNEL),
        make("tRTP", (Command.RD,), precharge, device.trtp_l_ck, Scope.BANK),
        make("tRTP, all banks", (Command.RD,), both, device.trtp_l_ck, Scope.CHANNEL),
        make("tWR", (Command.WR,), precharge, write_recovery, Scope.BANK),
        make("tWR, all banks", (Command.WR,), both, write_recovery, Scope.CHANNEL),
        make("tRP", precharge, (Command.ACT, Command.REFPB), device.trp_ck, Scope.BANK),
        make("tRP, all banks", both, (Command.ACT, Command.REFPB), device.trp_ck, Scope.CHANNEL),
    )


def _refresh_constraints(device: DramRecord) -> tuple[TimingConstraint[Command], ...]:
    all_bank, per_bank, activate = (Command.REFAB,), (Command.REFPB,), (Command.ACT,)
    make = TimingConstraint[Command]
    return (
        make("tRP before REFab", (Command.PRE, Command.PREAB), all_bank, device.trp_ck, Scope.CHANNEL),
        make("tRFC", all_bank, (*activate, *all_bank, *per_bank), device.trfc_ck, Scope.CHANNEL),
        make("tRFCpb", per_bank, (*activate, *per_bank), device.trfc_per_bank_ck, Scope.BANK),
        make("tRFCpb before REFab", per_bank, all_bank, device.trfc_per_bank_ck, Scope.CHANNEL),
        make("tRRD_S after REFpb", per_bank, (*activate, *per_bank), device.trrd_s_ck, Scope.CHANNEL),
        make("tRRD_L after REFpb", per_bank, (*activate, *per_bank), device.trrd_l_ck, Scope.BANK_GROUP),
        make("tRRD_S before REFpb", activate, per_bank, device.trrd_s_ck, Scope.CHANNEL),
        make("tRRD_L before REFpb", activate, per_bank, device.trrd_l_ck, Scope.BANK_GROUP),
    )


def _column_constraints(device: DramRecord, access: Access) -> tuple[TimingConstraint[Command], ...]:
    read, write = (Command.RD,), (Command.WR,)
    make = TimingConstraint[Command]
    column_bus = make("column bus", (*read, *write), (*read, *write), 1, Scope.COMMAND_BUS)
    if access is Access.IN_BANK:
        interval = pim_blocks(device).operation_interval_ck
        return (column_bus, make("PIM interval", read, read, interval, Scope.CHANNEL))
    # The data bus turns round in 2 clocks, its preamble included (as Ramulator has it).
    read_to_write = device.cl_ck + device.burst_ck + 2 - device.cwl_ck
    write_end = device.cwl_ck + device.burst_ck
    spacing = [
        make(name, command, command, latency, scope)
        for command in (read, write)
        for name, latency, scope in (
            ("data bus", device.burst_ck, Scope.CHANNEL),
            ("tCCD_S", device.tccd_s_ck, Scope.CHANNEL),
            ("tCCD_L", device.tccd_l_ck, Scope.BANK_GROUP),
            ("tCCD_R", device.tccd_r_ck or device.tccd_s_ck, Scope.OTHER_STACK_ID),
        )
    ]
    return (
        column_bus,
        *spacing,
        make("read to write", read, write, read_to_write, Scope.CHANNEL),
        make("tWTR_S", write, read, write_end + device.twtr_s_ck, Scope.CHANNEL),
        make("tWTR_L", write, read, write_end + device.twtr_l_ck, Scope.BANK_GROUP),
    )
