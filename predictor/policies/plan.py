"""What a simulation or a runtime is told to decide by."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from predictor.foresight.arrays import Predictions, Values
from staging.stager.limits import StagerLimits, StagerSettings


class Missing(Enum):
    """What becomes of an expert that a gate chose and that is not on the device."""

    FETCH = "fetch"
    """It is demanded, and waited for."""
    HOST = "host"
    """The host's processor computes it where it lies."""
    SOONER = "sooner"
    """Either, as `predictor.policies.sooner` estimates to end first."""
    IN_MEMORY = "in-memory"
    """The memory in which it lies computes it."""
    SOONER_IN_MEMORY = "sooner-in-memory"
    """It is fetched or the memory computes it, likewise."""
    FROM_MEMORY = "fetch-from-memory"
    """It is fetched from that memory, which computes nothing."""

    @property
    def may_fetch(self) -> bool:
        """Whether a gate may wait for a transfer."""
        return self not in (Missing.HOST, Missing.IN_MEMORY)

    @property
    def may_compute(self) -> bool:
        """Whether an expert may be computed where it lies."""
        return self not in (Missing.FETCH, Missing.FROM_MEMORY)

    @property
    def in_memory(self) -> bool:
        """Whether experts lie in the memory that computes, and not in the host's."""
        return self in (Missing.IN_MEMORY, Missing.SOONER_IN_MEMORY, Missing.FROM_MEMORY)


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """A policy, resolved for one workload.

    Attributes:
        limits, settings: of the stager, which decides what moves and what gives way.
        missing: what becomes of missing experts.
        resident: i64, the keys (``layer · experts + expert``) on the device at the start, in this order (the last is
            the most recently used).
        fixed: whether these never give way.
        values, predictions: what is known ahead, or ``None``.
    """

    limits: StagerLimits
    settings: StagerSettings
    missing: Missing
    resident: NDArray[np.int64]
    fixed: bool
    values: Values | None
    predictions: Predictions | None
