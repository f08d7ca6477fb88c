"""The stager's commands as the engine gives them, and what each did."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from numpy.typing import NDArray

from predictor.engine.notices import Notice
from staging.stager.answers import Kind, Transfer, Why


class Source(Enum):
    """Who has a command for the stager; the first of them is served first."""

    ARRIVE = "arrive"
    """The link: a transfer is complete."""
    FAIL = "fail"
    """The link: a transfer has failed."""
    PREEMPT = "preempt"
    """The link: a transfer has stopped at a chunk for a demand."""
    URGENT = "urgent"
    """The front end: DEMAND, EXPIRE and RELEASE, in the order of the events."""
    PREFETCH = "prefetch"
    """The predictors: a coming gate's experts."""
    VALUES = "values"
    """The predictors: what a layer's experts are worth."""
    HOST = "host"
    """The registers: PRELOAD and FIX."""
    GRANT = "grant"
    """The link: it is idle."""


class CommandKind(Enum):
    """The stager's methods."""

    DEMAND = "demand"
    EXPIRE = "expire"
    RELEASE = "release"
    PREFETCH = "prefetch"
    SET_VALUES = "set_values"
    GRANT = "grant"
    PREEMPT = "preempt"
    ARRIVE = "arrive"
    FAIL = "fail"
    PRELOAD = "preload"
    FIX = "fix"


class Urgent(NamedTuple):
    """A command of the front end.

    Attributes:
        kind: DEMAND, EXPIRE or RELEASE.
        slot: whose gate.
        layer: of the experts.
        experts: that are demanded; of a RELEASE, whatever was demanded is released.
        deadline: of EXPIRE.
    """

    kind: CommandKind
    slot: int
    layer: int
    experts: tuple[int, ...]
    deadline: int


class Action(NamedTuple):
    """What happened to one expert; ``key`` is ``layer · experts + expert``."""

    kind: Kind
    key: int
    why: Why | None


@dataclass(slots=True)
class Done:
    """A command, and what it did.

    Attributes:
        kind: which.
        slot: of DEMAND and RELEASE; else 0.
        layer: of the experts; else 0.
        experts: that it named.
        chances: of PREFETCH.
        values: of SET_VALUES.
        deadline: of PREFETCH and EXPIRE; else 0.
        start: the cycle in which the stager accepted it; −1 where nobody says.
        cycles: that it took.
        actions: in order.
        transfer: of GRANT.
        notices: in order.
    """

    kind: CommandKind
    slot: int = 0
    layer: int = 0
    experts: tuple[int, ...] = ()
    chances: tuple[int, ...] = ()
    values: NDArray | None = None
    deadline: int = 0
    start: int = -1
    cycles: int = 0
    actions: list[Action] = field(default_factory=list)
    transfer: Transfer | None = None
    notices: list[Notice] = field(default_factory=list)
