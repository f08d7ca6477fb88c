"""The sequencer against its cycle twin, command by command."""

from typing import Any

import numpy as np
import pytest

from catalog.dram import DramRecord
from cocotb_tests.pim_unit.plans import plan_of
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program
from pim_model.unit.schedule import UnitCommand, schedule, work_of
from rtl.pim.base_die.layouts import ColumnCommand, RowCommand
from rtl.pim.base_die.sequencer import Sequencer
from tests.rtl.pim.base_die.devices import HBM2_PIM, HBM3
from tests.rtl.simulate import simulate

BF16, INT8, MXFP4 = WeightFormat


def expected(program: Program, parameters: UnitParameters, **options: Any) -> tuple[list[tuple], int]:
    """Commands as (clock, name, half, block, row or column), by the twin."""
    twin = schedule(program, parameters, **options)
    row_set, found = work_of(program, parameters).row_set, []
    first = np.concatenate([[0], np.flatnonzero(np.diff(row_set)) + 1])
    rows = zip(twin.clock_ck, twin.command, twin.half, twin.block, twin.number, strict=True)
    for clock, command, half, block, number in rows:
        place = -1
        if command == UnitCommand.ACT:
            place = program.base_row + number // 2
        elif command == UnitCommand.PIM:
            place = number - first[row_set[number]]
        elif command == UnitCommand.LDI:
            place = number % 16
        found.append((int(clock), UnitCommand(command).name, int(half), int(block), int(place)))
    return found, twin.done_ck


def issued(
    program: Program,
    parameters: UnitParameters,
    *,
    refresh_in_ck: int | None = None,
    x_ready_ck: list[int] | None = None,
    programs: int = 1,
) -> list[tuple[list[tuple], int, int]]:
    """For each of several runs the commands, the clock of done, and in how many clocks a refresh is due."""
    dut = Sequencer(parameters)
    runs: list[tuple[list[tuple], int, int]] = []
    chunks = program.phases[0].chunks

    async def bench(ctx: Any) -> None:
        ctx.set(dut.plan, plan_of(program))
        ctx.set(dut.output_room, 1)
        ctx.set(dut.refresh_enable, refresh_in_ck is not None)
        if refresh_in_ck is not None:
            while ctx.get(dut.refresh_left) != refresh_in_ck + 100:
                await ctx.tick()
        for _ in range(programs):
            for _ in range(100):  # planning takes longer; the distances to the last program are past
                await ctx.tick()
            ctx.set(dut.start, 1)
            while not ctx.get(dut.started):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.start, 0)
            refresh_in = ctx.get(dut.refresh_left) + 1
            found: list[tuple] = []
            clock, done = 0, None
            while done is None or clock <= done + 1:
                ready = sum(at <= clock for at in x_ready_ck) if x_ready_ck else chunks
                ctx.set(dut.x_chunks, ready)
                ctx.set(dut.x_complete, ready == chunks)
                row, column = dut.row, dut.column
                if ctx.get(row.valid) and clock - 1 < (done or clock):
                    name = RowCommand(ctx.get(row.command)).name
                    of_half, is_act = name in ("ACT", "PREH"), name == "ACT"
                    half = ctx.get(row.half) if of_half else -1
                    found.append(
                        (clock - 1, name, half, ctx.get(row.block), ctx.get(row.row))
                        if is_act
                        else (clock - 1, name, half, -1, -1)
                    )
                if ctx.get(column.valid):
                    name = ColumnCommand(ctx.get(column.command)).name
                    found.append(
                        {
                            "PIM": (clock - 1, name, ctx.get(column.half), -1, ctx.get(column.column)),
                            "LDI": (clock - 1, name, -1, -1, ctx.get(column.register)),
                            "RDA": (clock - 1, name, -1, ctx.get(column.block), -1),
                        }[name]
                    )
                if done is None and ctx.get(dut.done):
                    done = clock
                await ctx.tick()
                clock += 1
            runs.append((found, done, refresh_in))

    simulate(dut, bench)
    return runs


def same(program: Program, parameters: UnitParameters, **options: Any) -> None:
    refresh = options.get("refresh_in_ck")
    for found, done, refresh_in in issued(program, parameters, **options):
        commands, done_ck = expected(
            program,
            parameters,
            refresh_in_ck=None if refresh is None else refresh_in,
            inputs_ready_ck=options.get("x_ready_ck"),
        )
        for number, (theirs, twins) in enumerate(zip(found, commands, strict=False)):
            assert theirs == twins, f"command {number} of {len(commands)}"
        assert len(found) == len(commands)
        assert done == done_ck


def unit(device: DramRecord, **options: Any) -> UnitParameters:
    return UnitParameters(device=device, max_inputs=1024, **options)


EXPERTS = [
    (BF16, ExpertKind.SWIGLU, 1, False),
    (BF16, ExpertKind.SWIGLU, 3, True),
    (BF16, ExpertKind.GPT_OSS, 4, False),
    (INT8, ExpertKind.SWIGLU, 1, False),
    (INT8, ExpertKind.GPT_OSS, 2, True),
    (MXFP4, ExpertKind.GPT_OSS, 1, True),
    (MXFP4, ExpertKind.SWIGLU, 1, False),
]


@pytest.mark.parametrize("device", [HBM2_PIM, HBM3], ids=lambda device: device.name)
@pytest.mark.parametrize(("weight_format", "kind", "tokens", "bias"), EXPERTS)
def test_a_small_expert(
    device: DramRecord, weight_format: WeightFormat, kind: ExpertKind, tokens: int, bias: bool
) -> None:
    parameters = unit(device)
    program = expert_program(
        parameters, 70, 90, weight_format, kind, tokens=tokens, gate_up_bias=bias, down_bias=bias, base_row=5
    )
    same(program, parameters)


GEMVS = [
    (HBM2_PIM, BF16, 1, 1, 1, False),  # one row, one input
    (HBM2_PIM, BF16, 300, 40, 2, True),  # two tiles, the last shorter
    (HBM2_PIM, INT8, 257, 33, 1, False),
    (HBM2_PIM, INT8, 200, 17, 2, False),
    (HBM2_PIM, MXFP4, 513, 16, 1, False),  # three tiles, a chunk of zeros
    (HBM3, MXFP4, 130, 100, 1, True),
    (HBM3, BF16, 77, 50, 4, False),
]


@pytest.mark.parametrize(("device", "weight_format", "rows", "inputs", "tokens", "bias"), GEMVS)
def test_a_gemv(
    device: DramRecord, weight_format: WeightFormat, rows: int, inputs: int, tokens: int, bias: bool
) -> None:
    parameters = unit(device)
    same(gemv_program(parameters, rows, inputs, weight_format, tokens=tokens, bias=bias), parameters)


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("device", [HBM2_PIM, HBM3], ids=lambda device: device.name)
def test_two_pseudo_channels_share_the_buses(device: DramRecord, phase: int) -> None:
    parameters = unit(device, bus_phases=2, phase=phase)
    same(expert_program(parameters, 40, 50, INT8, ExpertKind.SWIGLU, gate_up_bias=True), parameters)


@pytest.mark.parametrize("device", [HBM2_PIM, HBM3], ids=lambda device: device.name)
@pytest.mark.parametrize("bus_phases", [1, 2])
def test_refresh_in_the_middle_and_again_and_between_programs(device: DramRecord, bus_phases: int) -> None:
    """At intervals so short that every state of the banks meets one."""
    often = device.model_copy(update={"trefi_ck": 331, "trfc_ck": 90})
    parameters = unit(often, bus_phases=bus_phases)
    program = expert_program(parameters, 60, 70, BF16, ExpertKind.SWIGLU, tokens=2)
    same(program, parameters, refresh_in_ck=17, programs=2)


@pytest.mark.parametrize("weight_format", [BF16, INT8])
def test_inputs_that_come_late(weight_format: WeightFormat) -> None:
    parameters = unit(HBM2_PIM)
    program = gemv_program(parameters, 150, 100, weight_format, tokens=2)
    same(program, parameters, x_ready_ck=[0, 3, 60, 61, 200, 201, 500])
