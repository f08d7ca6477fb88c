"""What a run counts and takes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from predictor.policies.counts import Counts
from staging.stager.answers import StagerCounters

OF_THE_STAGER = ("useful", "wasted", "dropped", "refused", "evicted")
"""Counts that are the stager's."""


@dataclass(kw_only=True)
class Statistics:
    """Of a run, or of its timed steps.

    Attributes:
        counts: in the words of `predictor.policies.counts`.
        asked_in_flight: of ``late``: the stager took them for resident, as no chunk of theirs was left to queue.
        moved_bytes: over the link, into places.
        stall_s: in which the device had nothing to do but wait for an expert (by the device's clock; the host's on a
            CPU): from the last work launched before to where the copy is complete.
        host_wait_s: likewise, for what the host's processor computes.
        gate_wait_s: in which the host waited for a gate's ids (and pumped the link).
        foresight_s: of the host, for asking what is known ahead and telling the stager.
        link_busy_s: from queueing a chunk to seeing that none is left, by the host's clock.
    """

    counts: Counts = field(default_factory=Counts)
    asked_in_flight: int = 0
    moved_bytes: int = 0
    stall_s: float = 0.0
    host_wait_s: float = 0.0
    gate_wait_s: float = 0.0
    foresight_s: float = 0.0
    link_busy_s: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Hits by lookups; of no lookup 0."""
        return self.counts.hits / self.counts.lookups if self.counts.lookups else 0.0

    def heed(self, counters: StagerCounters) -> None:
        """Take over what the stager counts.

        What was asked for in flight came for a gate, so it is none of what came ahead and was useful.
        """
        for name in OF_THE_STAGER:
            setattr(self.counts, name, getattr(counters, name))
        self.counts.useful -= self.asked_in_flight

    def copy(self) -> Statistics:
        """As they are now."""
        return Statistics(**{**vars(self), "counts": Counts(**vars(self.counts))})

    def add_since(self, before: Statistics, now: Statistics) -> None:
        """Add what has come between ``before`` and ``now``."""
        for name in (entry.name for entry in fields(Statistics)):
            if name != "counts":
                setattr(self, name, getattr(self, name) + getattr(now, name) - getattr(before, name))
        for name, count in vars(self.counts).items():
            setattr(self.counts, name, count + getattr(now.counts, name) - getattr(before.counts, name))

    def check(self, expert_bytes: int | None = None) -> None:
        """What holds of every run; with ``expert_bytes`` also of what moved (of a whole run that is closed)."""
        counts = self.counts
        assert counts.lookups == counts.hits + counts.fetched + counts.computed, f"a lookup is unaccounted for: {self}"
        assert counts.fetched == counts.demands + counts.late, (
            f"an expert that was waited for did not come by one transfer: {self}"
        )
        if expert_bytes is not None:
            whole = (counts.demands + counts.late + counts.ahead) * expert_bytes
            assert self.moved_bytes == whole + counts.abandoned_bytes, f"bytes are unaccounted for: {self}"
