"""Capacitances and energies of a library that is small enough to be added up by hand."""

from pathlib import Path

import pytest

from catalog.errors import ForestageError
from rtl.synthesis.cell_energy import CellEnergy, cell_energy
from rtl.synthesis.liberty import read_libraries


def power(rise: str, fall: str, rail: str = "VDD") -> str:
    """A group of internal power."""
    return (
        f"internal_power () {{ related_pg_pin : {rail};\n"
        f'rise_power (t) {{ index_1 ("1, 2, 3"); values ({rise}); }}\n'
        f"fall_power (t) {{ values ({fall}); }} }}\n"
    )


LIBRARY = f"""library (by_hand) {{
  nom_voltage : 2.0;
  capacitive_load_unit (1, "ff");
  leakage_power_unit : "1pW";
  cell (INV) {{
    area : 1; cell_leakage_power : 3000;
    pin (A) {{ direction : input; capacitance : 4; }}
    pin (Y) {{ direction : output; function : "!A";
      {power('"1, 2, 3", "4, 5, 6", "7, 8, 9"', '"1, 1, 1", "1, 3, 1", "1, 1, 1"')}
      {power('"99"', '"99"', "VSS")} }}
  }}
  cell (BUF) {{
    area : 3;
    leakage_power () {{ value : 1000; when : "A"; related_pg_pin : VDD; }}
    leakage_power () {{ value : 3000; when : "!A"; related_pg_pin : VDD; }}
    leakage_power () {{ value : 0; related_pg_pin : VSS; }}
    pin (A) {{ direction : input; capacitance : 2; }}
    pin (Y) {{ direction : output; function : "A"; {power('"2"', '"4"')} {power('"6"', '"8"')} }}
  }}
  cell (LATCH) {{
    area : 5; latch (Q, QN) {{ }}
    pin (G) {{ direction : input; clock : true; capacitance : 77; {power('"7"', '"7"')} }}
  }}
  cell (DFF) {{
    area : 10; cell_leakage_power : 5000;
    ff (IQ, IQN) {{ clocked_on : "CK"; next_state : "D"; }}
    pin (CK) {{ direction : input; clock : true; capacitance : 0.5; {power('"1.5"', '"2.5"')} {power('"0"', '"9"')} }}
    pin (D) {{ direction : input; capacitance : 0.25; }}
    pin (Q) {{ direction : output; function : "IQ"; {power('"3"', '"5"')} }}
  }}
  cell (INVERTING_DFF) {{
    area : 6;
    ff (IQ, IQN) {{ clocked_on : "CK"; next_state : "D"; }}
    pin (CK) {{ direction : input; clock : true; capacitance : 50; {power('"1.5"', '"2.5"')} }}
    pin (D) {{ direction : input; capacitance : 25; }}
    pin (QN) {{ direction : output; function : "IQN"; {power('"3"', '"5"')} }}
  }}
  cell (BIG_DFF) {{
    area : 20;
    ff (IQ, IQN) {{ clocked_on : "CK"; next_state : "D"; }}
    pin (CK) {{ direction : input; clock : true; capacitance : 50; {power('"1.5"', '"2.5"')} }}
    pin (D) {{ direction : input; capacitance : 25; }}
    pin (Q) {{ direction : output; function : "IQ"; {power('"3"', '"5"')} }}
  }}
}}
"""


def found_in(folder: Path, text: str) -> CellEnergy:
    path = folder / "given.lib"
    path.write_text(text)
    inside = folder / "unpacked"
    inside.mkdir()
    return cell_energy(read_libraries([path], inside))


def test_energies_are_those_that_are_added_up_by_hand(tmp_path: Path) -> None:
    assert found_in(tmp_path, LIBRARY) == CellEnergy(
        volts=2.0,
        flip_flop="DFF",  # the smallest that does not invert, and no latch
        flip_flop_um2=10,
        clock_fj=0.5 * 4 + (1.5 + 2.5),  # the state in which the output changes is another's
        flip_flop_input_ff=0.25,
        flip_flop_toggle_fj=(3 + 5) / 2,
        input_ff_per_um2=(4 + 2) / (1 + 3),
        toggle_fj_per_um2=((5 + 3) / 2 + (3 + 7) / 2) / (1 + 3),
        flip_flop_leakage_nw=5,
        leakage_nw_per_um2=(3 + 2) / (1 + 3),
    )


def test_units_are_the_librarys(tmp_path: Path) -> None:
    text = LIBRARY.replace('(1, "ff")', "(2, pf)").replace('"1pW"', '"10nW"')
    found = found_in(tmp_path, text)
    assert found.clock_fj == pytest.approx(6 * 2000)
    assert found.leakage_nw_per_um2 == pytest.approx(1.25 * 10_000)


REFUSED = {
    "no voltage": (("nom_voltage : 2.0;", ""), "no nom_voltage"),
    "another unit": (('"1pW"', '"1hp"'), "a unit of hp"),
    "no capacitance": (("capacitance :", "fanout_load :"), "no capacitance of a clock"),
    "no internal power": (("internal_power", "other_power"), "no internal_power"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_library_without_them_is_refused(tmp_path: Path, case: str) -> None:
    (before, after), said = REFUSED[case]
    assert before in LIBRARY
    with pytest.raises(ForestageError, match=said) as refused:
        found_in(tmp_path, LIBRARY.replace(before, after))
    assert "by_hand" in str(refused.value)
