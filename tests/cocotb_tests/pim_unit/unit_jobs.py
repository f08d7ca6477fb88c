"""Programs for the unit, with random weights and inputs."""

from functools import cache

import numpy as np

from cocotb_tests.pim_unit.jobs import UnitJob
from pim_model.dram.devices import find_device
from pim_model.numerics.expert import Expert, Layer
from pim_model.numerics.floats import Bits16, bf16_from_float
from pim_model.numerics.formats import MATRICES, WeightMatrix
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat

BF16, INT8, MXFP4 = WeightFormat
SWIGLU, GPT_OSS = ExpertKind.SWIGLU, ExpertKind.GPT_OSS
HBM2_PIM = UnitParameters(device=find_device("HBM2-PIM"))


def vectors(generator: np.random.Generator, tokens: int, inputs: int) -> Bits16:
    return bf16_from_float(generator.normal(size=(tokens, inputs)).astype(np.float32))


def gemv(
    shape: tuple[int, int],
    weight_format: WeightFormat,
    tokens: int = 1,
    *,
    bias: bool = False,
    base_row: int = 0,
    parameters: UnitParameters = HBM2_PIM,
    seed: int = 0,
) -> UnitJob:
    generator = np.random.default_rng(seed)
    matrix = MATRICES[weight_format].of(generator.normal(size=shape))
    biases = generator.normal(size=shape[0]).astype(np.float32) if bias else None
    x = vectors(generator, tokens, shape[1])
    return UnitJob.of_gemv(parameters, Layer(matrix, biases), x, base_row=base_row)


def expert(
    sizes: tuple[int, int],
    weight_format: WeightFormat,
    kind: ExpertKind,
    tokens: int = 1,
    *,
    base_row: int = 0,
    parameters: UnitParameters = HBM2_PIM,
    seed: int = 0,
) -> UnitJob:
    """An expert of random weights of the size of trained ones; gpt-oss's has biases."""
    generator = np.random.default_rng(seed)
    hidden, intermediate = sizes
    of = MATRICES[weight_format].of

    def matrix(rows: int, inputs: int) -> WeightMatrix:
        return of(generator.normal(0, inputs**-0.5, (rows, inputs)))

    def bias(rows: int) -> np.ndarray | None:
        return generator.normal(0, 0.1, rows).astype(np.float32) if kind is GPT_OSS else None

    weights = Expert.of(
        kind,
        matrix(intermediate, hidden),
        matrix(intermediate, hidden),
        matrix(hidden, intermediate),
        gate_bias=bias(intermediate),
        up_bias=bias(intermediate),
        down_bias=bias(hidden),
    )
    return UnitJob.of_expert(parameters, weights, vectors(generator, tokens, hidden), base_row=base_row)


@cache
def small() -> list[UnitJob]:
    """A whole small expert of each format and kind."""
    return [
        expert((128, 128), weight_format, kind, weight_format.most_tokens, base_row=64 * number, seed=number)
        for number, (weight_format, kind) in enumerate((f, k) for f in WeightFormat for k in (SWIGLU, GPT_OSS))
    ]


@cache
def odd() -> list[UnitJob]:
    """Matrices and experts of sizes that fill nothing."""
    return [
        gemv((1, 1), BF16, base_row=0),
        gemv((77, 70), BF16, 3, bias=True, base_row=1),
        gemv((33, 17), INT8, 2, base_row=30),
        gemv((45, 40), MXFP4, bias=True, base_row=40),
        expert((50, 23), INT8, GPT_OSS, 1, base_row=50),
        expert((37, 35), MXFP4, SWIGLU, base_row=70),
        expert((21, 90), BF16, GPT_OSS, 4, base_row=90),
    ]


@cache
def next_job() -> UnitJob:
    """An expert to be run after something went wrong."""
    return expert((48, 40), BF16, SWIGLU, 2, seed=3)
