"""Shifts that floating-point sums need: right with a sticky bit, left until the leading bit is set."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.utils import ceil_log2


def shifted_right_sticky(value: Value, amount: Value, step: int = 1) -> Value:
    """``value >> amount · step``, as wide as ``value``; its lowest bit is set where a bit that was set is lost."""
    width = len(value)
    for bit, selected in enumerate(amount):
        places = step << bit
        if places < width:
            lost = value[: places + 1].any()
            shifted = Cat(lost, value[places + 1 :])
        else:
            shifted = value.any()
        value = Mux(selected, shifted, value)[:width]
    return value


def normalised(m: Module, name: str, value: Value) -> tuple[Signal, Signal]:
    """``value`` shifted left until its top bit is set, and by how many places; of 0 the second means nothing."""
    width = len(value)
    places = []
    for bit in reversed(range(ceil_log2(width))):
        step = 1 << bit
        empty = Signal(name=f"{name}_top{step}_empty")
        shifted = Signal(width, name=f"{name}_by{step}")
        m.d.comb += [
            empty.eq(~value[width - step :].any()),
            shifted.eq(Mux(empty, value << step, value)),
        ]
        places.append(empty)
        value = shifted
    count = Signal(len(places), name=f"{name}_places")
    m.d.comb += count.eq(Cat(*reversed(places)))
    return value, count
