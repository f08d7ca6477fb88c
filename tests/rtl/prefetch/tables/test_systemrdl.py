"""The SystemRDL that is written: a compiler of the standard reads the same map, and its C header has the offsets."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("systemrdl", reason="needs the extra 'dev'")

import systemrdl

from predictor.st_moe.parameters import EngineLimits
from rtl.bus.register_map import Access
from rtl.bus.systemrdl import systemrdl as written
from rtl.prefetch.tables.address_map import address_map

LIMITS = [EngineLimits(), EngineLimits(experts_max=16, layers_max=6, top_k_max=3, candidates_max=12)]
SOFTWARE = {Access.CONSTANT: "r", Access.STATE: "r", Access.SETTING: "rw", Access.COMMAND: "w"}
HARDWARE = {Access.CONSTANT: "na", Access.STATE: "w", Access.SETTING: "r", Access.COMMAND: "r"}


def compiled(limits: EngineLimits, folder: Path) -> Any:
    """The root of the elaborated map."""
    path = folder / "table_engine.rdl"
    path.write_text(written(address_map(limits)), encoding="utf-8")
    compiler = systemrdl.RDLCompiler()
    compiler.compile_file(str(path))
    return compiler.elaborate("table_engine")


@pytest.mark.parametrize("limits", LIMITS)
def test_the_compiler_reads_the_same_map(limits: EngineLimits, tmp_path: Path) -> None:
    expected = address_map(limits)
    top = compiled(limits, tmp_path).top
    registers = {node.inst_name: node for node in top.registers()}
    assert list(registers) == [register.name for register in expected.registers]
    for register in expected.registers:
        node = registers[register.name]
        assert node.absolute_address == register.offset
        assert (node.get_property("regwidth"), node.get_property("accesswidth")) == (32, 32)
        assert ("only while the hardware is off" in (node.get_property("desc") or "")) == register.locked
        fields = {part.inst_name: part for part in node.fields()}
        assert list(fields) == [field.name for field in register.fields]
        for field in register.fields:
            part = fields[field.name]
            assert (part.low, part.width) == (field.lowest_bit, field.width)
            assert part.get_property("reset") == field.reset
            assert part.get_property("sw").name == SOFTWARE[field.access]
            assert part.get_property("hw").name == HARDWARE[field.access]
            assert part.get_property("singlepulse") == (field.access is Access.COMMAND)
            codes = part.get_property("encode")
            assert {code.name: code.value for code in codes or ()} == dict(field.codes)
            assert field.meaning in part.get_property("desc")
    (memory,) = (node for node in top.children() if isinstance(node, systemrdl.node.MemNode))
    assert memory.absolute_address == expected.memory.offset
    assert memory.size == expected.memory.rows * expected.memory.stride
    assert memory.get_property("memwidth") == 32


def test_the_c_header_has_the_offsets(tmp_path: Path) -> None:
    """PeakRDL's header, compiled: a struct member lies where the map says, a field's mask and reset are the map's."""
    exporter = pytest.importorskip("peakrdl_cheader.exporter", reason="needs the extra 'dev'")
    exporter.CHeaderExporter().export(compiled(LIMITS[0], tmp_path), str(tmp_path / "table_engine.h"))
    expected = address_map(LIMITS[0])
    checks = [f"offsetof(table_engine_t, {r.name}) == {r.offset}" for r in expected.registers]
    checks += [f"offsetof(table_engine_t, TABLE) == {expected.memory.offset}"]
    for register in expected.registers:
        for field in register.fields:
            macro = f"TABLE_ENGINE__{register.name}__{field.name.upper()}"
            checks += [f"{macro}_bm == {field.mask:#x}", f"{macro}_reset == {field.reset}"]
    program = ["#include <stddef.h>", '#include "table_engine.h"']
    program += [f'_Static_assert({check}, "{check}");' for check in checks]
    source = tmp_path / "check.c"
    source.write_text("\n".join([*program, "int main(void) { return 0; }", ""]))
    done = subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Werror", str(source), "-o", str(tmp_path / "check")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run([str(tmp_path / "check")], check=True)


def test_pages_are_made(tmp_path: Path) -> None:
    exporter = pytest.importorskip("peakrdl_html", reason="needs the extra 'dev'")
    exporter.HTMLExporter().export(compiled(LIMITS[0], tmp_path), str(tmp_path / "pages"))
    assert (tmp_path / "pages" / "index.html").exists()
