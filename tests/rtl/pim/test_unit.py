"""The whole unit, small, in Amaranth's simulator: experts equal to the arithmetic twin, and what goes wrong."""

import numpy as np
import pytest

from pim_model.numerics.expert import Expert, Layer, run_expert, run_gemv
from pim_model.numerics.formats import MATRICES
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.image import bank_contents, expert_columns, phase_columns
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat, expert_program, gemv_program
from rtl.pim.driver import Descriptor
from tests.rtl.pim.base_die.devices import HBM2_PIM
from tests.rtl.pim.unit_bench import UnitBench, x_beats, y_beats

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
