"""Texts of a trace that look like the terminal's markup are shown as they are, and crash nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.study.conftest import Outcome
from traces import RoutingTrace

MODEL, DOMAIN, NAME = "[bold]made[/red]", "[/]here", "[odd] [x] name.safetensors"


@pytest.fixture
def marked_trace(small_trace: Path, tmp_path: Path) -> Path:
    """A trace whose model, source, domains and path hold brackets."""
    trace = RoutingTrace.load(small_trace)
    path = tmp_path / NAME
    metadata = trace.metadata.model_copy(update={"model": MODEL, "source": "[/b]"})
    replace(trace, domains=(DOMAIN, "b") * 3, metadata=metadata).save(path)
    return path


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("trace", "info", "TRACE"), (MODEL, DOMAIN, "[/b]")),
        (("trace", "stats", "TRACE", "--samples", 2, "--figure", "OUT.svg"), (MODEL, DOMAIN, "[odd].svg")),
        (("trace", "batch", "--trace", "TRACE", "--batch", 2, "--out", "OUT"), (MODEL, "[odd]")),
        (("cache", "simulate", "--trace", "TRACE", "--capacity", 4), (NAME,)),
        (("cache", "compare", "--trace", "TRACE", "--capacity", 4, "--resamples", 2), (NAME,)),
        (("predictor", "evaluate", "--trace", "TRACE", "--predictor", "popularity", "--split", "all"), (NAME, DOMAIN)),
        (("predictor", "evaluate", "--trace", "TRACE", "--compare", "--resamples", 2), (NAME,)),
    ],
    ids=["info", "stats", "batch", "simulate", "compare caches", "evaluate", "compare predictors"],
)
def test_brackets_are_text(
    command: tuple[object, ...],
    shown: tuple[str, ...],
    forestage: Callable[..., Outcome],
    marked_trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    places = {"TRACE": marked_trace, "OUT": tmp_path / "[odd]", "OUT.svg": tmp_path / "[odd].svg"}
    outcome = forestage(*(places.get(str(part), part) for part in command))
    assert outcome.status == 0, outcome.err
    for text in shown:
        assert text in outcome.out
