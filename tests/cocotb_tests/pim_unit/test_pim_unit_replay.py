"""The whole PIM unit under Verilator against its twins, and what it does where something goes wrong."""

from dataclasses import replace as replaced
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.pim_unit import replay
from cocotb_tests.pim_unit.command_log import CommandLog
from cocotb_tests.pim_unit.jobs import UnitJob, input_beats, output_beats
from cocotb_tests.pim_unit.ports import log_of_ports
from cocotb_tests.pim_unit.replay import Judgement, UnitReplayResult, judge, replay_unit, simulate
from cocotb_tests.pim_unit.unit_script import Step, descriptor, run_steps
from pim_model.dram.devices import find_device
from pim_model.numerics.expert import Expert, Layer
from pim_model.numerics.formats import MATRICES, Bf16Matrix
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from pim_model.unit.schedule import UnitCommand
from tests.cocotb_tests.pim_unit.unit_jobs import HBM2_PIM, expert, gemv, next_job, odd, small

BF16, INT8, MXFP4 = WeightFormat
SWIGLU, GPT_OSS = ExpertKind.SWIGLU, ExpertKind.GPT_OSS


def agrees(jobs: list[UnitJob], result: UnitReplayResult) -> None:
    assert not result.mismatches, result.first_mismatch
    assert not result.violations, [str(violation) for violation in result.violations[:3]]
    for job, output in zip(jobs, result.outputs, strict=True):
        assert output is not None
        assert output.tobytes() == job.expected.bits.tobytes()


@pytest.mark.parametrize("refresh", [False, True], ids=["", "refresh"])
def test_small_experts_of_every_format_and_kind(refresh: bool) -> None:
    result = replay_unit(small(), HBM2_PIM, refresh=refresh)
    agrees(small(), result)
    assert result.cycles == result.predicted_cycles
    assert result.counters["PROGRAMS"] == len(small())
    assert (result.counters["REFRESHES"] > 0) is refresh


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_odd_sizes_where_streams_and_bus_wait(seed: int) -> None:
    agrees(odd(), replay_unit(odd(), HBM2_PIM, refresh=True, waits=True, seed=seed))


def test_odd_sizes_at_full_rate() -> None:
    result = replay_unit(odd(), HBM2_PIM)
    agrees(odd(), result)
    assert result.cycles == result.predicted_cycles


def test_one_wrong_bit_anywhere_is_a_mismatch() -> None:
    """In the weights, in the inputs, in what the twin expects; the jobs beside it are right."""
    first, job, last = odd()[1], odd()[2], odd()[3]
    contents, x, bits = job.contents.copy(), job.x.copy(), job.expected.bits.copy()
    contents[0, 0, 1, 3, 7] ^= 0x20
    x[1, 4] ^= 0x0100
    bits[1, 11] ^= 1
    for wrong in (
        replaced(job, contents=contents),
        replaced(job, x=x),
        replaced(job, expected=replaced(job.expected, bits=bits)),
    ):
        result = replay_unit([first, wrong, last], HBM2_PIM)
        assert result.mismatches
        assert result.first_mismatch.startswith("program 1, output beat")
        assert not result.violations
        for right, output in ((first, result.outputs[0]), (last, result.outputs[2])):
            assert output is not None
            assert output.tobytes() == right.expected.bits.tobytes()
    assert result.mismatches == 1


def test_a_clock_more_in_the_twin_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "X_CK", replay.X_CK + 1)
    job = gemv((33, 400), BF16, 4)
    result = replay_unit([job], HBM2_PIM)
    assert result.first_mismatch.startswith("command ")
    # To the checker it looks as if inputs were loaded before they came.
    assert {violation.rule for violation in result.violations} == {"input not there"}


# Rows, inputs, format, tokens: of models' matrices, and odd ones.
SHAPES = {
    "gpt-oss-20b": (2880, 2880, MXFP4, 1),
    "gpt-oss-20b in BF16": (2880, 2880, BF16, 2),
    "Qwen3-30B down": (2048, 768, BF16, 1),
    "Qwen3-30B gate or up": (768, 2048, BF16, 4),
    "Qwen3-30B down in INT8": (2048, 768, INT8, 2),
    "Qwen3-30B gate or up in MXFP4": (768, 2048, MXFP4, 1),
    "DeepSeek-V2-Lite down": (2048, 1408, INT8, 1),
    "DeepSeek-V2-Lite gate or up": (1408, 2048, BF16, 1),
    "odd": (1001, 333, BF16, 3),
    "odd, INT8": (999, 1027, INT8, 2),
    "odd, MXFP4": (517, 1111, MXFP4, 1),
    "one row": (1, 4096, BF16, 1),
    "one input": (4095, 1, INT8, 1),
}


@pytest.mark.long
@pytest.mark.parametrize("refresh", [False, True], ids=["", "refresh"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_matrix(name: str, refresh: bool) -> None:
    rows, inputs, weight_format, tokens = SHAPES[name]
    jobs = [gemv((rows, inputs), weight_format, tokens, bias=rows % 2 == 1)]
    result = replay_unit(jobs, HBM2_PIM, refresh=refresh)
    agrees(jobs, result)
    assert result.cycles == result.predicted_cycles


@pytest.mark.long
def test_a_full_expert_within_three_minutes() -> None:
    jobs = [expert((2048, 768), BF16, SWIGLU)]
    result = replay_unit(jobs, HBM2_PIM, refresh=True)
    agrees(jobs, result)
    assert result.cycles == result.predicted_cycles
    assert result.wall_s < 180


@pytest.mark.long
@pytest.mark.parametrize("phase", [0, 1])
def test_a_device_of_sixteen_blocks_with_shared_buses(phase: int) -> None:
    parameters = UnitParameters(device=find_device("HBM3"), bus_phases=2, phase=phase, max_inputs=512)
    jobs = [
        expert((150, 90), weight_format, kind, base_row=100 * number, parameters=parameters)
        for number, (weight_format, kind) in enumerate([(BF16, SWIGLU), (INT8, GPT_OSS), (MXFP4, GPT_OSS)])
    ]
    agrees(jobs, replay_unit(jobs, parameters, refresh=True))


# What is not a number, not finite, subnormal, or overflows.
CORNERS = np.array(
    [0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x8080, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0x7F81],
    np.uint16,
)


def test_inputs_that_are_not_finite_or_subnormal_are_the_twins() -> None:
    generator = np.random.default_rng(5)
    jobs = []
    for weight_format in WeightFormat:
        layer = Layer(MATRICES[weight_format].of(generator.normal(size=(32, 48))))
        for corners in (CORNERS[:8], CORNERS[:10], CORNERS):
            x = generator.choice(corners, (weight_format.most_tokens, 48))
            jobs.append(UnitJob.of_gemv(HBM2_PIM, layer, x, base_row=8 * len(jobs)))
    assert {job.expected.nonfinite for job in jobs} == {False, True}
    agrees(jobs, replay_unit(jobs, HBM2_PIM))


def test_experts_whose_products_leave_every_range_are_the_twins() -> None:
    """Gates and ups far beyond gpt-oss's limit, infinite, NaN, subnormal; of all formats and both kinds."""
    generator = np.random.default_rng(6)
    jobs = []
    for weight_format in WeightFormat:
        for kind in (SWIGLU, GPT_OSS):
            of = MATRICES[weight_format].of
            # Rows from tiny to enormous.
            rows = np.geomspace(1e-36, 1e30, 40)[:, None] if weight_format is not MXFP4 else np.full((40, 1), 9.0)
            gate, up = (of(generator.normal(size=(40, 32)) * generator.permutation(rows)) for _ in range(2))
            weights = Expert.of(kind, gate, up, of(generator.normal(size=(32, 40))))
            for corners in (CORNERS[:8], CORNERS):
                x = generator.choice(corners, (weight_format.most_tokens, 32))
                jobs.append(UnitJob.of_expert(HBM2_PIM, weights, x, base_row=8 * len(jobs)))
    assert {job.expected.nonfinite for job in jobs} == {False, True}
    agrees(jobs, replay_unit(jobs, HBM2_PIM))


@pytest.mark.long
def test_weights_of_every_bit_pattern_are_the_twins() -> None:
    """A block multiplies every BF16 weight, infinities and NaN among them, with ones and with tiny numbers."""
    weights = np.arange(1 << 16, dtype=np.uint16).reshape(64, 1024)
    x = np.zeros((2, 1024), np.uint16)
    x[0, 5], x[1] = 0x3F80, 0x0080
    jobs = [UnitJob.of_gemv(HBM2_PIM, Layer(Bf16Matrix(weights)), x)]
    agrees(jobs, replay_unit(jobs, HBM2_PIM))


MOST_CYCLES = 20_000


def run_of(steps: list[Step], jobs: list[UnitJob], good: list[int]) -> tuple[dict[str, Any], Judgement]:
    """A script on the unit; jobs ``good``, by number, must be right, everything else must keep the device's rules."""
    script: list[Step] = [["identify"], ["control", True], *steps]
    values = simulate(jobs, HBM2_PIM, script).values
    judgement = judge({number: jobs[number] for number in good}, HBM2_PIM, values, refresh=True)
    assert not judgement.comparison.mismatches, judgement.comparison.first
    assert not judgement.violations, [str(violation) for violation in judgement.violations[:3]]
    assert len(judgement.runs) == len(good)
    return values, judgement


def status(values: dict[str, Any], number: int) -> tuple[bool, bool, list[str], str]:
    """Done, aborted, errors, refusal."""
    found = values["status"][str(number)]
    assert not found["busy"]
    return found["done"], found["aborted"], found["errors"], found["refusal"]


def commands(values: dict[str, Any], number: int) -> CommandLog:
    """Of a job, clocks from reset on, without refreshes."""
    log = log_of_ports(values["row"], values["column"], HBM2_PIM, 0)
    begin, end = (values["marks"][f"{what} {number}"] for what in ("begin", "end"))
    return log.take(np.flatnonzero((log.clock_ck >= begin) & (log.clock_ck < end) & (log.command != UnitCommand.REFAB)))


def test_a_bad_descriptor_is_refused_and_the_next_program_is_right() -> None:
    good = descriptor(next_job().program)
    bad = [
        ({"format": 3}, "FORMAT"),
        ({"kind": 3}, "KIND"),
        ({"tokens": 0}, "TOKENS"),
        ({"tokens": 5}, "TOKENS"),
        ({"format": int(INT8), "tokens": 3}, "TOKENS"),
        ({"format": int(MXFP4), "tokens": 2}, "TOKENS"),
        ({"inputs": 0}, "INPUTS"),
        ({"inputs": HBM2_PIM.max_inputs + 1}, "INPUTS"),
        ({"rows": 0}, "ROWS"),
        ({"rows": HBM2_PIM.max_inputs + 1}, "ROWS"),
        ({"base_row": HBM2_PIM.bank_rows - 1, "inputs": 200}, "ROOM"),
    ]
    steps: list[Step] = []
    for number, (change, _) in enumerate(bad, 1):
        steps += [
            ["mark", f"begin {number}"],
            ["send", 0],
            ["start", {**good, **change}],
            ["finish", str(number), MOST_CYCLES],
            ["mark", f"end {number}"],
        ]
    values, _ = run_of([*steps, *run_steps(0, next_job(), MOST_CYCLES)], [next_job()], [0])
    for number, (_, refusal) in enumerate(bad, 1):
        assert status(values, number) == (False, False, ["DESCRIPTOR"], refusal), bad[number - 1]
        assert not len(commands(values, number))


@pytest.mark.parametrize("columns", [45, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 108, 7))])
def test_an_abort_in_the_midst_leaves_a_unit_that_is_right(columns: int) -> None:
    steps = [
        ["mark", "begin 1"],
        ["send", 0],
        ["start", descriptor(next_job().program)],
        ["until_columns", columns, MOST_CYCLES],
        ["abort"],
        ["finish", "1", MOST_CYCLES],
        ["pause", 50],
        ["mark", "end 1"],
        *run_steps(0, next_job(), MOST_CYCLES),
    ]
    values, _ = run_of(steps, [next_job()], [0])
    assert status(values, 1) == (False, True, [], "NONE")
    log = commands(values, 1)
    assert log.command[log.command < UnitCommand.PIM][-1] == UnitCommand.PREAB
    assert np.count_nonzero(log.command >= UnitCommand.PIM) < columns + 20
    # What came of the results is right, and ends with an empty beat.
    inside = values["y_cycle"] < values["marks"]["end 1"]
    data, keep, last = (values[f"y_{name}"][inside] for name in ("data", "keep", "last"))
    if len(data):
        expected = output_beats(next_job().program, HBM2_PIM, next_job().expected.bits)
        assert data[:-1].tolist() == expected.data[: len(data) - 1].tolist()
        assert (keep[-1], last[-1]) == (0, 1)
        assert not last[:-1].any()


def test_a_start_in_the_midst_is_refused() -> None:
    again = [["refused_start"], ["until_columns", 50, MOST_CYCLES], ["refused_start"]]
    begin, send, start, finish, end = run_steps(0, next_job(), MOST_CYCLES)
    steps = [begin, send, start, *again, ["clear"], finish, end]
    run_of(steps, [next_job()], [0])


def test_streams_that_stall_change_no_result() -> None:
    begin, send, start, finish, end = run_steps(0, next_job(), MOST_CYCLES)
    steps = [begin, start, ["pause", 900], send, ["consume", False], ["pause", 4000], ["consume", True], finish, end]
    values, _ = run_of(steps, [next_job()], [0])
    assert values["counters"]["INPUT_WAIT_CLOCKS"] > 400


def test_an_output_that_is_not_taken_stops_the_unit_without_a_loss() -> None:
    job = gemv((2048, 16), BF16)
    begin, send, start, finish, end = run_steps(0, job, MOST_CYCLES)
    steps = [begin, send, ["consume", False], start, ["pause", 6000], ["consume", True], finish, end]
    values, _ = run_of(steps, [job], [0])
    assert values["counters"]["OUTPUT_WAIT_CLOCKS"] > 2000


@pytest.mark.parametrize(
    ("last", "error"), [([3], "SHORT_INPUT"), ([0], "SHORT_INPUT"), ([9], "LONG_INPUT")], ids=["short", "first", "long"]
)
def test_a_tlast_in_the_wrong_place_ends_the_program(last: list[int], error: str) -> None:
    beats, right = input_beats(next_job().x)
    sent = np.concatenate([beats, beats])[: last[0] + 1]
    marks = (np.arange(len(sent)) == last[0]).astype(np.uint8)
    assert len(beats) == len(right) == 6
    steps = [
        ["mark", "begin 1"],
        ["start", descriptor(next_job().program)],
        ["send_beats", sent.tolist(), marks.tolist()],
        ["finish", "1", MOST_CYCLES],
        ["pause", 50],
        ["mark", "end 1"],
        *run_steps(0, next_job(), MOST_CYCLES),
    ]
    values, _ = run_of(steps, [next_job()], [0])
    assert status(values, 1) == (False, True, [error], "NONE")
    assert values["x_left"] == 0


@pytest.mark.long
def test_refreshes_that_are_put_off_too_long_are_reported() -> None:
    job = next_job()
    overdue = 9 * HBM2_PIM.device.trefi_ck
    script: list[Step] = [
        ["identify"],
        ["pause", overdue - 200],
        ["finish", "1", 100],
        ["pause", 300],
        ["finish", "2", 100],
        ["clear"],
        ["control", True],
        ["pause", 9 * 400],
        *run_steps(0, job, MOST_CYCLES),
    ]
    values = simulate([job], HBM2_PIM, script).values
    assert status(values, 1)[2] == []
    assert status(values, 2)[2] == ["REFRESH"]
    assert status(values, 0) == (True, False, [], "NONE")
    log = log_of_ports(values["row"], values["column"], HBM2_PIM, 0)
    assert np.count_nonzero(log.command == UnitCommand.REFAB) >= 9
    assert values["y_data"].tolist() == output_beats(job.program, HBM2_PIM, job.expected.bits).data.tolist()
