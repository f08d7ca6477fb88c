"""What a simulation returns, as JSON values."""

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from perfmodel.config import SimulationConfig
from perfmodel.decode import Parts
from perfmodel.policies import PolicyCounts
from perfmodel.transfers import LinkBytes
from perfmodel.units import PS_PER_S


class Result(BaseModel):
    """A frozen document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenTime(Result):
    """Time per output token over the decode tokens, seconds; a percentile is the time of an actual token."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float

    @classmethod
    def of(cls, token_ps: list[int]) -> Self:
        """From the duration of each decode token."""
        p50, p95, p99 = np.percentile(np.asarray(token_ps, np.int64), [50, 95, 99], method="inverted_cdf").tolist()
        return cls(
            mean_s=sum(token_ps) / len(token_ps) / PS_PER_S,
            p50_s=p50 / PS_PER_S,
            p95_s=p95 / PS_PER_S,
            p99_s=p99 / PS_PER_S,
        )


class Breakdown(Result):
    """How all decode tokens' time was spent; see `perfmodel.decode.Parts`. The parts sum to ``total_ps`` exactly."""

    total_ps: int
    compute_ps: int
    hbm_ps: int
    demand_wait_ps: int
    late_prefetch_wait_ps: int
    engine_latency_ps: int

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """From the decode loop's sums."""
        return cls(
            total_ps=parts.total,
            compute_ps=parts.compute,
            hbm_ps=parts.hbm,
            demand_wait_ps=parts.demand_wait,
            late_prefetch_wait_ps=parts.late_prefetch_wait,
            engine_latency_ps=parts.engine_latency,
        )

    def per_token_s(self, tokens: int) -> dict[str, float]:
        """Each part as its share of the mean TPOT, seconds."""
        parts = self.model_dump(exclude={"total_ps"})
        return {name.removesuffix("_ps") + "_s": value / tokens / PS_PER_S for name, value in parts.items()}


class TransferredBytes(Result):
    """Bytes over the host link, by kind; see `perfmodel.transfers.LinkBytes`."""

    total: int
    demand: int
    prefetch_useful: int
    prefetch_late: int
    prefetch_wasted: int

    @classmethod
    def of(cls, moved: LinkBytes) -> Self:
        """From the link's sums."""
        return cls(
            total=moved.total,
            demand=moved.demand,
            prefetch_useful=moved.prefetch_useful,
            prefetch_late=moved.prefetch_late,
            prefetch_wasted=moved.prefetch_wasted,
        )


class ExpertCounts(Result):
    """What became of lookups and prefetches, in experts; see `perfmodel.policies.PolicyCounts` for each count.

    Attributes:
        hit_rate: ``hits / lookups``.
        accuracy: ``used_at_target / issued``; ``None`` where nothing was issued.
        timeliness: share of the used prefetches that arrived in time: ``useful / (useful + late)``; ``None`` for none.
    """

    lookups: int
    hits: int
    hit_rate: float
    predicted: int
    overdue: int
    issued: int
    used_at_target: int
    useful: int
    late: int
    wasted: int
    dropped: int
    refused: int
    polluted: int
    accuracy: float | None
    timeliness: float | None

    @classmethod
    def of(cls, counts: PolicyCounts) -> Self:
        """From the policy's counts."""
        used = counts.useful + counts.late
        return cls(
            **vars(counts),
            hit_rate=counts.hits / counts.lookups,
            accuracy=counts.used_at_target / counts.issued if counts.issued else None,
            timeliness=counts.useful / used if used else None,
        )


class Bounds(Result):
    """Bounds to compare every policy of the same configuration with; mean TPOT, seconds.

    Attributes:
        on_demand_s: no cache, no prediction.
        no_prefetch_s: the cache alone (LRU), no prediction: the floor that a predictor must clear.
        perfect_prefetch_s: the same cache, link and lookahead with an oracle. It bounds predictors that issue only
            what the target layer needs; what one issues beyond that may serve a later token.
        all_resident_s: every expert in HBM, no transfer at all: no policy is faster.
        link_roofline_s: the bytes that Belady's cache must load, over the link's bandwidth: no policy with a cache of
            that size and scope is faster, on a trace without prompt tokens.
        lru_hit_rate, belady_hit_rate: of the cache's size and scope, event-atomic (`staging.simulate`).

    Those that need a cache are ``None`` where the configuration has no capacity.
    """

    on_demand_s: float
    no_prefetch_s: float | None = None
    perfect_prefetch_s: float | None = None
    all_resident_s: float
    link_roofline_s: float | None = None
    lru_hit_rate: float | None = None
    belady_hit_rate: float | None = None


class SimulationResult(Result):
    """One policy on one trace.

    Attributes:
        policy: its name.
        routing_of: the model whose routing was recorded.
        sizes_of: the catalogue model whose layer and expert sizes were used.
        synthetic: whether the trace was made by a generator.
        machine: catalogue name.
        config: the configuration, as resolved.
        sequences, decode_tokens: how many were simulated, batch 1, one sequence after the other.
        prompt_tokens: recorded prompt tokens; they warm the cache at no time and are not counted.
        capacity_experts: of the cache, ``None`` for a policy without one.
        expert_bytes: what one fetch moves.
        link_gb_per_s: of the host link.
        tpot, breakdown, bytes, experts: see their classes.
        tpot_parts_s: `Breakdown.per_token_s`.
        utilisation: busy share of each resource over the whole run, waits between sequences included.
        bounds: ``None`` where they were not asked for.
    """

    policy: str
    routing_of: str
    sizes_of: str
    synthetic: bool
    machine: str
    config: SimulationConfig
    sequences: int
    decode_tokens: int
    prompt_tokens: int
    capacity_experts: int | None
    expert_bytes: int
    link_gb_per_s: float
    tpot: TokenTime
    breakdown: Breakdown
    tpot_parts_s: dict[str, float]
    bytes: TransferredBytes
    experts: ExpertCounts
    utilisation: dict[str, float]
    bounds: Bounds | None
