"""The base of every configuration object and catalogue record."""

import difflib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from catalog.errors import ForestageError


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: dict[str, Any], *, origin: str) -> Self:
        """Validate ``values`` that came from ``origin`` (a file or an option, named in the error).

        Raises:
            ForestageError: one line naming the origin and the field; an unknown key names the nearest known one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ForestageError(f"{origin}: {describe_validation_error(cls, error)}") from error


def describe_validation_error(model: type[BaseModel], error: ValidationError) -> str:
    """The first fault of a pydantic error as one line: field, what is wrong, remedy."""
    faults = error.errors()
    # A misspelt required key is missing and unknown at once; the unknown one names the remedy.
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    field = ".".join(str(part) for part in first["loc"]) or "(top level)"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = sorted(_fields_at(model, first["loc"][:-1]))
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        return (
            f"unknown key '{field}'; the nearest known key is '{nearest[0]}'" if nearest else f"unknown key '{field}'"
        )
    return f"{field}: {first['msg']}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Names of the fields of the (possibly nested) model at a pydantic error location."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            annotation = current.model_fields[part].annotation if part in current.model_fields else None
            candidates = [annotation, *getattr(annotation, "__args__", ())]
            nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
            current = nested[0] if nested else current
    return set(current.model_fields)
