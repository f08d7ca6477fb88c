"""A device as its commands see it: who accesses it, which banks they address, what a command moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from catalog import DramRecord, ForestageError, PimBlocks, load_catalog


class Access(StrEnum):
    """Who reads or writes, over which path."""

    HOST_READ = "host read"
    HOST_WRITE = "host write"
    IN_BANK = "in-bank read"


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
