"""The input vectors of both phases: received, or computed; handed to the blocks chunk by chunk."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from pim_model.unit.parameters import INPUT_REGISTERS, LANES, UnitParameters
from pim_model.unit.program import WeightFormat
from rtl.bus.axi_stream import AxiStreamSignature
from rtl.checks import always
from rtl.pim.base_die.layouts import INPUTS_BITS, MOST_TOKENS, chunk_bits, load_layout, plan_layout
from rtl.pim.base_die.quantiser import BF16_BITS, CODE_BITS, FIELD_BITS, WORD_BITS, ExponentMaximum, quantised
from rtl.pipeline import delayed

INT8_TOKENS = WeightFormat.INT8.most_tokens

LOAD_CK = 3
"""Clocks from a word's address to its being at the blocks."""

MEMORIES = 2
"""Of each phase: two tokens' words of a chunk are read at once."""


def register_load_layout() -> data.StructLayout:
    """What goes to all blocks: ``valid``; ``register``; ``data``, see ``rtl.pim.block``."""
    return data.StructLayout({"valid": 1, "register": ceil_log2(INPUT_REGISTERS), "data": WORD_BITS})


def value_layout() -> data.StructLayout:
    """An input of the second phase: ``valid``; ``token``; ``element``, its number; ``value``, BF16."""
    return data.StructLayout({"valid": 1, "token": ceil_log2(MOST_TOKENS), "element": INPUTS_BITS, "value": BF16_BITS})


class InputReceiver(wiring.Component):
    """Takes a program's input vectors from the stream: 16 BF16 of a token a beat, chunk by chunk, in it token by token.

    TLAST is to be at the last beat and no other. Each ``start`` takes one packet: where it is not wanted any more, what
    is left of it, which may be all, is taken and dropped, up to its TLAST.

    Members:
        stream: The beats.
        last_token, inputs: Of the program.
        start: A program's vectors are to come; not while others are being dropped.
        cancel: They are not wanted any more.
        beat, chunk, token, word: A beat is taken in this clock: what it is, with zeros beyond the inputs.
        chunks: How many chunks are there, all tokens of them.
        complete: All are.
        dropping: Beats of a packet that is not wanted are still to come.
        short, long: For one clock: TLAST came too early; or not with the last beat.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        bits = chunk_bits(parameters)
        super().__init__(
            {
                "stream": In(AxiStreamSignature(WORD_BITS)),
                "last_token": In(ceil_log2(MOST_TOKENS)),
                "inputs": In(INPUTS_BITS),
                "start": In(1),
                "cancel": In(1),
                "beat": Out(1),
                "chunk": Out(bits),
                "token": Out(ceil_log2(MOST_TOKENS)),
                "word": Out(WORD_BITS),
                "chunks": Out(bits + 1),
                "complete": Out(1),
                "dropping": Out(1),
                "short": Out(1),
                "long": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Idle, receiving or dropping, and the number of the beat."""
        m = Module()
        receiving = Signal()
        last_token, last_chunk = self.token == self.last_token, self.chunk == (self.inputs - 1)[4:]
        last = last_token & last_chunk
        taken = self.stream.tvalid & self.stream.tready
        m.d.comb += [
            self.stream.tready.eq(receiving | self.dropping),
            self.beat.eq(taken & receiving),
            self.word.eq(masked(m, "x", self.stream.tdata, self.chunk, self.inputs)),
            self.short.eq(self.beat & self.stream.tlast & ~last),
            self.long.eq(self.beat & ~self.stream.tlast & last),
        ]
        with m.If(self.beat):
            m.d.sync += self.token.eq(self.token + 1)
            with m.If(last_token):
                m.d.sync += [self.token.eq(0), self.chunk.eq(self.chunk + 1), self.chunks.eq(self.chunk + 1)]
            with m.If(last | self.stream.tlast):
                m.d.sync += receiving.eq(0)
                m.d.sync += [self.complete.eq(last & self.stream.tlast), self.dropping.eq(self.long)]
        with m.If(self.dropping & taken & self.stream.tlast):
            m.d.sync += self.dropping.eq(0)
        with m.If(self.start):
            m.d.sync += [self.chunk.eq(0), self.token.eq(0), self.chunks.eq(0), self.complete.eq(0), receiving.eq(1)]
        with m.If(self.cancel & receiving):
            m.d.sync += [receiving.eq(0), self.dropping.eq(~(self.beat & self.stream.tlast))]
        always(m, ~(self.start & self.dropping), "input receiver: a program's vectors while others are dropped")
        always(m, ~(receiving & self.dropping), "input receiver: beats are taken and dropped at once")
        always(m, ~(self.start & receiving), "input receiver: a program's vectors before the last one's are there")
        return m


class InputBuffer(wiring.Component):
    """The vectors of both phases, and the way from them to the blocks.

    Members:
        plan: Of the program.
        start: A program begins: nothing is computed.
        beat, chunk, token, word: What is received, see `InputReceiver`.
        computed: An input of the second phase.
        load_valid, load: An LDI is on the column bus.
        register_load: What it brings, CWL and a burst later.
        fields: Of each phase and each token that INT8 has, the greatest exponent field of its inputs.
        nonfinite: For one clock: an input that was to become INT8 is infinite or NaN.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._parameters = parameters
        self._landing = parameters.timings.write_latency + parameters.device.burst_ck
        bits = chunk_bits(parameters)
        super().__init__(
            {
                "plan": In(plan_layout(parameters)),
                "start": In(1),
                "beat": In(1),
                "chunk": In(bits),
                "token": In(ceil_log2(MOST_TOKENS)),
                "word": In(WORD_BITS),
                "computed": In(value_layout()),
                "load_valid": In(1),
                "load": In(load_layout(parameters)),
                "register_load": Out(register_load_layout()),
                "fields": Out(data.ArrayLayout(data.ArrayLayout(FIELD_BITS, INT8_TOKENS), 2)),
                "nonfinite": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Two memories a phase; read, mask, quantise."""
        m = Module()
        plan = self.plan
        is_int8 = plan.format == WeightFormat.INT8
        tag = Signal(data.StructLayout({"valid": 1, "load": load_layout(self._parameters)}))
        m.d.comb += [tag.valid.eq(self.load_valid), tag.load.eq(self.load)]
        reading = delayed(m, "load", tag, self._landing - LOAD_CK, reset_less=False)
        word_number = (reading.load.chunk << plan.log2_slots) | reading.load.token

        found = [
            self._memory(m, "x", word_number, **self._received()),
            self._memory(m, "h", word_number, **self._computed()),
        ]
        read = delayed(m, "read", reading, 1, reset_less=False)
        odd = delayed(m, "odd", word_number[0], 1)
        pair = [Mux(read.load.phase, h, x) for x, h in zip(*found, strict=True)]
        # Of INT8 all tokens at once, of which the first is in the even memory if there are two.
        first = Mux(odd, pair[1], pair[0])
        inputs = Mux(read.load.phase, plan.phases[1].inputs, plan.phases[0].inputs)
        is_token = read.load.token <= plan.last_token
        words = [Signal(WORD_BITS, name=f"word{number}") for number in range(INT8_TOKENS)]
        m.d.sync += [
            words[0].eq(Mux(is_token, masked(m, "first", first, read.load.chunk, inputs), 0)),
            words[1].eq(Mux(plan.last_token != 0, masked(m, "second", pair[1], read.load.chunk, inputs), 0)),
        ]

        ready = delayed(m, "masked", read, 1, reset_less=False)
        greatest = [Signal(FIELD_BITS, name=f"greatest{token}") for token in range(INT8_TOKENS)]
        m.d.comb += [field.eq(self.fields[ready.load.phase][token]) for token, field in enumerate(greatest)]
        codes = [quantised(m, f"code{token}_", word, greatest[token]) for token, word in enumerate(words)]
        m.d.sync += [
            self.register_load.valid.eq(ready.valid),
            self.register_load.register.eq(ready.load.register),
            self.register_load.data.eq(Mux(is_int8, Cat(*codes), words[0])),
        ]
        self._exponents(m, is_int8)
        return m

    def _received(self) -> dict[str, Value]:
        """Whole words of the first phase."""
        return {
            "write": self.beat,
            "number": (self.chunk << self.plan.log2_slots) | self.token,
            "lanes": Const(-1, LANES),
            "word": self.word,
        }

    def _computed(self) -> dict[str, Value]:
        """Single inputs of the second."""
        value = self.computed
        log2_lanes = ceil_log2(LANES)
        return {
            "write": value.valid,
            "number": (value.element[log2_lanes:] << self.plan.log2_slots) | value.token,
            "lanes": 1 << value.element[:log2_lanes],
            "word": value.value.replicate(LANES),
        }

    def _memory(
        self, m: Module, name: str, read_number: Value, *, write: Value, number: Value, lanes: Value, word: Value
    ) -> list[Value]:
        """A phase's words in two memories, even and odd numbers; what was read, a clock after its number."""
        depth = self._parameters.max_inputs // LANES * MOST_TOKENS // MEMORIES
        bits = ceil_log2(depth)
        found = []
        for parity in range(MEMORIES):
            m.submodules[f"{name}{parity}"] = memory = Memory(shape=WORD_BITS, depth=depth, init=[])
            writer, reader = memory.write_port(granularity=BF16_BITS), memory.read_port()
            m.d.comb += [
                writer.addr.eq(number[1 : bits + 1]),
                writer.data.eq(word),
                writer.en.eq(Mux(write & (number[0] == parity), lanes, 0)),
                reader.addr.eq(read_number[1 : bits + 1]),
                reader.en.eq(1),
            ]
            found.append(reader.data)
        return found

    def _exponents(self, m: Module, is_int8: Value) -> None:
        """Greatest exponents, token by token."""
        nonfinite = []
        value = self.computed
        for token in range(INT8_TOKENS):
            for phase, (valid, word) in enumerate(
                (
                    (self.beat & (self.token == token), self.word),
                    (value.valid & (value.token == token), value.value),
                )
            ):
                m.submodules[f"maximum{phase}_{token}"] = maximum = ExponentMaximum()
                m.d.comb += [
                    maximum.clear.eq(self.start),
                    maximum.valid.eq(valid),
                    maximum.word.eq(word),
                    self.fields[phase][token].eq(maximum.greatest),
                ]
                nonfinite.append(maximum.nonfinite)
        m.d.comb += self.nonfinite.eq(is_int8 & Cat(*nonfinite).any())


def masked(m: Module, name: str, word: Value, chunk: Value, inputs: Value) -> Value:
    """A chunk's 16 inputs, zeros beyond ``inputs``."""
    log2_lanes = ceil_log2(LANES)
    last, behind, at_last = Signal(INPUTS_BITS, name=f"{name}_last"), Signal(), Signal()
    m.d.comb += [
        last.eq(inputs - 1),
        behind.eq(chunk > last[log2_lanes:]),
        at_last.eq(chunk == last[log2_lanes:]),
    ]
    lanes = [
        Mux(behind | (at_last & (lane > last[:log2_lanes])), 0, word.word_select(lane, BF16_BITS))
        for lane in range(LANES)
    ]
    return Cat(*lanes)


assert 2 * LANES * CODE_BITS == WORD_BITS, "an input register holds two tokens' codes of a chunk"
