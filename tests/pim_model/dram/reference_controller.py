"""The controller's policy again, in plain Python: one clock at a time, on `ChannelState`."""

from dataclasses import dataclass

from catalog import DramRecord
from pim_model.dram.channel_state import ChannelState
from pim_model.dram.commands import Command
from pim_model.dram.constraints import timing_constraints
from pim_model.dram.controller import Requests
from pim_model.dram.devices import channel_geometry

Issued = tuple[int, Command, int, int]
"""Clock, command, bank, row of an ACT (otherwise 0)."""


@dataclass
class _Entry:
    bank: int
    row: int
    write: bool
    opened: bool = False


class ReferenceController:
    """Serves requests clock by clock; `ChannelState.issue` refuses whatever is not legal."""

    def __init__(
        self, device: DramRecord, requests: Requests, *, pseudo_channels: int, queue: int, refresh: bool
    ) -> None:
        self._geometry = channel_geometry(device, pseudo_channels)
        self._state = ChannelState(self._geometry, timing_constraints(device))
        self._arriving = [
            _Entry(int(b), int(r), bool(w)) for b, r, w in zip(*requests, strict=True)
        ]  # fmt: skip
        self._entries: list[_Entry] = []
        self._queue = queue
        self._interval = device.trefi_ck
        self._due = [device.trefi_ck if refresh else 1 << 60] * pseudo_channels
        self._issued: list[Issued] = []

    def run(self) -> list[Issued]:
        """All commands, in the order of issue."""
        now = 0
        while self._arriving or self._entries:
            while self._arriving and sum(not entry.opened for entry in self._entries) < self._queue:
                self._entries.append(self._arriving.pop(0))
            self._column_bus(now)
            self._row_bus(now)
            now += 1
        return self._issued

    def _column_bus(self, now: int) -> None:
        for entry in self._entries:
            command = Command.WR if entry.write else Command.RD
            if self._served(entry, now) and self._hit(entry) and self._legal(command, entry.bank, now):
                self._entries.remove(entry)
                self._issue(command, entry.bank, now)
                return

    def _row_bus(self, now: int) -> None:
        for channel, due in enumerate(self._due):
            if now < due or any(entry.opened and self._channel(entry) == channel for entry in self._entries):
                continue
            first = channel * self._geometry.banks_per_pseudo_channel
            is_open = any(self._geometry.pseudo_channel_of(bank) == channel for bank in self._state.open_banks)
            command = Command.PREAB if is_open else Command.REFAB
            if self._legal(command, first, now):
                if command is Command.REFAB:
                    self._due[channel] += self._interval
                self._issue(command, first, now)
                return
        for entry in self._entries:
            if not self._served(entry, now) or self._hit(entry):
                continue
            is_open = self._state.open_row(entry.bank) is not None
            if is_open and any(other.bank == entry.bank and self._hit(other) for other in self._entries):
                continue
            command = Command.PRE if is_open else Command.ACT
            if self._legal(command, entry.bank, now):
                entry.opened = command is Command.ACT
                self._issue(command, entry.bank, now, entry.row)
                return

    def _served(self, entry: _Entry, now: int) -> bool:
        return entry.opened or now < self._due[self._channel(entry)]

    def _channel(self, entry: _Entry) -> int:
        return self._geometry.pseudo_channel_of(entry.bank)

    def _hit(self, entry: _Entry) -> bool:
        return self._state.open_row(entry.bank) == entry.row

    def _legal(self, command: Command, bank: int, now: int) -> bool:
        return self._state.earliest_ck(command, bank) <= now

    def _issue(self, command: Command, bank: int, now: int, row: int = 0) -> None:
        self._state.issue(command, bank, now, row=row)
        self._issued.append((now, command, bank, row if command is Command.ACT else 0))
