"""HBM timing as data: the minimum distances between the commands of a pseudo-channel.

Form and constraints follow Ramulator 2 (`HBM3.cpp`, after JESD235/JESD238); the numbers are the catalogue's. Choices
of this module where the presets are silent: a per-bank refresh keeps the distance of an ACT (tRRD) from ACTs and other
refreshes; it does not count for tFAW; tRRD and tFAW hold across stack IDs; tRTP is the same-bank-group value, since
only a bank's own reads keep it open. An all-bank ACT counts as one ACT for tRRD and tFAW (as PIMSimulator's controller
has it). The row and column buses, which two pseudo-channels share, are assumed to be this one's own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from catalog import DramRecord, ForestageError, PimBlocks, load_catalog


class Command(StrEnum):
    """The commands of a pseudo-channel; with in-bank access, ``RD`` is an all-bank operation."""

    ACT = "ACT"
    PRE = "PRE"
    PREAB = "PREab"
    RD = "RD"
    WR = "WR"
    REFAB = "REFab"
    REFPB = "REFpb"


class Scope(StrEnum):
    """The part of the device within which a constraint holds."""

    CHANNEL = "pseudo-channel"
    OTHER_STACK_ID = "different stack IDs"
    BANK_GROUP = "same bank group"
    BANK = "same bank"


class Access(StrEnum):
    """Who reads or writes, over which path."""

    HOST_READ = "host read"
    HOST_WRITE = "host write"
    IN_BANK = "in-bank read"


@dataclass(frozen=True)
class TimingConstraint:
    """``following`` comes at least ``latency_ck`` after the ``window``-th last ``preceding`` command in ``scope``."""

    name: str
    preceding: tuple[Command, ...]
    following: tuple[Command, ...]
    latency_ck: int
    scope: Scope
    window: int = 1


@dataclass(frozen=True)
class Geometry:
    """The banks that commands address; their numbers count banks within a group first.

    For `Access.IN_BANK` a "bank" is one bank of every block, all of which a command reaches at once.
    """

    stack_ids: int
    bank_groups: int
    banks_per_group: int

    @property
    def banks(self) -> int:
        """Banks of the pseudo-channel."""
        return self.stack_ids * self.bank_groups * self.banks_per_group

    def bank(self, stack_id: int, bank_group: int, bank: int) -> int:
        """Number of the bank."""
        return (stack_id * self.bank_groups + bank_group) * self.banks_per_group + bank

    def bank_group_of(self, bank: int) -> int:
        """Number of the bank's group, counted over all stack IDs."""
        return bank // self.banks_per_group

    def stack_id_of(self, bank: int) -> int:
        """Stack ID of the bank."""
        return bank // (self.banks_per_group * self.bank_groups)


def find_device(name: str, overrides: Mapping[str, Any] | None = None) -> DramRecord:
    """The catalogue's DRAM device ``name``, with some of its values changed.

    Raises:
        ForestageError: an unknown device or an unknown override, naming the nearest known one, or a bad value.
    """
    record = load_catalog().dram.find(name)
    return DramRecord.parse({**record.model_dump(), **overrides}, origin=f"{name} overrides") if overrides else record


def pim_blocks(device: DramRecord) -> PimBlocks:
    """The blocks of a device that computes in memory.

    Raises:
        ForestageError: the device has none.
    """
    if device.pim is None:
        raise ForestageError(
            f"dram '{device.name}': pim: it has no compute at its banks; choose one that has, or add it"
        )
    return device.pim


def geometry(device: DramRecord, access: Access) -> Geometry:
    """The banks that ``access`` addresses."""
    if access is Access.IN_BANK:
        # All blocks work in step on their first, second, … bank (PIMSimulator: the even or the odd banks).
        return Geometry(1, 1, pim_blocks(device).banks_per_block)
    return Geometry(device.stack_ids, device.bank_groups, device.banks_per_group)


def operation_bytes(device: DramRecord, access: Access) -> int:
    """Bytes that one column command moves: a burst, or the input of all blocks."""
    if access is Access.IN_BANK:
        blocks = pim_blocks(device)
        return blocks.blocks * blocks.datapath_bits // 8
    return device.burst_bytes


def peak_bytes_per_ck(device: DramRecord, access: Access) -> float:
    """Bytes per clock that no schedule exceeds: the limit of the pins, or of all blocks."""
    if access is Access.IN_BANK:
        return pim_blocks(device).bytes_per_ck
    return device.burst_bytes / device.burst_ck


def per_bank_refresh_interval_ck(device: DramRecord) -> int:
    """Clocks between the per-bank refreshes of one pseudo-channel.

    A preset's interval may be meant for both pseudo-channels of a channel. The number of banks it counts is the number
    of its intervals that fit into tREFI.
    """
    counted = round(device.trefi_ck / device.trefi_per_bank_ck)
    return device.trefi_per_bank_ck * counted // device.banks


def timing_constraints(device: DramRecord, access: Access = Access.HOST_READ) -> tuple[TimingConstraint, ...]:
    """All constraints between the commands of one pseudo-channel.

    Raises:
        ForestageError: in-bank access to a device without blocks.
    """
    return (*_row_constraints(device), *_refresh_constraints(device), *_column_constraints(device, access))


def _row_constraints(device: DramRecord) -> tuple[TimingConstraint, ...]:
    """Opening and closing rows, and the row command bus."""
    activate, precharge, both = (Command.ACT,), (Command.PRE,), (Command.PREAB,)
    rest_of_row_bus = (Command.PRE, Command.PREAB, Command.REFAB, Command.REFPB)
    row_bus = (*activate, *rest_of_row_bus)
    write_recovery = device.cwl_ck + device.burst_ck + device.twr_ck
    make = TimingConstraint
    return (
        # A row command starts on a rising edge, so an ACT of 1.5 clocks occupies the bus for 2.
        make("ACT on the row bus", activate, row_bus, math.ceil(device.activate_command_ck), Scope.CHANNEL),
        make("row bus", rest_of_row_bus, row_bus, 1, Scope.CHANNEL),
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


def _refresh_constraints(device: DramRecord) -> tuple[TimingConstraint, ...]:
    all_bank, per_bank, activate = (Command.REFAB,), (Command.REFPB,), (Command.ACT,)
    make = TimingConstraint
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


def _column_constraints(device: DramRecord, access: Access) -> tuple[TimingConstraint, ...]:
    read, write = (Command.RD,), (Command.WR,)
    make = TimingConstraint
    if access is Access.IN_BANK:
        return (make("PIM interval", read, read, pim_blocks(device).operation_interval_ck, Scope.CHANNEL),)
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
        *spacing,
        make("read to write", read, write, read_to_write, Scope.CHANNEL),
        make("tWTR_S", write, read, write_end + device.twtr_s_ck, Scope.CHANNEL),
        make("tWTR_L", write, read, write_end + device.twtr_l_ck, Scope.BANK_GROUP),
    )
