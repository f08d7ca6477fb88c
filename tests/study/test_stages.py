"""Stages are remembered for the same key, and only for it."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from catalog.progress import Progress
from study.config import StudyConfig
from study.stages import Stage, StudyContext, code_fingerprint, kept, run_stages
from traces import RoutingTrace


class Counted:
    """A stage body that counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, context: StudyContext, progress: Progress) -> dict[str, Any]:
        self.runs += 1
        progress(1, 1)
        (context.out / "made.txt").write_text("x")
        return {"runs": self.runs}


def context_in(out: Path, key: str) -> StudyContext:
    return StudyContext(trace=cast(RoutingTrace, None), trace_path=out, config=StudyConfig(), out=out, key=key)


def test_a_finished_stage_is_kept(tmp_path: Path) -> None:
    body = Counted()
    stages = (Stage("one", "First", body),)
    run_stages(stages, context_in(tmp_path, "k"))
    again = context_in(tmp_path, "k")
    run_stages(stages, again)
    assert body.runs == 1
    assert again.results == {"one": {"runs": 1}}


def test_another_key_runs_it_again(tmp_path: Path) -> None:
    body = Counted()
    stages = (Stage("one", "First", body),)
    run_stages(stages, context_in(tmp_path, "k"))
    run_stages(stages, context_in(tmp_path, "other"))
    assert body.runs == 2


def test_a_lost_output_runs_it_again(tmp_path: Path) -> None:
    body = Counted()
    stages = (Stage("one", "First", body, outputs=("made.txt",)),)
    run_stages(stages, context_in(tmp_path, "k"))
    (tmp_path / "made.txt").unlink()
    run_stages(stages, context_in(tmp_path, "k"))
    assert body.runs == 2


def test_a_damaged_result_runs_it_again(tmp_path: Path) -> None:
    body = Counted()
    stages = (Stage("one", "First", body),)
    run_stages(stages, context_in(tmp_path, "k"))
    path = tmp_path / "stages" / "one.json"
    path.write_text(path.read_text()[:-20])
    run_stages(stages, context_in(tmp_path, "k"))
    assert body.runs == 2


def test_an_interrupted_study_goes_on(tmp_path: Path) -> None:
    body = Counted()

    def interrupted(context: StudyContext, progress: Progress) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages((Stage("one", "First", body), Stage("two", "Second", interrupted)), context_in(tmp_path, "k"))
    assert json.loads((tmp_path / "stages" / "one.json").read_text())["result"] == {"runs": 1}
    assert not (tmp_path / "stages" / "two.json").exists()
    run_stages((Stage("one", "First", body), Stage("two", "Second", body)), context_in(tmp_path, "k"))
    assert body.runs == 2


def test_a_stage_that_is_interrupted_goes_on_at_its_next_part(tmp_path: Path) -> None:
    computed: list[str] = []

    def part(name: str) -> dict[str, Any]:
        computed.append(name)
        return {"name": name}

    def body(context: StudyContext, progress: Progress) -> dict[str, Any]:
        first = kept(context, "one", "a", lambda: part("a"))
        if len(computed) < 2:
            raise KeyboardInterrupt
        return {"parts": [first, kept(context, "one", "b", lambda: part("b"))]}

    stages = (Stage("one", "First", body),)
    for key in ("k", "other"):
        with pytest.raises(KeyboardInterrupt):
            run_stages(stages, context_in(tmp_path, key))
        if key == "k":
            computed.clear()
    assert computed == ["a"], "what another key left is not used"
    computed.append("interrupted here")
    context = context_in(tmp_path, "other")
    run_stages(stages, context)
    assert computed == ["a", "interrupted here", "b"]
    assert context.results == {"one": {"parts": [{"name": "a"}, {"name": "b"}]}}
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["one.json"], "parts are removed at the end"


def test_the_code_has_one_fingerprint() -> None:
    assert code_fingerprint() == code_fingerprint()
    assert len(code_fingerprint()) == 64
