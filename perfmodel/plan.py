"""What a simulation is told to decide by, and what it finds."""

from dataclasses import dataclass, field
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
    """Either, as `perfmodel.sooner` estimates to end first."""


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


@dataclass(kw_only=True)
class Parts:
    """What the time of the timed steps was spent on, ps; the parts sum to it exactly.

    Attributes:
        compute: kernels, for as long as their operations take.
        hbm: kernels, for as long as their bytes from HBM take beyond that.
        demand_wait: the device idles until an expert arrives that no prediction had asked for before its gate.
        late_wait: the device idles until an expert arrives that was queued or moving when its gate asked.
        host_wait: everything on the device has run, and the host's result is not there.
    """

    compute: int = 0
    hbm: int = 0
    demand_wait: int = 0
    late_wait: int = 0
    host_wait: int = 0


@dataclass(kw_only=True)
class Counts:
    """Over the timed steps, in experts unless it says otherwise.

    Attributes:
        lookups: needed, distinct, of each (step, layer).
        hits: resident when the gate asked.
        fetched: missing, and demanded.
        computed: missing, and computed by the host.
        demands: transfers that began for a gate.
        late: transfers that began without a gate waiting, and arrived for one.
        ahead: transfers that arrived without a gate waiting.
        useful, wasted: of ``ahead``: demanded later; evicted before.
        dropped, refused, evicted: as `staging.stager.answers.StagerCounters`.
        abandoned_bytes: moved for transfers that were given up, or were on the link at the end (whole chunks).
    """

    lookups: int = 0
    hits: int = 0
    fetched: int = 0
    computed: int = 0
    demands: int = 0
    late: int = 0
    ahead: int = 0
    useful: int = 0
    wasted: int = 0
    dropped: int = 0
    refused: int = 0
    evicted: int = 0
    abandoned_bytes: int = 0


@dataclass(eq=False, kw_only=True)
class Run:
    """What a simulation found.

    Attributes:
        step_ps: i64 ``[steps]``, duration of each timed step; 0 of the others.
        parts, counts: see their classes.
        link_busy_ps: time in which the link moved something (or was in a transfer's latency).
        host_busy_ps: time in which the host's processor computed.
    """

    step_ps: NDArray[np.int64]
    parts: Parts = field(default_factory=Parts)
    counts: Counts = field(default_factory=Counts)
    link_busy_ps: int = 0
    host_busy_ps: int = 0
