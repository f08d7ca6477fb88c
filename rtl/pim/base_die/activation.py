"""The activation unit: A(g) = g · σ(α · g) of a BF16, by the tables of `pim_model.numerics.activation`."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from pim_model.numerics.activation import (
    BASE_BITS,
    EXPONENT_BITS,
    FRACTION_BITS,
    LOWEST,
    SLOPE_BITS,
    SLOPE_SHIFT,
    Activation,
    activation_tables,
)
from pim_model.numerics.floats import NAN
from rtl.pim.arithmetic.formats import BF16, BIAS, FP32, is_nan
from rtl.pim.arithmetic.shifters import normalised
from rtl.pipeline import delayed, stages

FUNCTIONS = (Activation.SWIGLU, Activation.GPT_OSS)
"""In the order of their code, ``function``."""

_TABLES = [activation_tables(function) for function in FUNCTIONS]
_WORDS = [word for tables in _TABLES for word in tables.words]
_WORD_BITS = ceil_log2(len(_WORDS))
_LOWEST_FIELD = BIAS + LOWEST
_DIRECTORY_FIELD_BITS = 5
"""Low bits of an exponent field, enough to tell the exponents of the tables apart."""

_WORD = data.StructLayout({"base": BASE_BITS, "slope": signed(SLOPE_BITS), "exponent": EXPONENT_BITS})
_ENTRY = data.StructLayout({"first": _WORD_BITS, "log2_segments": 3})


_SOURCE = data.StructLayout(
    {
        "tables": 1,
        "half": 1,
        "same": 1,
    }
)
"""Where a magnitude comes from; nowhere: it is 0."""


class ActivationUnit(wiring.Component):
    """A(g), ``LATENCY`` clocks later; a new one every clock.

    The four stages: directory; table; interpolation; normalisation, and the numbers beyond the tables.

    Members:
        g: The argument.
        function: Index in `FUNCTIONS`.
        result: A(g); its significand has at most 16 bits.
    """

    LATENCY = 4

    def __init__(self) -> None:
        super().__init__({"g": In(BF16), "function": In(range(len(FUNCTIONS))), "result": Out(FP32)})

    def elaborate(self, platform: object) -> Module:
        """The stages, a register after each; those of the memories are their own."""
        m = Module()
        g = stages(m, "g", self.g, self.LATENCY - 1)
        source = delayed(m, "source", self._source(m), self.LATENCY - 1)
        entry = self._directory(m)
        word, within = self._segment(m, entry, g[1])

        significand, top_exponent = Signal(BASE_BITS, reset_less=True), Signal(EXPONENT_BITS, reset_less=True)
        m.d.sync += [
            significand.eq(word.base + ((word.slope * within) >> SLOPE_SHIFT)),
            top_exponent.eq(word.exponent),
        ]

        shifted, places = normalised(m, "significand", significand)
        exponent = Signal(signed(EXPONENT_BITS + 1))
        magnitude = Signal(31)
        m.d.comb += exponent.eq(top_exponent - places)
        given = g[-1]
        with m.If(source.tables & shifted[-1] & (exponent > 0)):
            m.d.comb += magnitude.eq(Cat(Const(0, 24 - BASE_BITS), shifted[:-1], exponent[:8]))
        with m.Elif(source.half):
            m.d.comb += magnitude.eq(Cat(Const(0, 16), given.fraction, given.exponent - 1))
        with m.Elif(source.same):
            m.d.comb += magnitude.eq(Cat(Const(0, 16), given.fraction, given.exponent))
        m.d.sync += self.result.eq(Mux(is_nan(given), NAN, Cat(magnitude, given.sign)))
        return m

    def _source(self, m: Module) -> data.View:
        """Where the magnitude of ``g`` is to come from."""
        source = Signal(_SOURCE)
        field = self.g.exponent
        tops = [Const(BIAS + tables.top, 8) for tables in _TABLES]
        beyond = field > Mux(self.function, tops[1], tops[0])
        below = field < _LOWEST_FIELD
        m.d.comb += [
            source.tables.eq(~beyond & ~below),
            # Half of the least normal numbers is below them.
            source.half.eq(below & (field > 1)),
            source.same.eq(beyond & ~self.g.sign),
        ]
        return source

    def _directory(self, m: Module) -> data.View:
        """First stage: which words the segments of this sign and exponent have."""
        field = self.g.exponent[:_DIRECTORY_FIELD_BITS]
        contents = [{"first": 0, "log2_segments": 0} for _ in range(len(FUNCTIONS) * 2 << _DIRECTORY_FIELD_BITS)]
        start = 0
        for function, tables in enumerate(_TABLES):
            for sign, entries in enumerate(tables.directory):
                for number, entry in enumerate(entries):
                    low = (_LOWEST_FIELD + number) % (1 << _DIRECTORY_FIELD_BITS)
                    contents[(function * 2 + sign << _DIRECTORY_FIELD_BITS) + low] = {
                        "first": start + entry.first,
                        "log2_segments": entry.log2_segments,
                    }
            start += len(tables.words)
        m.submodules.directory = directory = Memory(shape=_ENTRY, depth=len(contents), init=contents)
        read = directory.read_port()
        m.d.comb += read.addr.eq(Cat(field, self.g.sign, self.function))
        return read.data

    def _segment(self, m: Module, entry: data.View, g: data.View) -> tuple[data.View, Signal]:
        """Second stage: the word, and where in its segment ``g`` lies."""
        m.submodules.table = table = Memory(
            shape=_WORD, depth=len(_WORDS), init=[_WORD.from_bits(word) for word in _WORDS]
        )
        read = table.read_port()
        within = Signal(FRACTION_BITS, reset_less=True)
        # The fraction's upper bits, as many as there are for segments, tell which; the rest tells where.
        split = (g.fraction << entry.log2_segments)[: 2 * FRACTION_BITS]
        m.d.comb += read.addr.eq(entry.first + split[FRACTION_BITS:])
        m.d.sync += within.eq(split[:FRACTION_BITS])
        return read.data, within
