"""The whole unit, small, in Amaranth's simulator: experts equal to the arithmetic twin, and what goes wrong.

The same under Verilator, with larger units and more of it: tests/cocotb_tests/pim_unit.
"""

from dataclasses import replace

import numpy as np
import pytest

from pim_model.numerics.expert import Expert, run_expert
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.formats import MATRICES
from pim_model.numerics.image import bank_contents, expert_columns
from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat, expert_program
from rtl.pim.driver import Descriptor
from tests.rtl.pim.base_die.devices import HBM2_PIM
from tests.rtl.pim.unit_bench import Refused, UnitBench, x_beats, y_beats

pytestmark = pytest.mark.long  # two blocks take Amaranth's simulator some twenty seconds to begin with

TINY = HBM2_PIM.model_copy(
    update={
        "bank_groups": 2,
        "banks_per_group": 2,
        "pim": HBM2_PIM.pim.model_copy(update={"blocks": 2}),
        "trefi_ck": 700,
        "trfc_ck": 60,
    }
)
UNIT = UnitParameters(device=TINY, max_inputs=64, output_beats=64)


def some_expert(weight_format: WeightFormat, kind: ExpertKind, hidden: int, intermediate: int, bias: bool) -> Expert:
    rng = np.random.default_rng(7)
    make = MATRICES[weight_format].of
    gate, up = (make(rng.normal(size=(intermediate, hidden))) for _ in range(2))
    biases = [
        rng.normal(size=size).astype(np.float32) if bias else None for size in (intermediate, intermediate, hidden)
    ]
    return Expert.of(
        kind, gate, up, make(rng.normal(size=(hidden, intermediate))),
        gate_bias=biases[0], up_bias=biases[1], down_bias=biases[2],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("weight_format", "kind", "tokens", "bias"),
    [
        (WeightFormat.BF16, ExpertKind.SWIGLU, 3, False),
        (WeightFormat.INT8, ExpertKind.GPT_OSS, 2, True),
        (WeightFormat.MXFP4, ExpertKind.SWIGLU, 1, True),
    ],
)
def test_small_experts_one_after_the_other(
    weight_format: WeightFormat, kind: ExpertKind, tokens: int, bias: bool
) -> None:
    hidden, intermediate = 37, 25
    expert = some_expert(weight_format, kind, hidden, intermediate, bias)
    program = expert_program(
        UNIT, hidden, intermediate, weight_format, kind, tokens=tokens, gate_up_bias=bias, down_bias=bias
    )
    x = bf16_from_float(np.random.default_rng(8).normal(size=(tokens, hidden)).astype(np.float32))
    expected = run_expert(expert, x)
    bench = UnitBench(UNIT, bank_contents(UNIT, program, expert_columns(UNIT, program, expert)))
    descriptor = Descriptor(
        format=weight_format, kind=kind, tokens=tokens, inputs=hidden, rows=intermediate,
        first_bias=bias, second_bias=bias,
    )  # fmt: skip

    async def script(unit: UnitBench) -> None:
        await unit.driver.identify()
        await unit.driver.control(refresh=True)
        for _ in range(2):
            unit.x.extend(x_beats(x))
            unit.beats.clear()
            await unit.driver.start(descriptor)
            status = await unit.driver.wait()
            assert status.done
            assert not status.errors
            assert unit.beats == y_beats(program, 2, expected.bits)

    bench.run(script)


def test_what_goes_wrong_is_reported_and_the_next_program_is_right() -> None:
    """All in one simulation, as making the unit takes longest: refusals, aborts at many places, inputs that end early
    or late, streams that stall."""
    hidden, intermediate, tokens = 40, 33, 1
    expert = some_expert(WeightFormat.BF16, ExpertKind.SWIGLU, hidden, intermediate, bias=False)
    program = expert_program(UNIT, hidden, intermediate, WeightFormat.BF16, ExpertKind.SWIGLU)
    x = bf16_from_float(np.random.default_rng(9).normal(size=(tokens, hidden)).astype(np.float32))
    expected = y_beats(program, 2, run_expert(expert, x).bits)
    sent = x_beats(x)
    bench = UnitBench(UNIT, bank_contents(UNIT, program, expert_columns(UNIT, program, expert)))
    good = Descriptor(format=WeightFormat.BF16, kind=ExpertKind.SWIGLU, inputs=hidden, rows=intermediate)

    async def succeeds(unit: UnitBench) -> None:
        unit.beats.clear()
        unit.x.extend(sent)
        await unit.driver.start(good)
        status = await unit.driver.wait()
        assert status.done
        assert not status.aborted
        assert not status.errors
        assert unit.beats == expected

    async def refused(unit: UnitBench) -> None:
        before = len(unit.commands)
        await unit.driver.start(replace(good, inputs=65))
        status = await unit.driver.wait()
        assert (status.done, status.errors, status.refusal) == (False, {UnitError.DESCRIPTOR}, Refusal.INPUTS)
        assert [command for command in unit.commands[before:] if command[1] != "REFAB"] == []

    async def aborted(unit: UnitBench, after: int, *, y_ready: bool = True) -> None:
        unit.beats.clear()
        unit.y_ready = y_ready
        unit.x.extend(sent)
        await unit.driver.start(good)
        with pytest.raises(Refused):
            await unit.driver.start(good)
        await unit.ticks(after)
        await unit.driver.abort()
        status = await unit.driver.wait()
        assert status.aborted
        assert not status.done
        assert status.errors == {UnitError.START}
        assert not unit.open_rows
        unit.y_ready = True
        await unit.ticks(20)
        assert not unit.x  # a START that was not refused takes a packet
        await unit.driver.clear()
        if unit.beats:
            assert unit.beats[:-1] == expected[: len(unit.beats) - 1]
            assert unit.beats[-1] == (0, 0, 1)

    async def wrong_input(unit: UnitBench, beats: list[tuple[int, int]], error: UnitError) -> None:
        unit.beats.clear()
        unit.x.extend(beats)
        await unit.driver.start(good)
        status = await unit.driver.wait()
        assert status.aborted
        assert not status.done
        assert status.errors == {error}
        await unit.ticks(20)
        assert not unit.beats
        assert not unit.x

    async def stalls(unit: UnitBench) -> None:
        unit.beats.clear()
        unit.x.extend(sent[:1])
        unit.y_ready = False
        await unit.driver.start(good)
        await unit.ticks(1700)
        assert (await unit.driver.status()).busy
        late = [name for clock, name, _, _ in unit.commands if clock > unit.clock - TINY.trefi_ck - 100]
        assert "REFAB" in late  # they go on meanwhile
        unit.x.extend(sent[1:])
        await unit.ticks(2500)
        assert (await unit.driver.status()).busy
        assert unit.beats == []
        unit.y_ready = True
        assert (await unit.driver.wait()).done
        assert unit.beats == expected

    async def script(unit: UnitBench) -> None:
        await unit.driver.control(refresh=True)
        await refused(unit)
        await succeeds(unit)
        for after in (0, 230, 300, 420, 700):
            await aborted(unit, after)
            await succeeds(unit)
        await aborted(unit, 1500, y_ready=False)
        await succeeds(unit)
        await wrong_input(unit, [(sent[0][0], 1)], UnitError.SHORT_INPUT)
        await succeeds(unit)
        await wrong_input(unit, [(word, 0) for word, _ in sent] + [(1, 0), (2, 1)], UnitError.LONG_INPUT)
        await succeeds(unit)
        await stalls(unit)
        await succeeds(unit)
        counters = await unit.driver.counters()
        assert counters[UnitCounter.PROGRAMS] == 11

    bench.run(script)
