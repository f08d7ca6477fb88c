"""What a stager is generated with, and what its registers hold."""

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError

FOREVER = (1 << 62) - 1
"""A deadline that never passes, and the widest horizon."""


class StagerLimits(StrictModel):
    """What is generated; a key is ``layer · experts + expert``.

    The queue holds every demand that there can be at once, so that none is ever lost.

    Attributes:
        layers, experts: of the model.
        places: experts that fit, over all groups of layers.
        spare: places beside those, for what a layer needs while nothing may give way to it; given back when it has run.
        queue_depth: transfers that wait.
        channels: transfers on their way at once.
        sequence_slots: running sequences, each with at most one layer that holds pins.
        event_experts: the most experts that one layer of one sequence needs at once (of a prompt's pass: all).
        value_bits: of a value (signed) and of a chance (unsigned), as told.
        scale_bits: of the two scales and of the price, which are times in one unit.
        stamp_bits: of the counter of uses that recency is read from; a stamp 2^bits uses old looks young again.
        deadline_bits: of a deadline, which is 0 or more; all ones stand for ``FOREVER``.
        lanes: entries of the directory that are looked at in a cycle.
    """

    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    places: int = Field(ge=0)
    spare: int = Field(default=0, ge=0)
    queue_depth: int = Field(ge=1)
    channels: int = Field(default=1, ge=1)
    sequence_slots: int = Field(default=1, ge=1)
    event_experts: int = Field(ge=1)
    value_bits: int = Field(default=16, ge=2, le=32)
    scale_bits: int = Field(default=16, ge=1, le=24)
    stamp_bits: int = Field(default=32, ge=2, le=48)
    deadline_bits: int = Field(default=32, ge=2, le=48)
    lanes: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "StagerLimits":
        if self.event_experts > self.experts:
            raise ValueError(f"event_experts: {self.event_experts} of {self.experts} experts; give at most all")
        if self.queue_depth < self.most_pins:
            raise ValueError(
                f"queue_depth: {self.queue_depth} cannot hold the demands of {self.sequence_slots} sequence slots of "
                f"{self.event_experts} experts each; give {self.most_pins} or more"
            )
        return self

    @property
    def most_pins(self) -> int:
        """Uses that running layers may hold at once."""
        return self.sequence_slots * self.event_experts

    @property
    def keys(self) -> int:
        """Entries of the directory."""
        return self.layers * self.experts


class StagerSettings(StrictModel):
    """What the registers hold. Times are in one unit, the user's.

    Attributes:
        shares: places that each group of layers may keep: one entry, of the group of all layers; or one a layer, of
            the layer's own. Static placements and uneven shares are entries like others.
        value_scale: time that one unit of a value is worth: what its next use saves if it is kept.
        chance_scale: time that one unit of a chance is worth: what is saved if the expert is there at its gate.
        price: time that moving an expert costs others.
        horizon: how far beyond the latest gate a prefetch's deadline may lie.
        by_recency: of equal worth the least recently used gives way; otherwise recency is not looked at.
        background: with nothing queued, move the absent expert that gains most by the same comparison.
        retries: failed transfers after which a demand still waits again; one more, and it is given up.
    """

    shares: tuple[int, ...] = Field(min_length=1)
    value_scale: int = Field(default=1, ge=0)
    chance_scale: int = Field(default=1, ge=0)
    price: int = Field(default=0, ge=0)
    horizon: int = Field(default=FOREVER, ge=1, le=FOREVER)
    by_recency: bool = True
    background: bool = False
    retries: int = Field(default=3, ge=0, le=15)

    def check(self, limits: StagerLimits) -> None:
        """Raise unless the settings fit a stager of ``limits``.

        Raises:
            ForestageError: naming the field and what fits.
        """
        if len(self.shares) not in (1, limits.layers):
            raise ForestageError(
                f"shares: {len(self.shares)} groups; give 1, of all layers, or {limits.layers}, one a layer"
            )
        if min(self.shares) < 0 or sum(self.shares) > limits.places:
            raise ForestageError(f"shares: {self.shares} of {limits.places} places; give shares of 0 or more that fit")
        for field in ("value_scale", "chance_scale", "price"):
            if getattr(self, field) >> limits.scale_bits:
                raise ForestageError(
                    f"{field}: {getattr(self, field)} does not fit {limits.scale_bits} bits; give less than "
                    f"{1 << limits.scale_bits}"
                )
