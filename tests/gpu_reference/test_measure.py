"""Measurement records: complete, ordered, and read back."""

import json
from pathlib import Path

import pytest

from catalog import ForestageError, find_model
from gpu_reference.measure import RUNS, TOKENS, measure_expert
from gpu_reference.records import MeasurementRecord

RECORDS = Path(__file__).resolve().parents[2] / "records"


def test_a_record_holds_every_figure(tmp_path: Path) -> None:
    record = measure_expert(find_model("forestage-small-moe"), command="a test")
    assert [figure.name for figure in record.figures] == [
        "expert_copy_s",
        *(f"expert_{tokens}_tokens_s" for tokens in TOKENS),
    ]
    assert all(0 < f.minimum <= f.median <= f.maximum and f.runs == RUNS for f in record.figures)
    assert record.subject["expert_bytes"] == 3 * 144 * 64 * 2
    record.save(tmp_path / "record.json")
    assert MeasurementRecord.parse(json.loads((tmp_path / "record.json").read_text()), origin="test") == record


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ForestageError, match="device: 'cuda:9' is not on this machine"):
        measure_expert(find_model("forestage-small-moe"), command="a test", device="cuda:9")


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_records_are_records(path: Path) -> None:
    MeasurementRecord.parse(json.loads(path.read_text(encoding="utf-8")), origin=str(path))
