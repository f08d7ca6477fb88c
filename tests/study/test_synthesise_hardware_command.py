"""``forestage rtl synthesise`` and ``rtl prove``: what they print, keep, compare with and refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rtl.formal import registry
from rtl.formal.proof import Verdict
from rtl.formal.task import Task
from rtl.synthesis import synthesise as module
from rtl.synthesis.figures import Synthesis, read_record
from study.commands.rtl import synthesising
from tests.study.conftest import Outcome, refused

Forestage = Callable[..., Outcome]

FOUND = Synthesis.model_validate(
    {
        "unit": "pim-block",
        "target": "made",
        "blocks": [
            {"name": "", "instances": 1, "figures": {"area_um2": 1.5, "cells": 2}},
            {"name": "lanes", "instances": 2, "figures": {"area_um2": 1000.0, "cells": 300}},
        ],
        "total": {"area_um2": 2001.5, "cells": 602},
        "memories": [{"block": "lanes", "name": "m", "depth": 64, "width": 32, "read_ports": 1, "write_ports": 1}],
        "sram_bits": 2048,
        "path": {"ns": 3.25, "start": "lanes.a[0]", "end": "b"},
        "not_counted": "wires",
        "tools": {"pyosys": "0"},
    }
)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of records, and a synthesis that costs nothing."""
    monkeypatch.setattr(synthesising, "RECORDS", tmp_path)
    monkeypatch.setattr(module, "synthesise", lambda *_, **__: FOUND)
    return tmp_path


def test_a_table_says_what_is_not_counted(forestage: Forestage, records: Path) -> None:
    outcome = forestage("rtl", "synthesise", "--unit", "pim-block")
    assert outcome.status == 0, outcome.err
    for said in ("2,001.50", "memory lanes.m: 64 × 32 bits", "SRAM: 2", "longest path 3.25 ns", "from lanes.a[0] to b"):
        assert said in outcome.out
    assert "not counted: wires" in outcome.out
    assert "against" not in outcome.out


@pytest.mark.parametrize("option", ["--speed-grade", "--seeds"])
def test_a_library_is_not_placed(forestage: Forestage, records: Path, option: str) -> None:
    outcome = forestage("rtl", "synthesise", "--unit", "pim-block", "--liberty", "a.lib", option, "8")
    assert f"{option}: has no effect" in refused(outcome)


def test_the_clock_of_each_placement_is_shown(
    forestage: Forestage, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = FOUND.model_copy(update={"fmax_mhz": 99.5, "fmax_of_seeds_mhz": (90.0, 99.5)})
    monkeypatch.setattr(module, "synthesise", lambda *_, **__: placed)
    outcome = forestage("rtl", "synthesise", "--unit", "pim-block", "--seeds", "2")
    assert "clock 99.50 MHz, the fastest of the seeds' 90.00, 99.50" in outcome.out


def test_a_saved_record_is_what_the_next_run_is_compared_with(
    forestage: Forestage, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forestage("rtl", "synthesise", "--unit", "pim-block", "--save").status == 0
    assert read_record(records / "pim-block.made.json") == FOUND
    same = json.loads(forestage("rtl", "synthesise", "--unit", "pim-block", "--json").out)
    assert same["changes"] == []
    assert same["compared_with"] == str(records / "pim-block.made.json")
    smaller = FOUND.model_copy(update={"total": {"area_um2": 1900.0, "cells": 602}})
    monkeypatch.setattr(module, "synthesise", lambda *_, **__: smaller)
    outcome = forestage("rtl", "synthesise", "--unit", "pim-block")
    assert "1,900 ▼ (2,001.5)" in outcome.out
    assert "1 figures changed" in outcome.out


def test_sram_is_estimated_where_the_catalogue_has_figures(
    forestage: Forestage, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "an estimate" not in forestage("rtl", "synthesise", "--unit", "pim-block").out
    mapped = FOUND.model_copy(update={"target": "asap7sc7p5t"})
    monkeypatch.setattr(module, "synthesise", lambda *_, **__: mapped)
    assert "SRAM, an estimate by 7nm-bit-cell: 111 µm²" in forestage("rtl", "synthesise", "--unit", "pim-block").out
    document = json.loads(forestage("rtl", "synthesise", "--unit", "pim-block", "--json").out)
    assert document["sram_estimate"]["area_um2"] == pytest.approx(2048 * 0.027 / 0.5, abs=0.1)
    assert "assumption" in document["sram_estimate"]["sources"]["array_share"]


def test_what_cannot_be_is_one_line(forestage: Forestage, records: Path, tmp_path: Path) -> None:
    assert "the nearest known name is 'pim-block'" in refused(forestage("rtl", "synthesise", "--unit", "pim-bloc"))
    line = refused(forestage("rtl", "synthesise", "--unit", "pim-block", "--experts-max", 8))
    assert "--experts-max: has no effect: pim-block has no such limit" in line
    line = refused(forestage("rtl", "synthesise", "--unit", "pim-block", "--against", tmp_path / "none.json"))
    assert "cannot read the record" in line


def test_a_missing_tool_is_one_line(forestage: Forestage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtl.yosys.find_spec", lambda name: None if name == "pyosys" else object())
    line = refused(forestage("rtl", "synthesise", "--unit", "pim-block"))
    assert "pyosys: not installed; this needs an extra: pip install 'forestage[synthesis]'" in line


def test_proofs_are_listed_and_a_broken_one_is_status_1(forestage: Forestage, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Verdict(name="good", checks=3, induction=2, depth=8, faults=4, noticed=3, seconds=0.5)
    bad = Verdict(name="bad", checks=1, refuted=("x: changed",), cycle=4, depth=8, seconds=0.5)
    verdicts = {"good": good, "bad": bad}
    monkeypatch.setattr(Task, "run", lambda self: verdicts[self.name])
    tasks = {name: Task(name=name, what=f"of {name}", make=lambda: pytest.fail("made")) for name in verdicts}
    monkeypatch.setattr(registry, "TASKS", tasks)
    outcome = forestage("rtl", "prove", "good")
    assert outcome.status == 0, outcome.err
    assert "for ever" in outcome.out
    assert "3 of 4" in outcome.out
    outcome = forestage("rtl", "prove", "--json")
    assert outcome.status == 1
    assert [proof["shortcoming"] for proof in json.loads(outcome.out)["proofs"]] == [
        "",
        "broken in cycle 4: x: changed",
    ]
    assert "the nearest known name is 'good'" in refused(forestage("rtl", "prove", "goo"))
