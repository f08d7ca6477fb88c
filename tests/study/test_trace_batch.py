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
    # A file with a schedule is a trace like any other.
    assert forestage("trace", "info", out).status == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--batch", 0), "slots"),
        (("--batch", 2, "--arrivals-per-step", 0), "arrivals_per_step"),
        (("--batch", 2, "--prefill-chunk", 0), "prefill_chunk"),
        (("--batch", 2, "--order", "random"), "order"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[object, ...], field: str, forestage: Forestage, small_trace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b.safetensors"
    assert f"trace batch: {field}" in refused(
        forestage("trace", "batch", "--trace", small_trace, "--out", out, *options)
    )
    assert not out.exists()
