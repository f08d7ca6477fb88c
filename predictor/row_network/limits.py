"""What a generated net can hold: limits of the unit that runs row networks, fixed when it is generated."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError

WORD_LANES = 64
"""A row is padded to a multiple of so many lanes, a beat of far memory, where the net has as many."""


class HeadLimits(StrictModel):
    """Limits of one head.

    Attributes:
        hidden: width of the sums.
        questions: answers for each expert.
        row_words: words of the memory of rows.
        operations: of a layer's gate program, a power of two.
        previous: previous tokens with sums of their own.
        decays: decayed sums.
        identities: tokens whose identity feeds a target.
        matched: sources that the log feeds.
    """

    hidden: int = Field(default=128, ge=1, le=4096)
    questions: int = Field(default=1, ge=1, le=8)
    row_words: int = Field(default=10240, ge=2, le=1 << 24)
    operations: int = Field(default=32, ge=2, le=64)
    previous: int = Field(default=1, ge=1, le=6)
    decays: int = Field(default=2, ge=1, le=8)
    identities: int = Field(default=2, ge=1, le=8)
    matched: int = Field(default=4, ge=1, le=8)

    @field_validator("operations")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two; the next is {1 << value.bit_length()}")
        return value


NEXT_USE_LIMITS = HeadLimits(
    hidden=64, questions=4, row_words=19200, operations=32, previous=1, decays=4, identities=1, matched=4
)


class NetLimits(StrictModel):
    """Limits of the net: what both heads share, and each head's own.

    Attributes:
        slots: sequences of the running batch.
        layers: MoE layers.
        experts: of a layer.
        top_k: experts that a gate chooses.
        lanes: int8 lanes of the adder of rows and of the matrix, a power of two.
        records: records of the log that a token reads at most, counted from the first n-gram table's on.
        next_layer, next_use: the heads'.
    """

    slots: int = Field(default=8, ge=1, le=64)
    layers: int = Field(default=24, ge=2, le=128)
    experts: int = Field(default=32, ge=2, le=1024)
    top_k: int = Field(default=4, ge=1, le=8)
    lanes: int = Field(default=128, ge=8, le=1024)
    records: int = Field(default=16, ge=2, le=72)
    next_layer: HeadLimits = HeadLimits()
    next_use: HeadLimits = NEXT_USE_LIMITS

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lanes & (self.lanes - 1):
            raise ValueError(f"lanes: {self.lanes} is no power of two; the next is {1 << self.lanes.bit_length()}")
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) exceeds experts ({self.experts})")
        return self

    @property
    def heads(self) -> tuple[HeadLimits, HeadLimits]:
        """Next-layer, next-use: a head's number is its place here."""
        return self.next_layer, self.next_use

    def word_lanes(self, head: int) -> int:
        """Lanes that a word of this head's sums fills."""
        return word_lanes(self.heads[head].hidden, self.lanes)

    def words(self, head: int) -> int:
        """Most words of a row of this head."""
        return -(-self.heads[head].hidden // self.word_lanes(head))


def word_lanes(hidden: int, lanes: int) -> int:
    """Lanes of a word of sums of ``hidden`` units: all that there are, or whole beats that hold them."""
    return min(lanes, -(-hidden // WORD_LANES) * WORD_LANES)


def check_limit(value: int, limit: int, what: str, *, origin: str) -> None:
    """Refuse a value beyond a limit.

    Raises:
        ForestageError: naming both, and the remedy.
    """
    if value > limit:
        raise ForestageError(
            f"{origin}: {what} is {value}, the generated net holds at most {limit}; generate it with more"
        )
