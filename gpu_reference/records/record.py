"""A measurement record: a file of ``records/``, one schema, validated on reading."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import write_text
from catalog.models import Activation
from gpu_reference.records.decode import Decode
from gpu_reference.records.machine import Machine
from gpu_reference.records.micro import Micro, MicroKind
from gpu_reference.records.summary import Seconds

SCHEMA_VERSION: Literal[1] = 1

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Section(StrictModel):
    """One section of a suite.

    Attributes:
        name: which.
        state: ``done``: everything was measured; ``cut``: the time was over before the rest; ``failed``; ``skipped``.
            What had been measured when a section failed or was cut is kept.
        reason: in one line; ``None`` where it is done.
        took_s: how long it ran.
    """

    name: str = Field(min_length=1)
    state: Literal["done", "cut", "failed", "skipped"]
    reason: str | None
    took_s: Seconds

    @model_validator(mode="after")
    def _has_reason(self) -> Self:
        if (self.reason is None) != (self.state == "done"):
            raise ValueError(f"section {self.name}: reason: a section that is not done has one; measure again")
        return self


class MeasuredModel(StrictModel):
    """The model whose sizes were measured.

    Attributes:
        name: in the catalogue.
        layers, experts, top_k, hidden: its shape; layers with experts.
        expert_intermediate, expert_matrices, activation, expert_bias: an expert's.
        formats: bytes of one expert by format, those that were measured.
    """

    name: str
    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    hidden: int = Field(ge=1)
    expert_intermediate: int = Field(ge=1)
    expert_matrices: int = Field(ge=2, le=3)
    activation: Activation
    expert_bias: bool
    formats: dict[str, int]


class MeasuredTrace(StrictModel):
    """The trace that was decoded.

    Attributes:
        name: of its file.
        model: that it records.
        tokens, sequences: its size.
        digest: as `predictor.predictions.digest.trace_digest`.
    """

    name: str
    model: str
    tokens: int = Field(ge=1)
    sequences: int = Field(ge=1)
    digest: Digest


class MeasurementRecord(StrictModel):
    """What was measured on which machine, with which versions, when, and how often.

    Attributes:
        schema_version: of this file.
        command: the command that remakes the record.
        date: when it began, ISO 8601, UTC.
        suite: ``quick`` or ``full``.
        device: ``cpu`` or ``cuda``: where experts were held and computed.
        commit: of the source tree (git), ``-dirty`` where it was changed since, ``unknown`` where there is no git.
        sources: SHA-256 of the sources that ran.
        machine, versions: those of the run.
        model: whose sizes were measured.
        trace: that was decoded; ``None`` where none was.
        predictors: SHA-256 of each trained predictor's file, by name.
        seed: of everything drawn.
        sections: what was done, in order.
        micro: every micro-measurement.
        decode: every row of decoding.
    """

    schema_version: Literal[1] = 1
    command: str = Field(min_length=1)
    date: str
    suite: Literal["quick", "full"]
    device: str = Field(min_length=1)
    commit: str = Field(pattern="^([0-9a-f]{40}(-dirty)?|unknown)$")
    sources: Digest
    machine: Machine
    versions: dict[str, str]
    model: MeasuredModel
    trace: MeasuredTrace | None
    predictors: dict[str, Digest]
    seed: int = Field(ge=0)
    sections: tuple[Section, ...]
    micro: tuple[Micro, ...]
    decode: tuple[Decode, ...]

    @field_validator("date")
    @classmethod
    def _is_date(cls, text: str) -> str:
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.utcoffset() != datetime.timedelta(0):
            raise ValueError(f"{text!r} is no moment in ISO 8601, UTC; write one like 2026-11-22T01:54:45+00:00")
        return text

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [section.name for section in self.sections]
        if len(set(names)) != len(names):
            raise ValueError("sections: one is named twice; measure again")
        if self.decode and self.trace is None:
            raise ValueError("trace: missing, though rows were decoded; measure again")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate a record.

        Raises:
            ForestageError: one line naming the file, the field and the remedy.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ForestageError(f"{path}: cannot read ({error.strerror}); name a measurement record") from error
        except (UnicodeDecodeError, ValueError) as error:
            raise ForestageError(f"{path}: not JSON ({error}); name a measurement record") from error
        _check_version(values, path)
        return cls.parse(values, origin=str(path))

    def save(self, path: Path) -> None:
        """Write the record as JSON: a record that is loaded and saved gives the same bytes.

        Raises:
            ForestageError: if it cannot be written.
        """
        write_text(path, self.model_dump_json(indent=1) + "\n")

    def of_kind(self, kind: MicroKind, **settings: object) -> tuple[Micro, ...]:
        """The micro-measurements of ``kind`` that have these ``settings``."""
        return tuple(
            micro
            for micro in self.micro
            if micro.kind is kind and all(micro.settings.get(name) == value for name, value in settings.items())
        )


def _check_version(values: Any, path: Path) -> None:
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version is None:
        raise ForestageError(
            f"{path}: schema_version: missing, so this is no measurement record; make one with `forestage reference "
            "measure`"
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ForestageError(
            f"{path}: schema_version: {version!r} is not known, this version of Forestage reads {SCHEMA_VERSION}; "
            "measure again, or use the version that wrote it"
        )


def now() -> str:
    """The current time, as a record's date."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
