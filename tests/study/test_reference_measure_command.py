"""``forestage reference measure``: what it writes, what it refuses, and how it ends where a section fails."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpu_reference.files import SHIPPED_TRACE
from gpu_reference.measuring import measurement, sections
from gpu_reference.measuring.bench import Bench, Figures, SectionPlan, figure
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.micro import MicroKind
from predictor.policies.material import Material
from tests.gpu_reference.measured import summary
from tests.learned_samples import random_next_use
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

Forestage = Callable[..., Outcome]


def some_sections(material: Material | None) -> tuple[SectionPlan, ...]:
    """One that fails after a figure, and one that does not."""

    def fails(bench: Bench) -> Figures:
        yield figure(MicroKind.LAUNCH, summary(), clock="host")
        raise RuntimeError("no such kernel")

    def succeeds(bench: Bench) -> Figures:
        yield figure(MicroKind.COPY_WITHIN_DEVICE, summary(), clock="host", size=1000, copy_bytes=1000)

    return SectionPlan("fails", fails), SectionPlan("succeeds", succeeds)


@pytest.fixture(autouse=True)
def _few_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "sections_of", some_sections)


def test_a_failed_section_is_told_and_gives_status_1(forestage: Forestage, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    outcome = forestage("reference", "measure", "--device", "cpu", "--out", out, "--json")
    assert outcome.status == 1
    assert f"failed: fails; {out} says why" in outcome.err.replace("\n", "")
    record = MeasurementRecord.load(out)
    assert json.loads(outcome.out) == record.model_dump(mode="json")
    assert [section.state for section in record.sections] == ["failed", "done"]
    assert len(record.micro) == 2
    assert record.model.name == "gpt-oss-20b"
    assert record.trace is None
    command = "forestage reference measure --suite quick --model gpt-oss-20b --device cpu --seed 0 --out RECORD"
    assert record.command == command


def test_tables_name_sections_and_figures(forestage: Forestage, tmp_path: Path) -> None:
    outcome = forestage("reference", "measure", "--device", "cpu", "--out", tmp_path / "r.json", "--only", "succeeds")
    assert outcome.status == 0
    assert "copy_within_device" in outcome.out


def test_the_trace_and_its_model_are_recorded(forestage: Forestage, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    outcome = forestage(
        "reference", "measure", "--device", "cpu", "--out", out, "--trace", SHIPPED_TRACE, "--tokens", "300",
        "--without", "fails",
    )  # fmt: skip
    assert outcome.status == 0
    record = MeasurementRecord.load(out)
    assert record.model.name == "forestage-small-moe"
    assert record.trace is not None
    assert record.trace.name == "trace.safetensors"
    assert set(record.predictors) >= {"uses", "st-moe"}
    assert record.trace.tokens < RoutingTrace.load(SHIPPED_TRACE).tokens  # the part that is decoded
    command = "--trace trace.safetensors --tokens 300 --without fails --out RECORD"
    assert record.command.endswith(command)


def test_the_record_has_the_command_that_remakes_it(forestage: Forestage, tmp_path: Path) -> None:
    out, trace, next_use = tmp_path / "record.json", tmp_path / "the trace.safetensors", tmp_path / "uses.safetensors"
    shutil.copyfile(SHIPPED_TRACE, trace)
    generator = np.random.default_rng(0)
    random_next_use(generator, layers=8, experts=32, top_k=4, ranked=True).save(next_use)
    outcome = forestage(
        "reference", "measure", "--device", "cpu", "--out", out, "--trace", trace, "--tokens", "300", "--minutes",
        "1.5", "--next-use", next_use, "--only", "succeeds", "--seed", "3",
    )  # fmt: skip
    assert outcome.status == 0
    command = MeasurementRecord.load(out).command
    assert command == (
        "forestage reference measure --suite quick --device cpu --seed 3 "
        "--trace 'the trace.safetensors' --next-use uses.safetensors --tokens 300 --minutes 1.5 --only succeeds "
        "--out RECORD"
    )
    again = [str(tmp_path / word) if (tmp_path / word).is_file() else word for word in shlex.split(command)]
    again[again.index("RECORD")] = str(tmp_path / "again.json")
    assert forestage(*again[1:]).status == 0
    assert MeasurementRecord.load(tmp_path / "again.json").command == command


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--suite", "long"], "--suite long: choose quick or full"),
        (["--only", "copies"], "unknown name 'copies'"),
        (["--only", "fails", "--without", "succeeds"], "give one of the two"),
        (["--tokens", "100"], "nothing is decoded without --trace or --package"),
        (["--model", "gpt-oss-21b"], "gpt-oss-20b"),
        (["--trace", str(SHIPPED_TRACE), "--model", "gpt-oss-20b"], "--model"),
        (["--trace", "none.safetensors"], "none.safetensors"),
        (["--minutes", "-1"], "--minutes"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: list[str], said: str, forestage: Forestage, tmp_path: Path
) -> None:
    outcome = forestage("reference", "measure", "--device", "cpu", "--out", tmp_path / "r.json", *options)
    assert said in refused(outcome)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_measurement_can_go_on(
    forestage: Forestage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def interrupted(material: Material | None) -> tuple[SectionPlan, ...]:
        def first(bench: Bench) -> Figures:
            ran.append("first")
            yield figure(MicroKind.LAUNCH, summary(), clock="host")

        def second(bench: Bench) -> Figures:
            ran.append("second")
            if ran.count("second") == 1:
                raise KeyboardInterrupt
            yield figure(MicroKind.LAUNCH, summary(), clock="host", queued=2)

        return SectionPlan("first", first), SectionPlan("second", second)

    monkeypatch.setattr(measurement, "sections_of", interrupted)
    command = ("reference", "measure", "--device", "cpu", "--out", tmp_path / "r.json")
    assert forestage(*command).status == 130
    assert forestage(*command).status == 0
    assert ran == ["first", "second", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_sections_are_those_of_micro_and_decoding() -> None:
    names = [plan.name for plan in sections.sections_of(None)]
    assert names.index("copies") < names.index("decode: real sizes, share 0.25, batch 1") < names.index("overlap")
