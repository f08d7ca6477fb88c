"""Parameters of ST-MoE's tables: the algorithm's open choices, the hardware's limits, and one run's configuration.

What the paper leaves open (how several rows aggregate, the history table's confidence, which expert replaces a
candidate) is a parameter here; the defaults are those that reproduce the published-trace figures of
``docs/predictors.md``.
"""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from traces import RoutingTrace

CONFIDENCE_BITS = 2
CONFIDENCE_MAX = (1 << CONFIDENCE_BITS) - 1
DOMAIN_BITS = 3
DOMAINS_MOST = 1 << DOMAIN_BITS
"""Domains that an event can name."""

Aggregation = Literal["max", "sum"]
Replacement = Literal["none", "ranked", "reversed"]

# What registers and compiled code call them.
AGGREGATION_CODES: dict[str, int] = {"max": 0, "sum": 1}
REPLACEMENT_CODES: dict[str, int] = {"none": 0, "ranked": 1, "reversed": 2}


class TablePolicy(StrictModel):
    """How the tables predict and adapt; their one home of defaults and ranges.

    Attributes:
        aggregation: how the confidences of one candidate in several selected rows become one: ``max`` or ``sum``.
        ht_confidence: what being in the history table (HT) adds to a score.
        threshold: smallest score that is prefetched.
        replacement: which needed experts that a row does not list replace its given-up candidates: in the order of the
            event (``ranked``: the router's favourite first), ``reversed``, or ``none`` do.
        replacement_confidence: of a candidate that has just replaced another.
    """

    aggregation: Aggregation = "max"
    ht_confidence: int = Field(default=1, ge=0, le=CONFIDENCE_MAX)
    threshold: int = Field(default=2, ge=1)
    replacement: Replacement = "ranked"
    replacement_confidence: int = Field(default=2, ge=0, le=CONFIDENCE_MAX)


class StMoeParameters(TablePolicy):
    """The algorithm's choices: the policy of ``TablePolicy``, and what the profile makes.

    Attributes:
        candidates: entries of a row of the cross-layer correlation table (CCT); ``None``: the model's top-k.
        initial_confidence: of a profiled candidate ("favourable"); one never co-selected in training starts at 0.
    """

    candidates: int | None = Field(default=None, ge=1)
    initial_confidence: int = Field(default=2, ge=0, le=CONFIDENCE_MAX)

    def policy(self) -> dict[str, Any]:
        """The fields of ``TablePolicy``."""
        return {name: getattr(self, name) for name in TablePolicy.model_fields}


class EngineLimits(StrictModel):
    """Limits of a prefetch engine, fixed when it is generated.

    Attributes:
        experts_max: experts a layer, a power of two (a table row's address is layer and expert side by side).
        layers_max: MoE layers.
        top_k_max: experts an event carries.
        candidates_max: candidates of a table row.
        slots_max: sequences that run at once, each with a history of its own.
        domains_max: banks of the table, one for each domain that has a table of its own; a power of two.
    """

    experts_max: int = Field(default=64, ge=2, le=4096)
    layers_max: int = Field(default=32, ge=2, le=1024)
    top_k_max: int = Field(default=8, ge=1, le=64)
    candidates_max: int = Field(default=8, ge=1, le=64)
    slots_max: int = Field(default=8, ge=1, le=64)
    domains_max: int = Field(default=1, ge=1, le=DOMAINS_MOST)

    @field_validator("experts_max", "domains_max")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two; the next is {1 << value.bit_length()}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("top_k_max", "candidates_max"):
            if getattr(self, name) > self.experts_max:
                raise ValueError(f"{name} ({getattr(self, name)}) exceeds experts_max ({self.experts_max})")
        return self

    @property
    def expert_bits(self) -> int:
        """Bits of an expert id."""
        return (self.experts_max - 1).bit_length()

    @property
    def layer_bits(self) -> int:
        """Bits of a layer index."""
        return (self.layers_max - 1).bit_length()

    @property
    def slot_bits(self) -> int:
        """Bits of a slot in an event; one where there is only one slot."""
        return max(1, (self.slots_max - 1).bit_length())

    @property
    def bank_bits(self) -> int:
        """Bits of a table bank in a row's address; none where there is only one bank."""
        return (self.domains_max - 1).bit_length()

    @property
    def score_bits(self) -> int:
        """Bits of a score: every selected row and the history at full confidence, so that a sum never saturates."""
        return ((self.top_k_max + 1) * CONFIDENCE_MAX).bit_length()

    @property
    def rows(self) -> int:
        """Rows of the table memory, the unused ones of layers beyond ``layers_max`` not counted."""
        return self.layers_max * self.domains_max * self.experts_max

    @classmethod
    def holding(
        cls, *, layers: int, experts: int, top_k: int, candidates: int, slots: int = 1, domains: int = 1
    ) -> Self:
        """The smallest engine for a model, so many sequences at once and so many domains.

        Raises:
            ForestageError: if no engine can be that large.
        """
        limits = {
            "experts_max": max(2, 1 << (experts - 1).bit_length()),
            "layers_max": max(2, layers),
            "top_k_max": top_k,
            "candidates_max": candidates,
            "slots_max": slots,
            "domains_max": 1 << (domains - 1).bit_length(),
        }
        return cls.parse(limits, origin="prefetch engine")

    def check_model(self, *, layers: int, experts: int, top_k: int, candidates: int, origin: str) -> None:
        """Raise ForestageError unless a model of this shape fits; the line names ``origin`` and the remedy."""
        needed = {"experts": experts, "layers": layers, "top_k": top_k, "candidates": candidates}
        for field, value in needed.items():
            limit = getattr(self, f"{field}_max")
            if value > limit:
                enough = 1 << (value - 1).bit_length() if field == "experts" else value
                option = f"--{field.replace('_', '-')}-max {enough}"
                raise ForestageError(
                    f"{origin}: {field} is {value}, the generated prefetch engine holds at most {limit}; "
                    f"generate it with {option}"
                )

    def check_trace(self, trace: RoutingTrace, *, candidates: int | None = None, origin: str = "trace") -> None:
        """Raise ForestageError unless the trace's shape fits this engine (``candidates``: default the top-k)."""
        self.check_model(
            layers=trace.layers,
            experts=trace.experts,
            top_k=trace.top_k,
            candidates=trace.top_k if candidates is None else candidates,
            origin=origin,
        )


class EngineConfiguration(TablePolicy):
    """What is set at run time, one register each: the policy of ``TablePolicy``, and the model's shape.

    Attributes:
        experts, layers, top_k: shape of the model.
        candidates: candidates in use of a table row.
        lookahead: layers between the gate that is known and the target layer.
        domains: table banks in use, one a domain.
        issue_limit: most experts issued for one token and layer (``predictor.base.IssueLimit``), 0 for none;
            ``experts`` for no limit.
    """

    experts: int = Field(ge=1)
    layers: int = Field(ge=1)
    top_k: int = Field(ge=1)
    candidates: int = Field(ge=1)
    lookahead: int = Field(default=1, ge=1)
    issue_limit: int = Field(ge=0)
    domains: int = Field(default=1, ge=1, le=DOMAINS_MOST)

    def register_values(self) -> dict[str, int]:
        """The fields by name as numbers: choices by their codes."""
        codes = {
            "aggregation": AGGREGATION_CODES[self.aggregation],
            "replacement": REPLACEMENT_CODES[self.replacement],
        }
        return {**self.model_dump(), **codes}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("top_k", "candidates", "issue_limit"):
            if getattr(self, name) > self.experts:
                raise ValueError(f"{name} ({getattr(self, name)}) exceeds experts ({self.experts})")
        if self.lookahead >= self.layers:
            raise ValueError(f"lookahead ({self.lookahead}) is not below layers ({self.layers})")
        return self
