"""Measurement records: what was measured on which machine, with which versions, when, and how often."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

from pydantic import Field

from catalog.config import StrictModel
from catalog.files import write_text

VERSIONED = ("forestage", "numpy", "torch")


class Figure(StrictModel):
    """One measured quantity over repeated runs; its name ends with the unit.

    Attributes:
        name: what was measured, with its unit at the end.
        minimum, median, maximum: values over the runs.
        runs: number of runs.
    """

    name: str
    minimum: float
    median: float
    maximum: float
    runs: int = Field(ge=1)


class Machine(StrictModel):
    """The machine on which something was measured."""

    processor: str
    cores: int
    gpu: str | None
    threads: int


class MeasurementRecord(StrictModel):
    """A file of ``records/``.

    Attributes:
        command: the command that remakes the record.
        date: ISO 8601, UTC.
        machine, versions: those of the run.
        subject: what the figures are about (weights, shapes, trace).
        figures: every figure.
    """

    command: str
    date: str
    machine: Machine
    versions: dict[str, str]
    subject: dict[str, str | int | float]
    figures: tuple[Figure, ...]

    def save(self, path: Path) -> None:
        """Write the record as JSON.

        Raises:
            ForestageError: if it cannot be written.
        """
        write_text(path, self.model_dump_json(indent=1) + "\n")


def this_machine() -> Machine:
    """The machine on which this process runs."""
    import torch

    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        threads=torch.get_num_threads(),
    )


def these_versions() -> dict[str, str]:
    """The versions on which a measurement depends."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONED}}


def now() -> str:
    """The current time, as a record's date."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _processor() -> str:
    """The processor's name, from the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
