"""A product by a constant, of adders alone."""

from functools import reduce
from operator import add

from amaranth.hdl import Const, Value


def product(value: Value, factor: int) -> Value:
    """``value · factor`` as a sum of what is shifted; a multiplier of an FPGA is slower than the two or three adders.

    Raises:
        ValueError: the factor is negative.
    """
    if factor < 0:
        raise ValueError(f"a product by {factor}")
    shifted = [value.shift_left(bit) for bit in range(factor.bit_length()) if factor >> bit & 1]
    return reduce(add, shifted) if shifted else Const(0)
