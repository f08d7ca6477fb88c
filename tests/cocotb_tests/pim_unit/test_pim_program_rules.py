"""The twin's schedules break no rule; what is changed in one is seen, by the name of the rule it breaks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.errors import ForestageError
from cocotb_tests.pim_unit.checker import check
from cocotb_tests.pim_unit.command_log import NONE, CommandLog, log_of_schedule, places
from cocotb_tests.pim_unit.program_rules import END_RULES, PROGRAM_RULES
from pim_model.dram.devices import find_device
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, gemv_program
from pim_model.unit.schedule import UnitCommand, schedule

BF16, INT8, MXFP4 = WeightFormat
ACT, PREH, PREAB, REFAB, PIM, LDI, RDA = UnitCommand


@dataclass(frozen=True)
class Run:
    """A program, its unit, and the commands of its run."""

    program: Program
    parameters: UnitParameters
    log: CommandLog
    end_ck: int
    refresh_in_ck: int | None = None
    inputs_ready_ck: tuple[int, ...] | None = None

    def broken(self, log: CommandLog | None = None, **changes: object) -> set[str]:
        """Names of the rules that ``log``, or the run's own, breaks."""
        run = replace(self, **changes) if changes else self  # type: ignore[arg-type]
        found = check(
            self.log if log is None else log,
            self.program,
            self.parameters,
            end_ck=self.end_ck,
            refresh_in_ck=run.refresh_in_ck,
            inputs_ready_ck=run.inputs_ready_ck,
        )
        return {violation.rule for violation in found}


def run_of(
    program: Program,
    parameters: UnitParameters,
    refresh_in_ck: int | None = None,
    inputs_ready_ck: tuple[int, ...] | None = None,
) -> Run:
    times = schedule(program, parameters, refresh_in_ck=refresh_in_ck, inputs_ready_ck=inputs_ready_ck)
    log = log_of_schedule(times, program, parameters)
    return Run(program, parameters, log, times.done_ck, refresh_in_ck, inputs_ready_ck)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    shared = draw(st.booleans())
    device = draw(st.sampled_from(["HBM2-PIM", "HBM3", "HBM3E", "HBM4"]))
    overrides = draw(st.sampled_from([{}, {"cwl_ck": 40}, {"row_bursts": 8}, {"tfaw_ck": 40}]))
    parameters = UnitParameters(
        device=find_device(device, overrides),
        bus_phases=2 if shared else 1,
        phase=draw(st.integers(0, 1)) if shared else 0,
    )
    weight_format = draw(st.sampled_from(WeightFormat))
    tokens = draw(st.integers(1, weight_format.most_tokens))
    biases, base_row = draw(st.tuples(st.booleans(), st.booleans())), draw(st.integers(0, 9))
    sizes = draw(st.tuples(st.integers(1, 300), st.integers(1, 200)))
    if draw(st.booleans()):
        kind = draw(st.sampled_from([ExpertKind.SWIGLU, ExpertKind.GPT_OSS]))
        program = expert_program(
            parameters,
            *sizes,
            weight_format,
            kind,
            tokens=tokens,
            gate_up_bias=biases[0],
            down_bias=biases[1],
            base_row=base_row,
        )
    else:
        program = gemv_program(parameters, *sizes, weight_format, tokens=tokens, bias=biases[0], base_row=base_row)
    refresh = draw(st.none() | st.integers(0, 4000))
    chunks = program.phases[0].chunks
    pace = draw(st.none() | st.integers(0, 60))
    ready = None if pace is None else tuple(range(0, pace * chunks, pace)) if pace else (0,) * chunks
    return run_of(program, parameters, refresh, ready)


@given(runs())
@settings(max_examples=60, deadline=None)
def test_the_twins_schedules_break_nothing(run: Run) -> None:
    assert not run.broken()


@pytest.mark.long
@given(runs())
@settings(max_examples=4000, deadline=None)
def test_many_of_the_twins_schedules_break_nothing(run: Run) -> None:
    assert not run.broken()


HBM2_PIM = UnitParameters(device=find_device("HBM2-PIM"))
LATE_WRITES = UnitParameters(device=find_device("HBM2-PIM", {"cwl_ck": 30}))


@pytest.fixture(scope="module")
def expert() -> Run:
    """Two phases of several tiles, with constants, refreshed three times."""
    program = expert_program(
        HBM2_PIM, 700, 260, INT8, ExpertKind.GPT_OSS, tokens=2, gate_up_bias=True, down_bias=True, base_row=3
    )
    return run_of(program, HBM2_PIM, 1500)


@pytest.fixture(scope="module")
def gemv() -> Run:
    return run_of(gemv_program(HBM2_PIM, 300, 96, BF16, tokens=4), HBM2_PIM)


def numbers(log: CommandLog, command: UnitCommand) -> NDArray[np.int64]:
    return np.flatnonzero(log.command == command)


def moved(log: CommandLog, index: int, by_ck: int) -> CommandLog:
    clock = log.clock_ck.copy()
    clock[index] += by_ck
    return replace(log, clock_ck=clock).sorted()


def changed(log: CommandLog, index: int, **values: int) -> CommandLog:
    arrays = {name: getattr(log, name).copy() for name in values}
    for name, value in values.items():
        arrays[name][index] = value
    return replace(log, **arrays)


def without(log: CommandLog, index: int) -> CommandLog:
    return log.take(np.delete(np.arange(len(log)), index))


def one_of(run: Run, logs: Iterator[CommandLog], rule: str) -> bool:
    """Whether one of ``logs`` breaks ``rule`` and nothing else."""
    return any(run.broken(log) == {rule} for log in logs)


def moves(run: Run, command: UnitCommand, by_ck: range | tuple[int, ...], most: int = 400) -> Iterator[CommandLog]:
    for index in numbers(run.log, command)[:most]:
        for by in by_ck:
            yield moved(run.log, int(index), by)


def test_no_rule_without_an_injection() -> None:
    assert {*PROGRAM_RULES, *END_RULES} == {
        "column order", "load order", "readback order", "load to use", "use to reload", "columns to readback",
        "accumulators not read back", "constants not read back", "input not there", "input not computed",
        "columns missing", "loads missing", "readbacks missing", "bank left open",
    }  # fmt: skip


def test_column_order(expert: Run) -> None:
    pims = numbers(expert.log, PIM)
    swapped = changed(
        changed(expert.log, pims[50], address=expert.log.address[pims[51]]),
        pims[51],
        address=expert.log.address[pims[50]],
    )
    assert expert.broken(swapped) == {"column order"}
    assert "column order" in expert.broken(without(expert.log, pims[50]))
    assert "column order" in expert.broken(changed(expert.log, pims[50], half=1 - expert.log.half[pims[50]]))
    # The right half and column, but another row is open.
    acts = numbers(expert.log, ACT)[8:16]
    wrong_row = expert.log
    for index in acts:
        wrong_row = changed(wrong_row, index, row=expert.log.row[index] + 1)
    assert expert.broken(wrong_row) == {"column order"}
    assert expert.broken(changed(expert.log, acts[2], row=expert.log.row[acts[2]] + 1)) == {"column order"}
    # One column too many.
    last = pims[-1]
    doubled = expert.log.take(np.insert(np.arange(len(expert.log)), last + 1, last))
    assert "column order" in expert.broken(moved(doubled, int(last) + 1, 4))


def test_loads_and_readbacks_in_order(expert: Run) -> None:
    load, read = numbers(expert.log, LDI)[40], numbers(expert.log, RDA)[40]
    assert expert.broken(changed(expert.log, load, address=(expert.log.address[load] + 1) % 16)) == {"load order"}
    assert expert.broken(changed(expert.log, read, block=(expert.log.block[read] + 1) % 8)) == {"readback order"}
    assert expert.broken(changed(expert.log, read, address=(expert.log.address[read] + 1) % 16)) == {"readback order"}
    # A bus that does not show what is read is judged by the block.
    assert not expert.broken(changed(expert.log, read, address=NONE))
    # Doubled, all that follow are another.
    for index, rule in ((load, "load order"), (read, "readback order")):
        doubled = expert.log.take(np.insert(np.arange(len(expert.log)), index + 1, index))
        assert rule in expert.broken(doubled)


def test_load_to_use() -> None:
    ready = tuple(range(0, 600, 100))
    run = run_of(gemv_program(LATE_WRITES, 40, 96, BF16), LATE_WRITES, inputs_ready_ck=ready)
    assert run.parameters.timings.load_to_use == 12
    assert one_of(run, moves(run, PIM, (-1,)), "load to use")


def test_use_to_reload(gemv: Run) -> None:
    assert one_of(gemv, moves(gemv, LDI, (-1,)), "use to reload")


def test_columns_to_readback() -> None:
    run = run_of(gemv_program(HBM2_PIM, 40, 96, BF16, tokens=4), HBM2_PIM)
    assert one_of(run, moves(run, RDA, (-1,)), "columns to readback")


def later_readbacks(run: Run, tile: int, kind: int) -> Iterator[CommandLog]:
    """Each readback before the first column of ``kind`` of ``tile``, moved behind it."""
    columns = places(run.program, run.parameters)
    first = np.flatnonzero((columns.tile == tile) & (columns.kind == kind))[0]
    at_ck = run.log.clock_ck[numbers(run.log, PIM)[first]]
    for index in numbers(run.log, RDA):
        if run.log.clock_ck[index] < at_ck:
            for after in range(1, 4):
                yield moved(run.log, int(index), int(at_ck - run.log.clock_ck[index]) + after)


def test_accumulators_are_written_only_after_they_are_read_back() -> None:
    run = run_of(gemv_program(HBM2_PIM, 1024, 64, BF16), HBM2_PIM)
    assert len(run.program.phases[0].tiles) > 3
    assert one_of(run, later_readbacks(run, 2, 0), "accumulators not read back")


def test_constants_are_written_only_after_they_are_read_back() -> None:
    run = run_of(gemv_program(HBM2_PIM, 512, 16, INT8), HBM2_PIM)
    assert len(run.program.phases[0].tiles) > 1
    assert one_of(run, later_readbacks(run, 1, 2), "constants not read back")


def test_inputs_are_loaded_only_when_they_are_there() -> None:
    ready = tuple(range(0, 600, 100))
    run = run_of(gemv_program(HBM2_PIM, 40, 96, BF16), HBM2_PIM, inputs_ready_ck=ready)
    assert not run.broken()
    assert run.broken(inputs_ready_ck=(*ready[:3], ready[3] + 1, *ready[4:])) == {"input not there"}
    with pytest.raises(ForestageError, match="give 6"):
        run.broken(inputs_ready_ck=(0, 0))


def test_products_are_loaded_only_when_they_are_computed() -> None:
    run = run_of(expert_program(HBM2_PIM, 64, 32, BF16, ExpertKind.SWIGLU), HBM2_PIM)
    assert one_of(run, moves(run, LDI, (-1,)), "input not computed")


def test_the_end_is_missed(gemv: Run) -> None:
    log = gemv.log
    assert gemv.broken(without(log, numbers(log, RDA)[-1])) == {"readbacks missing"}
    assert gemv.broken(without(log, numbers(log, PREAB)[-1])) == {"bank left open"}
    assert gemv.broken(without(log, numbers(log, PIM)[-1])) == {"columns missing", "columns to readback"}
    # The chunk of the last load is used by the last column, so that nothing is overwritten.
    assert gemv.broken(without(log, numbers(log, LDI)[-1])) == {"loads missing", "load to use"}
    half = log.take(np.arange(len(log) // 2))
    assert gemv.broken(half) == set(END_RULES)
    found = check(half, gemv.program, gemv.parameters, end_ck=gemv.end_ck, complete=False)
    assert not found


def test_banks_and_refreshes_of_a_run(expert: Run) -> None:
    log = expert.log
    assert expert.broken(without(log, numbers(log, ACT)[10])) == {"PIM to a closed bank"}
    pre = int(numbers(log, REFAB)[0]) - 1
    assert log.command[pre] == PREAB
    assert "REFab with an open bank" in expert.broken(without(log, pre))
    act = int(numbers(log, ACT)[20])
    again = log.take(np.insert(np.arange(len(log)), act + 1, act))
    assert "ACT to an open bank" in expert.broken(moved(again, act + 1, 60))
    assert expert.refresh_in_ck is not None
    for due in (expert.refresh_in_ck, None):
        assert ("refresh not due" in expert.broken(refresh_in_ck=due)) is (due is None)
    assert "refresh pending" in expert.broken(refresh_in_ck=expert.refresh_in_ck - 8)
    assert "refresh overdue" in expert.broken(without(log, numbers(log, REFAB)[1]))


def test_a_bus_that_is_shared() -> None:
    parameters = UnitParameters(device=find_device("HBM3"), bus_phases=2, phase=1)
    run = run_of(gemv_program(parameters, 100, 64, MXFP4), parameters)
    assert not run.broken()
    assert run.broken(replace(run.log, clock_ck=run.log.clock_ck + 1)) == {"row bus slot", "column bus slot"}
    assert run.broken(replace(run.log, clock_ck=run.log.clock_ck + 2)) == {"row bus slot"}
