"""Division and multiplication, a bit a clock: for what is needed once a program."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class SerialDivider(wiring.Component):
    """``quotient`` and ``remainder`` hold from ``width`` clocks after ``start`` on, until the next one.

    Members:
        start: Divide ``dividend`` by ``divisor``, not 0, as they are in this clock; ``divisor`` holds on.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(
            {
                "start": In(1),
                "dividend": In(width),
                "divisor": In(width),
                "quotient": Out(width),
                "remainder": Out(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Shift a bit of the dividend into the remainder, subtract where it goes, shift that into the quotient."""
        m = Module()
        word = Mux(self.start, self.dividend, self.quotient)
        partial = Cat(word[-1], Mux(self.start, 0, self.remainder))
        goes = partial >= self.divisor
        left = Signal(range(self.width))
        with m.If(self.start | (left != 0)):
            m.d.sync += [
                self.remainder.eq(Mux(goes, partial - self.divisor, partial)),
                self.quotient.eq(Cat(goes, word[:-1])),
                left.eq(Mux(self.start, self.width, left) - 1),
            ]
        return m


class SerialMultiplier(wiring.Component):
    """``product``, of ``result_width`` bits, holds from ``width`` clocks after ``start`` on, until the next one.

    Members:
        start: Multiply ``a`` by ``b`` as they are in this clock.
    """

    def __init__(self, width: int, result_width: int) -> None:
        self.width, self._result_width = width, result_width
        super().__init__(
            {"start": In(1), "a": In(result_width), "b": In(width), "product": Out(result_width)},
        )

    def elaborate(self, platform: object) -> Module:
        """Add ``a``, shifted, for every bit of ``b``."""
        m = Module()
        shifted, bits, left = Signal(self._result_width), Signal(self.width), Signal(range(self.width))
        a, b = Mux(self.start, self.a, shifted), Mux(self.start, self.b, bits)
        with m.If(self.start | (left != 0)):
            m.d.sync += [
                self.product.eq(Mux(self.start, 0, self.product) + Mux(b[0], a, 0)),
                shifted.eq(a << 1),
                bits.eq(b >> 1),
                left.eq(Mux(self.start, self.width, left) - 1),
            ]
        return m
