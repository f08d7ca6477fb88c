"""A suite: sections are fenced, cut by the time, kept when it is interrupted, and gone on with."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from catalog import ForestageError, find_model
from gpu_reference.measuring import measurement, suite
from gpu_reference.measuring.bench import Bench, SectionPlan, Skipped, WrongResultError, figure
from gpu_reference.measuring.measurement import Measurement, measure
from gpu_reference.measuring.suite import partial_path, run_suite
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.micro import Micro, MicroKind
from tests.gpu_reference.measured import a_record, summary

MODEL = find_model("forestage-small-moe")


def a_bench(**changes: Any) -> Bench:
    """A bench on the CPU."""
    return Bench(**{"device": "cpu", "suite": "quick", "model": MODEL, **changes})


def launches(count: int = 1, error: BaseException | None = None) -> Callable[[Bench], Iterator[Micro]]:
    """A section of ``count`` figures, which then raises ``error``."""

    def section(bench: Bench) -> Iterator[Micro]:
        for number in range(count):
            yield figure(MicroKind.LAUNCH, summary(), clock="host", queued=number + 1)
        if error is not None:
            raise error

    return section


def empty_record() -> MeasurementRecord:
    """A record before anything is measured."""
    return a_record(sections=[], micro=[], decode=[])


def test_a_section_that_fails_is_recorded_and_the_others_run(tmp_path: Path) -> None:
    told: list[str] = []
    plans = [
        SectionPlan("wrong", launches(2, WrongResultError("launch: wrong by 1.0e+00"))),
        SectionPlan("no meaning", launches(0, Skipped("a CPU has no streams"))),
        SectionPlan("partly without meaning", launches(1, Skipped("a CPU has no streams"))),
        SectionPlan("no memory", launches(0, torch.OutOfMemoryError("tried to allocate 20 GiB"))),
        SectionPlan("no host memory", launches(0, MemoryError())),
        SectionPlan("several lines", launches(0, RuntimeError("CUDA error: no\n  such thing"))),
        SectionPlan("good", launches(3)),
    ]
    record = run_suite(a_bench(), plans, empty_record(), tmp_path / "r.json", tell=told.append)
    assert [(section.name, section.state, section.reason) for section in record.sections] == [
        ("wrong", "failed", "WrongResultError: launch: wrong by 1.0e+00"),
        ("no meaning", "skipped", "a CPU has no streams"),
        ("partly without meaning", "cut", "a CPU has no streams"),
        ("no memory", "failed", "out of memory: tried to allocate 20 GiB"),
        ("no host memory", "failed", "out of host memory (MemoryError); take smaller sizes"),
        ("several lines", "failed", "RuntimeError: CUDA error: no such thing"),
        ("good", "done", None),
    ]
    assert len(record.micro) == 2 + 1 + 3  # what was measured before a failure is kept
    assert len(told) == 6
    assert MeasurementRecord.load(tmp_path / "r.json") == record
    assert not partial_path(tmp_path / "r.json").exists()


def test_a_section_is_cut_when_the_time_is_over(tmp_path: Path) -> None:
    bench = a_bench(deadline=time.monotonic() + 0.05)

    def slow(bench: Bench) -> Iterator[Micro]:
        for one in launches(4)(bench):
            yield one
            time.sleep(0.04)

    record = run_suite(
        bench, [SectionPlan("slow", slow), SectionPlan("late", launches())], empty_record(), tmp_path / "r"
    )
    assert [(section.state, section.reason) for section in record.sections] == [
        ("cut", f"time: it was over after {len(record.micro)} figures"),
        ("skipped", "time: it was over before"),
    ]
    assert 1 <= len(record.micro) < 4


def test_an_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    ran: list[str] = []

    def counted(name: str, *, interrupted: bool = False) -> SectionPlan:
        def section(bench: Bench) -> Iterator[Micro]:
            ran.append(name)
            yield from launches(1, KeyboardInterrupt() if interrupted else None)(bench)

        return SectionPlan(name, section)

    out, header = tmp_path / "r.json", empty_record()
    with pytest.raises(KeyboardInterrupt):
        run_suite(a_bench(), [counted("first"), counted("second", interrupted=True)], header, out)
    assert not out.exists()
    kept = suite.measured_so_far(out, header)
    assert kept is not None
    assert [section.name for section in kept.sections] == ["first"]
    record = run_suite(a_bench(), [counted("first"), counted("second")], kept, out)
    assert ran == ["first", "second", "second"]
    assert [section.name for section in record.sections] == ["first", "second"]
    assert len(record.micro) == 2
    assert suite.measured_so_far(out, header) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "0" * 40}, f"commit: was measured with {'0' * 40}, this is unknown; give --fresh"),
        ({"seed": 1}, "seed: was measured with 1, this is 0"),
        ({"suite": "full"}, "suite: was measured with full, this is quick"),
        ({"sources": "1" * 64}, "sources: was measured"),
        ({"predictors": {}}, "predictors.next-use: was measured with None"),
    ],
)
def test_what_was_measured_otherwise_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    a_record(decode=[], **changes).save(partial_path(out))
    with pytest.raises(ForestageError, match=r"r\.json\.partial: ") as caught:
        suite.measured_so_far(out, empty_record())
    assert said in str(caught.value)


def test_another_machine_is_named_by_its_field(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    machine = a_record().machine.model_copy(update={"processor": "another"})
    a_record().model_copy(update={"machine": machine}).save(partial_path(out))
    with pytest.raises(ForestageError, match=r"machine.processor: was measured with another, this is a processor"):
        suite.measured_so_far(out, empty_record())


def test_a_lost_device_ends_the_measurement_and_keeps_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [SectionPlan("kills", launches(1, RuntimeError("illegal memory access"))), SectionPlan("next", launches())]

    def lost(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(suite.torch, "ones", lost)
    with pytest.raises(
        ForestageError, match=r"device cpu: lost in section kills \(RuntimeError: illegal memory access\)"
    ):
        run_suite(a_bench(), plans, empty_record(), tmp_path / "r.json")
    monkeypatch.undo()
    kept = suite.measured_so_far(tmp_path / "r.json", empty_record())
    assert kept is not None
    record = run_suite(a_bench(), plans, kept, tmp_path / "r.json")
    assert [(section.name, section.state) for section in record.sections] == [("kills", "failed"), ("next", "done")]


def a_measurement(**changes: Any) -> Measurement:
    """A measurement on the CPU."""
    return Measurement(**{"model": MODEL, "suite": "quick", "device": "cpu", "command": "a test", **changes})


def test_a_lost_device_does_not_keep_its_section_out_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for name in ("default_stream", "set_stream", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lost)
    suite.free(cast(Bench, SimpleNamespace(on_cuda=True, device="cuda")))


def test_the_next_section_runs_on_the_default_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    current = ["of a capture that failed"]
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: f"default of {device}")
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.append(stream))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    suite.free(cast(Bench, SimpleNamespace(on_cuda=True, device="cuda")))
    assert current[-1] == "default of cuda"


def test_only_and_without_choose_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = tuple(SectionPlan(name, launches()) for name in "abc")
    monkeypatch.setattr(measurement, "sections_of", lambda material: plans)
    only = measure(a_measurement(only=["b"]), tmp_path / "r.json")
    assert [section.state for section in only.sections] == ["skipped", "done", "skipped"]
    without = measure(a_measurement(without=["b"]), tmp_path / "r.json")
    assert [section.reason for section in without.sections] == [None, "left out: --without names it", None]
    for changes, said in (
        ({"only": ["d"]}, "only: unknown name 'd'"),
        ({"without": ["d"]}, "without: unknown name 'd'"),
        ({"only": ["a"], "without": ["b"]}, "give one of the two"),
        ({"device": "cuda:9"}, "device: 'cuda:9' is not on this machine"),
    ):
        with pytest.raises(ForestageError, match=said):
            measure(a_measurement(**changes), tmp_path / "r.json")


def test_fresh_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "sections_of", lambda material: (SectionPlan("a", launches()),))
    out, told = tmp_path / "r.json", []
    partial_path(out).write_text("damaged", encoding="utf-8")
    with pytest.raises(ForestageError, match=r"r\.json\.partial: not JSON"):
        measure(a_measurement(), out, tell=told.append)
    assert measure(a_measurement(fresh=True), out, tell=told.append).sections[0].state == "done"
    measure(a_measurement(), out).save(partial_path(out))
    measure(a_measurement(), out, tell=told.append)
    assert told == [f"going on from {partial_path(out)}: 1 of 1 sections are measured"]
