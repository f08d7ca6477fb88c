"""Stream an expert's weights out of (or into) one pseudo-channel, command by command.

The bytes lie in rows of consecutive *row sets*: one row in each bank group, bursts alternating over the groups; then
the next bank of every group, then the next stack ID. One set is opened ahead of the one being read, as early as the
constraints allow; a row is closed after its last burst. In-bank access is the same with one "group": the row set is
the rows that one ACT opens in one bank of every block.

A stream starts right after a refresh. An all-bank refresh comes due every tREFI: every row
is closed and the stream waits. A per-bank refresh comes due every per-bank interval: among the banks that this round
has not refreshed yet, it takes the closed one that the stream needs last.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from catalog import DramRecord, ForestageError
from pim_model.dram import devices
from pim_model.dram.channel_state import ChannelState
from pim_model.dram.commands import Command
from pim_model.dram.constraints import timing_constraints
from pim_model.dram.devices import Access


class Refresh(StrEnum):
    """How rows are refreshed while a stream runs."""

    NONE = "none"
    ALL_BANK = "all-bank"
    PER_BANK = "per-bank"


@dataclass(frozen=True, kw_only=True)
class IssuedCommand:
    """A command of a schedule; ``bank`` is 0 if the command is for all banks."""

    at_ck: int
    command: Command
    bank: int


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """A stream through one pseudo-channel.

    Attributes:
        device: Name of the device.
        access: Who reads or writes.
        size_bytes: Bytes asked for.
        moved_bytes: Bytes that its operations moved, the last one whole.
        operations: Number of bursts, or of all-bank operations.
        activations: Number of rows opened, counted in every bank.
        all_bank_refreshes: Number of REFab commands.
        per_bank_refreshes: Number of REFpb commands.
        cycles_ck: Clocks from the first command to the end of the last burst, or of the last all-bank operation.
        tck_ns: Clock period.
        peak_bytes_per_ck: Bytes per clock that no schedule exceeds.
        commands: The schedule, if it was asked for.
    """

    device: str
    access: Access
    size_bytes: int
    moved_bytes: int
    operations: int
    activations: int
    all_bank_refreshes: int
    per_bank_refreshes: int
    cycles_ck: int
    tck_ns: float
    peak_bytes_per_ck: float
    commands: tuple[IssuedCommand, ...] = field(default=(), repr=False)

    @property
    def time_ns(self) -> float:
        """Duration."""
        return self.cycles_ck * self.tck_ns

    @property
    def gb_per_s(self) -> float:
        """Bytes asked for over the duration; a byte per ns is 10⁹ bytes per second."""
        return self.size_bytes / self.time_ns

    @property
    def efficiency(self) -> float:
        """Bytes asked for over what the peak would have moved in the same time."""
        return self.size_bytes / (self.cycles_ck * self.peak_bytes_per_ck)


def default_refresh(access: Access) -> Refresh:
    """Per bank for host accesses; all banks for in-bank access, whose banks work in step."""
    return Refresh.ALL_BANK if access is Access.IN_BANK else Refresh.PER_BANK


def slice_bytes(size_bytes: int, pseudo_channels: int) -> int:
    """Bytes of the largest share when ``size_bytes`` are spread over ``pseudo_channels``."""
    return -(-size_bytes // pseudo_channels)


def stream(
    device: DramRecord,
    size_bytes: int,
    access: Access = Access.HOST_READ,
    *,
    refresh: Refresh | None = None,
    record_commands: bool = False,
) -> StreamResult:
    """Schedule ``size_bytes`` through one pseudo-channel of ``device``, exactly.

    It schedules some 4 · 10⁴ operations per second: for many sizes use
    `pim_model.dram.expert_stream_closed_form.stream_cycles_ck`.

    Args:
        device: From `devices.find_device`.
        size_bytes: Bytes in this pseudo-channel (`slice_bytes`).
        access: Who reads or writes.
        refresh: ``default_refresh`` if None.
        record_commands: Whether to keep the schedule.

    Raises:
        ForestageError: a size that is not positive, in-bank access to a device without blocks, or a per-bank refresh of
            banks that work in step.
    """
    check_stream(size_bytes, access, refresh)
    return _Scheduler(device, size_bytes, access, refresh or default_refresh(access), record_commands).run()


def check_stream(size_bytes: int, access: Access, refresh: Refresh | None) -> None:
    """Raise if ``stream`` would.

    Raises:
        ForestageError: as ``stream``.
    """
    if size_bytes <= 0:
        raise ForestageError(f"stream: size_bytes is {size_bytes}; give at least 1")
    if access is Access.IN_BANK and refresh is Refresh.PER_BANK:
        raise ForestageError("stream: refresh is per-bank, but all banks work in step; use all-bank or none")


class _Scheduler:
    """Issues, step by step, the possible command that may come first."""

    def __init__(
        self, device: DramRecord, size_bytes: int, access: Access, refresh: Refresh, record_commands: bool
    ) -> None:
        self._device, self._size_bytes, self._access, self._refresh = device, size_bytes, access, refresh
        self._geometry = devices.geometry(device, access)
        self._state = ChannelState(self._geometry, timing_constraints(device, access))
        self._column = Command.WR if access is Access.HOST_WRITE else Command.RD
        self._operations = -(-size_bytes // devices.operation_bytes(device, access))
        self._groups = self._geometry.bank_groups
        self._set_operations = self._groups * device.row_bursts
        sets, rest = divmod(self._operations, self._set_operations)
        self._rows = sets * self._groups + min(rest, self._groups)
        self._now_ck = 0
        self._next_operation = 0
        self._next_row = 0  # rows are numbered in the order of first use: set · groups + group
        self._reopen: deque[int] = deque()  # rows that an all-bank refresh closed before their last burst
        self._finished: list[int] = []  # banks whose row is done with
        self._interval_ck = (
            device.trefi_ck if refresh is Refresh.ALL_BANK else devices.per_bank_refresh_interval_ck(device)
        )
        self._due_ck: float = float("inf") if refresh is Refresh.NONE else self._interval_ck
        self._refreshing: int | None = None  # the bank whose refresh is due
        self._round: set[int] = set()  # banks not yet refreshed in this round
        self._counts = dict.fromkeys(Command, 0)
        self._issued: list[IssuedCommand] | None = [] if record_commands else None

    def run(self) -> StreamResult:
        """Issue all commands."""
        while self._next_operation < self._operations:
            at_ck, command, bank = min(self._possible())
            if self._refreshing is None and at_ck >= self._due_ck:
                self._refreshing = self._bank_to_refresh()
                continue
            self._now_ck = at_ck
            self._issue(command, bank)
        return self._result(self._now_ck + self._last_operation_ck())

    def _possible(self) -> Iterator[tuple[int, Command, int]]:
        """The commands that may come next, each with its earliest clock."""
        draining = self._refreshing is not None and self._refresh is Refresh.ALL_BANK
        if draining:
            command = Command.PREAB if self._state.open_banks else Command.REFAB
            yield self._earliest(command, 0)
            return
        row = self._row_of(self._next_operation)
        bank = self._bank_of(row)
        if self._state.open_row(bank) == row:
            yield self._earliest(self._column, bank)
        to_open = self._row_to_open()
        if to_open is not None:
            yield self._earliest(Command.ACT, self._bank_of(to_open))
        for finished in self._finished:
            yield self._earliest(Command.PRE, finished)
        if self._refreshing is not None and self._state.open_row(self._refreshing) is None:
            at_ck, command, bank = self._earliest(Command.REFPB, self._refreshing)
            yield max(at_ck, int(self._due_ck)), command, bank

    def _earliest(self, command: Command, bank: int) -> tuple[int, Command, int]:
        # A command that has only just become possible must not be issued in the past.
        return max(self._now_ck, self._state.earliest_ck(command, bank)), command, bank

    def _row_to_open(self) -> int | None:
        """The next row to open, if its bank is closed, not about to be refreshed, and its set at most one ahead."""
        row = self._reopen[0] if self._reopen else self._next_row
        if row >= self._rows or row // self._groups > self._next_operation // self._set_operations + 1:
            return None
        bank = self._bank_of(row)
        return None if self._state.open_row(bank) is not None or bank == self._refreshing else row

    def _row_of(self, operation: int) -> int:
        return operation // self._set_operations * self._groups + operation % self._groups

    def _bank_of(self, row: int) -> int:
        """The bank of a row: consecutive sets in consecutive banks, then in the next stack ID."""
        row_set, group = divmod(row, self._groups)
        stack_id, bank = divmod(row_set % (self._geometry.banks // self._groups), self._geometry.banks_per_group)
        return self._geometry.bank(stack_id, group, bank)

    def _bank_to_refresh(self) -> int:
        """Among the banks left in this round the one needed last, closed ones preferred (ties: the first)."""
        if self._refresh is Refresh.ALL_BANK:
            return 0
        if not self._round:
            self._round = set(range(self._geometry.banks))
        sets = self._geometry.banks // self._groups
        soonest = self._next_row // self._groups  # the set to be opened next

        def preference(bank: int) -> tuple[bool, int, int]:
            stack_id, within = self._geometry.stack_id_of(bank), bank % self._geometry.banks_per_group
            own_set = stack_id * self._geometry.banks_per_group + within
            return self._state.open_row(bank) is None, (own_set - soonest) % sets, -bank

        return max(self._round, key=preference)

    def _issue(self, command: Command, bank: int) -> None:
        row = self._row_to_open() if command is Command.ACT else None
        self._state.issue(command, bank, self._now_ck, row=row or 0)
        self._counts[command] += 1
        if self._issued is not None:
            self._issued.append(IssuedCommand(at_ck=self._now_ck, command=command, bank=bank))
        if command is self._column:
            self._advance(bank)
        elif command is Command.ACT:
            if self._reopen:
                self._reopen.popleft()
            else:
                self._next_row += 1
        elif command is Command.PRE:
            self._finished.remove(bank)
        elif command is Command.PREAB:
            self._finished.clear()
            done = self._next_operation // self._set_operations * self._groups
            unfinished = [row for row in range(done, self._next_row) if self._has_operations_left(row)]
            self._reopen = deque(unfinished)
        elif command in (Command.REFAB, Command.REFPB):
            self._round.discard(bank)
            self._refreshing = None
            self._due_ck += self._interval_ck

    def _advance(self, bank: int) -> None:
        """An operation was issued: close its row if it was the last one there."""
        row = self._row_of(self._next_operation)
        self._next_operation += 1
        if not self._has_operations_left(row):
            self._finished.append(bank)

    def _has_operations_left(self, row: int) -> bool:
        row_set, group = divmod(row, self._groups)
        last_in_set = min((row_set + 1) * self._set_operations, self._operations) - 1
        last = last_in_set - (last_in_set - group) % self._groups
        return self._next_operation <= last

    def _last_operation_ck(self) -> int:
        """Clocks from the last column command to the end of what it moves."""
        device = self._device
        if self._access is Access.IN_BANK:
            return devices.pim_blocks(device).operation_interval_ck
        return (device.cwl_ck if self._access is Access.HOST_WRITE else device.cl_ck) + device.burst_ck

    def _result(self, cycles_ck: int) -> StreamResult:
        device, access = self._device, self._access
        rows_an_activation = devices.pim_blocks(device).blocks if access is Access.IN_BANK else 1
        return StreamResult(
            device=device.name,
            access=access,
            size_bytes=self._size_bytes,
            moved_bytes=self._operations * devices.operation_bytes(device, access),
            operations=self._operations,
            activations=self._counts[Command.ACT] * rows_an_activation,
            all_bank_refreshes=self._counts[Command.REFAB],
            per_bank_refreshes=self._counts[Command.REFPB],
            cycles_ck=cycles_ck,
            tck_ns=device.tck_ns,
            peak_bytes_per_ck=devices.peak_bytes_per_ck(device, access),
            commands=tuple(self._issued or ()),
        )
