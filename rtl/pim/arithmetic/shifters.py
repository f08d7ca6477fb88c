"""Shifts that floating-point sums need: right with a sticky bit, left until the leading bit is set."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.utils import ceil_log2


def shifted_right_sticky(value: Value, amount: Value, step: int = 1) -> Value:
    """``value >> amount · step``, as wide as ``value``; its lowest bit is set where a bit that was set is lost."""
    width = len(value)
    bits = [bit for bit in range(len(amount)) if step << bit < width]
    for bit in bits:
        places = step << bit
        lost = value[: places + 1].any()
        value = Mux(amount[bit], Cat(lost, value[places + 1 :]), value)[:width]
    beyond = amount[len(bits) :]
    return Mux(beyond.any(), value.any(), value)[:width] if len(beyond) else value


def normalised(m: Module, name: str, value: Value) -> tuple[Signal, Signal]:
    """``value`` shifted left until its top bit is set, and by how many places; of 0 the second means nothing."""
    width = len(value)
    bits = ceil_log2(width)
    places = Signal(bits, name=f"{name}_places")
    fill = (1 << bits) - width
    _, count = _leading_zeros(Cat(Const(0, fill), value) if fill else value)
    m.d.comb += places.eq(count)
    for bit in reversed(range(bits)):
        shifted = Signal(width, name=f"{name}_by{1 << bit}")
        m.d.comb += shifted.eq(Mux(places[bit], value << (1 << bit), value))
        value = shifted
    return value, places


def _leading_zeros(value: Value) -> tuple[Value, Value]:
    """Whether ``value`` is zero, and how many zeros it begins with if it is not; its width is a power of two, not 1."""
    if len(value) == 2:
        return ~value.any(), ~value[1]
    half = len(value) // 2
    (low_empty, low), (high_empty, high) = _leading_zeros(value[:half]), _leading_zeros(value[half:])
    return low_empty & high_empty, Cat(Mux(high_empty, low, high), high_empty)
