"""From a run's files to energies by part of the engine: what is found where, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from catalog import load_catalog
from catalog.errors import ForestageError
from cocotb_tests import memory_accesses
from cocotb_tests.prefetch_engine import trace_replay
from cocotb_tests.prefetch_engine.run import SAIF
from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, TraceReplayResult
from predictor.engine.counters import EngineCounter
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import Mode, PrefetchEngineSettings
from rtl.synthesis.cell_energy import CellEnergy
from rtl.synthesis.figures import Block, Synthesis, total_of
from staging.stager.limits import StagerSettings
from study.commands.rtl import energy as command
from study.engine import energy as module
from study.engine.energy import PLACES, EngineEnergy, energy_of_run, recorded_engine
from tests.st_moe_samples import routing_trace
from tests.study.conftest import Outcome, refused

TARGET = "asap7sc7p5t"
CELLS = CellEnergy(
    volts=2.0,
    flip_flop="DFF",
    flip_flop_um2=10,
    clock_fj=6,
    flip_flop_input_ff=0,
    flip_flop_toggle_fj=0,
    input_ff_per_um2=1.5,
    toggle_fj_per_um2=2,
    flip_flop_leakage_nw=0,
    leakage_nw_per_um2=0,
)
CYCLES, TOKENS, DECISIONS = 1000, 10, 40


def hierarchy() -> tuple[str, str]:
    """The engine's instances as Verilog, and as SAIF in which a net of each toggles 250 times, two of the net's 750."""
    paths = sorted({"/".join(place.split("/")[:n]) for place in PLACES.values() for n in range(1, 4)})
    paths.append("core/learned/net/sums")
    inside: dict[str, list[str]] = {"": []}
    for path in paths:
        inside.setdefault(path, [])
        inside[path.rpartition("/")[0]].append(path)

    def name(path: str) -> str:
        return "prefetch_engine" + "".join(f".{part}" for part in path.split("/") if part)

    def verilog(path: str) -> str:
        below = "".join(f"  \\{name(one)}  {one.rpartition('/')[2]} (\n  );\n" for one in inside[path])
        return f"module \\{name(path)} (clk);\n{below}endmodule\n".replace("\\prefetch_engine ", "prefetch_engine ")

    def saif(path: str) -> str:
        toggles = 750 if path.startswith("core/learned/net") else 250
        net = f"(n (T0 9) (T1 9) (TC {toggles}))" if path in PLACES.values() or path.endswith("sums") else ""
        number = "$389" if path == "counters" else ""
        return f"(INSTANCE {path.rpartition('/')[2]}{number}\n(NET {net})\n{''.join(map(saif, inside[path]))})\n"

    below = "".join(map(saif, inside[""]))
    clock = f"(NET (clk (T0 1) (T1 4000) (TC 4000)) (counted (T0 1) (T1 {4 * CYCLES}) (TC 2)))"
    memory = "(INSTANCE memory (NET (n (T1 1) (TC 9))))"
    saif_text = f"(SAIFILE\n(INSTANCE bench\n{clock}\n(INSTANCE engine\n{below})\n{memory})\n)"
    return "".join(map(verilog, inside)), saif_text


def result(**changes: Any) -> TraceReplayResult:
    """A run of gpt-oss-20b in which three experts are moved for every fourth decision."""
    counters = dict.fromkeys((counter.name.lower() for counter in EngineCounter), 0)
    counters |= {"loads_demanded": 5, "loads_late": 10, "loads_ahead": 15}
    return TraceReplayResult.model_validate(
        {
            "mode": "off", "events": 90, "commands": 9, "compared": {}, "mismatches": 0, "first_mismatch": "",
            "breaches": 0, "cycles": CYCLES, "cycles_per_s": 1, "running_s": 1, "checked_s": 1, "counters": counters,
            "start_cycles": "compared",
            "errors": 0, "waits": 0, "seed": 0, "model": "gpt-oss-20b", "synthetic": False, "tokens": TOKENS,
            "steps": DECISIONS, "cycles_per_token": 1, "tokens_per_s": 1, "checked_share": 1,
            "config": ReplayConfig(mode=Mode.OFF), "limits": PrefetchEngineLimits(),
            "settings": PrefetchEngineSettings(
                mode=Mode.OFF, layers=4, experts=8, top_k=2, stager=StagerSettings(shares=(2, 2, 2, 2))
            ),
            **changes,
        }
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's files."""
    verilog, saif = hierarchy()
    monkeypatch.setattr(module, "engine_verilog", lambda _: verilog)
    (tmp_path / SAIF).write_text(saif)
    (tmp_path / memory_accesses.FILE).write_text(
        "bench.engine.core.learned.net.sums.words words 512 64 read 6400\n"
        "bench.engine.core.learned.net.sums.words words 512 64 write 1600\n"
        "bench.engine.core.learned.text.words words 512 64 read 800\n"
        "bench.engine.core.notices.queue storage 42 25 write 999\n"
        "bench.engine.core.notices.queue storage 42 25 unclocked 0\n"
    )
    return tmp_path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Of every unit but the text's: 100 µm² of which 20 are flip-flops; of the net twice that, in two blocks."""
    found = tmp_path / "records"
    found.mkdir()
    for unit in PLACES.keys() - {"engine-text"}:
        figures = {"area_um2": 100.0, "flip_flop_area_um2": 20.0, "cells": 9.0}
        blocks = tuple(
            Block(name=name, instances=1, figures=figures) for name in (("", "sums") if unit == "engine-net" else ("",))
        )
        record = Synthesis(
            unit=unit,
            target=TARGET,
            blocks=blocks,
            total=total_of(blocks),
            sram_bits=512 * 64 if unit == "engine-net" else 0,
            not_counted="",
            tools={},
        )
        (found / f"{unit}.{TARGET}.json").write_text(record.text())
    return found


def test_each_part_has_its_own_clock_toggles_and_memories(folder: Path, records: Path) -> None:
    found = energy_of_run(result(), folder, CELLS, TARGET, records, clock_ghz=2.0)
    parts = {part.unit: part for part in found.parts}
    assert parts.keys() == PLACES.keys()
    assert (found.cycles, found.decisions, found.tokens) == (CYCLES, DECISIONS, TOKENS)
    assert found.without_record == ("engine-text",)
    clock, toggle = 2 * 6 / 1e3, 80 * (1.5 * 2 + 2) / 1e3  # of a unit in a cycle; of a toggle of all its nets
    a_decision = CYCLES / DECISIONS
    stager = parts["engine-stager"]
    assert (stager.toggles, stager.bits, stager.energy.sram) == (0.25, 0, 0)
    assert stager.energy.clock == pytest.approx(clock * a_decision)
    assert stager.energy.logic == pytest.approx(0.25 * toggle * a_decision)
    assert parts["engine-counters"].energy == stager.energy  # whose instance's name has a number
    assert parts["engine-notices"].energy == stager.energy  # what is read without a clock is no SRAM
    a_bit = load_catalog().sram.find("7nm-bit-cell").accesses[0].pj_per_bit
    net, text = parts["engine-net"], parts["engine-text"]
    assert (net.area_um2, net.toggles, net.bits) == (200, 0.75, 8000 / DECISIONS)
    assert net.energy.clock == pytest.approx(2 * clock * a_decision)
    assert net.energy.logic == pytest.approx(2 * 0.75 * toggle * a_decision)
    assert net.energy.sram == pytest.approx(8000 * a_bit / DECISIONS)
    assert (text.area_um2, text.energy.clock, text.energy.logic) == (None, 0, 0)
    assert text.energy.sram == pytest.approx(800 * a_bit / DECISIONS)
    assert found.parts[0] == net

    run_s = CYCLES / 2e9
    assert found.total.total == pytest.approx(sum(part.energy.total for part in found.parts))
    assert found.power_w == pytest.approx(found.total.total * DECISIONS / 1e12 / run_s)
    assert found.idle_w == pytest.approx(13 * clock * CYCLES / 1e12 / run_s)
    assert found.experts_moved == 0.75
    expert = load_catalog().find_model("gpt-oss-20b").expert_bytes
    assert found.moved_pj == pytest.approx(0.75 * 8 * expert * (1.51 + 1.17 + 0.80))
    assert energy_of_run(result(model="nobody's"), folder, CELLS, TARGET, records).moved_pj is None


def test_what_cannot_be_an_energy_is_refused(folder: Path, records: Path) -> None:
    with pytest.raises(ForestageError, match="sky130_fd_sc_hd__tt_025C_1v80: no record"):
        energy_of_run(result(), folder, CELLS, "sky130_fd_sc_hd__tt_025C_1v80", records)
    (records / f"engine-net.{TARGET}.json").unlink()
    with pytest.raises(ForestageError, match="give the library of a record"):
        energy_of_run(result(), folder, CELLS, TARGET, records)


def test_counts_of_another_circuit_are_refused(folder: Path, records: Path) -> None:
    text = (folder / SAIF).read_text()
    (folder / SAIF).write_text(text.replace("(INSTANCE stager", "(INSTANCE stagger"))
    with pytest.raises(ForestageError, match="no instance core/stager"):
        energy_of_run(result(), folder, CELLS, TARGET, records)


def test_a_memory_that_was_not_counted_is_refused(folder: Path, records: Path) -> None:
    asked = (folder / memory_accesses.FILE).read_text().splitlines(keepends=True)
    (folder / memory_accesses.FILE).write_text("".join(line for line in asked if "sums" not in line))
    with pytest.raises(ForestageError, match=r"engine-net: the record .* has 32768 bits of SRAM, and 0 ran"):
        energy_of_run(result(), folder, CELLS, TARGET, records)


def test_a_model_larger_than_the_recorded_engine_is_refused() -> None:
    trace = routing_trace(layers=2, experts=64)
    with pytest.raises(ForestageError, match=r"t\.npz: 2 layers of 64 experts, top-3: .* 24 of 32, top-4"):
        recorded_engine(trace, "t.npz")


@pytest.fixture
def made(folder: Path, records: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command with a library and a run that cost nothing."""

    class Made:
        target = TARGET

    def replay(*_: object, activity: Path, **__: object) -> TraceReplayResult:
        for name in (SAIF, memory_accesses.FILE):
            (activity / name).write_text((folder / name).read_text())
        return run[0]

    run = [result()]
    monkeypatch.setattr(command, "RECORDS", records)
    monkeypatch.setattr("rtl.synthesis.liberty.read_libraries", lambda *_: Made())
    monkeypatch.setattr("rtl.synthesis.cell_energy.cell_energy", lambda _: CELLS)
    monkeypatch.setattr(trace_replay, "replay_trace", replay)

    def runs(**changes: Any) -> None:
        run[0] = result(**changes)

    return runs


COMMAND = ("rtl", "energy", "--liberty", "x.lib", "--mode", "off", "--trace")


def test_the_command_prints_a_line_for_each_part(
    forestage: Callable[..., Outcome], small_trace: Path, made: Callable[..., None]
) -> None:
    outcome = forestage(*COMMAND, small_trace)
    assert outcome.status == 0, outcome.err
    for said in ("40 decisions", "stager", "no record", "0.75 experts moved", "not counted"):
        assert said in outcome.out
    document = EngineEnergy.model_validate_json(forestage(*COMMAND, small_trace, "--json").out)
    assert len(document.parts) == len(PLACES)


def test_a_run_that_differs_has_no_energy(
    forestage: Callable[..., Outcome], small_trace: Path, made: Callable[..., None]
) -> None:
    made(mismatches=3, first_mismatch="notice 7")
    outcome = forestage(*COMMAND, small_trace)
    assert (outcome.status, outcome.out) == (1, "")
    assert "3 differences" in outcome.err
    assert "notice 7" in outcome.err


def test_a_rate_that_is_none_is_refused(forestage: Callable[..., Outcome], small_trace: Path) -> None:
    assert "--clock-ghz" in refused(forestage(*COMMAND, small_trace, "--clock-ghz", 0))
