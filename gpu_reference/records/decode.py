"""Decoding measured: one policy, one number of places, one batch, one regime."""

from typing import Literal, Self

from pydantic import Field, model_validator

from catalog.config import StrictModel
from gpu_reference.records.summary import Seconds, Summary
from predictor.policies.policy import Policy
from staging.results import Scope

Regime = Literal["real sizes", "small experts", "throttled"]
"""``real sizes``: the model's experts over the link as it is; ``small experts``: with a smaller inner width, so that
the link keeps up; ``throttled``: over a link made slower."""


class Regimen(StrictModel):
    """What an expert and the link are in a regime.

    Attributes:
        name: which regime.
        expert_intermediate: inner width of the experts.
        expert_bytes: of one expert, as the link moves it.
        format: of the experts' matrices.
        throttle_gb_per_s: what the link is slowed down to; ``None``: nothing.
    """

    name: Regime
    expert_intermediate: int = Field(ge=1)
    expert_bytes: int = Field(ge=1)
    format: str
    throttle_gb_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _throttled(self) -> Self:
        if (self.name == "throttled") != (self.throttle_gb_per_s is not None):
            raise ValueError("throttle_gb_per_s: belongs to the regime 'throttled', and to no other; measure again")
        return self


class TracePart(StrictModel):
    """Which steps of the record's trace were decoded, so that a simulation can run the very same.

    Attributes:
        sequences: of the trace, those that were begun, in order.
        batch: sequences decoded at once.
        warm_steps: decode steps that ran before, untimed.
        steps: decode steps that were timed, after them; `predictor.policies.material.part_of_steps` has the order.
        tokens: of the timed steps.
    """

    sequences: tuple[int, ...] = Field(min_length=1)
    batch: int = Field(ge=1)
    warm_steps: int = Field(ge=0)
    steps: int = Field(ge=1)
    tokens: int = Field(ge=1)


class Tuning(StrictModel):
    """How a policy's free settings were chosen: by measuring on other tokens.

    Attributes:
        part: the tokens on which it was measured, of the training part.
        share: of experts held meanwhile.
        tried: policies measured.
    """

    part: TracePart
    share: float = Field(gt=0, le=1)
    tried: int = Field(ge=1)


class Decode(StrictModel):
    """One measured row.

    Attributes:
        row: the policy's name in tables.
        policy: the policy.
        tuning: how its free settings were chosen; ``None`` where it has none.
        scope: ``layer`` (each layer has its share of the places) or ``global``.
        share: of all routed experts, those that the device holds.
        places: experts that it holds, in all.
        regimen: what an expert and the link are.
        part: what was decoded.
        mode: whether a layer's fixed parts ran ``eager`` or as a CUDA ``graph``.
        kernel: of the experts on the device.
        foresight: ``none``, known ahead as ``arrays``, or predicted while decoding (``online``).
        distances, prefetched: of learned predictions; 0 experts: nothing is predicted.
        host_threads: of the processor that computes experts; 0: it computes none.
        tpot_s: time of a step, over the timed steps (time per output token of each sequence).
        hit_rate: of look-ups, those that were resident.
        moved_bytes: over the link, in the timed steps.
        stall_s: time that the device was idle for an expert, in the timed steps.
        link_busy_s: time that the link moved, in the timed steps.
        counts: as `predictor.policies.counts.Counts`.
        output_digest: SHA-256 (hex) of the timed steps' outputs.
        matches_resident: whether these are those of the run with every expert on the device, bit for bit; ``None``: not
            compared.
    """

    row: str = Field(min_length=1)
    policy: Policy
    tuning: Tuning | None = None
    scope: Scope
    share: float = Field(gt=0, le=1)
    places: int = Field(ge=0)
    regimen: Regimen
    part: TracePart
    mode: Literal["eager", "graph"]
    kernel: str
    foresight: Literal["none", "arrays", "online"]
    distances: tuple[int, ...] = ()
    prefetched: int = Field(default=0, ge=0)
    host_threads: int = Field(default=0, ge=0)
    tpot_s: Summary
    hit_rate: float = Field(ge=0, le=1)
    moved_bytes: int = Field(ge=0)
    stall_s: Seconds
    link_busy_s: Seconds
    counts: dict[str, int]
    output_digest: str
    matches_resident: bool | None = None
