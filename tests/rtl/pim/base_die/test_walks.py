"""The three walks by themselves: columns, loads and readbacks in their order, with all that is said of each."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cocotb_tests.pim_unit.plans import plan_of
from pim_model.unit.parameters import INPUT_REGISTERS, OCTET, UnitParameters
from pim_model.unit.program import ColumnKind, ExpertKind, Program, WeightFormat, expert_program, gemv_program
from pim_model.unit.schedule import work_of
from rtl.pim.base_die import column_walk, readback_walk
from rtl.pim.base_die.column_walk import ColumnWalk
from rtl.pim.base_die.load_walk import LoadWalk
from rtl.pim.base_die.readback_walk import ReadbackWalk
from tests.rtl.pim.base_die.devices import HBM2_PIM, HBM3
from tests.rtl.simulate import simulate

UNIT = UnitParameters(device=HBM2_PIM, max_inputs=256)
BF16, INT8, MXFP4 = WeightFormat

PROGRAMS = [
    expert_program(UNIT, 37, 70, BF16, ExpertKind.SWIGLU, tokens=3, gate_up_bias=True),
    expert_program(UNIT, 50, 33, INT8, ExpertKind.GPT_OSS, tokens=2, gate_up_bias=True, down_bias=True),
    expert_program(UNIT, 300 // 2, 41, MXFP4, ExpertKind.SWIGLU, down_bias=True),
    gemv_program(UNIT, 1, 1, BF16),
    gemv_program(UNIT, 290, 20, INT8),
    gemv_program(UNIT, 261, 33, BF16, tokens=4, bias=True),
]


def walked(walk: Any, program: Program, names: dict[str, Any], clocks: int, parameters: UnitParameters = UNIT) -> list:
    """What the walk says of each of its steps, one every ``clocks``, as tuples of ``names``."""
    found: list[tuple[int, ...]] = []

    async def bench(ctx: Any) -> None:
        ctx.set(walk.plan, plan_of(program))
        ctx.set(walk.start, 1)
        await ctx.tick()
        ctx.set(walk.start, 0)
        while True:
            await ctx.tick().repeat(clocks - 1)
            if not ctx.get(walk.active):
                return
            found.append(tuple(int(ctx.get(signal)) for signal in names.values()))
            ctx.set(walk.step, 1)
            await ctx.tick()
            ctx.set(walk.step, 0)

    simulate(walk, bench)
    return found


def counted(found: list[tuple[int, ...]], expected: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """``found`` with −1 for what does not count, as it is −1 in ``expected``."""
    assert len(found) == len(expected)
    pairs = zip(found, expected, strict=True)
    return [tuple(-1 if e == -1 else f for f, e in zip(*pair, strict=True)) for pair in pairs]


def columns_of(program: Program) -> Iterator[tuple[int, ...]]:
    """Kind, first, index, bank, register, address, row set, and whether it begins or ends what."""
    work = work_of(program, UNIT)
    number = 0
    for phase in program.phases:
        columns = phase.columns()
        for place in range(len(columns.kind)):
            kind, chunk = int(columns.kind[place]), int(work.chunk[number])
            last = number + 1 == len(work.kind) or work.row_set[number + 1] != work.row_set[number]
            is_mac = kind == ColumnKind.MAC
            yield (
                kind,
                int(columns.chunk[place] == 0) if is_mac else -1,
                int(columns.index[place]) if kind != ColumnKind.SCALES else -1,
                int(work.tile[number]) % 2,
                chunk * program.loads_of_chunk % INPUT_REGISTERS if is_mac else -1,
                place % UNIT.device.row_bursts,
                int(work.row_set[number]),
                int(work.begins_tile[number]),
                int(work.ends_tile[number]),
                int(work.ends_chunk[number]),
                int(last),
            )
            number += 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_columns(program: Program) -> None:
    walk = ColumnWalk(UNIT)
    column = walk.column
    names = {
        **{name: column[name] for name in ("kind", "first", "index", "bank", "register")},
        **{name: getattr(walk, name) for name in ("address", "row_set")},
        **{name: getattr(walk, name) for name in ("begins_tile", "ends_tile", "ends_chunk", "ends_row_set")},
    }
    found = walked(walk, program, names, column_walk.SETTLING + 1)
    expected = list(columns_of(program))
    assert counted(found, expected) == expected


@pytest.mark.parametrize("program", PROGRAMS)
def test_loads(program: Program) -> None:
    walk = LoadWalk(UNIT)
    names = {**{name: walk.load[name] for name in ("phase", "chunk", "token", "register")}, "ends": walk.ends_chunk}
    expected, number = [], 0
    for phase_number, phase in enumerate(program.phases):
        for _ in phase.tiles:
            for chunk in range(phase.chunks):
                for token in range(program.loads_of_chunk):
                    ends = token == program.loads_of_chunk - 1
                    expected.append((phase_number, chunk, token, number % INPUT_REGISTERS, int(ends)))
                    number += 1
    assert walked(walk, program, names, 2) == expected


@pytest.mark.parametrize("device", [HBM2_PIM, HBM3], ids=lambda device: device.name)
@pytest.mark.parametrize("program", PROGRAMS)
def test_readbacks(program: Program, device: Any) -> None:
    parameters = UNIT.model_copy(update={"device": device})
    if device is HBM3:  # twice the blocks
        phase = program.phases[0]
        program = gemv_program(parameters, phase.rows, phase.inputs, program.format, tokens=program.tokens)
    walk = ReadbackWalk(parameters)
    said = ("phase", "block", "constants", "index", "bank", "token", "octet", "valid_rows", "last_token", "last")
    names = {**{name: walk.readback[name] for name in said}, "ends_tile": walk.ends_tile}
    expected = list(readbacks_of(program, parameters.blocks.blocks))
    found = walked(walk, program, names, readback_walk.SETTLING + 1, parameters)
    assert counted(found, expected) == expected
    assert [one[1] for one in found] == work_of(program, parameters).readback_block.tolist()


def readbacks_of(program: Program, blocks: int) -> Iterator[tuple[int, ...]]:
    """All that is said of each readback; −1 where it does not count."""
    through, rows = 0, program.phases[-1].rows
    for number, phase in enumerate(program.phases):
        constants = [0] * (program.format is INT8) + [4] * phase.bias
        for tile in phase.tiles:
            for block, octet in np.ndindex(blocks, tile.octets):
                first = tile.first_row + block * tile.rows_per_block + octet * OCTET
                valid = max(0, min(OCTET, tile.rows_per_block - octet * OCTET, phase.rows - first))
                for index in constants:
                    yield (number, block, 1, index + octet, through % 2, -1, -1, valid, 0, 0, 0)
                for token in range(program.tokens):
                    last_token = token == program.tokens - 1
                    has_last = number == len(program.phases) - 1 and first < rows <= first + valid
                    ends = last_token and octet == tile.octets - 1 and block == blocks - 1
                    yield (
                        *(number, block, 0, -1, through % 2, token, octet, valid),
                        *(int(last_token), int(last_token and has_last), int(ends)),
                    )
            through += 1
