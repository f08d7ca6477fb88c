"""Measurement records: complete, ordered, and read back."""

import json
import os
import platform
from pathlib import Path

import pytest
import torch

from catalog import ForestageError, find_model
from gpu_reference import records
from gpu_reference.measure import RUNS, TOKENS, measure_expert
from gpu_reference.records import MeasurementRecord, this_machine

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


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "processor : 0\nmodel name\t: Fast 9000 @ 2 GHz\nprocessor : 1\nmodel name\t: Fast 9000 @ 2 GHz\n",
            "Fast 9000 @ 2 GHz",
        ),
        ("processor : 0\nBogoMIPS : 50\n", platform.machine()),  # Arm names no model
    ],
)
def test_a_record_names_the_processor(cpuinfo: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    monkeypatch.setattr(records, "Path", lambda path: tmp_path / Path(path).name)
    machine = this_machine()
    assert machine.processor == name
    assert (machine.cores, machine.threads) == (os.cpu_count(), torch.get_num_threads())


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_records_are_records(path: Path) -> None:
    MeasurementRecord.parse(json.loads(path.read_text(encoding="utf-8")), origin=str(path))
