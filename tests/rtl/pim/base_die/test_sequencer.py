"""The sequencer against its cycle twin, command by command."""

from typing import Any

import numpy as np
import pytest

from catalog.dram import DramRecord
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program
from pim_model.unit.schedule import UnitCommand, schedule, work_of
from rtl.pim.base_die.layouts import ColumnCommand, RowCommand
from rtl.pim.base_die.sequencer import Sequencer
from tests.rtl.pim.base_die.devices import HBM2_PIM, HBM3
from tests.rtl.pim.base_die.plans import plan_of
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
        ctx.set(dut.plan, plan_of(program, parameters))
        ctx.set(dut.output_room, 1)
        ctx.set(dut.refresh_enable, refresh_in_ck is not None)
        if refresh_in_ck is not None:
            while ctx.get(dut.refresh_left) != refresh_in_ck:
                await ctx.tick()
        for _ in range(programs):
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
                        (clock - 1, name, half, ctx.get(row.block), ctx.get(row.row)) if is_act
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
