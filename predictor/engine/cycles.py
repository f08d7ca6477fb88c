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
FIRST_EXPERT_CYCLES = 5
"""From a DEMAND's being taken to the cycle in which its first expert is told HERE or ELSEWHERE."""
EXPERT_CYCLES = 4
"""From one expert of a DEMAND to the next."""
NOTICE_CYCLES = 1
"""From the cycle in which something is told to its notice being on offer."""


def fifo_depth(slots_max: int) -> int:
    """Entries of the queue of urgent commands, and of the queue of events for the predictor."""
    return 2 * max(2, slots_max)
