"""What a prefetch engine is generated with."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from catalog.config import StrictModel
from predictor.engine.events import DOMAIN_BITS
from predictor.row_network.limits import NEXT_USE_LIMITS, HeadLimits, NetLimits
from staging.stager.limits import StagerLimits
from staging.transfer.limits import TransferLimits

BEAT_BYTES = 64
"""Of the memory buses (512 bits)."""


class HeadsLimits(StrictModel):
    """Of the row networks' unit.

    Attributes:
        lanes: multipliers, and adders of a row; a power of two.
        records: records of the log that a token reads at most.
        prefetched_max: experts of a prediction.
        next_layer, next_use: of each head.
    """

    lanes: int = Field(default=128, ge=8, le=1024)
    records: int = Field(default=16, ge=2, le=72)
    prefetched_max: int = Field(default=8, ge=1, le=64)
    next_layer: HeadLimits = HeadLimits()
    next_use: HeadLimits = NEXT_USE_LIMITS

    @property
    def hidden_max(self) -> int:
        """Width of the wider head's sums."""
        return max(self.next_layer.hidden, self.next_use.hidden)


class PrefetchEngineLimits(StrictModel):
    """What is generated.

    Attributes:
        slots_max: sequences that run together.
        layers_max, experts_max, top_k_max: of a model; ``experts_max`` a power of two.
        candidates_max: of a row of ST-MoE's tables.
        domains_max: banks of these tables.
        learned: whether it has the row networks' unit and the memory of the text; without them mode ``LEARNED`` is
            refused.
        net: the row networks' unit.
        link: transfers.
        places, spare, queue_depth, value_bits, scale_bits, stamp_bits, deadline_bits, stager_lanes: as in
            ``StagerLimits``.
    """

    slots_max: int = Field(default=8, ge=1, le=64)
    layers_max: int = Field(default=24, ge=2, le=128)
    experts_max: int = Field(default=32, ge=2, le=512)
    top_k_max: int = Field(default=4, ge=1, le=8)
    candidates_max: int = Field(default=4, ge=1, le=64)
    domains_max: int = Field(default=1, ge=1, le=1 << DOMAIN_BITS)
    learned: bool = True
    net: HeadsLimits = HeadsLimits()
    link: TransferLimits = TransferLimits()
    places: int = Field(default=192, ge=0)
    spare: int = Field(default=32, ge=0)
    queue_depth: int = Field(default=32, ge=1)
    value_bits: int = Field(default=20, ge=2, le=32)
    scale_bits: int = Field(default=16, ge=1, le=24)
    stamp_bits: int = Field(default=32, ge=2, le=48)
    deadline_bits: int = Field(default=32, ge=8, le=48)
    stager_lanes: int = Field(default=16, ge=1)

    @field_validator("experts_max")
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
        if self.learned and self.net.lanes < BEAT_BYTES:
            raise ValueError(
                f"net: {self.net.lanes} lanes; give {BEAT_BYTES} or more, as a row comes from far memory by beats"
            )
        self.stager, self.network  # noqa: B018 (their own checks)
        return self

    @property
    def network(self) -> NetLimits:
        """The row networks' unit's."""
        return NetLimits(
            slots=self.slots_max,
            layers=self.layers_max,
            experts=self.experts_max,
            top_k=self.top_k_max,
            lanes=self.net.lanes,
            records=self.net.records,
            next_layer=self.net.next_layer,
            next_use=self.net.next_use,
        )

    def stager_of(self, *, layers: int, experts: int, top_k: int) -> StagerLimits:
        """The stager's for a model of this shape: a key is ``layer · experts + expert``."""
        return StagerLimits(
            layers=layers,
            experts=experts,
            places=self.places,
            spare=self.spare,
            queue_depth=self.queue_depth,
            sequence_slots=self.slots_max,
            event_experts=top_k,
            value_bits=self.value_bits,
            scale_bits=self.scale_bits,
            stamp_bits=self.stamp_bits,
            deadline_bits=self.deadline_bits,
            lanes=self.stager_lanes,
        )

    @property
    def stager(self) -> StagerLimits:
        """The generated stager's, for the largest model."""
        return self.stager_of(layers=self.layers_max, experts=self.experts_max, top_k=self.top_k_max)

    @property
    def event_fifo(self) -> int:
        """Events that wait for the predictors."""
        return 2 * self.slots_max
