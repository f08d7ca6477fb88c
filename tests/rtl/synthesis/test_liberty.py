"""Cell libraries as they come: packed or not, whole or damaged, in parts or with a part missing."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.errors import ForestageError
from rtl.synthesis.liberty import read_libraries
from tests.rtl.synthesis.tiny_library import library


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_mapper_is_told(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("t.lib.gz" if packed else "t.lib")
    path.write_bytes(gzip.compress(library().encode()) if packed else library().encode())
    folder = tmp_path / "unpacked"
    folder.mkdir()
    found = read_libraries([path], folder)
    assert (found.names, found.target, found.driver) == (("tiny",), "tiny", "BUF")
    assert found.areas == {"INV": 1.0, "BUF": 2.0, "NAND": 2.5, "DFF": 10.0}
    assert found.sequential == {"DFF"}
    assert found.files[0].read_text() == library()


def test_a_library_in_parts_is_named_by_what_they_share(tmp_path: Path) -> None:
    parts = {"lib_seq_x": library("INV", "BUF", "NAND"), "lib_simple_x": library("DFF")}
    for name, text in parts.items():
        (tmp_path / f"{name}.lib").write_text(text.replace("(tiny)", f"({name})"))
    found = read_libraries([tmp_path / f"{name}.lib" for name in parts], tmp_path)
    assert (found.names, found.target) == (("lib_seq_x", "lib_simple_x"), "lib_s")


WRONG = {
    "no text": (b"\xff\xfe\x00", "no text"),
    "another file": (b"module x; endmodule\n", "give a Liberty file"),
    "cut short": (library().encode()[:-40], "ends in the middle"),
    "damaged gzip": (gzip.compress(library().encode())[:50], "damaged gzip"),
    "empty": (b"library (x) {\n}\n", "no cells"),
    "no number": (library().replace("area : 2.5", "area : big").encode(), "cell NAND: area: 'big' is no number"),
    "no flip-flop": (library("DFF").encode(), "no flip-flop"),
    "no buffer": (library("BUF").encode(), "no buffer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_library_that_is_none_is_refused_by_name(tmp_path: Path, case: str) -> None:
    content, said = WRONG[case]
    path = tmp_path / "given.lib"
    path.write_bytes(content)
    with pytest.raises(ForestageError, match=said) as refused:
        read_libraries([path], tmp_path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_absent_or_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.lib"
    with pytest.raises(ForestageError, match="cannot read the cell library"):
        read_libraries([path], tmp_path)
    path.write_text(library())
    with pytest.raises(ForestageError, match="cell INV: is in"):
        read_libraries([path, path], tmp_path)


def test_the_libraries_of_the_tables(shared_library: Callable[[str], list[Path]], tmp_path: Path) -> None:
    sky130 = read_libraries(shared_library("sky130hd"), tmp_path)
    assert (len(sky130.areas), len(sky130.sequential), sky130.driver) == (428, 69, "sky130_fd_sc_hd__buf_1")
    parts = [*shared_library("asap7_rvt_tt_INVBUF"), *shared_library("asap7_rvt_tt_S")]  # without the large ones
    asap7 = read_libraries(parts, tmp_path)
    assert (asap7.target, len(asap7.sequential), asap7.driver) == ("asap7sc7p5t", 33, "BUFx2_ASAP7_75t_R")
