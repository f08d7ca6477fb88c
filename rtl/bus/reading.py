"""The registers that a bus reads, in the circuit."""

from collections.abc import Callable, Mapping

from amaranth.hdl import Module, Signal, Value

from rtl.bus.register_map import COUNTER_BITS, DATA_BITS, AddressMap, Register
from rtl.bus.words import word_of


def find_register(
    m: Module,
    address_map: AddressMap,
    address: Value,
    found: Signal,
    exists: Signal,
    *,
    held: Callable[[Register], Mapping[str, Value]],
    counters: Mapping[str, Value],
) -> None:
    """Take in what the register at ``address`` holds, in the cycles that the surrounding conditions name.

    A counter's low word keeps its high one for the next read of that, so that the two belong together.

    Args:
        m: Where; the enclosing ``m.If`` says when.
        address_map: Whose registers.
        address: On the bus.
        found: Takes the word.
        exists: Becomes 0 where there is no such register, or it cannot be read.
        held: The values of a register's fields, by name.
        counters: Values of ``COUNTER_BITS``, by the names of their low words' registers.
    """
    high_word = Signal(COUNTER_BITS - DATA_BITS)
    with m.Switch(address):
        for register in address_map.registers:
            if not register.readable:
                continue
            with m.Case(register.offset):
                if register.name in counters:
                    value = counters[register.name]
                    m.d.sync += [found.eq(value[:DATA_BITS]), high_word.eq(value[DATA_BITS:])]
                elif register.name.removesuffix("_HIGH") in counters:
                    m.d.sync += found.eq(high_word)
                else:
                    m.d.sync += found.eq(word_of(register, held(register)))
        with m.Default():
            m.d.sync += exists.eq(0)
