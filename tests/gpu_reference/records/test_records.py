"""Measurement records: every fault of a file is refused in one line, and what is written is read back."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from catalog import ForestageError
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.micro import SETTINGS, MicroKind
from gpu_reference.records.summary import Summary
from tests.gpu_reference.measured import a_record, record_values

RECORDS = Path(__file__).resolve().parents[3] / "records"


def test_a_record_that_is_loaded_and_saved_has_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    a_record().save(first)
    loaded = MeasurementRecord.load(first)
    assert loaded == a_record()
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["first.json", "second.json"]


def changed(path: str, value: Any) -> dict[str, Any]:
    """A record's values with the field at ``path`` replaced; ``...`` removes it."""
    values = deepcopy(record_values())
    *outer, last = path.split(".")
    place: Any = values
    for part in outer:
        place = place[int(part) if part.isdigit() else part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schema_version", ..., "schema_version: missing, so this is no measurement record"),
        ("schema_version", 2, "schema_version: 2 is not known"),
        ("schema_version", True, "schema_version: True is not known"),
        ("machin", {}, "unknown key 'machin'; the nearest known key is 'machine'"),
        ("machine.cores", 0, "machine.cores"),
        ("machine.core", 2, "unknown key 'machine.core'; the nearest known key is 'cores'"),
        ("date", "yesterday", "date: 'yesterday' is no moment in ISO 8601, UTC; write one like"),
        ("date", "2026-11-22T01:54:45+02:00", "date: "),
        ("date", "2026-11-22T01:54:45", "date: "),
        ("commit", "main", "commit"),
        ("trace.digest", "abc", "trace.digest"),
        ("trace", None, "trace: missing, though rows were decoded"),
        ("sections.0.state", "failed", "a section that is not done has one"),
        ("sections.0.reason", "time", "a section that is not done has one"),
        ("sections", [{"name": "copies", "state": "done", "reason": None, "took_s": 1}] * 2, "named twice"),
        ("micro.0.kind", "copies", "micro.0.kind"),
        ("micro.0.settings.streams", ..., "settings of copy_to_device: streams: missing or unknown"),
        ("micro.0.settings.lanes", 2, "settings of copy_to_device: lanes: missing or unknown"),
        ("micro.0.settings.streams", "1", "settings: streams: '1' is no int"),
        ("micro.0.settings.streams", True, "settings: streams: True is no int"),
        ("micro.0.settings.memory", "paged", "settings: memory: 'paged' is none of pinned, pageable"),
        ("micro.0.seconds.median", 1.0, "do not ascend"),
        ("micro.0.seconds.mean", 0.0, "do not ascend"),
        ("micro.0.seconds.spread", 1.0, "spread: exceeds"),
        ("micro.0.seconds.minimum", float("nan"), "micro.0.seconds.minimum"),
        ("micro.0.bytes", 0, "micro.0.bytes"),
        ("decode.0.policy.eviction", "fifo", "decode.0.policy.eviction"),
        ("decode.0.regimen.name", "throttled", "throttle_gb_per_s: belongs to the regime 'throttled'"),
        ("decode.0.share", 1.5, "decode.0.share"),
        ("decode.0.tpot_s.runs", 0, "decode.0.tpot_s.runs"),
    ],
)
def test_a_fault_is_named_with_file_and_field(path: str, value: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(changed(path, value)), encoding="utf-8")
    with pytest.raises(ForestageError) as caught:
        MeasurementRecord.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_record(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    with pytest.raises(ForestageError, match=r"record.json: cannot read \(No such file or directory\)"):
        MeasurementRecord.load(file)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ForestageError, match=r"record.json: not JSON"):
        MeasurementRecord.load(file)
    file.write_text("[1]", encoding="utf-8")
    with pytest.raises(ForestageError, match=r"record.json: schema_version: missing"):
        MeasurementRecord.load(file)


def test_every_kind_has_settings_with_a_clock() -> None:
    assert set(SETTINGS) == set(MicroKind)
    assert all({"clock", "queued"} <= set(settings) for settings in SETTINGS.values())


def test_measurements_are_found_by_kind_and_settings() -> None:
    record = a_record()
    assert record.of_kind(MicroKind.COPY_TO_DEVICE, memory="pageable", streams=1) == record.micro
    assert record.of_kind(MicroKind.COPY_TO_DEVICE, memory="pinned") == ()
    assert record.of_kind(MicroKind.LAUNCH) == ()


def test_a_summary_has_the_quartiles_of_its_runs() -> None:
    summary = Summary.of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert summary == Summary(minimum=1.0, median=3.0, mean=3.0, maximum=5.0, spread=2.0, runs=5)
    assert Summary.of([0.7]) == Summary(minimum=0.7, median=0.7, mean=0.7, maximum=0.7, spread=0.0, runs=1)
    assert Summary.of([0.1] * 3).mean == 0.1  # whose sum over 3 is a little more


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_records_are_records(path: Path, tmp_path: Path) -> None:
    MeasurementRecord.load(path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
