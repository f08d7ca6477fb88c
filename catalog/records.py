"""What all catalogue records share: a name, and the source of each value."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from catalog.config import StrictModel

PositiveInt = Annotated[int, Field(gt=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Evidence(StrEnum):
    """How a value is known."""

    PRIMARY = "P"
    """Its publisher's own record, data sheet, configuration or source code."""
    SECONDARY = "S"
    """A summary of the publication: second-hand."""
    MEASURED = "M"
    """Measured for this project; the source says how."""
    BACKGROUND = "B"
    """Background knowledge, not looked up."""
    ASSUMPTION = "assumption"
    """Published nowhere; sweep over it."""


class Source(StrictModel):
    """Where a value comes from.

    Attributes:
        source: citation, measured record, or the reasoning behind an assumption.
        evidence: how the value is known.
    """

    source: str = Field(min_length=1)
    evidence: Evidence


class Record(StrictModel):
    """A catalogue record; ``source`` and ``evidence`` apply to every field that ``field_sources`` does not name.

    Attributes:
        name: unique among the records of its kind, whatever the case.
        aliases: other names by which it is found.
        source: where the values come from.
        evidence: how they are known.
        field_sources: field → its own source, where that differs.
    """

    name: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    source: str = Field(min_length=1)
    evidence: Evidence
    field_sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sources_name_fields(self) -> "Record":
        own = {*Record.model_fields}
        for field in self.field_sources:
            if field in own or field not in type(self).model_fields:
                raise ValueError(f"field_sources names '{field}', which is no value of this record")
        return self

    def source_of(self, field: str) -> Source:
        """Where the value of ``field`` comes from."""
        return self.field_sources.get(field, Source(source=self.source, evidence=self.evidence))
