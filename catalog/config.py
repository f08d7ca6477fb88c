"""The base of every configuration object and catalogue record."""

import difflib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from catalog.errors import ForestageError, SettingError


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

    @classmethod
    def parse_settings(cls, values: dict[str, Any], *, origin: str = "") -> Self:
        """As ``parse``, for ``values`` that a user gave: the error carries the setting, so that a command can name it.

        ``origin`` may be left out if the class holds a command's own options.

        Raises:
            SettingError: one line naming ``origin`` and the field; it carries the field and the remedy.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            message = (f"{origin}: " if origin else "") + describe_validation_error(cls, error)
            fault = _first_fault(error)
            settings = tuple(part for part in fault["loc"] if isinstance(part, str))
            if not settings or fault["type"] == "extra_forbidden":
                raise ForestageError(message) from error
            value = fault["input"] if len(settings) < len(fault["loc"]) else None  # an entry of a list
            raise SettingError(settings, _remedy(fault), value=value, message=message) from error


def describe_validation_error(model: type[BaseModel], error: ValidationError) -> str:
    """The first fault of a pydantic error as one line: field, what is wrong, remedy."""
    first = _first_fault(error)
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = sorted(_fields_at(model, first["loc"][:-1]))
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        return (
            f"unknown key '{field}'; the nearest known key is '{nearest[0]}'" if nearest else f"unknown key '{field}'"
        )
    said = str(first["msg"]).removeprefix("Value error, ")
    return f"{field}: {said}" if field else said


def _first_fault(error: ValidationError) -> Any:
    """The fault to report."""
    faults = error.errors()
    # A misspelt required key is both missing and unknown; the fault of the unknown key names the remedy.
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


_REMEDIES = {
    "greater_than_equal": "give {ge} or more",
    "greater_than": "give a number above {gt}",
    "less_than_equal": "give {le} or less",
    "less_than": "give a number below {lt}",
    "literal_error": "choose {expected}",
    "enum": "choose {expected}",
    "string_too_short": "is empty; give a text",
    "finite_number": "give a finite number",
}
"""What to give instead, by pydantic's name for the fault."""


def _remedy(fault: Any) -> str:
    """What to give instead, in the words of a user."""
    if fault["type"] in _REMEDIES:
        limits = {
            name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in fault.get("ctx", {}).items()
        }
        return _REMEDIES[fault["type"]].format(**limits)
    return str(fault["msg"]).removeprefix("Value error, ")


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
