"""A matrix-vector product as the published HBM-PIM runs it, command by command.

In its all-bank mode a command reaches every bank of a pseudo-channel at once (Lee et al., "Hardware Architecture and
Software Stack for PIM Based on Commercial DRAM Technology", ISCA 2021, and Samsung's PIMSimulator; recalled, except for
the timing and the figures below). A block has two files of eight 256-bit registers: GRF_A takes 8 × 16 elements of the
input vector, GRF_B holds 8 output rows, as 16 partial sums each. So

* an *output tile* is 8 rows a block: 64 a pseudo-channel of HBM2-PIM;
* an *input tile* is 128 elements;
* their weights are 64 columns of a block, which lie in one row of both of its banks.

The registers are reached by writes to a reserved row. What is counted:

* per kernel: entering all-bank mode (ACT and PREab of a reserved row); writing the CRF (32 instructions of 4 bytes);
* per output tile: clearing GRF_B (8 writes); PIM mode on, and off (a write each);
* per input tile: 8 writes of GRF_A; the change to the weights' row; 64 MACs every tCCD_L; the change back;
* readout, apart: per output tile 8 writes of GRF_B to a row of the banks, and the change of row before and after; after
  all, leaving all-bank mode (ACT and PREab), then a host read of 32 bytes for each row of the matrix.

Distances are the device's constraints between commands of one bank, since every command goes to all; an all-bank ACT
counts as one ACT. The write-to-read turnaround is among them, and hidden by the row change. Commands go in this order,
each as early as the constraints allow; that the controller keeps the order costs the published kernel a fence, of
which nothing is counted. Assumed: what a mode change takes; that GRF_B goes through the banks; one CRF program a
kernel. Nothing is fitted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from catalog import DramRecord, ForestageError
from pim_model.dram.channel_state import ChannelState
from pim_model.dram.commands import Command, Scope, TimingConstraint
from pim_model.dram.constraints import timing_constraints
from pim_model.dram.devices import Geometry, pim_blocks
from pim_model.dram.expert_stream_closed_form import stream_cycles_ck
from pim_model.gemv.closed_form import GemvClocks

REGISTERS = 8
"""Of GRF_A, and of GRF_B."""

LANES = 16
"""16-bit elements of a register."""

INPUT_TILE = REGISTERS * LANES

MACS = REGISTERS * REGISTERS
"""Columns of an input tile: each row's eight registers of weights."""

CRF_WRITES = 4
"""32 instructions of 32 bits, in bursts of 32 bytes."""

_MODE_ROW, _REGISTER_ROW, _RESULT_ROW, _FIRST_WEIGHT_ROW = range(4)


@dataclass(frozen=True, kw_only=True)
class SamsungCommand:
    """A command to all banks; ``row`` is 0 except of an ACT."""

    clock_ck: int
    command: Command
    row: int


@dataclass(frozen=True, kw_only=True)
class SamsungSchedule:
    """A kernel's commands, the readout left out.

    Attributes:
        commands: In the order of their clocks.
        compute_ck: Clocks until the last write has left the bus.
    """

    commands: tuple[SamsungCommand, ...]
    compute_ck: int

    def count(self, command: Command) -> int:
        """How many of a command there are."""
        return sum(issued.command is command for issued in self.commands)


def tile_rows(device: DramRecord) -> int:
    """Rows of an output tile."""
    return pim_blocks(device).blocks * REGISTERS


def tiles(device: DramRecord, rows: int, inputs: int) -> tuple[int, int]:
    """Output tiles and input tiles of a matrix.

    Raises:
        ForestageError: an empty matrix, or a device whose blocks are not the published ones.
    """
    blocks = pim_blocks(device)
    for name, value in (("rows", rows), ("inputs", inputs)):
        if value < 1:
            raise ForestageError(f"samsung kernel: {name} is {value}; give at least 1")
    if blocks.datapath_bits != 16 * LANES or blocks.banks_per_block * device.row_bursts != MACS:
        raise ForestageError(
            f"dram '{device.name}': the samsung kernel needs blocks of {16 * LANES} bits whose banks have {MACS} "
            "columns together in a row"
        )
    return -(-rows // tile_rows(device)), -(-inputs // INPUT_TILE)


def all_bank_constraints(device: DramRecord) -> tuple[TimingConstraint[Command], ...]:
    """Constraints between commands that reach all banks: those of one bank, and the interval of operations."""
    read = (Command.RD,)
    interval = pim_blocks(device).operation_interval_ck
    return (
        *timing_constraints(device),
        TimingConstraint[Command]("PIM interval", read, read, interval, Scope.CHANNEL),
    )


def samsung_schedule(
    device: DramRecord,
    rows: int,
    inputs: int,
    *,
    refresh_in_ck: int | None = None,
    bus_phases: int = 1,
    phase: int = 0,
    stores: bool = False,
) -> SamsungSchedule:
    """Every command of the product of a matrix ``[rows, inputs]`` of 16-bit floats with one vector.

    Args:
        device: The DRAM.
        rows: Of the matrix, in this pseudo-channel.
        inputs: Of the matrix.
        refresh_in_ck: Clock in which the first refresh is due, then every tREFI; it is served before the next command.
            None: none is.
        bus_phases: 2: another pseudo-channel has every second slot of the command buses.
        phase: Which slots are this one's.
        stores: Whether the stores of GRF_B, which are counted as readout, are among the commands.

    Raises:
        ForestageError: as ``tiles``.
    """
    output_tiles, input_tiles = tiles(device, rows, inputs)
    channel = _Channel(device, bus_phases, phase, refresh_in_ck)
    for command, row in _kernel(output_tiles, input_tiles, stores=stores):
        channel.issue(command, row)
    return SamsungSchedule(commands=tuple(channel.issued), compute_ck=channel.end_ck)


def samsung_clocks(
    device: DramRecord,
    rows: int,
    inputs: int,
    *,
    refresh_in_ck: int | None = None,
    bus_phases: int = 1,
    phase: int = 0,
) -> GemvClocks:
    """``samsung_schedule`` and its readout in closed form: input tiles and output tiles repeat with a fixed period.

    Raises:
        ForestageError: as ``tiles``.
    """
    output_tiles, input_tiles = tiles(device, rows, inputs)
    pattern = _pattern(device, bus_phases, phase)
    clocks = pattern.clocks(output_tiles, input_tiles)
    if refresh_in_ck is not None:
        codes = _codes(output_tiles, input_tiles)
        clocks = _refreshed(clocks, codes, device, refresh_in_ck, bus_phases, phase)
    leave = device.tras_ck + device.trp_ck
    host_read = math.ceil(stream_cycles_ck(device, rows * device.burst_bytes))
    return GemvClocks(int(clocks[-1]) + pattern.end_ck, output_tiles * pattern.store_ck + leave + host_read)


def _kernel(output_tiles: int, input_tiles: int, *, stores: bool) -> Iterator[tuple[Command, int]]:
    """Commands and the rows of ACTs."""

    def change_row(row: int) -> Iterator[tuple[Command, int]]:
        yield Command.PREAB, 0
        yield Command.ACT, row

    yield Command.ACT, _MODE_ROW
    yield from change_row(_REGISTER_ROW)
    yield from [(Command.WR, 0)] * CRF_WRITES
    for output_tile in range(output_tiles):
        yield from [(Command.WR, 0)] * (REGISTERS + 1)  # GRF_B cleared, PIM mode on
        for input_tile in range(input_tiles):
            yield from [(Command.WR, 0)] * REGISTERS
            yield from change_row(_FIRST_WEIGHT_ROW + output_tile * input_tiles + input_tile)
            yield from [(Command.RD, 0)] * MACS
            yield from change_row(_REGISTER_ROW)
        yield Command.WR, 0  # PIM mode off
        if stores:
            yield from change_row(_RESULT_ROW)
            yield from [(Command.WR, 0)] * REGISTERS
            yield from change_row(_REGISTER_ROW)


class _Channel:
    """Issues commands to all banks, each as early as the constraints and the bus allow."""

    def __init__(self, device: DramRecord, bus_phases: int, phase: int, refresh_in_ck: int | None) -> None:
        self.issued: list[SamsungCommand] = []
        self.end_ck = 0
        self._device = device
        self._state = ChannelState(Geometry(1, 1, 1), all_bank_constraints(device))
        width = math.ceil(device.activate_command_ck)
        self._row_slots = (bus_phases * width, phase * width) if bus_phases > 1 else (1, 0)
        self._column_slots = (bus_phases, phase)
        self._due = refresh_in_ck
        self._last = -1

    def issue(self, command: Command, row: int) -> None:
        """The next command of the kernel; a refresh that is due goes first."""
        while self._due is not None and self._clock(command) >= self._due:
            open_row = self._state.open_row(0)
            if open_row is not None:
                self._issue(Command.PREAB, 0, not_before=self._due)
            self._issue(Command.REFAB, 0, not_before=self._due)
            if open_row is not None and command is not Command.PREAB:
                self._issue(Command.ACT, open_row)
            self._due += self._device.trefi_ck
            if open_row is not None and command is Command.PREAB:
                return  # it has been closed
        self._issue(command, row)

    def _clock(self, command: Command, not_before: int = 0) -> int:
        period, offset = self._column_slots if command in (Command.RD, Command.WR) else self._row_slots
        clock = max(not_before, self._last + 1, self._state.earliest_ck(command, 0))
        return clock + (offset - clock) % period

    def _issue(self, command: Command, row: int, not_before: int = 0) -> None:
        clock = self._clock(command, not_before)
        self._state.issue(command, 0, clock, row=row)
        self.issued.append(SamsungCommand(clock_ck=clock, command=command, row=row))
        self._last = clock
        if command is Command.RD:
            self.end_ck = clock + self._device.cl_ck + pim_blocks(self._device).operation_interval_ck
        elif command is Command.WR:
            self.end_ck = clock + self._device.cwl_ck + self._device.burst_ck


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """Distances of commands from the command before, without refresh, part by part of a kernel.

    Attributes:
        head: Set-up of the kernel.
        first_tile, later_tile: Set-up of the first output tile, and of each after it.
        first_input, later_input: An output tile's first input tile, and each after it.
        mode_off: An output tile's last command.
        end_ck: From the last command to the end.
        store_ck: What storing GRF_B adds to an output tile.
    """

    head: NDArray[np.int64]
    first_tile: NDArray[np.int64]
    later_tile: NDArray[np.int64]
    first_input: NDArray[np.int64]
    later_input: NDArray[np.int64]
    mode_off: NDArray[np.int64]
    end_ck: int
    store_ck: int

    def clocks(self, output_tiles: int, input_tiles: int) -> NDArray[np.int64]:
        """The clock of each command of a kernel."""
        inputs = np.concatenate([self.first_input, np.tile(self.later_input, input_tiles - 1), self.mode_off])
        later = np.tile(np.concatenate([self.later_tile, inputs]), output_tiles - 1)
        return np.cumsum(np.concatenate([self.head, self.first_tile, inputs, later]))


_HEAD = 3 + CRF_WRITES
_TILE_SET_UP = REGISTERS + 1
_INPUT = REGISTERS + 2 + MACS + 2


def _pattern(device: DramRecord, bus_phases: int, phase: int) -> _Pattern:
    """Measured on the schedule of two output tiles of two input tiles."""
    return _pattern_of(device.model_dump_json(), bus_phases, phase)


@lru_cache(maxsize=64)
def _pattern_of(device_json: str, bus_phases: int, phase: int) -> _Pattern:
    """``_pattern``; a record cannot be the key, its text can."""
    device = DramRecord.model_validate_json(device_json)
    rows, inputs = 2 * tile_rows(device), 2 * INPUT_TILE
    schedule = samsung_schedule(device, rows, inputs, bus_phases=bus_phases, phase=phase)
    clocks = np.array([issued.clock_ck for issued in schedule.commands])
    steps = np.diff(clocks, prepend=0)
    ends = np.cumsum([_HEAD, _TILE_SET_UP, _INPUT, _INPUT, 1, _TILE_SET_UP])
    head, first_tile, first_input, later_input, mode_off, later_tile = np.split(steps, ends)[:6]
    stored = samsung_schedule(device, rows, inputs, bus_phases=bus_phases, phase=phase, stores=True)
    return _Pattern(
        head=head,
        first_tile=first_tile,
        later_tile=later_tile,
        first_input=first_input,
        later_input=later_input,
        mode_off=mode_off,
        end_ck=schedule.compute_ck - int(clocks[-1]),
        store_ck=_first_of_second_tile(stored, stores=True) - _first_of_second_tile(schedule, stores=False),
    )


def _first_of_second_tile(schedule: SamsungSchedule, *, stores: bool) -> int:
    """Clock of the first command of the second output tile, of two of two input tiles."""
    store = 4 + REGISTERS if stores else 0
    return schedule.commands[_HEAD + _TILE_SET_UP + 2 * _INPUT + 1 + store].clock_ck


def _codes(output_tiles: int, input_tiles: int) -> NDArray[np.uint8]:
    """The commands of ``_kernel`` without stores."""
    act, write, read, close = _ACT, _WR, _RD, _PREAB
    one_input = [write] * REGISTERS + [close, act] + [read] * MACS + [close, act]
    tile = np.concatenate([[write] * _TILE_SET_UP, np.tile(one_input, input_tiles), [write]])
    return np.concatenate([[act, close, act] + [write] * CRF_WRITES, np.tile(tile, output_tiles)]).astype(np.uint8)


_ACT, _PREAB, _RD, _WR = range(4)


def _refreshed(
    clocks: NDArray[np.int64], codes: NDArray[np.uint8], device: DramRecord, due: int, bus_phases: int, phase: int
) -> NDArray[np.int64]:
    """``clocks`` with refreshes from clock ``due`` on.

    All that comes after a refresh moves by the same, but for a row that is closed soon after it was opened again.
    """
    clocks = clocks.copy()
    width = math.ceil(device.activate_command_ck)

    def row_slot(clock: int) -> int:
        return clock + (phase * width - clock) % (bus_phases * width) if bus_phases > 1 else clock

    def column_slot(clock: int) -> int:
        return clock + (phase - clock) % bus_phases

    closes = np.flatnonzero(codes == _PREAB)
    opens = np.flatnonzero(codes == _ACT)
    opened_ck = int(clocks[0])
    while True:
        at = int(np.searchsorted(clocks, due))
        if at == len(clocks):
            return clocks
        before, code = int(clocks[at - 1]) if at else -device.trp_ck, codes[at]
        opened_ck = max(opened_ck, int(clocks[opens[np.searchsorted(opens, at) - 1]])) if at else opened_ck
        refresh = max(due, before + device.trp_ck)
        if code != _ACT:
            recovery = {
                _RD: device.trtp_l_ck,
                _WR: device.cwl_ck + device.burst_ck + device.twr_ck,
                _ACT: 1,
                _PREAB: 1,
            }[int(codes[at - 1])]
            close = row_slot(max(due, before + recovery, opened_ck + device.tras_ck))
            refresh = close + device.trp_ck
        resume = row_slot(row_slot(refresh) + device.trfc_ck)
        due += device.trefi_ck
        opened_ck = resume
        if code == _PREAB:
            # It has been closed: the next command is its ACT, if any.
            clocks[at] = close
            at += 1
            if at == len(clocks):
                return clocks
            clocks[at:] += resume - clocks[at]
        elif code == _ACT:
            clocks[at:] += resume - clocks[at]
        else:
            latency = device.trcd_read_ck if code == _RD else device.trcd_write_ck
            clocks[at:] += column_slot(resume + latency) - clocks[at]
            later = np.searchsorted(closes, at)
            if later < len(closes):
                close_at = closes[later]
                clocks[close_at:] += max(0, row_slot(resume + device.tras_ck) - clocks[close_at])
