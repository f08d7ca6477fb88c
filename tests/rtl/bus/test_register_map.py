"""What a register map refuses."""

from typing import Any

import pytest

from rtl.bus.register_map import Access, AddressMap, Field, MemoryWindow, Register, described

MEMORY = MemoryWindow(name="MEMORY", meaning="words", offset=0x100, stride=4, rows=8, words=1)


def field(name: str = "a", access: Access = Access.SETTING, **values: Any) -> Field:
    return Field(name=name, meaning=name, access=access, **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "do not lie in a word"),
        ({"lowest_bit": 30, "width": 3}, "do not lie in a word"),
        ({"lowest_bit": -1}, "do not lie in a word"),
        ({"width": 3, "maximum": 8}, r"0…8 does not fit 3 bits"),
        ({"width": 3, "minimum": 5, "maximum": 4, "reset": 5}, "does not fit"),
        ({"width": 3, "maximum": 4, "reset": 5}, r"reset 5 is not in 0…4"),
        ({"width": 3, "minimum": 1}, r"reset 0 is not in 1…7"),
        ({"width": 3, "maximum": 4, "codes": {"b": 5}}, "a code of"),
    ],
)
def test_a_field_that_contradicts_itself(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        field(**values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((field(width=4), field("b", lowest_bit=3)), "overlaps"),
        ((field(lowest_bit=4), field("b")), "out of order"),
        ((field(), field("b", lowest_bit=1, access=Access.STATE)), "differ in what the bus can do"),
    ],
)
def test_fields_that_make_no_register(fields: tuple[Field, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Register(name="R", offset=0, fields=fields)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([("A", 0), ("B", 6)], "word by word"),
        ([("A", 4), ("B", 0)], "word by word"),
        ([("A", 0), ("B", 0)], "word by word"),
        ([("A", 0), ("B", 0x100)], "reach the memory"),
        ([("A", 0), ("A", 4)], "one name"),
    ],
)
def test_registers_that_make_no_map(places: list[tuple[str, int]], message: str) -> None:
    registers = tuple(Register(name=name, offset=offset, fields=(field(),)) for name, offset in places)
    with pytest.raises(ValueError, match=message):
        AddressMap(name="m", meaning="", registers=registers, memory=MEMORY)


def test_places_and_prose() -> None:
    status = Register(
        name="STATUS",
        offset=0,
        fields=(field("low", Access.STATE), field("wide", Access.STATE, lowest_bit=4, width=5, reset=17)),
    )
    mode = Register(
        name="MODE", offset=8, locked=True, fields=(field("mode", width=2, codes={"x": 0, "y": 2}, reset=2),)
    )
    found = AddressMap(name="m", meaning="", registers=(status, mode), memory=MEMORY)
    assert (found.offset("MODE"), found.mask("STATUS", "wide"), status.reset) == (8, 0x1F0, 0x110)
    assert (status.readable, status.writable, status.constant) == (True, False, False)
    assert described(field("count", width=7, maximum=100, minimum=1, reset=3)) == "count; 1…100, reset 3"
    assert found.markdown().splitlines()[2:] == [
        "| `0x0000` | `STATUS` | R | 0 `low`: low; 8:4 `wide`: wide |",
        "| `0x0008` | `MODE` | RW, when off | mode: 0 x, 2 y |",
        "| `0x0100` | `MEMORY` | RW | words; 8 rows, 4 bytes apart |",
    ]
