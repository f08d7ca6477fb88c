"""Belady's bound: evict what is needed farthest in the future.

With experts of one size and every event counted, no policy that keeps the stager's event rule has more hits (Belady
1966, "A study of replacement algorithms for a virtual-storage computer"; the event rule only bars the event's own
experts from eviction, and the exchange argument holds among the others). It is a heuristic, and close, but no proven
bound, where experts differ in size, or where only decode is counted while prefill also fills the cache.
"""

import numpy as np
from numpy.typing import NDArray

from staging.events import Events, next_uses

_MOST_EVENTS = 1 << 31


def belady_values(events: Events) -> NDArray[np.int32]:
    """The value of each used expert from that use on i32 ``[uses]``: the later its next use, the lower.

    Of equals, which are needed at the same event or never again, it makes no difference to the hits who gives way.

    Raises:
        ValueError: for 2^31 events or more.
    """
    if len(events.layer) >= _MOST_EVENTS:
        raise ValueError(f"{len(events.layer)} events: Belady's values have 32 bits; run fewer")
    return (-np.minimum(next_uses(events), _MOST_EVENTS)).astype(np.int32)
