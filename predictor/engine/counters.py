"""What the prefetch engine counts, in the order of its counter registers."""

from predictor.engine.described import DescribedEnum


class EngineCounter(DescribedEnum):
    """Experts are counted unless it says otherwise; ``wasted`` and ``useful`` as in ``StagerCounters``.

    ``LOADS_DEMANDED``, ``LOADS_LATE`` and ``LOADS_AHEAD`` are the system model's ``demands``, ``late`` and ``ahead``.
    """

    EVENTS = 0, "events accepted, rejected ones included"
    REJECTED = 1, "of these, events rejected for an error"
    STEPS = 2, "TOKENs that began a step"
    TOKENS = 3, "TOKENs not rejected"
    GATES = 4, "GATEs not rejected"
    PREDICTIONS = 5, "predictions told to the stager"
    ISSUED = 6, "experts named in them"
    VALUES = 7, "rows of values told to the stager"
    HITS = 8, "demanded and resident"
    WAITS = 9, "demanded and absent"
    PROMOTED = 10, "demanded while queued or moving for a prediction, or for another demand"
    ELSEWHERE = 11, "missing and left to be computed where they lie"
    LOADS_DEMANDED = 12, "transfers that began for a demand"
    LOADS_LATE = 13, "transfers that began without a demand, and arrived for one"
    LOADS_AHEAD = 14, "transfers that arrived without a demand"
    USEFUL = 15, "arrived without a demand, and demanded later"
    USELESS = 16, "arrived without a demand, and evicted before anybody asked"
    CANCELLED = 17, "queued or moving, and given up"
    REFUSED = 18, "predicted and not queued"
    EVICTED = 19, "residents that gave way"
    PAUSED = 20, "transfers stopped at a chunk for a demand"
    PASSED = 21, "transfers without a place of their own"
    QUEUE_FULL = 22, "refused, or given up, as the queue was full"
    RETRIED = 23, "transfers that failed and wait again"
    FAILED = 24, "transfers that failed and were given up"
    BYTES = 25, "bytes written to the staging buffer"
    TEXT_LATE = 26, "GATEs of layer 0 that waited for the memory of the text"
    STALL_CYCLES = 27, "cycles in which a GATE's demands were outstanding"
    READ_BUSY_CYCLES = 28, "cycles with a beat on far memory's read channel"
    READ_IDLE_CYCLES = 29, "cycles without one while a transfer was under way"
    EVENT_WAIT_CYCLES = 30, "cycles in which an event waited to be accepted"
    ANSWER_WAIT_CYCLES = 31, "cycles in which an answer waited for the stager"
    STAGER_CYCLES = 32, "cycles in which the stager worked on a command"
    CANDIDATE_HITS = 33, "tables: verified candidates that were needed"
    CANDIDATE_MISSES = 34, "tables: verified candidates that were not needed"
    UPDATES = 35, "tables: rows written back"
    REPLACEMENTS = 36, "tables: candidates replaced"


CYCLE_COUNTERS = (
    EngineCounter.STALL_CYCLES,
    EngineCounter.READ_BUSY_CYCLES,
    EngineCounter.READ_IDLE_CYCLES,
    EngineCounter.EVENT_WAIT_CYCLES,
    EngineCounter.ANSWER_WAIT_CYCLES,
    EngineCounter.STAGER_CYCLES,
)
"""Those that count cycles, so that they depend on how channels wait."""
