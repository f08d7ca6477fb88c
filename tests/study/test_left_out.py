"""A study is asked before any work what its trace allows; the rest is left out, with the reason in the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog import load_catalog
from study import pipeline, report
from study import run as command
from study.config import StudyConfig, load_study_config
from study.run import leave_out, resolve
from study.stages import StudyContext, file_fingerprint
from study.subjects import caches, memory, system, trace
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused
from traces import DECODE, PREFILL, RoutingTrace, split
from traces.batch import BatchConfig, make_schedule
from traces.batch_file import save_batched

Forestage = Callable[..., Outcome]

SYSTEM = {"system", "in-memory"}
LOOKING_AHEAD = {"learned", "predictors", "engine", *SYSTEM}


def make(
    *, sequences: int = 6, length: int = 12, layers: int = 3, experts: int = 32, top_k: int = 4, prompt: int = 4,
    model: str = "gpt-oss-20b", **other: Any,
) -> RoutingTrace:  # fmt: skip
    """A trace of random routing without weights or identities."""
    keys = np.random.default_rng(0).random((sequences * length, layers, experts))
    ids = keys.argsort(axis=-1)[..., :top_k]
    return trace_of(
        ids, experts=experts, lengths=[length] * sequences, prompt=prompt, model=model, ranked=False, **other
    )


def left_out(given: RoutingTrace, tmp_path: Path, **settings: Any) -> dict[str, str]:
    """What a study of ``given`` leaves out, without running any of it."""
    config = resolve(StudyConfig.parse(settings, origin="test"), given)
    context = StudyContext(trace=given, trace_path=tmp_path / "t", config=config, out=tmp_path)
    leave_out(context, pipeline.SUBJECTS)
    return context.left_out


@pytest.mark.parametrize(
    ("given", "gone", "says"),
    [
        (make(), set(), ""),
        (make(layers=1), LOOKING_AHEAD, "has 1 MoE layer"),
        (make(sequences=1), LOOKING_AHEAD | {"next_use"}, "no test sequences"),
        (make(sequences=2), {"learned", "next_use"}, "1 training sequence"),
        (make(prompt=99), set(), ""),
        (make(model="acme/unknown"), {"memory", *SYSTEM}, "system.sizes_of"),
        (make(experts=8, top_k=1, model="acme/one"), {"memory", *SYSTEM}, "none there has the trace's shape"),
        (make(experts=16, top_k=2), SYSTEM, "a model of the same shape"),
        (make(experts=8, top_k=8, model="x"), {"learned", "memory", *SYSTEM}, "chooses all 8 experts"),
        (make(experts=512, top_k=10, model="acme/wide"), {"memory", *SYSTEM}, "of the trace's shape are Qwen"),
        (make(experts=128, top_k=65, model="x"), {"engine", "memory", *SYSTEM}, "top_k_max"),
    ],
)
def test_what_a_trace_does_not_allow_is_left_out(
    given: RoutingTrace, gone: set[str], says: str, tmp_path: Path
) -> None:
    found = left_out(given, tmp_path)
    assert set(found) == gone
    assert says in " ".join(found.values())
    assert "\n" not in "".join(found.values())


def test_sizes_of_another_model_bring_the_stages_back(tmp_path: Path) -> None:
    unknown = make(model="acme/unknown")
    assert not left_out(unknown, tmp_path, system={"sizes_of": "gpt-oss-20b"})


def test_a_memory_that_cannot_hold_the_experts_leaves_out_its_section_alone(tmp_path: Path) -> None:
    found = left_out(make(), tmp_path, system={"in_memory": {"stacks": 1}})
    assert set(found) == {"in-memory"}
    assert "stacks: 1 of 12 GB do not hold the experts of gpt-oss-20b" in found["in-memory"]
    assert "system.in_memory" in found["in-memory"]


def test_a_model_without_attention_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = load_catalog()
    bare = catalog.find_model("gpt-oss-20b").model_copy(update={"attention": None})
    monkeypatch.setattr(type(catalog), "find_model", lambda self, name: bare)
    found = left_out(make(), tmp_path)
    assert set(found) == SYSTEM
    assert "attention: not in the catalogue" in found["system"]
    assert "system.sizes_of" in found["system"]


def test_sequences_that_do_not_decode_are_told_with_the_setting(tmp_path: Path) -> None:
    """Of ten sequences two are tested: only the second decodes, and so do those that are trained on."""
    _, test = split(make(sequences=10))
    phase = np.full((10, 12), DECODE)
    phase[test[0]] = PREFILL
    given = make(sequences=10, phase=phase.ravel())
    found = left_out(given, tmp_path, system={"map_tokens": 12})
    assert "test sequences" in found["system"]
    assert "larger system.map_tokens" in found["system"]
    assert not left_out(given, tmp_path)
    phase[:] = PREFILL
    phase[test] = DECODE
    found = left_out(make(sequences=10, phase=phase.ravel()), tmp_path)
    assert "no decode token in the training sequences" in found["system"]


def test_a_share_of_less_than_one_expert_is_told_before_any_stage(tmp_path: Path) -> None:
    found = left_out(make(), tmp_path, system={"capacity_fractions": [0.001, 0.5]})
    assert set(found) == SYSTEM
    assert "0.001 of 96 experts is less than one" in found["system"]
    assert "system.capacity_fractions" in found["system"]


def test_the_configuration_leaves_the_learned_predictor_out(tmp_path: Path) -> None:
    assert set(left_out(make(), tmp_path, learned="none")) == {"learned", "next_use"}


def test_defaults_never_refuse_a_small_model(tmp_path: Path) -> None:
    assert resolve(StudyConfig(), make(experts=1, top_k=1, model="x")).issue == (1,)


@pytest.fixture
def quick_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of the stages that take no time."""
    subjects = (trace.SUBJECT, caches.SUBJECT, memory.SUBJECT, system.SUBJECT)
    monkeypatch.setattr(pipeline, "SUBJECTS", subjects)
    monkeypatch.setattr(report, "SUBJECTS", subjects)


@pytest.mark.usefixtures("quick_subjects")
def test_the_report_and_the_results_say_what_was_left_out(forestage: Forestage, tmp_path: Path) -> None:
    make(layers=1, model="acme/<b>moe").save(tmp_path / "t.safetensors")
    outcome = forestage("study", "--trace", tmp_path / "t.safetensors", "--out", tmp_path / "out", "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert set(document["left_out"]) == {"memory", "system"}
    assert set(document["stages"]) == {"trace", "caches"}
    assert "left out: The whole system: the trace has 1 MoE layer" in outcome.err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<section id="system">' in page
    assert "Left out: the catalogue does not know acme/&lt;b&gt;moe" in page
    (tmp_path / "study.toml").write_text('[system]\nsizes_of = "gpt-oss-20b"\n')
    again = forestage(
        "study", "--trace", tmp_path / "t.safetensors", "--out", tmp_path / "out", "--config", tmp_path / "study.toml",
        "--json",
    )  # fmt: skip
    assert set(json.loads(again.out)["left_out"]) == {"system"}


@pytest.mark.usefixtures("quick_subjects")
def test_a_batch_is_studied_sequence_by_sequence_and_that_is_said(forestage: Forestage, tmp_path: Path) -> None:
    given = make(model="acme/unknown")
    save_batched(tmp_path / "b.safetensors", given, make_schedule(given, BatchConfig(slots=2)))
    outcome = forestage("study", "--trace", tmp_path / "b.safetensors", "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert "its batch schedule is left aside" in outcome.err


def test_refusals_come_before_any_stage(
    forestage: Forestage, small_trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(command, "run_stages", never)
    monkeypatch.setattr(command, "leave_out", never)
    (tmp_path / "file").write_text("")
    config = tmp_path / "study.toml"
    config.write_text("lookahead = 3\n")
    assert "cannot write" in refused(forestage("study", "--trace", small_trace, "--out", tmp_path / "file"))
    refused(forestage("study", "--trace", tmp_path / "none", "--out", tmp_path / "out"))
    refused(forestage("study", "--trace", small_trace, "--config", config, "--out", tmp_path / "out"))
    assert load_study_config(config).lookahead == 3


def test_a_folder_and_labels_beside_an_archive_are_told_apart_by_their_content(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = file_fingerprint(folder)
    (folder / "b").write_text("2")
    assert file_fingerprint(folder) != before
    (tmp_path / "t.npz").write_text("x")
    alone = file_fingerprint(tmp_path / "t.npz")
    (tmp_path / "t.sequences.jsonl").write_text("y")
    assert file_fingerprint(tmp_path / "t.npz") != alone
