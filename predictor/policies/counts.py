"""What a run of a policy counts, simulated or measured: one meaning for each word."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Counts:
    """Over the timed steps, in experts unless it says otherwise.

    Attributes:
        lookups: needed, distinct, of each (step, layer).
        hits: resident when the gate asked.
        fetched: missing, and demanded.
        computed: missing, and computed where they lie: by the host, or by the memory.
        demands: transfers that began for a gate.
        late: transfers that began without a gate waiting, and arrived for one.
        ahead: transfers that arrived without a gate waiting.
        useful, wasted: of ``ahead``: demanded later; evicted before.
        dropped, refused, evicted: as `staging.stager.answers.StagerCounters`. These, with ``useful`` and ``wasted``, a
            simulation counts in steps that are not timed, too, so they are not compared with measured ones.
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
