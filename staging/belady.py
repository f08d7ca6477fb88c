"""Belady's bound: evict what is needed farthest in the future.

With experts of one size and every event counted, no policy that keeps the event rule of ``staging.residency`` has more
hits (Belady 1966, "A study of replacement algorithms for a virtual-storage computer"; the event rule only bars the
event's own experts from eviction, and the exchange argument holds among the others). It is a heuristic, and close,
but no proven bound, where experts differ in size, or where only decode is counted while prefill also fills the cache.
"""

import numpy as np
from numpy.typing import NDArray

from staging.events import NEVER, Events, next_uses


def belady_ranks(events: Events) -> NDArray[np.int64]:
    """Rank of each use i64 ``[uses]``: the later the next use, the lower; the lowest gives way first."""
    return NEVER - next_uses(events)
