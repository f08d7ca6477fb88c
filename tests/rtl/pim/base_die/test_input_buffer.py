"""Inputs on their way from the stream to the blocks."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from cocotb_tests.pim_unit.plans import plan_of
from pim_model.numerics.formats import Int8Inputs
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program
from rtl.pim.base_die.input_buffer import InputBuffer, InputReceiver
from rtl.pim.base_die.quantiser import CODE_BITS, WORD_BITS, quantised
from tests.rtl.pim.base_die.devices import HBM2_PIM, HBM3
from tests.rtl.simulate import simulate


class Quantiser(wiring.Component):
    """The function as a circuit."""

    word: In(WORD_BITS)
    greatest: In(8)
    codes: Out(16 * CODE_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.codes.eq(quantised(m, "code", self.word, self.greatest))
        tick = Signal()
        m.d.sync += tick.eq(~tick)
        return m


def as_word(values: np.ndarray) -> int:
    return int.from_bytes(np.asarray(values, "<u2").tobytes(), "little")


def test_codes_are_the_twins() -> None:
    rng = np.random.default_rng(1)
    vectors = [rng.integers(0, 1 << 16, 16).astype(np.uint16) for _ in range(60)]
    vectors += [
        (rng.integers(0, 1 << 11, 16) + (120 << 7) + (rng.integers(0, 2, 16) << 15)).astype(np.uint16)
        for _ in range(60)
    ]
    vectors += [
        np.full(16, bits, np.uint16) for bits in (0x0000, 0x8000, 0x007F, 0x0080, 0x7F7F, 0xFF7F, 0x7F80, 0xFFC0)
    ]
    dut = Quantiser()

    async def bench(ctx: Any) -> None:
        for vector in vectors:
            fields = (vector >> 7) & 255
            greatest = int(np.where(fields == 255, 0, fields).max())
            twin = Int8Inputs.of(vector[None])
            ctx.set(dut.word, as_word(vector))
            ctx.set(dut.greatest, greatest)
            codes = np.frombuffer(ctx.get(dut.codes).to_bytes(16, "little"), np.int8)
            assert (codes == twin.codes[0]).all()
            assert (0 if greatest == 0 else greatest - 133) == twin.exponents[0]

    simulate(dut, bench)


class Inputs(wiring.Component):
    """Receiver and buffer."""

    def __init__(self, parameters: UnitParameters) -> None:
        self.receiver, self.buffer = InputReceiver(parameters), InputBuffer(parameters)
        super().__init__({"start": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver, m.submodules.buffer = receiver, buffer = self.receiver, self.buffer
        m.d.comb += [
            receiver.last_token.eq(buffer.plan.last_token),
            receiver.inputs.eq(buffer.plan.phases[0].inputs),
            receiver.start.eq(self.start),
            buffer.start.eq(self.start),
            *(getattr(buffer, name).eq(getattr(receiver, name)) for name in ("beat", "chunk", "token", "word")),
        ]
        return m


def beats_of(x: np.ndarray) -> list[int]:
    """x [tokens, inputs] as the stream has it; beyond the inputs is something to be masked."""
    tokens, inputs = x.shape
    filled = np.pad(x, ((0, 0), (0, -inputs % 16)), constant_values=0x7FC0)
    return [as_word(filled[t, c : c + 16]) for c in range(0, filled.shape[1], 16) for t in range(tokens)]


def expected_load(program: Program, vectors: np.ndarray, chunk: int, token: int) -> int:
    padded = np.pad(vectors, ((0, 0), (0, (chunk + 1) * 16)))[:, chunk * 16 : chunk * 16 + 16]
    if program.format is WeightFormat.INT8:
        codes = np.pad(Int8Inputs.of(vectors).codes, ((0, 2 - len(vectors)), (0, 16)))[:, chunk * 16 : chunk * 16 + 16]
        return int.from_bytes(codes.tobytes(), "little")
    return as_word(padded[token]) if token < len(vectors) else 0


@pytest.mark.parametrize("device", [HBM2_PIM, HBM3], ids=lambda device: device.name)
@pytest.mark.parametrize(
    ("weight_format", "tokens", "hidden", "intermediate"),
    [
        (WeightFormat.BF16, 1, 40, 24),
        (WeightFormat.BF16, 3, 40, 24),
        (WeightFormat.INT8, 1, 37, 33),
        (WeightFormat.INT8, 2, 33, 18),
        (WeightFormat.MXFP4, 1, 40, 7),
    ],
)
def test_what_is_received_or_computed_reaches_the_blocks(
    device: Any, weight_format: WeightFormat, tokens: int, hidden: int, intermediate: int
) -> None:
    parameters = UnitParameters(device=device, max_inputs=64)
    program = expert_program(parameters, hidden, intermediate, weight_format, ExpertKind.SWIGLU, tokens=tokens)
    rng = np.random.default_rng(3)
    low, high = (118 << 7, 130 << 7)
    x = (rng.integers(low, high, (tokens, hidden)) | rng.integers(0, 2, (tokens, hidden)) << 15).astype(np.uint16)
    h = (rng.integers(low, high, (tokens, intermediate))).astype(np.uint16)
    dut = Inputs(parameters)
    landing = device.cwl_ck + device.burst_ck

    async def bench(ctx: Any) -> None:
        buffer, stream = dut.buffer, dut.receiver.stream
        ctx.set(buffer.plan, plan_of(program))
        await pulse(ctx, dut.start)
        words = beats_of(x)
        for number, word in enumerate(words):
            ctx.set(stream.tvalid, 1)
            ctx.set(stream.tdata, word)
            ctx.set(stream.tlast, number == len(words) - 1)
            assert ctx.get(stream.tready)
            assert ctx.get(dut.receiver.chunks) == number // tokens
            await ctx.tick()
        ctx.set(stream.tvalid, 0)
        assert ctx.get(dut.receiver.complete)
        assert ctx.get(dut.receiver.chunks) == -(-hidden // 16)
        for element in range(intermediate):
            for token in range(tokens):
                value = {"valid": 1, "token": token, "element": element, "value": int(h[token, element])}
                ctx.set(buffer.computed, value)
                await ctx.tick()
        ctx.set(buffer.computed, {"valid": 0})
        for _ in range(3):
            await ctx.tick()
        for phase, vectors in enumerate((x, h)):
            for chunk in range(program.phases[phase].chunks):
                for token in range(program.loads_of_chunk):
                    ctx.set(buffer.load, {"phase": phase, "chunk": chunk, "token": token, "register": chunk % 16})
                    ctx.set(buffer.load_valid, 1)
                    for _ in range(landing):
                        await ctx.tick()
                        ctx.set(buffer.load_valid, 0)
                        loaded = buffer.register_load
                        last = ctx.get(loaded.valid)
                    assert last
                    assert ctx.get(loaded.register) == chunk % 16
                    assert ctx.get(loaded.data) == expected_load(program, vectors, chunk, token)

    simulate(dut, bench)


async def pulse(ctx: Any, signal: Any) -> None:
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


def offered(events: list[tuple[str, int]]) -> list[str]:
    """What the receiver says of beats (``beat``, TLAST) and other events, one a clock; 2 tokens, 20 inputs."""
    dut = InputReceiver(UnitParameters(device=HBM2_PIM, max_inputs=64))
    said = []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.last_token, 1)
        ctx.set(dut.inputs, 20)
        for event, last in events:
            ctx.set(dut.stream.tvalid, event == "beat")
            ctx.set(dut.stream.tlast, last)
            ctx.set(dut.start, event == "start")
            ctx.set(dut.cancel, event == "cancel")
            flags = ("short", "long", "beat")
            said.append(
                next(
                    (flag for flag in flags if ctx.get(getattr(dut, flag))),
                    "dropped" if ctx.get(dut.stream.tready & dut.stream.tvalid) else "",
                )
            )
            await ctx.tick()
            ctx.set(dut.stream.tvalid, 0)
        said.append("complete" if ctx.get(dut.complete) else "dropping" if ctx.get(dut.dropping) else "")

    simulate(dut, bench)
    return said


BEAT, LAST, START, CANCEL = ("beat", 0), ("beat", 1), ("start", 0), ("cancel", 0)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([BEAT, START, BEAT, BEAT, BEAT, LAST], ["", "", "beat", "beat", "beat", "beat", "complete"]),
        ([START, BEAT, LAST], ["", "beat", "short", ""]),
        ([START, BEAT, BEAT, BEAT, BEAT, BEAT, LAST], ["", *["beat"] * 3, "long", "dropped", "dropped", ""]),
        ([START, BEAT, CANCEL, BEAT, LAST, LAST], ["", "beat", "", "dropped", "dropped", "", ""]),
        ([START, CANCEL, BEAT, LAST, LAST], ["", "", "dropped", "dropped", "", ""]),
        ([START, CANCEL, BEAT], ["", "", "dropped", "dropping"]),
        (
            [START, BEAT, CANCEL, LAST, START, BEAT, BEAT, BEAT, LAST],
            ["", "beat", "", "dropped", "", *["beat"] * 4, "complete"],
        ),
    ],
)
def test_packets(events: list[tuple[str, int]], said: list[str]) -> None:
    assert offered(events) == said
