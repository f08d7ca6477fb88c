"""Policies by name: what gives way, what is known ahead, and what becomes of an expert that is missing.

A policy is one of each of three: *eviction* (the values by which residents give way), *prefetch* (predictions for
coming layers), and *missing* (a missing expert is fetched, computed where it lies, by the host's processor or by the
memory, or whichever ends sooner).
*Background* loads also move what is worth having while nothing waits, if it is worth more than what gives way by
``price``.
"""

from collections.abc import Mapping
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.foresight.arrays import Predictions, Values
from predictor.policies.plan import Missing, Plan
from staging.results import Scope
from staging.stager.limits import StagerLimits, StagerSettings

QUEUE_DEPTH = 32
"""Transfers that wait, at least; deeper where a layer needs more experts at once."""

LEAST_VALUE_BITS = 16

MOST_PRICE = (1 << 24) - 1
"""Of the stager's 24 bits: 256 certain uses."""


class Eviction(Enum):
    """By what value residents give way."""

    STATIC = "static"
    """None does: the experts most used in the training part stay."""
    LRU = "lru"
    FREQUENCY = "decayed-frequency"
    """Decayed use counters (`staging.frequency`)."""
    ACTIVATION = "activation"
    """What the sequence has used so far, after MoE-Infinity (`predictor.activation`)."""
    LEARNED = "learned"
    """The chances of a use within 2, 4, 8 and 16 tokens, added up (`predictor.next_use`)."""
    ORACLE = "oracle"
    """The same with every chance 0 or 1, as the trace goes on: the same question without an error."""
    USES = "oracle-uses"
    """How often the coming tokens (`parts.USES_HORIZON`) need the expert: what counts where moving has a price,
    as each use of what is held saves the same time."""
    BELADY = "belady"
    """Belady's rule: the next use exactly."""


class Prefetch(Enum):
    """By what predictions experts are fetched for coming layers."""

    NONE = "none"
    ST_MOE = "st-moe"
    ACTIVATION = "activation"
    LEARNED = "learned"
    PERFECT = "perfect"


class Policy(StrictModel):
    """See the module's description.

    Attributes:
        eviction, prefetch, missing: see their classes.
        background: whether what is worth having moves while nothing waits.
        price: what a transfer that no gate waits for must be worth beyond what gives way: units of the values.
        chance_scale: worth of a prediction's chance against a value's.
    """

    eviction: Eviction
    prefetch: Prefetch = Prefetch.NONE
    missing: Missing = Missing.FETCH
    background: bool = False
    price: int = Field(default=0, ge=0, le=MOST_PRICE)
    chance_scale: int = Field(default=1, ge=0, lt=1 << 24)

    @model_validator(mode="after")
    def _static_stays(self) -> "Policy":
        if self.eviction is Eviction.STATIC and (self.background or self.prefetch is not Prefetch.NONE):
            raise ValueError("a static placement moves nothing: leave out prefetch and background")
        if self.eviction is Eviction.STATIC and self.missing.may_fetch:
            raise ValueError("a static placement fetches nothing: let host or memory compute what is missing")
        if self.background and self.eviction is Eviction.LRU:
            raise ValueError("background loads compare values, and recency is none: choose another eviction")
        return self

    @property
    def is_learned(self) -> bool:
        """Whether it needs a trained predictor."""
        return self.eviction is Eviction.LEARNED or self.prefetch is Prefetch.LEARNED

    @property
    def is_oracle(self) -> bool:
        """Whether it knows what has not happened yet."""
        return self.eviction in (Eviction.ORACLE, Eviction.USES, Eviction.BELADY) or self.prefetch is Prefetch.PERFECT

    @property
    def name(self) -> str:
        """In words."""
        words = [self.eviction.value]
        if self.prefetch is not Prefetch.NONE:
            words.append(f"{self.prefetch.value} prefetch")
        if self.background:
            words.append("background loads")
        return " + ".join(words)


def plan_of(
    policy: Policy,
    *,
    layers: int,
    experts: int,
    most_needed: int,
    places: int,
    scope: Scope,
    hottest: NDArray[np.int64],
    values: Mapping[Eviction, Values],
    predictions: Mapping[Prefetch, Predictions],
) -> Plan:
    """``policy`` for one workload.

    Args:
        policy: which.
        layers, experts: of the routing.
        most_needed: experts that a layer needs at once, at most.
        places: experts that the device holds, in all.
        scope: ``layer``: each layer has its share; ``global``: all layers share them.
        hottest: i64 ``[places]``, keys that the device holds at the start, the hottest last.
        values, predictions: what is known ahead, by kind.

    Raises:
        ForestageError: where the policy needs what is not given.
    """
    own_values = {Eviction.STATIC: None, Eviction.LRU: None}
    if policy.eviction not in own_values and policy.eviction not in values:
        raise ForestageError(f"policy {policy.name}: values of '{policy.eviction.value}' are not given")
    if policy.prefetch is not Prefetch.NONE and policy.prefetch not in predictions:
        raise ForestageError(f"policy {policy.name}: predictions of '{policy.prefetch.value}' are not given")
    known = values.get(policy.eviction)
    most = 0 if known is None else known.most
    shares = (places // layers,) * layers if scope == "layer" else (places,)
    return Plan(
        limits=StagerLimits(
            layers=layers,
            experts=experts,
            places=places,
            spare=experts,
            queue_depth=max(QUEUE_DEPTH, most_needed),
            event_experts=most_needed,
            value_bits=max(LEAST_VALUE_BITS, most.bit_length() + 1),
            scale_bits=24,
        ),
        settings=StagerSettings(
            shares=shares,
            price=policy.price,
            chance_scale=policy.chance_scale,
            by_recency=known is None,
            background=policy.background,
        ),
        missing=policy.missing,
        resident=hottest,
        fixed=policy.eviction is Eviction.STATIC,
        values=known,
        predictions=predictions.get(policy.prefetch),
    )
