"""The unit's schedule: legal, as early as it can be, refreshed in time, on its own slots, fed with what is there."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import ForestageError
from pim_model.dram.devices import find_device
from pim_model.dram.pim_unit import data_latencies, refresh_rule
from pim_model.gemv.closed_form import unit_clocks
from pim_model.unit.parameters import INPUT_REGISTERS, LANE_LATENCY_CK, UnitParameters
from pim_model.unit.program import ColumnKind, ExpertKind, Program, WeightFormat, expert_program, gemv_program
from pim_model.unit.schedule import UnitCommand, schedule
from tests.unit_schedules import IssuedCommands

ACT, PREH, PREAB, REFAB, PIM, LDI, RDA = UnitCommand
DEVICES = ("HBM2-PIM", "HBM3", "HBM3E", "HBM4")


@cache
def unit(name: str = "HBM2-PIM", bus_phases: int = 1, phase: int = 0) -> UnitParameters:
    return UnitParameters(device=find_device(name), bus_phases=bus_phases, phase=phase)


@st.composite
def programs(draw: st.DrawFn) -> tuple[UnitParameters, Program, int | None]:
    """A unit, a program, and when the first refresh is due."""
    bus_phases = draw(st.integers(1, 2))
    parameters = unit(draw(st.sampled_from(DEVICES)), bus_phases, draw(st.integers(0, bus_phases - 1)))
    weight_format = draw(st.sampled_from(WeightFormat))
    tokens = draw(st.integers(1, weight_format.most_tokens))
    if draw(st.booleans()):
        rows, inputs = draw(st.integers(1, 600)), draw(st.integers(1, 400))
        program = gemv_program(parameters, rows, inputs, weight_format, tokens=tokens, bias=draw(st.booleans()))
    else:
        hidden, intermediate = draw(st.integers(1, 500)), draw(st.integers(1, 150))
        kind, bias = draw(st.sampled_from([(ExpertKind.SWIGLU, False), (ExpertKind.GPT_OSS, True)]))
        program = expert_program(
            parameters, hidden, intermediate, weight_format, kind, tokens=tokens, gate_up_bias=bias, down_bias=bias
        )
    due = draw(st.none() | st.integers(0, parameters.device.trefi_ck))
    return parameters, program, due


@settings(max_examples=25, deadline=None)
@given(programs())
def test_every_command_is_legal(case: tuple) -> None:
    parameters, program, due = case
    issued = IssuedCommands(schedule(program, parameters, refresh_in_ck=due), parameters, program)
    assert issued.violations() == []


@settings(max_examples=25, deadline=None)
@given(programs())
def test_every_command_comes_as_often_as_the_program_says(case: tuple) -> None:
    parameters, program, due = case
    result = schedule(program, parameters, refresh_in_ck=due)
    columns = sum(len(phase.columns().kind) for phase in program.phases)
    loads = sum(phase.chunks * len(phase.tiles) for phase in program.phases) * program.loads_of_chunk
    octets = sum(
        (phase.constants_of_octet + program.tokens) * sum(tile.octets for tile in phase.tiles)
        for phase in program.phases
    )
    assert result.count(PIM) == columns
    assert result.count(LDI) == loads
    assert result.count(RDA) == octets * parameters.blocks.blocks
    for command in (PIM, LDI, RDA, REFAB):
        numbers = result.number[result.command == command]
        assert list(numbers) == list(range(len(numbers)))
    if due is None:
        assert result.count(ACT) == program.row_sets * parameters.blocks.blocks
        assert result.count(REFAB) == 0


def columns_of(program: Program) -> dict[str, np.ndarray]:
    """Of each column its kind, tile and chunk, tiles and chunks counted through."""
    kind, tile, chunk, tiles, chunks = [], [], [], 0, 0
    for phase in program.phases:
        columns = phase.columns()
        kind.append(columns.kind)
        tile.append(tiles + columns.tile)
        is_mac = columns.kind == ColumnKind.MAC
        chunk.append(np.where(is_mac, chunks + columns.tile * phase.chunks + columns.chunk, -1))
        tiles += len(phase.tiles)
        chunks += len(phase.tiles) * phase.chunks
    return {"kind": np.concatenate(kind), "tile": np.concatenate(tile), "chunk": np.concatenate(chunk)}


@settings(max_examples=25, deadline=None)
@given(programs())
def test_data_are_there_when_they_are_used_and_used_before_they_are_overwritten(case: tuple) -> None:
    parameters, program, due = case
    result = schedule(program, parameters, refresh_in_ck=due)
    latencies = data_latencies(parameters.device, LANE_LATENCY_CK)
    column = columns_of(program)
    pim, load, readback = (result.clock_ck[result.command == command] for command in (PIM, LDI, RDA))
    loads = program.loads_of_chunk
    is_mac = column["kind"] == ColumnKind.MAC
    last_load = load[(column["chunk"][is_mac] + 1) * loads - 1]
    assert np.all(pim[is_mac] >= last_load + latencies.load_to_use_ck)
    # A register is loaded again after the last column that used it.
    used = np.full(len(load) // loads, -1)
    np.maximum.at(used, column["chunk"][is_mac], pim[is_mac])
    later = np.arange(INPUT_REGISTERS, len(load))
    assert np.all(load[later] >= used[(later - INPUT_REGISTERS) // loads] + latencies.use_to_reload_ck)
    # A tile is read back when its sums are complete; its accumulators and constants are used again after that.
    per_tile = [
        (phase.constants_of_octet + program.tokens) * tile.octets * parameters.blocks.blocks
        for phase in program.phases
        for tile in phase.tiles
    ]
    ends = np.cumsum(per_tile)
    for tile, (end, number) in enumerate(zip(ends, per_tile, strict=True)):
        of_tile = pim[column["tile"] == tile]
        assert readback[end - number] >= of_tile[-1] + latencies.column_to_readout_ck
        if tile + 2 < len(ends):
            assert pim[column["tile"] == tile + 2][0] > readback[end - 1]
        constants = pim[(column["tile"] == tile + 1) & (column["kind"] == ColumnKind.CONSTANTS)]
        assert np.all(constants > readback[end - 1])


@settings(max_examples=25, deadline=None)
@given(programs())
def test_down_never_loads_an_input_before_it_has_been_computed(case: tuple) -> None:
    parameters, program, due = case
    if len(program.phases) == 1:
        return
    result = schedule(program, parameters, refresh_in_ck=due)
    up, down = program.phases
    load, readback = (result.clock_ck[result.command == command] for command in (LDI, RDA))
    # When each of the inputs of down is there: the last token's readback of the octet that holds its up row.
    there = np.full(down.inputs, -1)
    number = 0
    for tile in up.tiles:
        for block in range(parameters.blocks.blocks):
            for octet in range(tile.octets):
                number += up.constants_of_octet + program.tokens
                first = tile.first_row + block * tile.rows_per_block + 8 * octet
                rows = range(first, min(first + 8, tile.first_row + (block + 1) * tile.rows_per_block, up.rows))
                for row in rows:
                    there[row // 2] = readback[number - 1] + parameters.timings.readback_to_input
    assert np.all(there > 0)
    of_up = up.chunks * len(up.tiles)
    for index, clock in enumerate(load[of_up * program.loads_of_chunk :]):
        chunk = index // program.loads_of_chunk % down.chunks
        wanted = there if program.format is WeightFormat.INT8 else there[: 16 * (chunk + 1)]
        assert clock >= wanted.max()


@settings(max_examples=25, deadline=None)
@given(programs(), st.data())
def test_inputs_are_loaded_when_they_are_ready(case: tuple, data: st.DataObject) -> None:
    parameters, program, due = case
    chunks = program.phases[0].chunks
    ready = data.draw(st.lists(st.integers(0, 3000), min_size=chunks, max_size=chunks))
    result = schedule(program, parameters, refresh_in_ck=due, inputs_ready_ck=ready)
    load = result.clock_ck[result.command == LDI][: chunks * len(program.phases[0].tiles) * program.loads_of_chunk]
    chunk = np.arange(len(load)) // program.loads_of_chunk % chunks
    wanted = np.full(chunks, max(ready)) if program.format is WeightFormat.INT8 else np.array(ready)
    assert np.all(load >= wanted[chunk])
    assert IssuedCommands(result, parameters, program).violations() == []
    at_once = schedule(program, parameters, refresh_in_ck=due, inputs_ready_ck=[0] * chunks)
    assert np.array_equal(at_once.clock_ck, schedule(program, parameters, refresh_in_ck=due).clock_ck)


@settings(max_examples=25, deadline=None)
@given(programs())
def test_refreshes_are_in_time_and_nothing_else_happens_meanwhile(case: tuple) -> None:
    parameters, program, due = case
    if due is None:
        return
    result = schedule(program, parameters, refresh_in_ck=due)
    rule, timings = refresh_rule(parameters.device), parameters.timings
    refreshes = result.clock_ck[result.command == REFAB]
    # From its being due to REFAB: rows stay open for tRAS, then tRP, and two waits for a slot.
    longest = max(timings.act_to_close, timings.pim_to_close) + timings.close_to_act + 2 * timings.row_period
    blocked = np.isin(result.command, [int(UnitCommand[name.name]) for name in rule.blocked])
    for number, clock in enumerate(refreshes):
        begin = due + number * rule.interval_ck
        assert begin <= clock <= begin + longest
        inside = (result.clock_ck >= begin) & (result.clock_ck < clock + rule.duration_ck)
        assert not np.any(inside & blocked)
    # One for every interval that began before the end.
    assert due + len(refreshes) * rule.interval_ck >= result.done_ck


def move_earlier(issued: IssuedCommands, index: int) -> None:
    """Issue one command a slot earlier."""
    timings = issued.parameters.timings
    on_row_bus = issued.command[index] in (ACT, PREH, PREAB, REFAB)
    issued.clock[index] -= timings.row_period if on_row_bus else timings.column_period


@pytest.mark.parametrize("bus_phases", [1, 2])
@pytest.mark.parametrize("name", DEVICES)
def test_no_row_command_could_come_a_slot_earlier(name: str, bus_phases: int) -> None:
    """The table, the state of the banks, or the order of row sets forbids it: the schedule is the earliest."""
    parameters = unit(name, bus_phases)
    program = gemv_program(parameters, 500, 300, WeightFormat.BF16)
    result = schedule(program, parameters)
    original = IssuedCommands(result, parameters, program)
    rows = np.flatnonzero(original.of(ACT, PREH))
    last_pim = {half: result.clock_ck[original.of(PIM) & (result.half == half)] for half in (0, 1)}
    rng = np.random.default_rng(0)
    for index in rng.choice(rows, 40, replace=False):
        if result.clock_ck[index] - parameters.timings.row_period < 0:
            continue
        moved = IssuedCommands(result, parameters, program)
        move_earlier(moved, index)
        clock, half = moved.clock[index], int(result.half[index])
        # Whether the half has been read is known a clock after its last column.
        unread = result.command[index] == PREH and np.any(last_pim[half] == result.clock_ck[index] - 1)
        bus = result.clock_ck[original.of(ACT, PREH)]
        width = parameters.timings.act_on_bus
        busy = np.any((bus > clock - width) & (bus <= clock) & (bus != result.clock_ck[index]))
        assert moved.violations() or unread or busy, (UnitCommand(result.command[index]).name, clock)


@pytest.mark.parametrize("bus_phases", [1, 2])
@pytest.mark.parametrize("name", DEVICES)
def test_no_column_could_come_a_slot_earlier(name: str, bus_phases: int) -> None:
    parameters = unit(name, bus_phases)
    for weight_format in WeightFormat:
        # Tiles that are long enough for loads and readbacks to hide behind the columns.
        program = gemv_program(parameters, 300, 512, weight_format)
        result = schedule(program, parameters)
        column = columns_of(program)
        pim = np.flatnonzero(result.command == PIM)
        loads = result.clock_ck[result.command == LDI]
        timings = parameters.timings
        readback = result.clock_ck[result.command == RDA]
        for number, index in enumerate(pim):
            clock = int(result.clock_ck[index])
            after_column = number > 0 and clock - timings.column_period < result.clock_ck[pim[number - 1]] + 4
            if after_column:
                continue
            acts = result.clock_ck[(result.command == ACT) & (result.half == result.half[index])]
            opened = acts[acts < clock].max() + timings.act_to_pim
            chunk = column["chunk"][number]
            loaded = 0 if chunk < 0 else loads[(chunk + 1) * program.loads_of_chunk - 1] + timings.load_to_use
            read_back = readback[readback < clock].max(initial=-1) + 1
            reason = max(opened, loaded, read_back if column["kind"][number] == ColumnKind.CONSTANTS else 0)
            assert clock - timings.column_period < reason, number


BINDING = {
    "HBM2-PIM": {"tRRD_S", "tRCD", "tRP", "tRTP", "PIM interval", "tRP before REFab", "RDA interval", "tRFC", "tFAW"},
    "HBM3": {"tFAW", "tRRD_S", "tRCD", "tRP", "tRTP", "PIM interval", "tRP before REFab", "LDI interval", "tRFC"},
}


@pytest.mark.parametrize("name", BINDING)
def test_the_checker_sees_commands_that_come_too_early(name: str) -> None:
    """Each rule of the table that binds a schedule is broken by moving one command."""
    parameters = unit(name)
    program = gemv_program(parameters, 600, 200, WeightFormat.BF16)
    result = schedule(program, parameters, refresh_in_ck=1000)
    seen: set[str] = set()
    rng = np.random.default_rng(0)
    for command in (ACT, PREH, PREAB, REFAB, PIM, LDI, RDA):
        of_kind = np.flatnonzero(result.command == command)
        if command == PIM:  # the first of a row set waits for its row
            starts = np.flatnonzero(np.diff(result.half[of_kind])) + 1
            of_kind = np.concatenate([of_kind[:1], of_kind[starts], rng.choice(of_kind, 5)])
        if command == REFAB:  # and the ACT after it
            of_kind = np.concatenate([of_kind, of_kind + 1])
        for index in rng.choice(of_kind, min(25, len(of_kind)), replace=False):
            moved = IssuedCommands(result, parameters, program)
            moved.clock[index] -= 3
            seen |= {text.rpartition(" at ")[0] for text in moved.too_early()}
    assert seen >= BINDING[name]


@pytest.mark.parametrize("name", DEVICES)
def test_two_pseudo_channels_never_meet_on_a_bus(name: str) -> None:
    parameters = [unit(name, 2, phase) for phase in (0, 1)]
    results = [
        schedule(gemv_program(one, 200, 200, WeightFormat.BF16, tokens=4), one, refresh_in_ck=900) for one in parameters
    ]
    width = math.ceil(parameters[0].device.activate_command_ck)
    columns = [set(result.clock_ck[np.isin(result.command, [PIM, LDI, RDA])]) for result in results]
    assert not columns[0] & columns[1]
    busy = []
    for result in results:
        rows = ~np.isin(result.command, [PIM, LDI, RDA])
        clocks = {
            int(clock) + more
            for clock, command in zip(result.clock_ck[rows], result.command[rows], strict=True)
            for more in range(width if command == ACT else 1)
        }
        busy.append(clocks)
    assert not busy[0] & busy[1]


# Rows and inputs: gpt-oss-20b, Qwen3-30B-A3B up and down, DeepSeek-V2-Lite up and down.
SHAPES = ((2880, 2880), (768, 2048), (2048, 768), (1408, 2048), (2048, 1408))


@pytest.mark.parametrize("weight_format", WeightFormat)
@pytest.mark.parametrize(("rows", "inputs"), SHAPES)
def test_expert_shapes_reach_98_percent_of_the_limit_and_88_with_refresh(
    rows: int, inputs: int, weight_format: WeightFormat
) -> None:
    for tokens in range(1, weight_format.most_tokens + 1):
        for bus_phases, phase in ((1, 0), (2, 0), (2, 1)):
            parameters = unit("HBM2-PIM", bus_phases, phase)
            program = gemv_program(parameters, rows, inputs, weight_format, tokens=tokens)
            limit = program.weight_bytes / parameters.blocks.bytes_per_ck
            assert limit / unit_clocks(program, parameters).compute_ck >= 0.98
            # Wherever in tREFI it begins.
            for due in range(0, parameters.device.trefi_ck, 650):
                assert limit / unit_clocks(program, parameters, refresh_in_ck=due).compute_ck >= 0.86
            mean = np.mean(
                [unit_clocks(program, parameters, refresh_in_ck=due).compute_ck for due in range(325, 3900, 650)]
            )
            assert limit / mean >= 0.88


def test_a_wrong_number_of_ready_clocks_is_refused() -> None:
    program = gemv_program(unit(), 64, 64, WeightFormat.BF16)
    with pytest.raises(ForestageError, match=r"inputs_ready_ck has shape \[3\]; give 4 clocks"):
        schedule(program, unit(), inputs_ready_ck=[0, 0, 0])
