"""Pictures of the prefetch engine: one prefetch is found in a run's logs and drawn; the blocks are as committed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from amaranth.lib import data

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.logs import Log
from cocotb_tests.prefetch_engine.run import EngineRun, log_layouts
from predictor.engine.events import EngineError, EventKind
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.notices import NoticeKind
from rtl.prefetch.stager.layouts import ActionKind, Command
from study.engine.one_prefetch import AFTER, OnePrefetch, find_prefetch
from study.figures.engine_timeline import prefetch_timeline
from study.figures.style import to_svg
from tests.study.conftest import Outcome

Forestage = Callable[..., Outcome]
DOCS = Path(__file__).resolve().parents[3] / "docs"
LIMITS = PrefetchEngineLimits(slots_max=1, layers_max=4, experts_max=8, top_k_max=2, candidates_max=2)
LAYOUTS = log_layouts(LIMITS)
KEY = {"layer": 2, "expert": 5}
GATE, DEMAND, HIT = 1000, 1702, 1707
"""Cycles of the gate that predicts, of the demand that finds the expert, and of its hit."""


def log(name: str, entries: list[tuple[int, dict[str, Any]]]) -> Log:
    """A log of these payloads."""
    layout = LAYOUTS[name]
    size = -(-layout.size // 8)
    words = [data.Const(layout, int(layout.const(fields).as_bits())).as_bits() for _, fields in entries]
    payload = np.array([list(word.to_bytes(size, "little")) for word in words], np.uint8).reshape(-1, size)
    return Log(np.array([cycle for cycle, _ in entries], np.int64), payload, layout)


def run_of_one(*, hit: ActionKind = ActionKind.HIT, demanded: int = 0, arrived: int = 1389) -> EngineRun:
    """Layer 1's gate predicts expert 5 of layer 2, which arrives, and which layer 2's gate chooses."""
    commands = [
        (GATE + 63, {"kind": Command.PREFETCH, "layer": 2, "count": 2, "experts": [3, 5], "chances": [60000, 50000]}),
        (GATE + 81, {"kind": Command.GRANT}),
        (arrived, {"kind": Command.ARRIVE}),
        (DEMAND, {"kind": Command.DEMAND, "layer": 2, "count": 1}),
    ]
    ends = [GATE + 80, GATE + 110, arrived + 6, DEMAND + 20]
    transfer = {"valid": 1, "key": KEY, "place": 7, "demanded": demanded}
    done = [
        (end, {"valid": 1, "kind": fields["kind"], **({"transfer": transfer} if nth == 1 else {})})
        for nth, (end, (_, fields)) in enumerate(zip(ends, commands, strict=True))
    ]
    logs = {
        "events": [
            (GATE, {"kind": EventKind.GATE.value, "layer": 1}),
            (DEMAND - 2, {"kind": EventKind.GATE.value, "layer": 2}),
        ],
        "commands": commands,
        "done": done,
        "actions": [
            (GATE + 72, {"valid": 1, "kind": ActionKind.QUEUE, "key": KEY}),
            (HIT, {"valid": 1, "kind": hit, "key": KEY}),
        ],
        "notices": [
            (arrived + 1, {"kind": NoticeKind.ARRIVED.value, **KEY}),
            (HIT + 1, {"kind": NoticeKind.HERE.value, **KEY}),
        ],
        "scores": [(GATE + cycle, {"valid": 1, "head": cycle >= 71}) for cycle in (28, 29, 30, 71, 72)],
    }
    reads = np.array([[0, 64, GATE + 123, GATE + 223, GATE + 286]])
    writes = np.array([[0, 64, GATE + 227, GATE + 227, GATE + 290, GATE + 291]])
    return EngineRun(
        logs={name: log(name, entries) for name, entries in logs.items()},
        counters={},
        errors=EngineError(0),
        cleared=EngineError(0),
        breaches=0,
        violations=[],
        cycles=2000,
        running_s=1.0,
        ended=0.0,
        staging=(np.zeros(0, np.int64), np.zeros((0, 64), np.bool_), np.zeros((0, 64), np.uint8)),
        bursts={"reads": reads, "writes": writes},
    )


def test_a_prefetch_is_followed_from_its_prediction_to_its_use() -> None:
    story = find_prefetch(run_of_one())
    assert (story.layer, story.expert, story.place, story.chance) == (2, 5, 7, 50000)
    assert (story.prediction, story.queued, story.moving, story.resident, story.used) == (63, 72, 110, 389, 707)
    assert story.end == 708 + AFTER
    assert story.events == ((0, "GATE", 1), (700, "GATE", 2))
    assert story.commands[0] == (63, 80, "PREFETCH")
    assert story.scores == {"next-layer": ((28, 30),), "next-use": ((71, 72),)}
    assert story.reads == ((123, 223, 286),)
    assert story.writes == ((227, 227, 290, 291),)
    assert [kind for _, kind, _, _ in story.notices] == ["ARRIVED", "HERE"]


@pytest.mark.parametrize(
    "run",
    [
        run_of_one(demanded=1),
        run_of_one(hit=ActionKind.DROP),
        run_of_one(hit=ActionKind.PROMOTE),
        run_of_one(arrived=HIT + 50),
    ],
    ids=["a demand", "dropped", "promoted", "after its gate"],
)
def test_what_is_no_whole_prefetch_is_not_shown(run: EngineRun) -> None:
    with pytest.raises(ForestageError, match="give more --tokens"):
        find_prefetch(run)


def test_the_picture_names_what_the_story_tells() -> None:
    story = find_prefetch(run_of_one())
    assert OnePrefetch.model_validate_json(story.model_dump_json()) == story
    figure = prefetch_timeline(story)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"GATE 1\n0", "PREFETCH\n63", "transfer\n110", "resident\n389", "GATE 2\n700"} <= set(texts)
    assert {"ARRIVED", "HERE", "moving to place 7"} <= set(texts)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[-1] == "expert 5 of layer 2"
    assert to_svg(prefetch_timeline(story), "a") == to_svg(prefetch_timeline(story), "a")


def test_the_committed_blocks_are_what_the_command_draws(forestage: Forestage, tmp_path: Path) -> None:
    figure = tmp_path / "blocks.svg"
    outcome = forestage("rtl", "blocks", "--figure", figure, "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out) == {"figure": str(figure)}
    assert figure.read_text() == (DOCS / "figures" / "prefetch-engine.svg").read_text()
