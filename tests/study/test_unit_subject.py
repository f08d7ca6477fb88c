"""The PIM expert unit on the shipped checkpoint, as the study and ``pim check`` run it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.pim_unit import replay
from cocotb_tests.pim_unit.jobs import UnitJob
from cocotb_tests.pim_unit.replay import UnitReplayResult
from cocotb_tests.pim_unit.violations import Violation
from gpu_reference.files import SHIPPED_TRACE
from study.subjects.unit import check_unit, section
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

Forestage = Callable[..., Outcome]


def as_the_twins_say(jobs: Sequence[UnitJob], *arguments: Any, **options: Any) -> UnitReplayResult:
    """A hardware without a fault."""
    return UnitReplayResult(
        mismatches=0, first_mismatch="", violations=[], cycles=1000, predicted_cycles=1000,
        outputs=[job.expected.bits for job in jobs], counters={"OUTPUT_WAIT_CLOCKS": 0}, wall_s=1.0, clocks_per_s=1.0,
    )  # fmt: skip


def with_fault(**fields: Any) -> Callable[..., UnitReplayResult]:
    """A hardware that is not as the twins say."""
    return lambda jobs, *arguments, **options: replace(as_the_twins_say(jobs), **fields)


@pytest.fixture
def no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "replay_unit", as_the_twins_say)


@pytest.mark.usefixtures("no_simulator")
def test_every_token_is_in_one_program_and_rows_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[UnitJob]] = []

    def kept(jobs: Sequence[UnitJob], *arguments: Any, **options: Any) -> UnitReplayResult:
        seen.append(jobs)
        replay._banks(jobs)  # refuses two jobs' weights in one place
        return as_the_twins_say(jobs)

    monkeypatch.setattr(replay, "replay_unit", kept)
    result = check_unit(RoutingTrace.load(SHIPPED_TRACE), layer=3, tokens=7)
    assert [[job.program.tokens for job in jobs] for jobs in seen] == [[4, 3], [2, 2, 2, 1], [1] * 7]
    inputs = [np.concatenate([job.x for job in jobs]).tobytes() for jobs in seen]
    assert len(set(inputs)) == 1
    assert [check["programs"] for check in result["formats"]] == [2, 4, 7]
    assert result["agrees"]


@pytest.mark.usefixtures("no_simulator")
def test_the_error_is_that_of_the_hardwares_results(monkeypatch: pytest.MonkeyPatch) -> None:
    right = check_unit(RoutingTrace.load(SHIPPED_TRACE), layer=3, tokens=2)["formats"]
    errors = [check["relative_error"] for check in right]
    assert 1e-3 < errors[0] < 2**-7 < errors[1] < 0.03 < errors[2] < 0.3

    def wrong(jobs: Sequence[UnitJob], *arguments: Any, **options: Any) -> UnitReplayResult:
        outputs = [job.expected.bits ^ np.uint32(0x00080000) for job in jobs]  # an eighth in size, more or less
        return replace(as_the_twins_say(jobs), outputs=outputs)

    monkeypatch.setattr(replay, "replay_unit", wrong)
    result = check_unit(RoutingTrace.load(SHIPPED_TRACE), layer=3, tokens=2)
    assert result["formats"][0]["relative_error"] > 2**-7
    assert [check["agrees"] for check in result["formats"]] == [False, True, True]
    assert not result["agrees"]


@pytest.mark.usefixtures("no_simulator")
@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"mismatches": 1, "first_mismatch": "program 0, output beat 3"},
        {"violations": [Violation(rule="tRP", clock_ck=9, command="ACT")]},
        {"cycles": 999},
        {"counters": {"OUTPUT_WAIT_CLOCKS": 1}},
        {"outputs": [None]},
    ],
    ids=["none", "mismatch", "violation", "clocks", "output-waited", "no-output"],
)
def test_the_exit_status_is_1_if_anything_differs(
    forestage: Forestage, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(replay, "replay_unit", with_fault(**fault))
    outcome = forestage("pim", "check", "--tokens", 1, "--format", "bf16", "--json")
    assert outcome.status == (1 if fault else 0), outcome.err
    result = json.loads(outcome.out)
    assert result["agrees"] is not bool(fault)
    assert [check["format"] for check in result["formats"]] == ["bf16"]
    assert forestage("pim", "check", "--tokens", 1, "--format", "bf16").status == outcome.status


@pytest.mark.usefixtures("no_simulator")
def test_the_reports_section_says_what_differs() -> None:
    result = check_unit(RoutingTrace.load(SHIPPED_TRACE), layer=3, tokens=1)
    context: Any = SimpleNamespace(results={"unit": result})
    assert section(context).facts[0].value == "0"
    result["formats"][1]["mismatches"] = 3
    result["formats"][2]["violations"] = 2
    shown = section(context)
    assert shown.facts[0].value == "5"
    assert "3 DIFFERENT" in str(shown.blocks)


@pytest.mark.usefixtures("no_simulator")
def test_a_layer_that_the_checkpoint_lacks_is_refused(forestage: Forestage) -> None:
    line = refused(forestage("pim", "check", "--layer", 8))
    assert "--layer 8: is not in the shipped checkpoint; choose 0 to 7" in line


@pytest.mark.long
@pytest.mark.parametrize("layer", [0, 7])
def test_an_expert_on_many_tokens(layer: int) -> None:
    result = check_unit(RoutingTrace.load(SHIPPED_TRACE), layer=layer, tokens=49)
    assert result["agrees"]
    assert [check["programs"] for check in result["formats"]] == [13, 25, 49]
    for check in result["formats"]:
        assert check["counters"]["PROGRAMS"] == check["programs"]
        assert check["counters"]["REFRESHES"] > 0
