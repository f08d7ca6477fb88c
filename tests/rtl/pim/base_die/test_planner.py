"""The planner against the program's own arithmetic."""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from cocotb_tests.pim_unit.plans import plan_of
from pim_model.unit.events import Refusal
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program
from rtl.pim.base_die.planner import Planner, planning_ck
from tests.rtl.pim.base_die.devices import HBM2_PIM, HBM3
from tests.rtl.simulate import simulate

UNIT = UnitParameters(device=HBM2_PIM, max_inputs=4096)


def planned(parameters: UnitParameters, descriptors: list[dict[str, Any]]) -> list[tuple[Refusal, int, dict[str, Any]]]:
    """Of each descriptor why it is refused, the clocks that it took, and the plan."""
    dut, found = Planner(parameters), []

    async def bench(ctx: Any) -> None:
        for descriptor in descriptors:
            ctx.set(dut.descriptor, descriptor)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            clocks = 1
            while not (ctx.get(dut.ready) or ctx.get(dut.refused)):
                await ctx.tick()
                clocks += 1
            refusal = Refusal(ctx.get(dut.refusal))
            assert (refusal == Refusal.NONE) == ctx.get(dut.ready)
            await ctx.tick()
            found.append((refusal, clocks, _as_dict(ctx, dut.plan)))

    simulate(dut, bench)
    return found


def _as_dict(ctx: Any, plan: Any) -> dict[str, Any]:
    names = ("format", "kind", "last_token", "log2_slots", "base_row", "row_sets", "two_phases")
    of_phase = ("rows", "inputs", "bias", "last_chunk", "last_tile", "tile_rows", "last_tile_rows")
    found: dict[str, Any] = {name: int(ctx.get(plan[name])) for name in names}
    phases = [plan.phases[number] for number in range(1 + found["two_phases"])]
    return {**found, "phases": [{name: int(ctx.get(phase[name])) for name in of_phase} for phase in phases]}


def descriptor_of(program: Program, rows: int, inputs: int) -> dict[str, Any]:
    return {
        "format": program.format,
        "kind": program.kind,
        "tokens": program.tokens,
        "inputs": inputs,
        "rows": rows,
        "first_bias": program.phases[0].bias,
        "second_bias": program.phases[-1].bias,
        "base_row": program.base_row,
    }


@pytest.mark.parametrize("device", [HBM2_PIM, HBM3], ids=lambda device: device.name)
def test_random_programs(device: Any) -> None:
    parameters = UnitParameters(device=device, max_inputs=4096)
    rng = np.random.default_rng(5)
    programs: list[tuple[Program, int, int]] = []
    shapes = [(1, 1), (2880, 2880), (768, 2048), (1408, 2048), (4096, 4096)]
    while len(programs) < 14:
        rows, inputs = shapes.pop() if shapes else (int(rng.integers(1, 900)), int(rng.integers(1, 900)))
        weight_format, kind = WeightFormat(rng.integers(3)), ExpertKind(rng.integers(3))
        tokens, base_row = int(rng.integers(1, weight_format.most_tokens + 1)), int(rng.integers(100))
        bias, second = bool(rng.integers(2)), bool(rng.integers(2))
        if kind is ExpertKind.NONE:
            program = gemv_program(parameters, rows, inputs, weight_format, tokens=tokens, bias=bias, base_row=base_row)
        else:
            program = expert_program(
                parameters, inputs, rows, weight_format, kind,
                tokens=tokens, gate_up_bias=bias, down_bias=second, base_row=base_row,
            )  # fmt: skip
        programs.append((program, rows, inputs))
    found = planned(parameters, [descriptor_of(*case) for case in programs])
    for (program, _, _), (refusal, clocks, plan) in zip(programs, found, strict=True):
        assert refusal == Refusal.NONE
        assert plan == plan_of(program)
        assert clocks == planning_ck(len(program.phases))


def test_what_is_refused_and_that_the_next_is_not() -> None:
    good = descriptor_of(gemv_program(UNIT, 64, 64, WeightFormat.BF16), 64, 64)
    bad = {
        Refusal.FORMAT: {"format": 3},
        Refusal.KIND: {"kind": 3},
        Refusal.TOKENS: {"tokens": 0},
        Refusal.INPUTS: {"inputs": 4097},
        Refusal.ROWS: {"rows": 4097, "kind": 1},
        Refusal.ROOM: {"base_row": 16383, "rows": 1000},
    }
    more = [
        {"tokens": 5},
        {"tokens": 3, "format": 1},
        {"tokens": 2, "format": 2},
        {"inputs": 0},
        {"rows": 0},
        {"rows": 65535, "inputs": 4096},
    ]
    refusals = [*bad, *[Refusal.TOKENS] * 3, Refusal.INPUTS, Refusal.ROWS, Refusal.ROOM]
    descriptors = [{**good, **change} for change in [*bad.values(), *more]]
    found = planned(UNIT, [*descriptors, good])
    assert [refusal for refusal, _, _ in found] == [*refusals, Refusal.NONE]


def test_the_last_rows_of_the_banks_are_used() -> None:
    """64 inputs and rows: 32 columns, a row set; it lies in the last row, and no later."""
    good = descriptor_of(gemv_program(UNIT, 64, 64, WeightFormat.BF16), 64, 64)
    two = {**good, "rows": 128}
    descriptors = [{**good, "base_row": 16383}, {**two, "base_row": 16383}, {**two, "rows": 136, "base_row": 16383}]
    assert [refusal for refusal, _, _ in planned(UNIT, descriptors)] == [Refusal.NONE, Refusal.NONE, Refusal.ROOM]


def test_the_twin_refuses_rows_that_no_descriptor_holds() -> None:
    with pytest.raises(ForestageError, match="65536 rows; a descriptor holds 65535"):
        gemv_program(UNIT, 65536, 16, WeightFormat.BF16)
