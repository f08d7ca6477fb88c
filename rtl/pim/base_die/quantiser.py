"""INT8 inputs: codes times a power of two that all of a token's vector share."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pim_model.unit.parameters import LANES
from rtl.pim.arithmetic.formats import BF16

BF16_BITS = 16
LARGEST = 127
CODE_BITS = 8
FIELD_BITS = 8
"""Of a BF16's exponent field."""

WORD_BITS = LANES * BF16_BITS

ALL_ONES = 255
"""Exponent field of infinities and NaNs."""

EXPONENT_OF_FIELD_0 = -(127 + 6)
"""An input is code · 2 to the greatest exponent field plus this."""


class ExponentMaximum(wiring.Component):
    """Greatest exponent field of a vector that comes word by word, infinities and NaNs apart; two clocks late.

    Members:
        clear: No word has come.
        valid, word: 16 BF16.
        greatest: The greatest field; 0 if there are only zeros.
        nonfinite: For one clock: the word had an infinity or a NaN.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "word": In(WORD_BITS),
                "greatest": Out(FIELD_BITS),
                "nonfinite": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """A tree, then the comparison with what was."""
        m = Module()
        fields = [data.View(BF16, self.word.word_select(lane, BF16_BITS)).exponent for lane in range(LANES)]
        beyond = [field == ALL_ONES for field in fields]
        level: list[Value] = [Mux(no_number, 0, field) for field, no_number in zip(fields, beyond, strict=True)]
        while len(level) > 1:
            level = [
                _named(m, f"greater{len(level) // 2}_{number}", _greater(a, b))
                for number, (a, b) in enumerate(zip(level[::2], level[1::2], strict=True))
            ]
        valid, of_word = Signal(), Signal(FIELD_BITS)
        m.d.sync += [
            valid.eq(self.valid & ~self.clear),
            of_word.eq(level[0]),
            self.nonfinite.eq(self.valid & Cat(*beyond).any()),
        ]
        with m.If(self.clear):
            m.d.sync += self.greatest.eq(0)
        with m.Elif(valid):
            m.d.sync += self.greatest.eq(_greater(self.greatest, of_word))
        return m


def quantised(m: Module, name: str, word: Value, greatest: Value) -> Value:
    """The 16 codes of a word, when ``greatest`` is the greatest exponent field of its vector.

    A code is the value · 2 ** (6 − greatest exponent), rounded to nearest, ties to even, within ±127; of infinities and
    NaNs 0.
    """
    lanes = [word.word_select(lane, BF16_BITS) for lane in range(LANES)]
    return Cat(_code(m, f"{name}{lane}", data.View(BF16, value), greatest) for lane, value in enumerate(lanes))


def shared_exponent(greatest: Value) -> Value:
    """The exponent of a vector whose greatest exponent field this is; of one that is all zeros 0."""
    return Mux(greatest == 0, 0, greatest + EXPONENT_OF_FIELD_0)


def _code(m: Module, name: str, value: data.View, greatest: Value) -> Value:
    is_zero = (value.exponent == 0) | (value.exponent == ALL_ONES)
    below = _named(m, f"{name}_below", (greatest - value.exponent)[:FIELD_BITS])
    shift = Mux(below > 8, 8, below)[:4]
    # The greatest's significand, 1.fraction, is 64 to 127.5: seven bits, and half a unit.
    shifted = _named(m, f"{name}_shifted", (Cat(Const(0, 8), value.fraction, 1) >> shift)[:16])
    whole, half, rest = shifted[9:], shifted[8], shifted[:8].any()
    magnitude = _named(m, f"{name}_magnitude", (whole + (half & (rest | whole[0])))[:CODE_BITS])
    clipped = _named(m, f"{name}_clipped", Mux(magnitude > LARGEST, LARGEST, magnitude))
    return Mux(is_zero, 0, Mux(value.sign, -clipped, clipped)[:CODE_BITS])


def _greater(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)


def _named(m: Module, name: str, value: Value) -> Signal:
    """A signal of that value: an expression that is used twice would be written twice."""
    signal = Signal(len(value), name=name)
    m.d.comb += signal.eq(value)
    return signal
