"""Streaming in closed form: the cycles of a stream of any length, without scheduling commands.

Tests compare this with the exact schedule of `pim_model.dram.expert_stream.stream`.
"""

import math
from dataclasses import dataclass

from catalog import DramRecord, ForestageError
from pim_model.dram import devices
from pim_model.dram.devices import Access
from pim_model.dram.expert_stream import Refresh, check_stream, default_refresh


@dataclass(frozen=True, kw_only=True)
class SteadyState:
    """The figures of a pseudo-channel that streams.

    Attributes:
        operation_bytes: Bytes that a column command moves.
        operation_ck: Clocks from one column command to the next, in the long run and without all-bank refreshes.
        start_ck: Clocks from the first ACT to the first column command.
        first_operations: Operations of the first round, in which each is in a different row.
        first_lag_ck: Clocks that each of them except the first loses, because ACTs are further apart than columns.
        end_ck: Clocks from the last column command to the end of what it moves.
        stack_id_switch_ck: Clocks lost at a change of stack ID.
        stack_id_operations: Operations between two such changes; 0 if there are none.
        refresh_interval_ck: Clocks between all-bank refreshes; 0 if there are none.
        refresh_ck: Clocks that one refresh costs.
        peak_bytes_per_ck: Bytes per clock that no schedule exceeds.
    """

    operation_bytes: int
    operation_ck: float
    start_ck: int
    first_operations: int
    first_lag_ck: float
    end_ck: int
    stack_id_switch_ck: int
    stack_id_operations: int
    refresh_interval_ck: int
    refresh_ck: float
    peak_bytes_per_ck: float

    def cycles_ck(self, size_bytes: int) -> float:
        """Clocks of a stream of ``size_bytes`` that starts right after a refresh."""
        operations = -(-size_bytes // self.operation_bytes)
        last = self.start_ck + (operations - 1) * self.operation_ck
        last += (min(operations, self.first_operations) - 1) * self.first_lag_ck
        if self.stack_id_operations:
            last += (operations - 1) // self.stack_id_operations * self.stack_id_switch_ck
        if self.refresh_interval_ck and last >= self.refresh_interval_ck:
            # Each interval holds one refresh and work for the rest; the first refresh comes after a whole interval.
            refreshes = (last - self.refresh_ck) // (self.refresh_interval_ck - self.refresh_ck)
            last += refreshes * self.refresh_ck
        return last + self.end_ck

    @property
    def bytes_per_ck(self) -> float:
        """Bytes per clock of an endless stream, refreshes included."""
        clocks = self.operation_ck
        if self.stack_id_operations:
            clocks += self.stack_id_switch_ck / self.stack_id_operations
        if self.refresh_interval_ck:
            clocks *= self.refresh_interval_ck / (self.refresh_interval_ck - self.refresh_ck)
        return self.operation_bytes / clocks

    @property
    def efficiency(self) -> float:
        """``bytes_per_ck`` over the peak."""
        return self.bytes_per_ck / self.peak_bytes_per_ck


def stream_cycles_ck(
    device: DramRecord, size_bytes: int, access: Access = Access.HOST_READ, *, refresh: Refresh | None = None
) -> float:
    """Clocks of streaming ``size_bytes`` through one pseudo-channel, in closed form.

    Raises:
        ForestageError: as ``steady_state``, or ``size_bytes`` is not positive.
    """
    check_stream(size_bytes, access, refresh)
    return steady_state(device, access, refresh=refresh).cycles_ck(size_bytes)


def steady_state(
    device: DramRecord, access: Access = Access.HOST_READ, *, refresh: Refresh | None = None
) -> SteadyState:
    """The figures of a long stream through one pseudo-channel of ``device``, limited by its column commands.

    Raises:
        ForestageError: as `expert_stream.stream`; or the device's rows are too short to hide opening, closing or
            per-bank refreshing behind columns (no HBM's are), so that only the exact schedule gives the cycles.
    """
    check_stream(1, access, refresh)
    refresh = refresh or default_refresh(access)
    geometry = devices.geometry(device, access)
    groups = geometry.bank_groups
    spacing = _column_spacing_ck(device, access, groups)
    set_operations = groups * device.row_bursts
    trcd, close = _open_and_close_ck(device, access)
    row_spacing = max(device.trrd_s_ck, math.ceil(device.activate_command_ck))
    _require_hidden(device, set_operations * spacing, groups, geometry.banks // groups, trcd, close, refresh)
    # If a set was not opened ahead, its first columns come at the pace of its ACTs.
    lag = max(0, row_spacing - spacing)
    reopen = device.trp_ck + device.trfc_ck + trcd + (groups - 1) * lag - spacing
    switches = access is not Access.IN_BANK and device.stack_ids > 1
    all_bank = refresh is Refresh.ALL_BANK
    return SteadyState(
        operation_bytes=devices.operation_bytes(device, access),
        operation_ck=spacing,
        start_ck=trcd,
        first_operations=groups,
        first_lag_ck=lag,
        end_ck=_end_ck(device, access),
        stack_id_switch_ck=max(0, math.ceil((device.tccd_r_ck or 0) - spacing)) if switches else 0,
        stack_id_operations=geometry.banks_per_group * set_operations if switches else 0,
        refresh_interval_ck=device.trefi_ck if all_bank else 0,
        refresh_ck=close + reopen if all_bank else 0,
        peak_bytes_per_ck=devices.peak_bytes_per_ck(device, access),
    )


def _require_hidden(
    device: DramRecord, set_ck: float, groups: int, rotation: int, trcd: int, close: int, refresh: Refresh
) -> None:
    """Raise unless everything but columns happens behind the columns of other row sets.

    Args:
        device: The device.
        set_ck: Clocks of a row set's columns.
        groups: Rows of a set.
        rotation: Sets that take turns until a bank is used again.
        trcd: ACT to column.
        close: Column to PRE.
        refresh: Kind of refreshes.

    Raises:
        ForestageError: naming what is not hidden.
    """
    row_spacing = max(device.trrd_s_ck, math.ceil(device.activate_command_ck), device.tfaw_ck / 4)
    opening = trcd + groups * row_spacing
    refreshing = device.trfc_per_bank_ck if refresh is Refresh.PER_BANK else 0
    needs = {
        # name: (clocks needed, clocks available)
        "opening the next rows": (opening, set_ck),
        "closing and opening again": (close + device.trp_ck + opening, (rotation - 1) * set_ck),
        # The bank to refresh has been closed for at least a set, and is needed at least a set later.
        "per-bank refresh": (refreshing and refreshing + device.trp_ck + opening, (rotation - 2) * set_ck),
    }
    for name, (needed, available) in needs.items():
        if needed > max(available, 0):
            raise ForestageError(
                f"dram '{device.name}': {name} takes {needed:g} ck, but only {max(available, 0):g} pass meanwhile; "
                "no closed form holds: use expert_stream.stream"
            )


def _column_spacing_ck(device: DramRecord, access: Access, groups: int) -> float:
    """Clocks between column commands that alternate over ``groups`` bank groups."""
    if access is Access.IN_BANK:
        return devices.pim_blocks(device).operation_interval_ck
    return max(device.burst_ck, device.tccd_s_ck, device.tccd_l_ck / groups)


def _open_and_close_ck(device: DramRecord, access: Access) -> tuple[int, int]:
    """Clocks from ACT to a column command, and from the last one to PRE."""
    if access is Access.HOST_WRITE:
        return device.trcd_write_ck, device.cwl_ck + device.burst_ck + device.twr_ck
    return device.trcd_read_ck, device.trtp_l_ck


def _end_ck(device: DramRecord, access: Access) -> int:
    if access is Access.IN_BANK:
        return devices.pim_blocks(device).operation_interval_ck
    return (device.cwl_ck if access is Access.HOST_WRITE else device.cl_ck) + device.burst_ck
