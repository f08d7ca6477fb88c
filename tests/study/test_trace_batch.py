"""``forestage trace batch`` through the command."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.batch import distinct_experts_by_step
from traces.batch_file import load_schedule

Forestage = Callable[..., Outcome]


def test_the_command_writes_the_trace_and_its_schedule(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "batched.safetensors"
    outcome = forestage("trace", "batch", "--trace", small_trace, "--batch", 4, "--out", out, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    trace, schedule = RoutingTrace.load(out), load_schedule(out)
    assert schedule is not None
    assert trace.equals(RoutingTrace.load(small_trace))
    assert document["made_by"] == "interleaving single requests"
    # 4 sequences of 4 prefill and 8 decode tokens, then the other 2.
    assert (document["steps"], document["busy_slots"], document["waiting_steps"]) == (18, 3.0, 3.0)
    assert [document[kind]["steps"] for kind in ("full_decode_steps", "decode_steps", "mixed_steps")] == [8, 16, 2]
    distinct = distinct_experts_by_step(trace, schedule)
    assert document["full_decode_steps"]["distinct_experts"] == pytest.approx(distinct[1:9].mean())
    assert document["full_decode_steps"]["uniform_distinct_experts"] == pytest.approx(8 * (1 - 0.75**4))
    assert document["mixed_steps"]["tokens"] == np.mean([16, 8])
    table = forestage("trace", "batch", "--trace", small_trace, "--batch", 4, "--out", out)
    assert "interleaving single requests" in " ".join(table.out.split())
    assert document["synthetic"] is True
    assert "made-for-tests (synthetic)" in table.out


def test_a_schedule_is_described_and_goes_with_an_imported_copy(
    forestage: Forestage, small_trace: Path, tmp_path: Path
) -> None:
    out, copy = tmp_path / "batched.safetensors", tmp_path / "copy.safetensors"
    options = ("--batch", 4, "--arrivals-per-step", 0.5, "--prefill-chunk", 3, "--seed", 2)
    forestage("trace", "batch", "--trace", small_trace, "--out", out, *options)
    schedule = load_schedule(out)
    assert schedule is not None
    described = json.loads(forestage("trace", "info", out, "--json").out)["batch"]
    config = {"slots": 4, "arrivals_per_step": 0.5, "prefill_chunk": 3, "order": "trace", "seed": 2}
    assert described == {
        "made_by": "interleaving single requests",
        "config": config,
        "steps": schedule.steps,
        "busy_slots": schedule.busy_slots().mean(),
    }
    shown = " ".join(forestage("trace", "info", out).out.split())
    assert f"{schedule.steps} steps of up to 4 slots, {described['busy_slots']:.1f} busy (mean); 0.5 arrivals" in shown
    assert json.loads(forestage("trace", "import", out, "--out", copy, "--json").out)["batch"] == described
    assert copy.read_bytes() == out.read_bytes()
    assert json.loads(forestage("trace", "info", small_trace, "--json").out)["batch"] is None
    assert "slots" not in forestage("trace", "info", small_trace).out


def test_a_damaged_schedule_is_one_line(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "batched.safetensors"
    forestage("trace", "batch", "--trace", small_trace, "--batch", 4, "--out", out)
    schedule = load_schedule(out)
    assert schedule is not None
    data = out.read_bytes()
    assert data.count(schedule.token.tobytes()) == 1
    out.write_bytes(data.replace(schedule.token.tobytes(), schedule.token[::-1].tobytes()))
    for command in (("trace", "info", out), ("cache", "simulate", "--trace", out, "--capacity", 4)):
        line = refused(forestage(*command))
        assert str(out) in line
        assert "batch_token" in line


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--batch", 0), "--batch"),
        (("--batch", 2, "--arrivals-per-step", 0), "--arrivals-per-step"),
        (("--batch", 2, "--prefill-chunk", 0), "--prefill-chunk"),
        (("--batch", 2, "--arrivals-per-step", 1e-300), "--arrivals-per-step"),
        (("--batch", 2, "--prefill-chunk", 10**20), "--prefill-chunk"),
        (("--batch", 2, "--order", "random"), "--order"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[object, ...], field: str, forestage: Forestage, small_trace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b.safetensors"
    assert f"error: {field}" in refused(forestage("trace", "batch", "--trace", small_trace, "--out", out, *options))
    assert not out.exists()
