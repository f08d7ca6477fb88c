"""The epilogue against the twin: y, h, flags, and when they come."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from numpy.typing import NDArray

from pim_model.numerics import floats
from pim_model.numerics.expert import gated
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.pim.base_die.epilogue import PAIRS, Contents, Epilogue
from tests.rtl.pim.arithmetic.patterns import FP32_CORNERS
from tests.rtl.pim.block.stimulus import word
from tests.rtl.simulate import simulate

TAG_BITS = 8


@dataclass
class Readback:
    """Eight accumulators and what becomes of them."""

    weight_format: WeightFormat
    kind: ExpertKind
    valid_rows: int
    power: int
    tag: int
    accumulators: NDArray[np.uint32]
    scales: NDArray[np.uint32]
    biases: NDArray[np.uint32] | None

    def y(self) -> NDArray[np.float32]:
        """As `pim_model.numerics.expert` says it."""
        if self.weight_format is WeightFormat.INT8:
            sums = floats.float_from_int(self.accumulators.view(np.int32))
            scaled = floats.multiply(sums, floats.from_float_bits(self.scales))
            y = floats.scale(scaled, np.int32(self.power))
        else:
            y = floats.from_float_bits(self.accumulators)
        return y if self.biases is None else floats.add(y, floats.from_float_bits(self.biases))

    def bursts(self) -> list[dict[str, Any]]:
        """What arrives: constants, then the accumulators."""
        given: list[dict[str, Any]] = []
        if self.weight_format is WeightFormat.INT8:
            given.append({"contents": Contents.SCALES, "data": word(self.scales)})
        if self.biases is not None:
            given.append({"contents": Contents.BIASES, "data": word(self.biases)})
        accumulators = {
            "contents": Contents.ACCUMULATORS,
            "data": word(self.accumulators),
            "weight_format": self.weight_format,
            "bias": self.biases is not None,
            "power": self.power,
            "kind": self.kind,
            "valid_rows": self.valid_rows,
            "tag": self.tag,
        }
        return [{"valid": 1, **fields} for fields in [*given, accumulators]]


def readbacks(generator: np.random.Generator, count: int) -> list[Readback]:
    """Of all formats and kinds in turn; every third with special numbers."""
    made = []
    for number in range(count):
        weight_format, kind = WeightFormat(number % 3), ExpertKind(number // 3 % 3)
        special = number % 9 == generator.integers(9) or number % 3 == generator.integers(3)
        finite = generator.normal(size=(2, 8)).astype(np.float32) * np.float32([[5], [1]])
        accumulators, biases = finite.view(np.uint32)
        scales = generator.uniform(1e-3, 1e-2, 8).astype(np.float32).view(np.uint32)
        power = int(generator.integers(-12, 3))
        if weight_format is WeightFormat.INT8:
            accumulators = (generator.integers(-(1 << 31), 1 << 31, 8) >> generator.integers(0, 24, 8)).astype(np.int32)
            accumulators = accumulators.view(np.uint32)
        if special:
            corners = generator.choice(FP32_CORNERS, (3, 8))
            chosen = generator.random((3, 8)) < 0.4
            scales, biases = np.where(chosen[:2], corners[:2], [scales, biases]).astype(np.uint32)
            power = int(generator.integers(-132, 122))
            if weight_format is not WeightFormat.INT8:
                # What an accumulator can be.
                accumulators = floats.float_bits(
                    np.where(chosen[2], corners[2], accumulators).astype(np.uint32).view("f4")
                )
        valid_rows = 2 * int(generator.integers(0, 5)) if kind is not ExpertKind.NONE else int(generator.integers(0, 9))
        made.append(
            Readback(
                weight_format,
                kind,
                valid_rows if generator.random() < 0.3 else 8,
                power,
                number % (1 << TAG_BITS),
                accumulators,
                scales,
                biases if generator.random() < 0.6 else None,
            )
        )
    return made


def play(dut: Epilogue, bursts: dict[int, dict[str, Any]]) -> dict[int, tuple[Any, ...]]:
    """What comes out in each clock: outputs, hidden, nonfinite."""
    found = {}

    async def bench(ctx: Any) -> None:
        for clock in range(max(bursts) + Epilogue.HIDDEN_LATENCY + PAIRS + 4):
            ctx.set(dut.readback, bursts.get(clock, {"valid": 0}))
            out, hidden = ctx.get(dut.outputs), ctx.get(dut.hidden)
            found[clock] = (
                (out.tag, out.pair, out.both, out.even.as_bits(), out.odd.as_bits()) if out.valid else None,
                (hidden.tag, hidden.pair, hidden.value.as_bits()) if hidden.valid else None,
                ctx.get(dut.nonfinite),
            )
            await ctx.tick()

    simulate(dut, bench)
    return found


@pytest.mark.parametrize("pauses", [False, True])
def test_rows_become_what_the_twin_says_and_when_they_should(pauses: bool) -> None:
    generator = np.random.default_rng(3)
    bursts, outputs, hidden, nonfinite = {}, {}, {}, set()
    clock = 0
    for readback in readbacks(generator, 180):
        for burst in readback.bursts():
            bursts[clock] = burst
            clock += PAIRS + (int(generator.integers(0, 5)) if pauses else 0)
            arrived = max(bursts)
        y, bits = readback.y(), floats.float_bits(readback.y())
        h = None
        if readback.kind is not ExpertKind.NONE:
            h = gated(readback.kind, floats.bf16_from_float(y[::2]), floats.bf16_from_float(y[1::2]))
        for pair in range(-(-readback.valid_rows // 2)):
            both = 2 * pair + 1 < readback.valid_rows
            at = arrived + Epilogue.OUTPUT_LATENCY + pair
            if not np.isfinite(y[2 * pair : 2 * pair + 1 + both]).all():
                nonfinite.add(at)
            if h is None:
                outputs[at] = (readback.tag, pair, both, bits[2 * pair], bits[2 * pair + 1])
            else:
                at = arrived + Epilogue.HIDDEN_LATENCY + pair
                hidden[at] = (readback.tag, pair, h[pair])
                if not floats.is_finite_bf16(h[pair]):
                    nonfinite.add(at)
    found = play(Epilogue(TAG_BITS), bursts)
    assert {clock: out for clock, (out, _, _) in found.items() if out} == outputs
    assert {clock: value for clock, (_, value, _) in found.items() if value} == hidden
    assert {clock for clock, (_, _, flag) in found.items() if flag} == nonfinite
    assert len(nonfinite) > 20
    assert min(len(outputs), len(hidden)) > 150


def test_what_is_beyond_the_matrix_raises_no_flag() -> None:
    """Three rows of eight, then all that are, with an infinity in the fourth."""
    sums = np.zeros(8, np.float32)
    sums[3] = np.inf
    burst = {"valid": 1, "data": word(sums)}
    found = play(Epilogue(TAG_BITS), {0: {**burst, "valid_rows": 3}, PAIRS: {**burst, "valid_rows": 8}})
    assert [clock for clock, (_, _, flag) in found.items() if flag] == [PAIRS + Epilogue.OUTPUT_LATENCY + 1]
    assert [out[2] for out, _, _ in found.values() if out] == [1, 0, 1, 1, 1, 1]


MISUSES = {
    "within four clocks": {0: {"valid": 1}, 3: {"valid": 1}},
    "valid rows given": {0: {"valid": 1, "valid_rows": 9}},
    "a gate row without its up row": {0: {"valid": 1, "valid_rows": 3, "kind": ExpertKind.SWIGLU}},
}


@pytest.mark.parametrize("message", MISUSES)
def test_what_must_not_be_is_caught(message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        play(Epilogue(TAG_BITS), MISUSES[message])
