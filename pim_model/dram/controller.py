"""A memory controller for one channel: open page, first-ready first-come-first-served, all-bank refresh; compiled.

Its choices, which a simulator that differs in them need not agree with:

* **Queue.** It holds up to ``queue`` requests of all its pseudo-channels whose rows it has still to open or to hit. It
  takes as many new ones as fit at the start of every clock. A request whose ACT was issued no longer counts (as in
  Ramulator 2.1, which moves it to a buffer of its own).
* **Buses.** The row and the column command bus each take a command a clock (an ACT occupies the row bus for longer);
  pseudo-channels that share them are served from the same queue.
* **Column bus.** The oldest request whose row is open and whose command is legal in this clock.
* **Row bus.** The oldest request whose ACT (bank closed) or PRE (another row open) is legal in this clock. A row is not
  closed while a queued request hits it, however long that lasts: there is no limit on hits.
* **Rows stay open** until another row of the bank is needed or a refresh is due.
* **Refresh.** One is due for all banks of a pseudo-channel at every multiple of tREFI after the first clock. From then
  on only requests for which a row has been opened are served; then follow PREab (if any row is open) and REFab, each as
  early as it is legal. A REFab covers all stack IDs. It is neither postponed nor pulled in.
* **Reads and writes** wait in the same queue and are served alike; writes are not gathered.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog import DramRecord, ForestageError
from catalog.compiled import njit
from pim_model.dram.commands import Command
from pim_model.dram.constraint_arrays import COMMANDS, ConstraintArrays, constraint_arrays
from pim_model.dram.constraints import timing_constraints
from pim_model.dram.devices import channel_geometry

QUEUE = 32
"""Requests that a controller holds unless told otherwise."""

_ACT, _PRE, _PREAB = COMMANDS[Command.ACT], COMMANDS[Command.PRE], COMMANDS[Command.PREAB]
_RD, _WR, _REFAB = COMMANDS[Command.RD], COMMANDS[Command.WR], COMMANDS[Command.REFAB]
_COMMAND_COUNT = len(COMMANDS)
_NEVER = 1 << 60
_CLOSED = -1


class Requests(NamedTuple):
    """Requests in the order in which they arrive.

    Attributes:
        bank: ``[requests]`` number of the bank (`Geometry.bank`).
        row: ``[requests]``.
        write: ``[requests]`` whether it is a write.
    """

    bank: NDArray[np.int32]
    row: NDArray[np.int32]
    write: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a controller issued.

    Attributes:
        column_ck: ``[requests]`` clock of each request's RD or WR.
        counts: Commands issued, by kind.
        at_ck: ``[commands]`` clock of every command; empty if they were not recorded.
        command: ``[commands]`` its kind (`COMMANDS`).
        bank: ``[commands]`` its bank; the first bank of the pseudo-channel for PREab and REFab.
        row: ``[commands]`` the row of an ACT; 0 otherwise.
    """

    column_ck: NDArray[np.int64]
    counts: dict[Command, int]
    at_ck: NDArray[np.int64] = field(repr=False)
    command: NDArray[np.int64] = field(repr=False)
    bank: NDArray[np.int64] = field(repr=False)
    row: NDArray[np.int64] = field(repr=False)


def schedule(
    device: DramRecord,
    requests: Requests,
    *,
    pseudo_channels: int = 1,
    queue: int = QUEUE,
    refresh: bool = True,
    record_commands: bool = False,
) -> Schedule:
    """Serve ``requests`` as early as the device's constraints and the controller's policy allow.

    Args:
        device: The DRAM.
        requests: What to read and write, all of it waiting from the first clock on.
        pseudo_channels: Pseudo-channels that the controller serves.
        queue: Requests that it holds.
        refresh: Whether all banks are refreshed every tREFI.
        record_commands: Whether to keep every command.

    Raises:
        ForestageError: no requests, an impossible bank or row, no place in the queue, or pseudo-channels that the
            device does not have.
    """
    geometry = channel_geometry(device, pseudo_channels)
    _check(requests, geometry.banks, queue)
    arrays = constraint_arrays(geometry, timing_constraints(device))
    column_ck, counts, commands = _serve(
        requests.bank,
        requests.row,
        requests.write,
        arrays,
        geometry.banks_per_pseudo_channel,
        queue,
        device.trefi_ck if refresh else 0,
        record_commands,
    )
    at_ck, command, bank, row = commands
    return Schedule(
        column_ck=column_ck,
        counts={one: int(counts[number]) for one, number in COMMANDS.items()},
        at_ck=at_ck,
        command=command,
        bank=bank,
        row=row,
    )


def _check(requests: Requests, banks: int, queue: int) -> None:
    if queue < 1:
        raise ForestageError(f"controller: queue is {queue}; give at least 1")
    if not len(requests.bank) or len({len(part) for part in requests}) != 1:
        raise ForestageError(f"controller: requests have {[len(part) for part in requests]} banks, rows, writes")
    if requests.bank.min() < 0 or requests.bank.max() >= banks:
        raise ForestageError(
            f"controller: a request is for bank {requests.bank.min()} or {requests.bank.max()}; give 0 to {banks - 1}"
        )
    if requests.row.min() < 0:
        raise ForestageError(f"controller: a request is for row {requests.row.min()}; give 0 or more")


@njit()
def _earliest(ready: NDArray[np.int64], nodes: NDArray[np.int64], command: int) -> int:
    """First clock in which the constraints allow ``command`` to the bank that lies in ``nodes``."""
    earliest = 0
    for node in nodes:
        earliest = max(earliest, ready[node, command])
    return earliest


@njit()
def _hold_back(
    arrays: ConstraintArrays,
    ready: NDArray[np.int64],
    history: NDArray[np.int64],
    noted: NDArray[np.int64],
    command: int,
    bank: int,
    now: int,
) -> None:
    """``command`` was issued to ``bank`` at ``now``: put later commands off in ``ready``.

    ``history[constraint, node, window]`` is a ring of the last preceding commands, ``noted`` how many there were.
    """
    for constraint in arrays.of_command[command]:
        if constraint < 0:
            return
        window = arrays.window[constraint]
        for node in arrays.constrained[arrays.scope[constraint], bank]:
            if node < 0:
                break
            count = noted[constraint, node]
            history[constraint, node, count % window] = now
            noted[constraint, node] = count + 1
            if count + 1 < window:
                continue
            until = history[constraint, node, (count + 1) % window] + arrays.latency_ck[constraint]
            for following in range(_COMMAND_COUNT):
                if arrays.follows[constraint, following] and ready[node, following] < until:
                    ready[node, following] = until


@njit()
def _refresh_command(
    nodes_of_bank: NDArray[np.int64],
    ready: NDArray[np.int64],
    open_row: NDArray[np.int64],
    refreshing: NDArray[np.bool_],
    unserved: NDArray[np.int64],
    banks_per_pseudo_channel: int,
    now: int,
) -> tuple[int, int, int]:
    """The PREab or REFab of a pseudo-channel that is to be refreshed: command (−1: none), first bank, next look."""
    soonest = _NEVER
    for channel in range(refreshing.shape[0]):
        if not refreshing[channel] or unserved[channel]:
            continue
        first = channel * banks_per_pseudo_channel
        command = _REFAB
        for bank in range(first, first + banks_per_pseudo_channel):
            if open_row[bank] != _CLOSED:
                command = _PREAB
        earliest = _earliest(ready, nodes_of_bank[first], command)
        if earliest <= now:
            return command, first, now
        soonest = min(soonest, earliest)
    return -1, 0, soonest


@njit()
def _request_command(
    on_row_bus: bool,
    banks: NDArray[np.int32],
    rows: NDArray[np.int32],
    writes: NDArray[np.bool_],
    waiting: NDArray[np.int64],
    opened: NDArray[np.bool_],
    open_row: NDArray[np.int64],
    hits: NDArray[np.int64],
    refreshing: NDArray[np.bool_],
    nodes_of_bank: NDArray[np.int64],
    ready: NDArray[np.int64],
    banks_per_pseudo_channel: int,
    now: int,
) -> tuple[int, int, int]:
    """What the oldest request that may go on needs on a bus: command (−1: none), place in the queue, next look."""
    soonest = _NEVER
    for place in range(waiting.shape[0]):
        request = waiting[place]
        bank = banks[request]
        if refreshing[bank // banks_per_pseudo_channel] and not opened[place]:
            continue
        hit = open_row[bank] == rows[request]
        if hit == on_row_bus:
            continue
        if hit:
            command = _WR if writes[request] else _RD
        elif open_row[bank] == _CLOSED:
            command = _ACT
        elif hits[bank]:
            continue
        else:
            command = _PRE
        earliest = _earliest(ready, nodes_of_bank[bank], command)
        if earliest <= now:
            return command, place, now
        soonest = min(soonest, earliest)
    return -1, -1, soonest


@njit()
def _grown(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """``array`` with as many places again."""
    larger = np.zeros((array.shape[0], 2 * array.shape[1]), np.int64)
    for part in range(array.shape[0]):
        for place in range(array.shape[1]):
            larger[part, place] = array[part, place]
    return larger


@njit()
def _serve(
    banks: NDArray[np.int32],
    rows: NDArray[np.int32],
    writes: NDArray[np.bool_],
    arrays: ConstraintArrays,
    banks_per_pseudo_channel: int,
    queue: int,
    refresh_interval_ck: int,
    record: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Clock of every request's column command, counts of commands, and the commands (clock, kind, bank, row)."""
    requests, bank_count = banks.shape[0], arrays.nodes_of_bank.shape[0]
    channels = bank_count // banks_per_pseudo_channel
    ready = np.zeros((arrays.nodes[0], _COMMAND_COUNT), np.int64)
    history = np.zeros((arrays.scope.shape[0], arrays.nodes[0], arrays.window.max()), np.int64)
    noted = np.zeros((arrays.scope.shape[0], arrays.nodes[0]), np.int64)
    open_row = np.full(bank_count, _CLOSED, np.int64)
    column_ck = np.zeros(requests, np.int64)
    counts = np.zeros(_COMMAND_COUNT, np.int64)
    commands = np.zeros((4, 1024 if record else 1), np.int64)
    recorded = 0
    # The queue: numbers of requests in the order of arrival, and whether a request's own ACT was issued.
    waiting = np.zeros(queue + bank_count, np.int64)
    opened = np.zeros(queue + bank_count, np.bool_)
    held, counted, arrived, served = 0, 0, 0, 0
    hits = np.zeros(bank_count, np.int64)  # queued requests for the bank's open row
    refreshing = np.zeros(channels, np.bool_)
    due = np.full(channels, refresh_interval_ck if refresh_interval_ck else _NEVER, np.int64)
    unserved = np.zeros(channels, np.int64)  # requests whose own ACT was issued
    now = 0
    while served < requests:
        while counted < queue and arrived < requests:
            waiting[held] = arrived
            opened[held] = False
            if open_row[banks[arrived]] == rows[arrived]:
                hits[banks[arrived]] += 1
            held += 1
            counted += 1
            arrived += 1
        soonest = _NEVER
        for channel in range(channels):
            if now >= due[channel]:
                refreshing[channel] = True
            elif not refreshing[channel]:
                soonest = min(soonest, due[channel])
        issued = False
        for on_row_bus in (False, True):
            command, bank, place = -1, 0, -1
            if on_row_bus:
                command, bank, later = _refresh_command(
                    arrays.nodes_of_bank, ready, open_row, refreshing, unserved, banks_per_pseudo_channel, now
                )
                soonest = min(soonest, later)
            if command < 0:
                command, place, later = _request_command(
                    on_row_bus, banks, rows, writes, waiting[:held], opened, open_row, hits, refreshing,
                    arrays.nodes_of_bank, ready, banks_per_pseudo_channel, now,
                )  # fmt: skip
                soonest = min(soonest, later)
            if command < 0:
                continue
            row = 0
            if place >= 0:
                bank, row = banks[waiting[place]], rows[waiting[place]]
            issued = True
            channel = bank // banks_per_pseudo_channel
            if command in (_RD, _WR):
                column_ck[waiting[place]] = now
                if opened[place]:
                    unserved[channel] -= 1
                else:
                    counted -= 1
                hits[bank] -= 1
                held -= 1
                for index in range(place, held):
                    waiting[index] = waiting[index + 1]
                    opened[index] = opened[index + 1]
                served += 1
            elif command == _ACT:
                open_row[bank] = row
                opened[place] = True
                counted -= 1
                unserved[channel] += 1
                for index in range(held):
                    hits[bank] += banks[waiting[index]] == bank and rows[waiting[index]] == row
            elif command == _PRE:
                open_row[bank] = _CLOSED
            elif command == _PREAB:
                for other in range(bank, bank + banks_per_pseudo_channel):
                    open_row[other] = _CLOSED
                    hits[other] = 0
            else:
                refreshing[channel] = False
                due[channel] += refresh_interval_ck
            _hold_back(arrays, ready, history, noted, command, bank, now)
            counts[command] += 1
            if record:
                if recorded == commands.shape[1]:
                    commands = _grown(commands)
                commands[0, recorded] = now
                commands[1, recorded] = command
                commands[2, recorded] = bank
                commands[3, recorded] = row if command == _ACT else 0
                recorded += 1
        now = now + 1 if issued else max(now + 1, soonest)
    return column_ck, counts, commands[:, :recorded]
