"""The PIM unit's address map, and what its guide and its driver say of it."""

import re
from pathlib import Path

import pytest

from catalog.errors import ForestageError
from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.bus.systemrdl import systemrdl
from rtl.pim.address_map import ADDRESS_BITS, address_map, counter_offset, descriptor_fields, error_name
from rtl.pim.base_die.planner import REFUSAL_BITS, descriptor_layout
from rtl.pim.driver import Descriptor
from tests.rtl.pim.base_die.devices import HBM2_PIM

UNIT = UnitParameters(device=HBM2_PIM)
MAP = address_map(UNIT)
GUIDE = Path(__file__).resolve().parents[3] / "docs" / "pim-unit.md"


def test_the_descriptors_registers_are_the_planners_fields() -> None:
    layout = descriptor_layout(UNIT)
    assert {part.name: part.width for part in descriptor_fields(UNIT)} == {name: place.width for name, place in layout}


def test_the_map_fits_its_bus() -> None:
    assert MAP.registers[-1].offset < 1 << ADDRESS_BITS
    assert max(Refusal) < 1 << REFUSAL_BITS
    assert MAP.register("STATUS").field("refusal").width == REFUSAL_BITS


def test_every_error_and_counter_has_its_place() -> None:
    for error in UnitError:
        assert MAP.mask("STATUS", error_name(error)) == 1 << 8 + error
    for counter in UnitCounter:
        assert MAP.offset(counter.name) == counter_offset(counter)
        assert MAP.offset(f"{counter.name}_HIGH") == counter_offset(counter) + 4


def test_the_guide_has_the_map_as_it_is() -> None:
    assert MAP.markdown() in GUIDE.read_text(encoding="utf-8")


def test_systemrdl_names_every_register_once() -> None:
    text = systemrdl(MAP)
    for register in MAP.registers:
        assert len(re.findall(rf"}} {register.name} @ {register.offset:#x};", text)) == 1
    assert "external mem" not in text
    for code in (*WeightFormat, *ExpertKind):
        assert re.search(rf"{code.name.lower()} = 2'd{int(code)};", text)


def test_a_descriptor_that_no_register_holds_is_one_line() -> None:
    with pytest.raises(ForestageError, match="tokens is 8; its register holds 0 to 7"):
        Descriptor(format=WeightFormat.BF16, tokens=8, inputs=1, rows=1).writes(UNIT)


def test_a_descriptor_is_written_as_it_is_said() -> None:
    said = Descriptor(
        format=WeightFormat.MXFP4, kind=ExpertKind.GPT_OSS, inputs=2880, rows=360, first_bias=True, base_row=77
    )
    written = dict(said.writes(UNIT))
    values = {part.name: written[part.offset] for part in descriptor_fields(UNIT)}
    assert values == {
        "format": 2,
        "kind": 2,
        "tokens": 1,
        "inputs": 2880,
        "rows": 360,
        "first_bias": 1,
        "second_bias": 0,
        "base_row": 77,
    }
