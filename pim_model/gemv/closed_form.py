"""The unit's clocks without stepping through them: a recurrence over runs of columns.

`pim_model.unit.schedule` decides in every clock. Here a *run* is taken at once: columns of one chunk (or tile's
constants) that lie in one row set follow each other every ``interval`` clocks, so that only their first clock has to be
found. It is the latest of what it waits for:

* the column before: ``last + interval``;
* its row set: the half's last ACT + tRCD; the ACTs follow PREH + tRP under tRRD and tFAW, PREH the half's last column +
  tRTP and its last ACT + tRAS;
* the chunk's last LDI, and, at a tile's beginning and before its constants, the readbacks before.

LDIs and readbacks are placed one by one in the clocks that the runs leave. A refresh that comes due cuts a run. The
work is proportional to row sets, chunks and readbacks instead of clocks: about a tenth of a millisecond for an expert's
slice. The result is the schedule's own, clock for clock (tested over random programs, devices and refreshes), so that
it also checks the schedule: it was written from the rules, not from the sequencer's three engines.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from pim_model.unit.parameters import INPUT_REGISTERS, UnitParameters
from pim_model.unit.program import Program, WeightFormat
from pim_model.unit.schedule import FEW_LOADED, NEVER

_LONG_AGO = -(1 << 40)


class GemvClocks(NamedTuple):
    """How long a program takes.

    Attributes:
        compute_ck: Clocks until the last tile's sums are complete.
        readout_ck: Clocks from there until the last readback has reached the base die.
    """

    compute_ck: int
    readout_ck: int


class _Shape(NamedTuple):
    """What the kernel needs to know of a program.

    Attributes:
        loads: LDIs of a chunk.
        row_bursts: Columns of a row set.
        row_sets: In all.
        of_octet: Readbacks of an octet.
        first_rows: Rows of the first phase.
        second_inputs: Inputs of the second phase.
        input_step: Of those, how many must have been computed for a chunk: 16, or all of them at once.
    """

    loads: int
    row_bursts: int
    row_sets: int
    of_octet: int
    first_rows: int
    second_inputs: int
    input_step: int


# Columns of the tiles' table.
_PHASE, _CHUNKS, _GROUPS, _CONSTANTS, _READBACKS, _SCALES, _ROWS = range(7)

# Entries of the state: the loads and readbacks, and the row sets.
_CURSOR, _LOADED, _LAST_LOAD, _READ_BACK, _LAST_READBACK, _TILES_READ_BACK, _USED = range(7)
_RUN_START, _RUN_END = 7, 8
_ENTRIES = 9

# Columns of a half's row commands.
_BEFORE, _CLOSED, _ACTS = range(3)


def unit_clocks(program: Program, parameters: UnitParameters, *, refresh_in_ck: int | None = None) -> GemvClocks:
    """Clocks of ``program``, as `pim_model.unit.schedule.schedule` counts them, all inputs there from the beginning.

    Args:
        program: What is run.
        parameters: The unit.
        refresh_in_ck: Clock in which the first refresh is due; None: none ever is.
    """
    timings = parameters.timings
    last_column, last_readback = _walk(
        _tiles(program), timings, _shape(program, parameters), NEVER if refresh_in_ck is None else refresh_in_ck
    )
    complete = last_column + timings.read_latency + timings.tile_to_readback
    return GemvClocks(complete, max(0, last_readback + timings.read_latency + timings.interval - complete))


def _tiles(program: Program) -> NDArray[np.int64]:
    """A row for each tile, of all phases."""
    mxfp4 = program.format is WeightFormat.MXFP4
    return np.array(
        [
            (
                number,
                phase.chunks,
                tile.rows_per_block // phase.format.rows,
                tile.octets * phase.constants_of_octet,
                tile.octets * (phase.constants_of_octet + program.tokens),
                int(mxfp4),
                tile.rows_per_block,
            )
            for number, phase in enumerate(program.phases)
            for tile in phase.tiles
        ],
        np.int64,
    )


def _shape(program: Program, parameters: UnitParameters) -> _Shape:
    first, last = program.phases[0], program.phases[-1]
    return _Shape(
        loads=program.loads_of_chunk,
        row_bursts=parameters.device.row_bursts,
        row_sets=last.first_row_set + last.row_sets,
        of_octet=first.constants_of_octet + program.tokens,
        first_rows=first.rows,
        second_inputs=last.inputs,
        input_step=last.inputs if program.format is WeightFormat.INT8 else 16,
    )


@njit()
def _slot(clock, period, phase):  # type: ignore[no-untyped-def]
    """The first clock from ``clock`` on that is ≡ phase (mod period)."""
    return clock + (phase - clock) % period


@njit()
def _walk(tiles, clocks, shape, refresh_due):  # type: ignore[no-untyped-def]
    """The clocks of the last column and of the last readback."""
    count = len(tiles)
    first_chunk, first_readback = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for number in range(count):
        first_chunk[number + 1] = first_chunk[number] + tiles[number, _CHUNKS]
        first_readback[number + 1] = first_readback[number] + tiles[number, _READBACKS] * clocks.blocks
    used_at, tile_end = np.full(first_chunk[count], NEVER), np.full(count + 1, NEVER)
    readback_at = np.full(first_readback[count] + 1, NEVER)
    loaded_at = np.full(first_chunk[count], NEVER)
    state = np.zeros(_ENTRIES, np.int64)
    state[_LAST_LOAD] = state[_LAST_READBACK] = _LONG_AGO
    state[_RUN_START], state[_RUN_END] = 0, -1
    book = (tiles, first_chunk, first_readback, used_at, tile_end, readback_at, loaded_at)

    acts = np.full(max(4, clocks.group_window), _LONG_AGO)
    # Of each half: the last ACT of the row set before, its PREH, and the ACTs of the row set that it holds next.
    halves = np.full((2, _ACTS + clocks.blocks), _LONG_AGO)
    _open(0, 0, clocks, acts, halves)
    if shape.row_sets > 1:
        _open(1, 0, clocks, acts, halves)
    row_set = position = 0
    last = np.int64(_LONG_AGO)

    for number in range(count):
        if number > 0 and tiles[number, _PHASE] != tiles[number - 1, _PHASE] and position > 0:
            position = shape.row_bursts  # a phase begins a row set
        chunks, groups = tiles[number, _CHUNKS], tiles[number, _GROUPS]
        runs = chunks * (1 + tiles[number, _SCALES]) + 1
        for run in range(runs):
            chunk, before, left = -1, number - 1, groups
            if run == runs - 1:
                before, left = number, tiles[number, _CONSTANTS]
            elif tiles[number, _SCALES] == 1:
                # For two chunks: scales, weights, weights.  The fourth run is empty.
                pair, part = run // 4, run % 4
                if part == 0:
                    left = 1
                elif part == 3:
                    left = 0
                else:
                    chunk = first_chunk[number] + 2 * pair + part - 1
            else:
                chunk = first_chunk[number] + run
            while left > 0:
                if position == shape.row_bursts:
                    if row_set + 2 < shape.row_sets:
                        half = row_set & 1
                        close = max(
                            last + max(1, clocks.pim_to_close),
                            halves[half, -1] + clocks.act_to_close,
                            acts[0] + clocks.act_on_bus,
                        )
                        close = _slot(close, clocks.row_period, clocks.row_phase)
                        halves[half, _BEFORE], halves[half, _CLOSED] = halves[half, -1], close
                        _open(half, close + clocks.close_to_act, clocks, acts, halves)
                    row_set += 1
                    position = 0
                start = max(last + clocks.interval, halves[row_set & 1, -1] + clocks.act_to_pim, state[_CURSOR])
                start = _slot(start, clocks.column_period, clocks.column_phase)
                start = _wait(start, before, chunk, state, book, clocks, shape, refresh_due)
                if start >= refresh_due:
                    _fill(refresh_due, NEVER, NEVER, state, book, clocks, shape)
                    resume = _refresh(refresh_due, refresh_due, last, clocks, acts, halves)
                    state[_CURSOR] = resume
                    _open(row_set & 1, resume, clocks, acts, halves)
                    if row_set + 1 < shape.row_sets:
                        _open((row_set + 1) & 1, resume, clocks, acts, halves)
                    refresh_due += clocks.refresh_interval
                    continue
                columns = min(left, shape.row_bursts - position, (refresh_due - 1 - start) // clocks.interval + 1)
                last = start + (columns - 1) * clocks.interval
                state[_RUN_START], state[_RUN_END] = start, last
                _fill(last, NEVER, NEVER, state, book, clocks, shape)
                state[_CURSOR] = last + 1
                left -= columns
                position += columns
            if chunk >= 0:
                used_at[chunk] = last
                state[_USED] += 1
        tile_end[number] = last
    while state[_READ_BACK] < first_readback[count]:
        _fill(refresh_due, NEVER, first_readback[count], state, book, clocks, shape)
        if state[_READ_BACK] < first_readback[count]:
            # The banks are closed since they were last read.
            state[_CURSOR] = _refresh(refresh_due, last, last, clocks, acts, halves)
            refresh_due += clocks.refresh_interval
    return last, state[_LAST_READBACK]


@njit()
def _open(half, earliest, clocks, acts, halves):  # type: ignore[no-untyped-def]
    """Open all banks of a half from ``earliest`` on; ``acts`` has the last ACTs, latest first."""
    for bank in range(clocks.blocks):
        clock = max(
            earliest,
            acts[0] + clocks.act_to_act,
            acts[3] + clocks.four_acts,
            acts[clocks.group_window - 1] + clocks.act_to_act_group,
        )
        clock = _slot(clock, clocks.row_period, clocks.row_phase)
        for index in range(len(acts) - 1, 0, -1):
            acts[index] = acts[index - 1]
        acts[0] = halves[half, _ACTS + bank] = clock


@njit()
def _refresh(due, close_from, last, clocks, acts, halves):  # type: ignore[no-untyped-def]
    """The first clock after a refresh due in clock ``due``; row commands from then on have not been issued.

    Banks are closed from clock ``close_from`` on.
    """
    last_act, any_open, closed = np.int64(_LONG_AGO), False, np.int64(_LONG_AGO)
    for half in range(2):
        if halves[half, _CLOSED] < due:
            closed = max(closed, halves[half, _CLOSED])
        else:
            any_open = True
            last_act = max(last_act, halves[half, _BEFORE])
        for act in halves[half, _ACTS:]:
            if _LONG_AGO < act < due:
                any_open = True
                last_act = max(last_act, act)
    if any_open:
        closed = max(last + max(1, clocks.pim_to_close), last_act + clocks.act_to_close)
        closed = _slot(max(close_from, closed), clocks.row_period, clocks.row_phase)
    refresh = _slot(max(due, closed + clocks.close_to_act), clocks.row_period, clocks.row_phase)
    acts[:] = _LONG_AGO
    halves[:] = _LONG_AGO
    halves[:, _CLOSED] = closed
    return refresh + clocks.refresh


@njit()
def _wait(start, before, chunk, state, book, clocks, shape, due):  # type: ignore[no-untyped-def]
    """When a run that could begin in clock ``start`` does.

    ``before`` tiles must have been read back, and ``chunk`` loaded, unless it is −1. A clock from ``due`` on: not
    before the refresh.
    """
    first_readback, readback_at, loaded_at = book[2], book[5], book[6]
    if before > 0:
        goal = first_readback[before]
        if state[_READ_BACK] < goal:
            _fill(min(start, due), NEVER, NEVER, state, book, clocks, shape)
        if state[_READ_BACK] < goal:
            _fill(due, NEVER, goal, state, book, clocks, shape)
        if state[_READ_BACK] < goal:
            return due
        start = max(start, readback_at[goal - 1] + 1)
        start = _slot(start, clocks.column_period, clocks.column_phase)
    if chunk >= 0:
        goal = (chunk + 1) * shape.loads
        if state[_LOADED] < goal:
            _fill(min(start, due), NEVER, NEVER, state, book, clocks, shape)
        if state[_LOADED] < goal:
            _fill(due, goal, NEVER, state, book, clocks, shape)
        if state[_LOADED] < goal:
            return due
        start = max(start, loaded_at[chunk] + clocks.load_to_use)
        start = _slot(start, clocks.column_period, clocks.column_phase)
    return start


@njit()
def _fill(until, loads, readbacks, state, book, clocks, shape):  # type: ignore[no-untyped-def]
    """Issue LDIs and readbacks before clock ``until``, or until there are so many; the last run's columns go first."""
    _, first_chunk, first_readback, used_at, tile_end, readback_at, loaded_at = book
    all_loads, all_readbacks = shape.loads * first_chunk[-1], first_readback[-1]
    while state[_LOADED] < loads and state[_READ_BACK] < readbacks:
        load, readback = state[_LOADED], state[_READ_BACK]
        # From when on each is wanted.
        wants_load, wants_readback = np.int64(NEVER), np.int64(NEVER)
        if load < all_loads:
            wants_load = np.int64(0)
            if load >= INPUT_REGISTERS:
                used = used_at[(load - INPUT_REGISTERS) // shape.loads]
                wants_load = np.int64(NEVER) if used == NEVER else used + clocks.use_to_load
            if wants_load < NEVER:
                wants_load = max(wants_load, _needed(load // shape.loads, book, clocks, shape))
        if readback < all_readbacks:
            tile = state[_TILES_READ_BACK]
            if tile_end[tile] < NEVER:
                wants_readback = tile_end[tile] + clocks.tile_to_readback
        cursor = state[_CURSOR]
        load_clock = max(cursor, wants_load, state[_LAST_LOAD] + clocks.load_to_load)
        load_clock = max(load_clock, state[_LAST_READBACK] + clocks.readback_to_load)
        readback_clock = max(cursor, wants_readback, state[_LAST_READBACK] + clocks.interval)
        readback_clock = max(readback_clock, state[_LAST_LOAD] + clocks.load_to_readback)
        load_clock = _free(load_clock, state, clocks)
        readback_clock = _free(readback_clock, state, clocks)
        if load - state[_USED] * shape.loads >= FEW_LOADED:
            takes_load = load_clock < wants_readback
        else:
            takes_load = not readback_clock < wants_load
        clock = load_clock if takes_load else readback_clock
        if clock >= until:
            break
        if takes_load:
            state[_LAST_LOAD] = clock
            state[_LOADED] += 1
            if state[_LOADED] % shape.loads == 0:
                loaded_at[load // shape.loads] = clock
        else:
            state[_LAST_READBACK] = readback_at[readback] = clock
            state[_READ_BACK] += 1
            if state[_READ_BACK] == first_readback[state[_TILES_READ_BACK] + 1]:
                state[_TILES_READ_BACK] += 1
        state[_CURSOR] = clock + 1


@njit()
def _free(clock, state, clocks):  # type: ignore[no-untyped-def]
    """The first clock from ``clock`` on in which the column bus is this pseudo-channel's and no column goes."""
    clock = _slot(clock, clocks.column_period, clocks.column_phase)
    if state[_RUN_START] <= clock <= state[_RUN_END] and (clock - state[_RUN_START]) % clocks.interval == 0:
        clock += clocks.column_period
    return clock


@njit()
def _needed(chunk, book, clocks, shape):  # type: ignore[no-untyped-def]
    """From when on a chunk may be loaded: of a second phase, when its inputs have been computed."""
    tiles, first_chunk, first_readback, _, _, readback_at, _ = book
    count = len(tiles)
    if tiles[count - 1, _PHASE] == 0:
        return np.int64(0)
    second = 0
    while tiles[second, _PHASE] == 0:
        second += 1
    if chunk < first_chunk[second]:
        return np.int64(0)
    within = (chunk - first_chunk[second]) % tiles[second, _CHUNKS]
    inputs = min((within + 1) * shape.input_step, shape.second_inputs)
    # The readback that completes them: of the octet that holds their last up row.
    row, tile = 2 * inputs - 1, 0
    while row >= tiles[tile, _ROWS] * clocks.blocks:
        row -= tiles[tile, _ROWS] * clocks.blocks
        tile += 1
    rows = tiles[tile, _ROWS]
    octet = (row // rows) * ((rows + 7) // 8) + row % rows // 8
    readback = first_readback[tile] + (octet + 1) * shape.of_octet - 1
    if readback_at[readback] == NEVER:
        return np.int64(NEVER)
    return readback_at[readback] + clocks.readback_to_input
