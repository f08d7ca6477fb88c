"""The report's section of the engine: latencies by the formula, committed records of replays and of silicon."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, TraceReplayResult
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.next_layer.recipes import RECIPES
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network.twin import RowNetwork
from rtl.synthesis.figures import LongestPath, Synthesis
from staging.stager.limits import StagerSettings
from study.blocks import Command, Note, Table
from study.config import StudyConfig
from study.engine.latency import net_latency
from study.engine.replays import read_replays
from study.engine.silicon import silicon
from study.numbers import count
from study.subjects import engine
from tests.learned_samples import random_next_use, random_predictor

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "prefetch-engine.md"


def deployed(*, layers: int, experts: int, top_k: int) -> dict[str, RowNetwork]:
    """Both heads of the deployed recipes, with random tables."""
    shape = {"layers": layers, "experts": experts, "top_k": top_k}
    recipe = {**RECIPES["deployed"].predictor.model_dump(), "identity_rows": 4}
    values = random_next_use(np.random.default_rng(5), ranked=True, **shape, **NextUseConfig().model_dump())
    return {"next-layer": random_predictor(**shape, **recipe, seed=4).network, "next-use": values.network}


def test_the_guide_states_the_nets_cycles() -> None:
    rows = [line for line in GUIDE.read_text().splitlines() if line[:1] == "|" and " lanes, " in line]
    shapes = [
        ({"layers": 24, "experts": 32, "top_k": 4}, 128),
        ({"layers": 24, "experts": 32, "top_k": 4}, 64),
        ({"layers": 48, "experts": 128, "top_k": 8}, 128),
    ]
    for line, (shape, lanes) in zip(rows, shapes, strict=True):
        _, prefetch, most, summed, _, values, after = (cell.strip() for cell in line.strip("|").split("|"))
        found = net_latency(deployed(**shape), distance=1, lanes=lanes)
        assert [int(prefetch), int(summed), int(values), int(after)] == [
            found[name] for name in ("prefetch", "summed", "values", "next")
        ]
        assert int(prefetch) <= int(most) == engine.LIMITS["prefetch"][lanes, shape["experts"]]


def test_one_head_alone_has_no_values() -> None:
    networks = deployed(layers=4, experts=32, top_k=4)
    assert net_latency({"next-layer": networks["next-layer"]}, distance=1, lanes=128)["values"] == 0
    assert net_latency({"next-use": networks["next-use"]}, distance=1, lanes=128)["prefetch"] == 0


def replayed(**changes: Any) -> TraceReplayResult:
    """A replay's document."""
    settings = PrefetchEngineSettings(layers=4, experts=8, top_k=2, stager=StagerSettings(shares=(3,)))
    fields = {
        "mode": "learned", "events": 90, "commands": 200, "start_cycles": "compared",
        "compared": {"a": 30, "b": 12}, "mismatches": 0, "first_mismatch": "", "breaches": 0, "cycles": 5000,
        "cycles_per_s": 1.0, "running_s": 1.0, "checked_s": 1.0, "counters": {}, "errors": 0, "waits": 0, "seed": 0,
        "model": "some-moe", "synthetic": False, "tokens": 7,
        "steps": 28, "cycles_per_token": 714.2, "tokens_per_s": 1.0, "checked_share": 0.9,
        "config": ReplayConfig(mode=Mode.LEARNED), "limits": PrefetchEngineLimits(), "settings": settings,
    }  # fmt: skip
    return TraceReplayResult(**{**fields, **changes})


def silicon_record(unit: str, area: float) -> Synthesis:
    """A part's record."""
    path = LongestPath(ns=0.9, start="a", end="b")
    return Synthesis(
        unit=unit, target=engine.TARGET, blocks=(), total={"area_um2": area}, sram_bits=4096, path=path,
        not_counted="wires", tools={},
    )  # fmt: skip


def test_records_of_replays_are_read_by_name(tmp_path: Path) -> None:
    assert read_replays(tmp_path / "none") == {}
    assert all(run.tokens > 0 for run in read_replays(engine.RECORDS / "replays").values())
    (tmp_path / "b.json").write_text(replayed(tokens=9).model_dump_json())
    (tmp_path / "a.json").write_text(replayed().model_dump_json())
    assert [(name, run.tokens) for name, run in read_replays(tmp_path).items()] == [("a", 7), ("b", 9)]
    (tmp_path / "c.json").write_text('{"tokens": 3}')
    with pytest.raises(ForestageError, match=r"c\.json: no document of a replay: .*write it anew"):
        read_replays(tmp_path)


def test_parts_without_a_record_are_left_out(tmp_path: Path) -> None:
    assert silicon(tmp_path, engine.TARGET) == []
    for unit, area in (("engine-stager", 30.0), ("engine-net", 20.0), ("pim-block", 10.0)):
        (tmp_path / f"{unit}.{engine.TARGET}.json").write_text(silicon_record(unit, area).text())
    assert [(part.unit, part.area_um2, part.sram_bits) for part in silicon(tmp_path, engine.TARGET)] == [
        ("engine-net", 20.0, 4096),
        ("engine-stager", 30.0, 4096),
    ]


def shown(monkeypatch: pytest.MonkeyPatch, records: Path, live: dict[str, Any] | None) -> list[Any]:
    """The blocks of the whole engine."""
    monkeypatch.setattr(engine, "RECORDS", records)
    latency = {"prefetch": 61, "values": 201, "summed": 143, "next": 202}
    learned = {
        "lanes": 128,
        "experts": 32,
        "hidden": 128,
        "next_use": True,
        "latency": latency,
        "refused": "",
        "replay": live,
    }
    context: Any = SimpleNamespace(
        results={"engine": {"learned": learned}},
        config=StudyConfig(),
        trace_name="t",
        trace=SimpleNamespace(layers=5, experts=12, top_k=3),
        left_out={},
    )
    return engine._whole(context, engine._runs(learned))


def test_the_section_shows_runs_latency_and_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("replays", "synthesis"):
        (tmp_path / folder).mkdir()
    (tmp_path / "replays" / "long.json").write_text(
        replayed(waits=100, mismatches=3, start_cycles="from hardware").model_dump_json()
    )
    (tmp_path / "synthesis" / f"engine-net.{engine.TARGET}.json").write_text(silicon_record("engine-net", 20.4).text())
    blocks = shown(monkeypatch, tmp_path, replayed(tokens=5).model_dump(mode="json"))
    runs, latency, cost = (block for block in blocks if isinstance(block, Table))
    assert [row.cells for row in runs.rows] == [
        ("this study", "some-moe", "learned", "5", "200", "compared", "42", "0", "714"),
        ("long", "some-moe", "learned, random waits", "7", "200", "from hardware", "42", "3", "714"),
    ]
    assert [row.cells[1:] for row in latency.rows] == [("61", "64"), ("143", "160"), ("201", ""), ("202", "")]
    assert "; stager;" in cost.caption
    assert [row.cells for row in cost.rows] == [("net: sums, scores, selection", "20", "0.900", count(4096))]


def test_the_commands_are_of_the_whole_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (command, *_) = [block for block in shown(monkeypatch, tmp_path, None) if isinstance(block, Command)]
    replay, generate = command.text.splitlines()
    assert replay.startswith("forestage rtl replay --trace t --predictor learned.safetensors --next-use ")
    assert generate == "forestage rtl generate --out DIR --layers-max 5 --experts-max 16 --top-k-max 3"


def test_the_page_opens_with_the_differences_of_all_learned_runs() -> None:
    runs = {name: replayed(mode=mode, mismatches=1).model_dump(mode="json") for name, mode in
            (("a", "learned"), ("b", "tables"), ("c", "learned"))}  # fmt: skip
    (fact,) = engine._facts(runs, "some-moe")
    assert fact.value == "2 of 84"
    assert fact.label.endswith("14 tokens")
    assert engine._facts({"b": runs["b"]}, "some-moe") == ()
    assert engine._facts(runs, "another") == ()


def test_nets_that_the_hardware_cannot_hold_are_named() -> None:
    (note,) = engine._latency({"latency": None, "refused": "too wide", "lanes": 128, "experts": 32})
    assert isinstance(note, Note)
    assert "too wide" in note.text


def test_what_was_not_run_or_recorded_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notes = [block.text for block in shown(monkeypatch, tmp_path, None) if isinstance(block, Note)]
    assert ["not replayed in this study" in notes[0], "no committed record" in notes[1]] == [True, True]
