"""Commands against the program: every column once and in order, registers and accumulators used only while they hold
what is meant.

Nothing here knows the sequencer: only what the program needs (`pim_model.unit.program`) and how long data take
(`pim_model.dram.pim_unit.DataLatencies`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from cocotb_tests.pim_unit.command_log import CommandLog, places, readbacks
from cocotb_tests.pim_unit.timing_rules import CLOSED
from cocotb_tests.pim_unit.violations import MOST, Violation
from pim_model.dram.pim_unit import data_latencies
from pim_model.unit import parameters as unit_parameters
from pim_model.unit.parameters import INPUT_REGISTERS, UnitParameters
from pim_model.unit.program import ColumnKind, Program, WeightFormat
from pim_model.unit.schedule import UnitCommand

PROGRAM_RULES = (
    "column order",
    "load order",
    "readback order",
    "load to use",
    "use to reload",
    "columns to readback",
    "accumulators not read back",
    "constants not read back",
    "input not there",
    "input not computed",
)
"""In words: a PIM of another column, row or half than the next (or one too many); an LDI into another register; an RDA
of another block or line; a MAC whose registers are not loaded yet; an LDI into a register that is still needed; an RDA
of a tile whose sums are not complete; a MAC into sums, or constants over constants, that have not been read back; an
LDI of inputs that have not come, or not been computed."""

END_RULES = ("columns missing", "loads missing", "readbacks missing", "bank left open")

(
    _COLUMN_ORDER,
    _LOAD_ORDER,
    _READBACK_ORDER,
    _LOAD_TO_USE,
    _USE_TO_RELOAD,
    _COLUMNS_TO_READBACK,
    _ACCUMULATORS,
    _CONSTANTS,
    _NOT_THERE,
    _NOT_COMPUTED,
) = range(len(PROGRAM_RULES))
_PIM, _LDI, _RDA = int(UnitCommand.PIM), int(UnitCommand.LDI), int(UnitCommand.RDA)
_NONE = -1


class _Needs(NamedTuple):
    """What each command of the program needs, as arrays; −1 stands for nothing.

    Attributes:
        half, row, column: of each PIM.
        last_load: LDI that completes the registers of each PIM's MAC.
        sums_read: RDA after which each PIM may write accumulators.
        constants_read: RDA after which each PIM may write constants.
        last_use: last PIM that uses what each LDI loads.
        ready: clock from which each LDI's input is there.
        computed_by: RDA that completes the inputs of each LDI.
        block, line: of each RDA.
        last_column: last PIM of each RDA's tile.
    """

    half: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    last_load: NDArray[np.int64]
    sums_read: NDArray[np.int64]
    constants_read: NDArray[np.int64]
    last_use: NDArray[np.int64]
    ready: NDArray[np.int64]
    computed_by: NDArray[np.int64]
    block: NDArray[np.int64]
    line: NDArray[np.int64]
    last_column: NDArray[np.int64]


class _Latencies(NamedTuple):
    load_to_use: int
    use_to_reload: int
    column_to_readback: int
    readback_to_input: int


def program_violations(
    log: CommandLog,
    program: Program,
    parameters: UnitParameters,
    rows_read: NDArray[np.int64],
    *,
    inputs_ready_ck: Sequence[int] | None = None,
    complete: bool = True,
) -> list[Violation]:
    """Commands that the program forbids.

    Args:
        log: In order of clocks.
        program: What is run.
        parameters: The unit.
        rows_read: The row that each PIM reads (`timing_rules.state_violations`).
        inputs_ready_ck: For each chunk of the first phase, the first clock in which it may be loaded; None: from the
            first clock on.
        complete: Whether the log holds a whole run; else it may end anywhere.

    Raises:
        ForestageError: other than a clock for each chunk.
    """
    needs = _needs(program, parameters, inputs_ready_ck)
    latency = data_latencies(parameters.device, unit_parameters.LANE_LATENCY_CK)
    latencies = _Latencies(
        load_to_use=latency.load_to_use_ck,
        use_to_reload=latency.use_to_reload_ck,
        column_to_readback=latency.column_to_readout_ck,
        readback_to_input=parameters.device.cl_ck + unit_parameters.READBACK_LATENCY_CK,
    )
    found = _broken(log.clock_ck, log.command, log.half, log.block, log.address, rows_read, needs, latencies)
    violations = [
        Violation.between(PROGRAM_RULES[rule], log, index, earlier if earlier >= 0 else None)
        for rule, index, earlier in found.tolist()
    ]
    if complete:
        violations += _missing(log, needs)
    return violations


def _missing(log: CommandLog, needs: _Needs) -> list[Violation]:
    """What a whole run should have had."""
    end_ck = int(log.clock_ck[-1]) if len(log) else 0
    found = []
    expected = ((UnitCommand.PIM, needs.half), (UnitCommand.LDI, needs.ready), (UnitCommand.RDA, needs.block))
    for rule, (command, each) in zip(END_RULES, expected, strict=False):
        count = int(np.count_nonzero(log.command == command))
        if count < len(each):
            found.append(
                Violation(rule=rule, clock_ck=end_ck, command=f"{len(each) - count} of {len(each)} {command.name}")
            )
    opened = np.flatnonzero(log.command == UnitCommand.ACT)
    closed = np.flatnonzero(log.command == UnitCommand.PREAB)
    if len(opened) and not (len(closed) and closed[-1] > opened[-1]):
        halves = {int(log.half[index]) for index in opened if not len(closed) or index > closed[-1]}
        for half in sorted(halves):
            last = opened[log.half[opened] == half][-1]
            if not np.any((log.command[last:] == UnitCommand.PREH) & (log.half[last:] == half)):
                found.append(Violation.between(END_RULES[3], log, int(last)))
    return found


def _needs(program: Program, parameters: UnitParameters, inputs_ready_ck: Sequence[int] | None) -> _Needs:
    """What each command of the program needs."""
    columns, reads = places(program, parameters), readbacks(program, parameters)
    loads = program.loads_of_chunk
    is_mac, is_constant = columns.kind == ColumnKind.MAC, columns.kind == ColumnKind.CONSTANTS
    numbers = np.arange(len(columns.kind))

    tiles = int(columns.tile[-1]) + 1
    last_of_tile = np.zeros(tiles, np.int64)
    last_of_tile[columns.tile] = numbers  # of several assignments the last counts
    last_read_of_tile = np.zeros(tiles, np.int64)
    last_read_of_tile[reads.tile] = np.arange(len(reads.tile))
    before = np.concatenate([[_NONE, _NONE], last_read_of_tile])  # at n + 2 − k: that of the k-th tile before n

    chunks = int(columns.chunk.max()) + 1
    last_mac = np.zeros(chunks, np.int64)
    last_mac[columns.chunk[is_mac]] = numbers[is_mac]
    ready, computed_by = _inputs(program, reads.inputs, inputs_ready_ck)
    return _Needs(
        half=columns.half,
        row=columns.row,
        column=columns.column,
        last_load=np.where(is_mac, (columns.chunk + 1) * loads - 1, _NONE),
        sums_read=np.where(is_mac, before[columns.tile], _NONE),
        constants_read=np.where(is_constant, before[columns.tile + 1], _NONE),
        last_use=np.repeat(last_mac, loads),
        ready=np.repeat(ready, loads),
        computed_by=np.repeat(computed_by, loads),
        block=reads.block,
        line=reads.address,
        last_column=last_of_tile[reads.tile],
    )


def _inputs(
    program: Program, completed: NDArray[np.int64], inputs_ready_ck: Sequence[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each chunk of each tile: the clock from which it is there, and the RDA that completes it."""
    first = program.phases[0]
    arrives = np.zeros(first.chunks, np.int64) if inputs_ready_ck is None else np.asarray(inputs_ready_ck, np.int64)
    if arrives.shape != (first.chunks,):
        raise ForestageError(f"PIM command check: inputs_ready_ck has shape {list(arrives.shape)}; give {first.chunks}")
    # Codes of INT8 need the whole vector's exponent.
    arrives = np.full_like(arrives, arrives.max()) if program.format is WeightFormat.INT8 else arrives
    ready = [np.tile(arrives, len(first.tiles))]
    computed_by = [np.full(len(ready[0]), _NONE)]
    for phase in program.phases[1:]:
        chunk = np.arange(phase.chunks)
        needed = np.minimum((chunk + 1) * 16, phase.inputs)
        if program.format is WeightFormat.INT8:
            needed[:] = phase.inputs
        completes = np.searchsorted(np.cumsum(completed), needed)
        ready.append(np.zeros(len(chunk) * len(phase.tiles), np.int64))
        computed_by.append(np.tile(completes, len(phase.tiles)))
    return np.concatenate(ready), np.concatenate(computed_by)


@njit()
def _broken(clock, command, half, block, address, rows_read, needs, latency):  # type: ignore[no-untyped-def]
    """Rows (rule, command, earlier command or −1); at most `MOST`."""
    columns, loads, readbacks = len(needs.half), len(needs.ready), len(needs.block)
    issued_pim = np.full(columns, -1)  # index of the command
    issued_load = np.full(loads, -1)
    issued_read = np.full(readbacks, -1)
    pim = load = read = 0
    found = np.empty((MOST, 3), np.int64)
    number = 0
    for index in range(len(clock)):
        broken = np.full((3, 2), -1)  # (rule, earlier command)
        if command[index] == _PIM:
            if pim == columns:
                broken[0, 0] = _COLUMN_ORDER
            else:
                if (
                    half[index] != needs.half[pim]
                    or (rows_read[index] != needs.row[pim] and rows_read[index] != CLOSED)
                    or address[index] != needs.column[pim]
                ):
                    broken[0, 0] = _COLUMN_ORDER
                needed = needs.last_load[pim]
                if needed >= 0:
                    earlier = issued_load[needed]
                    if earlier < 0 or clock[index] - clock[earlier] < latency.load_to_use:
                        broken[1] = (_LOAD_TO_USE, earlier)
                needed = needs.sums_read[pim]
                if needed >= 0 and issued_read[needed] < 0:
                    broken[2, 0] = _ACCUMULATORS
                needed = needs.constants_read[pim]
                if needed >= 0 and issued_read[needed] < 0:
                    broken[2, 0] = _CONSTANTS
                issued_pim[pim] = index
                pim += 1
        elif command[index] == _LDI:
            if load == loads or address[index] != load % INPUT_REGISTERS:
                broken[0, 0] = _LOAD_ORDER
            if load < loads:
                if load >= INPUT_REGISTERS:
                    earlier = issued_pim[needs.last_use[load - INPUT_REGISTERS]]
                    if earlier < 0 or clock[index] - clock[earlier] < latency.use_to_reload:
                        broken[1] = (_USE_TO_RELOAD, earlier)
                if clock[index] < needs.ready[load]:
                    broken[2, 0] = _NOT_THERE
                needed = needs.computed_by[load]
                if needed >= 0:
                    earlier = issued_read[needed]
                    if earlier < 0 or clock[index] - clock[earlier] < latency.readback_to_input:
                        broken[2] = (_NOT_COMPUTED, earlier)
                issued_load[load] = index
                load += 1
        elif command[index] == _RDA:
            if (
                read == readbacks
                or block[index] != needs.block[read]
                or (address[index] != needs.line[read] and address[index] != _NONE)
            ):
                broken[0, 0] = _READBACK_ORDER
            if read < readbacks:
                earlier = issued_pim[needs.last_column[read]]
                if earlier < 0 or clock[index] - clock[earlier] < latency.column_to_readback:
                    broken[1] = (_COLUMNS_TO_READBACK, earlier)
                issued_read[read] = index
                read += 1
        for each in range(3):
            if broken[each, 0] >= 0 and number < MOST:
                found[number] = (broken[each, 0], index, broken[each, 1])
                number += 1
    return found[:number]
