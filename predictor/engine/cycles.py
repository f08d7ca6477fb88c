"""Cycles of the engine's own parts; those of stager, net, tables and transfers are told where they are specified."""

URGENT_CYCLES = 2
"""From an event's acceptance to its command being on offer to the stager: checked, queued."""
EXPIRE_CYCLES = 3
"""As much of the EXPIRE of a gate that is the last of its layer: queued behind its DEMAND."""
KNOWN_CYCLES = 2
"""From an event's acceptance to its being on offer to the predictor."""
EVENT_INTERVAL = 2
"""From an event's acceptance to that of the next."""
EXPIRE_INTERVAL = 3
"""As much of a gate that is the last of its layer."""
NOTICE_CYCLES = 1
"""From the cycle in which something is told to its notice being on offer."""


def fifo_depth(slots_max: int) -> int:
    """Entries of the queue of urgent commands, and of the queue of events for the predictor."""
    return 2 * max(2, slots_max)
