"""What the measurement of the stager's speed runs is what it says."""

import json
import sys

import pytest

from staging.stager import speed


def test_both_compiled_forms_hit_alike_and_the_document_names_every_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An LRU cache is one cache, whether its transfers go over a link that is awaited or take no time."""
    monkeypatch.setattr(sys, "argv", ["speed", "--tokens", "40", "--json"])
    speed.main()
    results = json.loads(capsys.readouterr().out)
    assert list(results) == [*speed.CASES, *speed.ZERO_TIME_CASES]
    for name in ("LRU, 8 of 32 a layer", "LRU, 192 of 768 in all"):
        compiled, zero_time = results[name], results[f"{name}, for hit rates"]
        assert compiled["hit_rate"] == zero_time["hit_rate"] > 0.3
        assert compiled["transfers_per_step"] == zero_time["transfers_per_step"]
    assert all(of["million_steps_per_s"] > 0 for of in results.values())


def test_a_reader_sees_a_line_for_every_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the document, in its order."""
    monkeypatch.setattr(sys, "argv", ["speed", "--tokens", "2"])
    speed.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [*speed.CASES, *speed.ZERO_TIME_CASES]
