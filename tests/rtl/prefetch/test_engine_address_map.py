"""The whole engine's address map: against the twin's settings, in the guide, in SystemRDL and as a C header."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from predictor.engine.counters import EngineCounter
from predictor.engine.events import EngineError
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import Missing, Mode, PrefetchEngineSettings
from predictor.st_moe.parameters import StMoeParameters
from rtl.bus.register_map import COUNTER_BITS, DATA_BYTES
from rtl.bus.systemrdl import systemrdl as written
from rtl.prefetch.address_map import Command, Interrupt, address_map, counter_offset
from rtl.prefetch.driver import setting_values
from rtl.prefetch.limits import table_limits
from rtl.prefetch.setting_registers import settings, table_signal
from rtl.prefetch.tables.settings import SETTINGS as TABLE_SETTINGS
from staging.stager.limits import StagerSettings
from staging.transfer.limits import TransferLimits
from tests.rtl.prefetch.register_bench import LIMITS as SMALL

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "prefetch-engine-registers.md"
DEFAULT = PrefetchEngineLimits()
LARGE = PrefetchEngineLimits(
    layers_max=48, experts_max=128, top_k_max=8, candidates_max=8, domains_max=8, queue_depth=64, deadline_bits=40,
    link=TransferLimits(address_bits=64),
)  # fmt: skip
EVERY = [DEFAULT, SMALL, LARGE]


def test_resets_are_the_defaults_of_the_settings() -> None:
    """What the twin takes where nothing is said, the engine does after reset; a shape is the largest."""
    chosen = PrefetchEngineSettings(
        layers=DEFAULT.layers_max,
        experts=DEFAULT.experts_max,
        top_k=DEFAULT.top_k_max,
        stager=StagerSettings(shares=(0,)),
    )
    resets = {one.name: one.high(DEFAULT) if one.reset is None else one.reset for one in settings(DEFAULT)}
    values = setting_values(DEFAULT, chosen)
    assert {name: resets[name] for name in values} == values
    assert resets["mode"] == Mode.OFF
    policy = StMoeParameters().policy()
    found = {name: resets[table_signal(name)] for name in policy}
    assert found == {**policy, "aggregation": 0, "replacement": 1}


@pytest.mark.parametrize("limits", EVERY)
def test_the_table_predictors_settings_fit_its_ports(limits: PrefetchEngineLimits) -> None:
    """Each has a register, whose largest value the table predictor holds."""
    names = {one.name: one for one in settings(limits)}
    for one in TABLE_SETTINGS:
        assert names[table_signal(one.name)].high(limits) <= one.high(table_limits(limits)), one.name


@pytest.mark.parametrize("limits", EVERY)
def test_no_register_is_lost_or_moves_with_the_limits(limits: PrefetchEngineLimits) -> None:
    found = address_map(limits)
    offsets = {register.name: register.offset for register in address_map(DEFAULT).registers}
    assert {register.name: register.offset for register in found.registers} == offsets
    for setting in settings(limits):
        low = found.register(setting.name.upper())
        assert low.locked == setting.locked
        if setting.wide:
            assert found.offset(f"{setting.name.upper()}_HIGH") == low.offset + DATA_BYTES
    for counter in EngineCounter:
        low, high = found.register(counter.name), found.register(f"{counter.name}_HIGH")
        assert (low.offset, high.offset) == (counter_offset(counter), counter_offset(counter) + DATA_BYTES)
        assert [field.width for field in (*low.fields, *high.fields)] == [32, COUNTER_BITS - 32]
    for register, kinds in (("ERRORS", EngineError), ("INTERRUPT_STATUS", Interrupt), ("COMMAND", Command)):
        assert {one.name.lower(): int(one) for one in kinds} == {
            field.name: field.mask for field in found.register(register).fields
        }
    assert found.register("MODE").fields[0].codes == {mode.name.lower(): int(mode) for mode in Mode}
    assert found.register("MISSING").fields[0].codes == {one.name.lower(): int(one) for one in Missing}


def test_the_guide_has_the_map_of_the_engine() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert address_map(DEFAULT).markdown() in text
    named = re.findall(r"^\| `0x[0-9a-f]+` \| `(\w+)`", text, re.MULTILINE)
    assert named == [*(register.name for register in address_map(DEFAULT).registers), "TABLE"]


def compiled(limits: PrefetchEngineLimits, folder: Path) -> Any:
    """The root of the elaborated SystemRDL."""
    systemrdl = pytest.importorskip("systemrdl", reason="needs the extra 'dev'")
    path = folder / "prefetch_engine.rdl"
    path.write_text(written(address_map(limits)), encoding="utf-8")
    compiler = systemrdl.RDLCompiler()
    compiler.compile_file(str(path))
    return compiler.elaborate("prefetch_engine")


@pytest.mark.parametrize("limits", EVERY)
def test_a_compiler_of_systemrdl_reads_the_map_of_the_engine(limits: PrefetchEngineLimits, tmp_path: Path) -> None:
    expected = address_map(limits)
    registers = {node.inst_name: node for node in compiled(limits, tmp_path).top.registers()}
    assert list(registers) == [register.name for register in expected.registers]
    for register in expected.registers:
        node = registers[register.name]
        assert node.absolute_address == register.offset
        fields = {part.inst_name: part for part in node.fields()}
        assert {name: (part.low, part.width, part.get_property("reset")) for name, part in fields.items()} == {
            field.name: (field.lowest_bit, field.width, field.reset) for field in register.fields
        }


@pytest.mark.parametrize("limits", [DEFAULT, LARGE])
def test_the_c_header_has_the_offsets_of_the_engine(limits: PrefetchEngineLimits, tmp_path: Path) -> None:
    """PeakRDL's header, compiled: a struct member lies where the map says, a field's mask and reset are the map's."""
    exporter = pytest.importorskip("peakrdl_cheader.exporter", reason="needs the extra 'dev'")
    exporter.CHeaderExporter().export(compiled(limits, tmp_path), str(tmp_path / "prefetch_engine.h"))
    expected = address_map(limits)
    assert expected.memory is not None
    checks = [f"offsetof(prefetch_engine_t, {one.name}) == {one.offset}" for one in expected.registers]
    checks += [f"offsetof(prefetch_engine_t, TABLE) == {expected.memory.offset}"]
    for register in expected.registers:
        for field in register.fields:
            macro = f"PREFETCH_ENGINE__{register.name}__{field.name.upper()}"
            checks += [f"{macro}_bm == {field.mask:#x}", f"{macro}_reset == {field.reset}u"]
    program = ["#include <stddef.h>", '#include "prefetch_engine.h"']
    program += [f'_Static_assert({check}, "{check}");' for check in checks]
    # What a host would write: a field's bits into a register of the mapped engine.
    program += [
        "static void turn_off(volatile prefetch_engine_t *engine) {",
        "  engine->MODE = 0u << PREFETCH_ENGINE__MODE__MODE_bp & PREFETCH_ENGINE__MODE__MODE_bm;",
        "}",
        "int main(void) {",
        "  static prefetch_engine_t engine;",
        "  engine.MODE = 2u;",
        "  turn_off(&engine);",
        "  return (int)engine.MODE;",
        "}",
    ]
    source = tmp_path / "check.c"
    source.write_text("\n".join([*program, ""]))
    done = subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(tmp_path / "check")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run([str(tmp_path / "check")], check=True)
