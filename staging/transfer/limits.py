"""What the engine that moves bytes is generated with, what its registers hold, and how a transfer ends."""

from enum import IntEnum

from pydantic import Field, model_validator

from catalog.config import StrictModel

PAGE_BYTES = 4096
"""What no burst of AXI4 crosses a multiple of."""
MOST_BEATS = 256
"""Beats of AXI4's longest burst (INCR)."""
LENGTH_BITS = 32
"""Bits of a transfer's bytes."""
CHUNK_BITS = 20
"""Bits of a number of chunks, as a paused transfer keeps it: an expert has ``1 << CHUNK_BITS`` at most."""
FULL_SHARE = 256
"""The share of all cycles: no throttle."""


class TransferError(IntEnum):
    """How a descriptor ended; of several errors the first that was noticed."""

    NONE = 0
    """All bytes are where they belong."""
    DESCRIPTOR = 1
    """No bytes, or bytes beyond the address space: nothing was moved."""
    READ_SLVERR = 2
    READ_DECERR = 3
    READ_LAST = 4
    """A burst's last beat was not said to be the last, or another one was."""
    READ_SILENCE = 5
    """Beats that were asked for did not come."""
    WRITE_SLVERR = 6
    WRITE_DECERR = 7


class TransferLimits(StrictModel):
    """What is generated.

    To keep the read channel busy, beats on their way must be at least the memory's latency in cycles:
    ``outstanding * burst_beats`` and ``landing_beats`` both, the second with a burst to spare.

    Attributes:
        data_bytes: of a beat, a power of two.
        address_bits: of a byte's address.
        burst_beats: of the longest burst, a power of two; a burst ends at a multiple of so many beats.
        outstanding: read bursts under way at once.
        landing_beats: beats of the landing buffer, a power of two.
        write_outstanding: write bursts begun and not answered.
        descriptors: under way at once.
    """

    data_bytes: int = Field(default=64, ge=2, le=128)
    address_bits: int = Field(default=48, ge=13, le=64)
    burst_beats: int = Field(default=64, ge=1, le=MOST_BEATS)
    outstanding: int = Field(default=16, ge=1, le=256)
    landing_beats: int = Field(default=1024, ge=2, le=1 << 16)
    write_outstanding: int = Field(default=16, ge=1, le=256)
    descriptors: int = Field(default=16, ge=1, le=256)

    @model_validator(mode="after")
    def _check(self) -> "TransferLimits":
        for name in ("data_bytes", "burst_beats", "landing_beats"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ValueError(f"{name}: {value} is not a power of two")
        if self.burst_beats * self.data_bytes > PAGE_BYTES:
            raise ValueError(
                f"burst_beats: {self.burst_beats} beats of {self.data_bytes} bytes exceed {PAGE_BYTES} bytes; give at "
                f"most {PAGE_BYTES // self.data_bytes}"
            )
        if self.landing_beats < self.burst_beats:
            raise ValueError(
                f"landing_beats: {self.landing_beats} cannot hold a burst of {self.burst_beats}; give as many or more"
            )
        return self

    @property
    def offset_bits(self) -> int:
        """Bits of a byte's place in its beat."""
        return (self.data_bytes - 1).bit_length()


class TransferSettings(StrictModel):
    """What the registers hold.

    Attributes:
        outstanding: read bursts under way at once; ``None``: as many as are generated.
        share: beats asked for in 256 cycles; 256: as many as the bus takes.
        silence: cycles without a beat after which what was asked for is given up; more than the memory's longest pause.
    """

    outstanding: int | None = Field(default=None, ge=1)
    share: int = Field(default=FULL_SHARE, ge=1, le=FULL_SHARE)
    silence: int = Field(default=4096, ge=1, lt=1 << 20)
