"""A device as its commands see it: who accesses it, which banks they address, what a command moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from catalog import DramRecord, ForestageError, PimBlocks, load_catalog
from catalog.catalogue import parse_records
from catalog.toml_text import read_text


class Access(StrEnum):
    """Who reads or writes, over which path."""

    HOST_READ = "host read"
    HOST_WRITE = "host write"
    IN_BANK = "in-bank read"


@dataclass(frozen=True)
class Geometry:
    """The banks that commands address; their numbers count banks within a group first.

    For `Access.IN_BANK` a "bank" is one bank of every block, all of which a command reaches at once.

    Attributes:
        stack_ids: Stack IDs of a pseudo-channel.
        bank_groups: Bank groups of a stack ID.
        banks_per_group: Banks of a group.
        pseudo_channels: Pseudo-channels that one controller serves.
        pseudo_channels_per_command_bus: Of these, how many share a row and a column command bus.
    """

    stack_ids: int
    bank_groups: int
    banks_per_group: int
    pseudo_channels: int = 1
    pseudo_channels_per_command_bus: int = 1

    @property
    def banks_per_pseudo_channel(self) -> int:
        """Banks of one pseudo-channel."""
        return self.stack_ids * self.bank_groups * self.banks_per_group

    @property
    def banks(self) -> int:
        """Banks of all pseudo-channels."""
        return self.pseudo_channels * self.banks_per_pseudo_channel

    def bank(self, stack_id: int, bank_group: int, bank: int, *, pseudo_channel: int = 0) -> int:
        """Number of the bank."""
        group = (pseudo_channel * self.stack_ids + stack_id) * self.bank_groups + bank_group
        return group * self.banks_per_group + bank

    def bank_group_of(self, bank: int) -> int:
        """Number of the bank's group, counted over all pseudo-channels and stack IDs."""
        return bank // self.banks_per_group

    def stack_id_of(self, bank: int) -> int:
        """Number of the bank's stack ID, counted over all pseudo-channels."""
        return bank // (self.banks_per_group * self.bank_groups)

    def pseudo_channel_of(self, bank: int) -> int:
        """Pseudo-channel of the bank."""
        return bank // self.banks_per_pseudo_channel

    def command_bus_of(self, bank: int) -> int:
        """Number of the pair of command buses over which the bank is reached."""
        return self.pseudo_channel_of(bank) // self.pseudo_channels_per_command_bus


def find_device(name: str, overrides: Mapping[str, Any] | None = None) -> DramRecord:
    """A DRAM device, with some of its values changed.

    Args:
        name: Of the catalogue's device, or the path of a catalogue file (``….toml``) with one ``[[dram]]``.
        overrides: Field → value.

    Raises:
        ForestageError: an unknown device or an unknown key, naming the nearest known one; a bad value; a file that
            cannot be read or does not hold one device.
    """
    record = _device_in(Path(name)) if name.endswith(".toml") else load_catalog().dram.find(name)
    return DramRecord.parse({**record.model_dump(), **overrides}, origin=f"{name} overrides") if overrides else record


def _device_in(path: Path) -> DramRecord:
    """The one DRAM device of a catalogue file."""
    records = [record for _, record in parse_records(str(path), read_text(path)) if isinstance(record, DramRecord)]
    if len(records) != 1:
        raise ForestageError(f"{path}: it holds {len(records)} [[dram]] tables; --device takes a file with one")
    return records[0]


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


def channel_geometry(device: DramRecord, pseudo_channels: int = 1) -> Geometry:
    """The banks of one memory controller that serves ``pseudo_channels`` of ``device``.

    Raises:
        ForestageError: it serves none, or more than the device has.
    """
    if not 1 <= pseudo_channels <= device.pseudo_channels:
        raise ForestageError(
            f"dram '{device.name}': a controller of {pseudo_channels} pseudo-channels; give 1 to "
            f"{device.pseudo_channels}"
        )
    return Geometry(
        stack_ids=device.stack_ids,
        bank_groups=device.bank_groups,
        banks_per_group=device.banks_per_group,
        pseudo_channels=pseudo_channels,
        pseudo_channels_per_command_bus=device.pseudo_channels_per_command_bus,
    )


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
