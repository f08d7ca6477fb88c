"""The commands of a pseudo-channel, and the parts of a device within which a timing constraint holds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar


class Command(StrEnum):
    """The commands of a memory controller's pseudo-channel; with in-bank access, ``RD`` is an all-bank operation."""

    ACT = "ACT"
    PRE = "PRE"
    PREAB = "PREab"
    RD = "RD"
    WR = "WR"
    REFAB = "REFab"
    REFPB = "REFpb"


class UnitCommand(StrEnum):
    """The commands of the PIM expert unit; a *half* is the first (or the second) bank of every block.

    ``ACT`` opens a row of one bank; ``PREH`` closes a half; ``PREab`` closes all banks; ``REFab`` refreshes all banks;
    ``PIM`` reads a column of every bank of one half into its block; ``LDI`` writes a burst into an input register of
    every block; ``RDA`` reads a burst of accumulators or constants out of one block.
    """

    ACT = "ACT"
    PREH = "PREH"
    PREAB = "PREab"
    REFAB = "REFab"
    PIM = "PIM"
    LDI = "LDI"
    RDA = "RDA"


class Scope(StrEnum):
    """The part of the device that two commands must share for a constraint between them to hold."""

    COMMAND_BUS = "shared command buses"
    CHANNEL = "pseudo-channel"
    OTHER_STACK_ID = "different stack IDs"
    BANK_GROUP = "same bank group"
    BANK = "same bank"
    HALF = "same half"


CommandT = TypeVar("CommandT", Command, UnitCommand)


@dataclass(frozen=True)
class TimingConstraint(Generic[CommandT]):
    """``following`` comes at least ``latency_ck`` after the ``window``-th last ``preceding`` command in ``scope``.

    Attributes:
        name: What the constraint is called.
        preceding: The earlier command, any of these.
        following: The later command, any of these.
        latency_ck: Least distance in clocks.
        scope: What both must share. A command without that part (PREab and REFab have no bank, LDI and RDA no half)
            appears only in constraints of the scope `Scope.CHANNEL`.
        window: Which of the preceding commands in the scope counts: 1 for the last, 4 for the fourth last.
    """

    name: str
    preceding: tuple[CommandT, ...]
    following: tuple[CommandT, ...]
    latency_ck: int
    scope: Scope
    window: int = 1
