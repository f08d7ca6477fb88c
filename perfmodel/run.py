"""What a simulation finds."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from predictor.policies.counts import Counts


@dataclass(kw_only=True)
class Parts:
    """What the time of the timed steps was spent on, ps; the parts sum to it exactly.

    Attributes:
        compute: kernels, for as long as their operations take.
        hbm: kernels, for as long as their bytes from HBM take beyond that.
        demand_wait: the device idles until an expert arrives that no prediction had asked for before its gate.
        late_wait: the device idles until an expert arrives that was queued or moving when its gate asked.
        host_wait: everything on the device has run, and the host's (or the memory's) result is not there.
    """

    compute: int = 0
    hbm: int = 0
    demand_wait: int = 0
    late_wait: int = 0
    host_wait: int = 0


@dataclass(eq=False, kw_only=True)
class Run:
    """What a simulation found.

    Attributes:
        step_ps: i64 ``[steps]``, duration of each timed step; 0 of the others.
        parts, counts: see their classes.
        link_busy_ps: time in which the link moved something (or was in a transfer's latency).
        host_busy_ps: time in which the host's processor, or the memory, computed.
    """

    step_ps: NDArray[np.int64]
    parts: Parts = field(default_factory=Parts)
    counts: Counts = field(default_factory=Counts)
    link_busy_ps: int = 0
    host_busy_ps: int = 0

    def less(self, before: "Run") -> "Run":
        """What came after ``before``, a run of the first steps of this one alone.

        Bytes that were on the link when those ended count there, as abandoned ones, and so far fewer here.
        """
        step_ps = self.step_ps.copy()
        step_ps[: len(before.step_ps)] = 0
        return Run(
            step_ps=step_ps,
            parts=Parts(**_differences(self.parts, before.parts)),
            counts=Counts(**_differences(self.counts, before.counts)),
            link_busy_ps=self.link_busy_ps - before.link_busy_ps,
            host_busy_ps=self.host_busy_ps - before.host_busy_ps,
        )


def _differences(of: Parts | Counts, before: Parts | Counts) -> dict[str, int]:
    return {name: number - getattr(before, name) for name, number in vars(of).items()}
