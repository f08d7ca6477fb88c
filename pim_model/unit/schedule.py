"""When the unit issues what: the cycle twin of its sequencer, clock by clock.

Three engines decide in each clock from the state at its beginning:

* the *column engine* issues at most one command on the column bus: the next PIM where it may, or else an LDI, or else a
  readback (RDA);
* the *row engine* opens row set after row set, bank by bank, each half while the other is read, and closes a half when
  its row set has been read;
* *refresh* stops both once it is due, closes all banks, refreshes, and lets the row engine open again what was open.

The rules of each are in the functions below, one a command. Without waits on its streams the hardware
(`rtl.pim`) issues every command in the clock given here. Clock 0 is the first in which the sequencer decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from pim_model.unit.parameters import INPUT_REGISTERS, OCTET, UnitParameters
from pim_model.unit.program import ColumnKind, Phase, Program, WeightFormat

NEVER = np.iinfo(np.int64).max // 2
"""Later than any clock."""

FEW_LOADED = INPUT_REGISTERS // 2
"""Loaded registers ahead of the columns below which loads go before readbacks."""

_LONG_AGO = -(1 << 40)


class UnitCommand(IntEnum):
    """What the unit issues."""

    ACT = 0
    PREH = 1
    PREAB = 2
    REFAB = 3
    PIM = 4
    LDI = 5
    RDA = 6


# Plain integers for the kernel.
_ACT, _PREH, _PREAB, _REFAB, _PIM, _LDI, _RDA = (int(command) for command in UnitCommand)
_MAC, _CONSTANTS = int(ColumnKind.MAC), int(ColumnKind.CONSTANTS)


@dataclass(frozen=True, kw_only=True)
class UnitSchedule:
    """Commands in the order of their clocks (of two in one clock, the row bus's first); arrays ``[commands]``.

    Attributes:
        clock_ck: When it is issued.
        command: `UnitCommand`.
        half: Of ACT, PREH and PIM; else −1.
        block: Of ACT (the bank's) and RDA; else −1.
        number: Of ACT and PREH the row set (PREH: the one that is closed), of PIM the column, of LDI and RDA their
            number in the program; else the refresh's.
        done_ck: First clock in which the sequencer has nothing left to do and all banks are closed.
        compute_ck: Clocks until the last tile's sums are complete.
        readout_ck: Clocks from there until the last readback has reached the base die.
    """

    clock_ck: NDArray[np.int64]
    command: NDArray[np.uint8]
    half: NDArray[np.int8]
    block: NDArray[np.int16]
    number: NDArray[np.int32]
    done_ck: int
    compute_ck: int
    readout_ck: int

    def count(self, command: UnitCommand) -> int:
        """How many of a command there are."""
        return int(np.count_nonzero(self.command == command))


class Work(NamedTuple):
    """A program as arrays; chunks and tiles are numbered through over the phases.

    Attributes:
        kind, row_set, tile, chunk: of each column; ``chunk`` is that of the input registers that a MAC uses.
        ends_chunk, ends_tile, begins_tile: whether the column does.
        loads: LDIs of a chunk.
        chunk_phase: of each chunk.
        chunk_needs: what must be there: x chunks, or elements of ``down``'s inputs.
        readback_tile, readback_block: of each readback.
        readback_inputs: elements of ``down``'s inputs, of every token, that the readback completes.
    """

    kind: NDArray[np.uint8]
    row_set: NDArray[np.int32]
    tile: NDArray[np.int32]
    chunk: NDArray[np.int32]
    ends_chunk: NDArray[np.bool_]
    ends_tile: NDArray[np.bool_]
    begins_tile: NDArray[np.bool_]
    loads: int
    chunk_phase: NDArray[np.uint8]
    chunk_needs: NDArray[np.int32]
    readback_tile: NDArray[np.int32]
    readback_block: NDArray[np.int16]
    readback_inputs: NDArray[np.int32]


def schedule(
    program: Program,
    parameters: UnitParameters,
    *,
    refresh_in_ck: int | None = None,
    inputs_ready_ck: Sequence[int] | None = None,
) -> UnitSchedule:
    """The commands of ``program``, all banks closed and nothing pending at its beginning.

    Args:
        program: What is run.
        parameters: The unit.
        refresh_in_ck: Clock in which the first refresh is due; None: none ever is.
        inputs_ready_ck: For each chunk of the first phase, the first clock in which it may be loaded, all tokens of
            it; None: all from the first clock on.

    Raises:
        ForestageError: other than a clock for each chunk.
    """
    chunks = program.phases[0].chunks
    ready = np.zeros(chunks, np.int64) if inputs_ready_ck is None else np.asarray(inputs_ready_ck, np.int64)
    if ready.shape != (chunks,):
        raise ForestageError(f"PIM schedule: inputs_ready_ck has shape {list(ready.shape)}; give {chunks} clocks")
    ready = np.maximum.accumulate(ready)
    if program.format is WeightFormat.INT8:
        ready[:] = ready[-1]  # the vector's scale is known when all of it is there
    work = work_of(program, parameters)
    timings = parameters.timings
    log, ends = _run(work, timings, ready, NEVER if refresh_in_ck is None else refresh_in_ck)
    clock, command, half, block, number = log.T
    done, last_pim, last_readback = (int(end) for end in ends)
    complete = last_pim + timings.read_latency + timings.tile_to_readback
    return UnitSchedule(
        clock_ck=clock,
        command=command.astype(np.uint8),
        half=half.astype(np.int8),
        block=block.astype(np.int16),
        number=number.astype(np.int32),
        done_ck=done,
        compute_ck=complete,
        readout_ck=max(0, last_readback + timings.read_latency + timings.interval - complete),
    )


def work_of(program: Program, parameters: UnitParameters) -> Work:
    """The program as arrays."""
    kind, row_set, tile, chunk, ends_chunk, ends_tile, begins_tile = [], [], [], [], [], [], []
    chunk_phase, chunk_needs, first_tile, first_chunk = [], [], 0, 0
    readbacks = []
    for number, phase in enumerate(program.phases):
        columns = phase.columns()
        is_mac = columns.kind == ColumnKind.MAC
        last_of_tile = np.append(columns.tile[1:] != columns.tile[:-1], True)
        # A chunk's last MAC is followed by a column of another chunk, or by one that is no MAC.
        follows = np.append((columns.chunk[1:] != columns.chunk[:-1]) | ~is_mac[1:], True) | last_of_tile
        kind.append(columns.kind)
        row_set.append(phase.first_row_set + np.arange(len(is_mac)) // parameters.device.row_bursts)
        tile.append(first_tile + columns.tile)
        chunk.append(np.where(is_mac, first_chunk + columns.tile * phase.chunks + columns.chunk, -1))
        ends_chunk.append(is_mac & follows)
        ends_tile.append(last_of_tile)
        begins_tile.append(np.append(True, last_of_tile[:-1]))
        of_tiles = np.tile(np.arange(phase.chunks), len(phase.tiles))
        chunk_phase.append(np.full(len(of_tiles), number))
        chunk_needs.append(_chunk_needs(program, phase, of_tiles, number))
        readbacks.append(_readbacks(program, phase, parameters.blocks.blocks, first_tile, number))
        first_tile += len(phase.tiles)
        first_chunk += len(of_tiles)
    order = [np.concatenate(arrays) for arrays in zip(*readbacks, strict=True)]
    return Work(
        kind=np.concatenate(kind),
        row_set=np.concatenate(row_set).astype(np.int32),
        tile=np.concatenate(tile).astype(np.int32),
        chunk=np.concatenate(chunk).astype(np.int32),
        ends_chunk=np.concatenate(ends_chunk),
        ends_tile=np.concatenate(ends_tile),
        begins_tile=np.concatenate(begins_tile),
        loads=program.loads_of_chunk,
        chunk_phase=np.concatenate(chunk_phase).astype(np.uint8),
        chunk_needs=np.concatenate(chunk_needs).astype(np.int32),
        readback_tile=order[0].astype(np.int32),
        readback_block=order[1].astype(np.int16),
        readback_inputs=order[2].astype(np.int32),
    )


def _chunk_needs(program: Program, phase: Phase, chunks: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Of a first phase the chunk of x; of a second one how many of its inputs must have been computed."""
    if number == 0:
        return chunks
    if program.format is WeightFormat.INT8:
        return np.full(len(chunks), phase.inputs)
    return np.minimum((chunks + 1) * 16, phase.inputs)


def _readbacks(
    program: Program, phase: Phase, blocks: int, first_tile: int, number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Tile, block and completed inputs of a phase's readbacks: tile, block, octet, then constants and tokens."""
    feeds = number + 1 < len(program.phases)
    of_octet = phase.constants_of_octet + program.tokens
    rows: list[tuple[int, int, int]] = []
    for index, tile in enumerate(phase.tiles):
        for block in range(blocks):
            for octet in range(tile.octets):
                first = tile.first_row + block * tile.rows_per_block + octet * OCTET
                valid = min(OCTET, tile.rows_per_block - octet * OCTET, max(0, phase.rows - first))
                inputs = [0] * (of_octet - 1) + [valid // 2 if feeds else 0]
                rows += [(first_tile + index, block, count) for count in inputs]
    tiles, of_blocks, counts = np.array(rows, np.int64).T
    return tiles, of_blocks, counts


@njit()
def _run(work, clocks, inputs_ready, refresh_due):  # type: ignore[no-untyped-def]
    """The log ``[commands, 5]`` (clock, command, half, block, number), and (done, last PIM, last readback)."""
    columns, row_sets = len(work.kind), work.row_set[-1] + 1
    chunks, readbacks = len(work.chunk_phase), len(work.readback_tile)
    tiles = work.tile[-1] + 1
    log = np.empty((1 << 16, 5), np.int64)
    logged = 0

    # What has been issued.
    column = load = readback = 0
    chunk_loaded = np.full(chunks, NEVER)  # clock of its last LDI
    chunk_used = np.full(chunks, NEVER)  # of its last MAC
    tile_read = np.full(tiles, NEVER)  # of its last column
    tiles_read_back = chunks_used = 0
    computed_at = np.full(readbacks, NEVER)  # when a readback's products count as inputs
    computed = computed_readback = 0

    # Rows: a half holds row set ``holds`` in its first ``opened`` banks.
    holds, opened = np.full(2, -1), np.zeros(2, np.int64)
    next_row_set = 0
    half_act, half_pim, half_close = np.full(2, _LONG_AGO), np.full(2, _LONG_AGO), np.full(2, _LONG_AGO)
    acts = np.full(max(4, clocks.group_window), _LONG_AGO)  # the last ACTs, a ring
    act_count = 0
    row_bus_free = last_act = last_close = last_refresh = _LONG_AGO
    last_pim = last_load = last_readback = _LONG_AGO
    refreshing = False
    refreshes = 0

    clock = 0
    while True:
        if logged + 2 > len(log):
            longer = np.empty((2 * len(log), 5), np.int64)
            longer[:logged] = log[:logged]
            log = longer
        if refreshing and clock >= last_refresh + clocks.refresh:
            refreshing = False
        stopped = refreshing or clock >= refresh_due
        any_open = opened[0] + opened[1] > 0
        if column == columns and readback == readbacks and not any_open and not refreshing:
            break
        while computed_readback < readback and computed_at[computed_readback] <= clock:
            computed += work.readback_inputs[computed_readback]
            computed_readback += 1
        reading = work.row_set[column] if column < columns else row_sets

        # Row bus.
        if clock >= row_bus_free and clock % clocks.row_period == clocks.row_phase:
            issued = -1
            half, block, number = -1, -1, 0
            may_close_all = clock >= last_pim + clocks.pim_to_close and clock >= last_act + clocks.act_to_close
            if (stopped and not refreshing) or (column == columns and next_row_set == row_sets and not refreshing):
                if any_open:
                    if may_close_all:
                        issued, number = _PREAB, refreshes
                elif stopped and clock >= last_close + clocks.close_to_act:
                    issued, number = _REFAB, refreshes
            elif not stopped and next_row_set < row_sets:
                half = next_row_set & 1
                if opened[half] > 0 and holds[half] != next_row_set:
                    if (
                        reading > holds[half]
                        and clock >= half_pim[half] + clocks.pim_to_close
                        and clock >= half_act[half] + clocks.act_to_close
                    ):
                        issued, number = _PREH, holds[half]
                elif (
                    clock >= half_close[half] + clocks.close_to_act
                    and clock >= last_act + clocks.act_to_act
                    and clock >= acts[(act_count - clocks.group_window) % len(acts)] + clocks.act_to_act_group
                    and clock >= acts[(act_count - 4) % len(acts)] + clocks.four_acts
                ):
                    issued, block, number = _ACT, opened[half], next_row_set
            if issued == _ACT:
                holds[half] = next_row_set
                opened[half] += 1
                half_act[half] = last_act = clock
                acts[act_count % len(acts)] = clock
                act_count += 1
                if opened[half] == clocks.blocks:
                    next_row_set += 1
            elif issued == _PREH:
                opened[half] = 0
                half_close[half] = last_close = clock
            elif issued == _PREAB:
                opened[:] = 0
                half_close[:] = clock
                last_close = clock
                next_row_set = reading
            elif issued == _REFAB:
                last_refresh = clock
                refreshing = True
                refresh_due += clocks.refresh_interval
                refreshes += 1
            if issued >= 0:
                row_bus_free = clock + (clocks.act_on_bus if issued == _ACT else 1)
                log[logged] = (clock, issued, half, block, number)
                logged += 1

        # Column bus.  The row engine's command of this clock is not seen yet: an ACT comes before its PIM by tRCD, and
        # whoever is closed has been read.
        if not stopped and clock % clocks.column_period == clocks.column_phase:
            half = reading & 1
            may_pim = (
                column < columns
                and holds[half] == reading
                and opened[half] == clocks.blocks
                and clock >= half_act[half] + clocks.act_to_pim
                and clock >= last_pim + clocks.interval
            )
            if may_pim and work.kind[column] == _MAC:
                may_pim = clock >= chunk_loaded[work.chunk[column]] + clocks.load_to_use
            if may_pim and work.kind[column] == _CONSTANTS:
                # The constants before are read back.
                may_pim = tiles_read_back >= work.tile[column]
            if may_pim and work.begins_tile[column]:
                # Its accumulators have been read back.
                may_pim = tiles_read_back >= work.tile[column] - 1
            wants_load = load < chunks * work.loads
            if wants_load and load >= INPUT_REGISTERS:
                before = (load - INPUT_REGISTERS) // work.loads
                wants_load = clock >= chunk_used[before] + clocks.use_to_load
            if wants_load:
                chunk = load // work.loads
                needs = work.chunk_needs[chunk]
                wants_load = clock >= inputs_ready[needs] if work.chunk_phase[chunk] == 0 else computed >= needs
            wants_readback = (
                readback < readbacks and clock >= tile_read[work.readback_tile[readback]] + clocks.tile_to_readback
            )
            # Turning the data bus costs clocks, so neither yields to the other at once.
            if wants_load and wants_readback:
                wants_readback = load - chunks_used * work.loads >= FEW_LOADED
                wants_load = not wants_readback
            if may_pim:
                log[logged] = (clock, _PIM, half, -1, column)
                logged += 1
                half_pim[half] = last_pim = clock
                if work.ends_chunk[column]:
                    chunk_used[work.chunk[column]] = clock
                    chunks_used += 1
                if work.ends_tile[column]:
                    tile_read[work.tile[column]] = clock
                column += 1
            elif (
                wants_load
                and clock >= last_load + clocks.load_to_load
                and clock >= last_readback + clocks.readback_to_load
            ):
                log[logged] = (clock, _LDI, -1, -1, load)
                logged += 1
                last_load = clock
                load += 1
                if load % work.loads == 0:
                    chunk_loaded[load // work.loads - 1] = clock
            elif (
                wants_readback
                and clock >= last_readback + clocks.interval
                and clock >= last_load + clocks.load_to_readback
            ):
                log[logged] = (clock, _RDA, -1, np.int64(work.readback_block[readback]), readback)
                logged += 1
                last_readback = clock
                computed_at[readback] = clock + clocks.readback_to_input
                readback += 1
                if readback == readbacks or work.readback_tile[readback] != work.readback_tile[readback - 1]:
                    tiles_read_back += 1
        clock += 1
    return log[:logged], np.array([clock, last_pim, last_readback])
