"""Coverage of the whole engine: a run fills the bins of what it saw, files are merged, and what is missing is named."""

from pathlib import Path

import pytest

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine import coverage
from cocotb_tests.prefetch_engine.coverage import BINS, Demand, Error, Seen, Shape, Waits, merge, read, table
from predictor.engine.events import EngineError
from predictor.engine.settings import Mode


def seen(mode: Mode = Mode.TABLES, experts: int = 32, errors: int = 0, waits: int = 0, run: str = "a") -> Seen:
    """Hits and misses."""
    counters = {"hits": 3, "promoted": 0, "waits": 2}
    return coverage.seen(mode, experts, counters=counters, errors=errors, waits=waits, run=run)


def test_a_run_fills_a_bin_for_each_demand_and_each_error_that_it_saw() -> None:
    bins = seen(errors=EngineError.READ | EngineError.GAVE_UP | EngineError.ORDER, waits=40).bins
    assert {of.mode for of in bins} == {Mode.TABLES}
    assert {of.shape for of in bins} == {Shape.GPT_OSS}
    assert {of.waits for of in bins} == {Waits.RANDOM}
    assert {(of.demand, of.error) for of in bins} == {
        (Demand.HIT, Error.READ),
        (Demand.MISS, Error.READ),
        (Demand.HIT, Error.EVENT),
        (Demand.MISS, Error.EVENT),
    }
    assert {of.error for of in seen().bins} == {Error.NONE}


@pytest.mark.parametrize(
    ("experts", "shape"), [(31, Shape.SMALL), (32, Shape.GPT_OSS), (127, Shape.GPT_OSS), (128, Shape.WIDE)]
)
def test_a_shape_is_of_one_class(experts: int, shape: Shape) -> None:
    assert Shape.of(experts) is shape


def test_runs_leave_files_that_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(coverage.FOLDER, str(tmp_path))
    for one in (seen(), seen(), seen(Mode.OFF, run="b")):
        coverage.leave(one)
    merged = merge(read(tmp_path))
    assert merged.runs == 2
    assert merged.filled == {
        f"{mode} gpt_oss {demand} none none": 1 for mode in ("off", "tables") for demand in ("hit", "miss")
    }
    assert len(merged.empty) + len(merged.filled) + len(merged.unreachable) == len(BINS)
    assert "off wide hit none image" in merged.unreachable
    text = table(merged)
    assert "4 of 288 bins are filled, by 2 runs" in text
    assert "tables   gpt_oss  none    H.M    ...    ...    ...    ...    ---" in text


def test_runs_of_other_sources_do_not_count(tmp_path: Path) -> None:
    old = seen().model_copy(update={"sources": "0"})
    merged = merge([old])
    assert (merged.runs, merged.stale, merged.filled) == (0, 1, {})
    assert "1 runs are of other sources" in table(merged)


def test_a_bin_that_is_said_to_be_out_of_reach_and_is_filled_is_an_error() -> None:
    with pytest.raises(ValueError, match="off gpt_oss hit none image was filled"):
        merge([seen(Mode.OFF, errors=EngineError.IMAGE_CHECKSUM)])


def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(coverage.FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    coverage.leave(seen())
    assert not list(tmp_path.iterdir())


def test_files_of_another_form_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ForestageError, match="no such folder"):
        read(tmp_path / "none")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ForestageError, match="not JSON"):
        read(tmp_path)
    (tmp_path / "a.json").write_text('{"mode": 7}')
    assert coverage.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_prints_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(coverage.FOLDER, str(tmp_path))
    coverage.leave(seen())
    assert coverage.main([str(tmp_path), "--json"]) == 0
    assert coverage.Coverage.model_validate_json(capsys.readouterr().out).runs == 1
