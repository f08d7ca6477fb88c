"""The unit's clocks by recurrence are those of its schedule, clock for clock."""

import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pim_model.dram.devices import find_device
from pim_model.gemv.bounds import act_interval_ck, act_span_ck, unit_bound
from pim_model.gemv.closed_form import unit_clocks
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program
from pim_model.unit.schedule import schedule

DEVICES = ("HBM2-PIM", "HBM3", "HBM3E", "HBM4")


@cache
def unit(name: str, bus_phases: int = 1, phase: int = 0) -> UnitParameters:
    return UnitParameters(device=find_device(name), max_inputs=16384, bus_phases=bus_phases, phase=phase)


units = st.tuples(st.sampled_from(DEVICES), st.sampled_from([(1, 0), (2, 0), (2, 1)])).map(
    lambda drawn: unit(drawn[0], *drawn[1])
)
sizes = st.one_of(st.integers(1, 40), st.integers(1, 1200))


def check(program: Program, parameters: UnitParameters, due: int | None) -> None:
    exact = schedule(program, parameters, refresh_in_ck=due)
    clocks = unit_clocks(program, parameters, refresh_in_ck=due)
    assert (clocks.compute_ck, clocks.readout_ck) == (exact.compute_ck, exact.readout_ck)


@settings(max_examples=50, deadline=None)
@given(units, sizes, sizes, st.sampled_from(WeightFormat), st.data())
def test_products_take_the_clocks_of_the_schedule(
    parameters: UnitParameters, rows: int, inputs: int, weight_format: WeightFormat, data: st.DataObject
) -> None:
    tokens = data.draw(st.integers(1, weight_format.most_tokens))
    program = gemv_program(parameters, rows, inputs, weight_format, tokens=tokens, bias=data.draw(st.booleans()))
    check(program, parameters, data.draw(st.none() | st.integers(0, parameters.device.trefi_ck)))


@settings(max_examples=50, deadline=None)
@given(units, sizes, st.integers(1, 200), st.sampled_from(WeightFormat), st.data())
def test_experts_take_the_clocks_of_the_schedule(
    parameters: UnitParameters, hidden: int, intermediate: int, weight_format: WeightFormat, data: st.DataObject
) -> None:
    bias = data.draw(st.booleans())
    program = expert_program(
        parameters,
        hidden,
        intermediate,
        weight_format,
        ExpertKind.SWIGLU,
        tokens=data.draw(st.integers(1, weight_format.most_tokens)),
        gate_up_bias=bias,
        down_bias=bias,
    )
    check(program, parameters, data.draw(st.none() | st.integers(0, parameters.device.trefi_ck)))


@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (16, 16), (8, 512), (16, 256)])
@pytest.mark.parametrize("name", DEVICES)
def test_matrices_under_one_row_a_bank_too(name: str, rows: int, inputs: int) -> None:
    for weight_format in WeightFormat:
        check(gemv_program(unit(name), rows, inputs, weight_format), unit(name), None)


def test_a_product_by_hand() -> None:
    # 16 rows of 16 inputs: 2 rows a block, 2 columns.  HBM2-PIM: 8 ACTs every tRRD_S = 4 (tFAW = 16 allows it), the
    # last at 28; tRCD 14: columns at 42 and 46.  CL 20, the interval 4 and the lanes' 12 later the sums are complete.
    # 8 readbacks, one a block, every 4 clocks from 46 + 16; the last at 90 arrives 20 + 4 later.
    program = gemv_program(unit("HBM2-PIM"), 16, 16, WeightFormat.BF16)
    lanes = unit("HBM2-PIM").timings.tile_to_readback
    clocks = unit_clocks(program, unit("HBM2-PIM"))
    assert clocks.compute_ck == 46 + 20 + lanes
    assert clocks.compute_ck + clocks.readout_ck == 46 + lanes + 7 * 4 + 20 + 4


def test_it_is_many_times_as_fast_as_the_schedule() -> None:
    parameters = unit("HBM2-PIM")
    program = expert_program(parameters, 2048, 48, WeightFormat.BF16, ExpertKind.SWIGLU)

    def least_s(run) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run(program, parameters)
            times.append(time.perf_counter() - start)
        return min(times[1:])

    assert least_s(unit_clocks) < least_s(schedule) / 5


@pytest.mark.parametrize("bus_phases", [1, 2])
@pytest.mark.parametrize("name", DEVICES)
def test_the_schedule_comes_near_the_bound_and_never_above_it(name: str, bus_phases: int) -> None:
    parameters = unit(name, bus_phases)
    bound = unit_bound(parameters)
    program = gemv_program(parameters, 2048, 4096, WeightFormat.BF16)
    limit_ck = program.weight_bytes / bound.limit_bytes_per_ck
    free = limit_ck / unit_clocks(program, parameters).compute_ck
    # Slots that another pseudo-channel has can make a half wait longer than the bound counts.
    assert (0.999 if bus_phases == 1 else 0.97) * bound.fraction < free <= bound.fraction
    # Refreshes: over whole intervals, from the first one's being due.
    trefi = parameters.device.trefi_ck
    refreshed = limit_ck / unit_clocks(program, parameters, refresh_in_ck=trefi).compute_ck
    assert 0.94 * bound.fraction_with_refresh < refreshed < 1.01 * bound.fraction_with_refresh


def test_the_bounds_by_hand() -> None:
    # HBM2-PIM: 8 ACTs every 4 clocks: 28.  Reopening 5 + 14 + 28 + 14 = 61 < 33 · 4: hidden.
    bound = unit_bound(unit("HBM2-PIM"))
    assert (bound.reopening_ck, bound.row_set_ck, bound.fraction) == (61, 128, 1.0)
    assert bound.window_ck == 3900 - 61 - 350
    # HBM3: 16 ACTs, four in tFAW = 24: three times 24 and three times 4 (tRRD_S): 84.  Reopening 9 + 26 + 84 + 31.
    bound = unit_bound(unit("HBM3"))
    assert (bound.reopening_ck, bound.row_set_ck) == (150, (31 * 4 + 150) / 2)
    # HBM4: 3 · 30 + 3 · 5, but two bank groups: every second ACT is in the same one, tRRD_L = 7 < 2 · 5.
    bound = unit_bound(unit("HBM4"))
    assert (bound.reopening_ck, bound.row_set_ck) == (12 + 33 + 105 + 39, (31 * 4 + 189) / 2)
    assert act_interval_ck(unit("HBM4").timings) == 7.5
    assert act_span_ck(unit("HBM4").timings, 1) == 0


def test_short_rows_are_bound_by_acts() -> None:
    # 8 columns a row: 8 · 4 clocks of columns, but 8 ACTs at 4 clocks each.
    short = UnitParameters(device=find_device("HBM2-PIM", {"row_bursts": 8}))
    bound = unit_bound(short)
    assert bound.row_set_ck == (7 * 4 + 61) / 2
    program = gemv_program(short, 2048, 1024, WeightFormat.BF16)
    free = program.weight_bytes / bound.limit_bytes_per_ck / unit_clocks(program, short).compute_ck
    assert 0.99 * bound.fraction < free <= bound.fraction
