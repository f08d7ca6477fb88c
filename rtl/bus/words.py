"""Fields of a register's word, in the circuit."""

from collections.abc import Mapping

from amaranth.hdl import Cat, Const, Value

from rtl.bus.register_map import DATA_BITS, Field, Register


def part(word: Value, field: Field) -> Value:
    """A field's bits of a word."""
    return word[field.lowest_bit : field.lowest_bit + field.width]


def word_of(register: Register, held: Mapping[str, Value]) -> Value:
    """What a register reads: its constants, and of its other fields what ``held`` has of their names."""
    if register.constant:
        return Const(register.reset, DATA_BITS)
    parts: list[Value] = []
    place = 0
    for field in register.fields:
        parts += [Const(0, field.lowest_bit - place), held[field.name]]
        place = field.lowest_bit + field.width
    return Cat(*parts)
