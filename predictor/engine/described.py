"""Enumerations whose members carry a line of prose, from which register tables are made."""

from enum import IntEnum, IntFlag
from typing import Self


class DescribedEnum(IntEnum):
    """A member is its number and its meaning.

    Attributes:
        meaning: a line for a table.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """A member of this number and meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class DescribedFlag(IntFlag):
    """A single flag is its bit and its meaning; several together, or none, have no meaning of their own.

    Attributes:
        meaning: a line for a table.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        """A member of this bit and meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member
