"""What the registers of a prefetch engine hold."""

from enum import IntEnum
from typing import Self

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.row_network.integers import CERTAIN
from staging.stager.limits import StagerLimits, StagerSettings
from staging.transfer.limits import CHUNK_BITS, FULL_SHARE


class Mode(IntEnum):
    """Who predicts."""

    OFF = 0
    """Nobody: demands, releases and transfers still work."""
    TABLES = 1
    """ST-MoE's tables."""
    LEARNED = 2
    """The row networks."""


class Missing(IntEnum):
    """What becomes of a chosen expert that is not resident."""

    FETCH = 0
    """It is demanded."""
    ELSEWHERE = 1
    """It is computed where it lies: only residents are demanded."""


class LinkSettings(StrictModel):
    """Of transfers.

    Attributes:
        expert_bytes: of every expert.
        expert_base, expert_stride: expert ``key`` lies at ``base + key · stride`` of far memory.
        staging_base, staging_stride: place ``p`` lies at ``base + p · stride`` of the staging buffer; what has no place
            goes to place ``places + spare``.
        chunk_bytes: a transfer may be stopped at multiples of them; a power of two, and an expert has ``1 <<
            CHUNK_BITS`` chunks at most.
        outstanding: read bursts under way, at most.
        share: beats that may be asked for in ``FULL_SHARE`` cycles.
        silence: cycles without a beat after which a transfer has failed.
    """

    expert_bytes: int = Field(default=1024, ge=1, lt=1 << 32)
    expert_base: int = Field(default=0, ge=0)
    expert_stride: int = Field(default=1024, ge=1, lt=1 << 32)
    staging_base: int = Field(default=0, ge=0)
    staging_stride: int = Field(default=1024, ge=1, lt=1 << 32)
    chunk_bytes: int = Field(default=1 << 16, ge=BEAT_BYTES, le=1 << 31)
    outstanding: int = Field(default=16, ge=1)
    share: int = Field(default=FULL_SHARE, ge=1, le=FULL_SHARE)
    silence: int = Field(default=4096, ge=1, lt=1 << 20)

    @property
    def chunks(self) -> int:
        """Of a transfer."""
        return -(-self.expert_bytes // self.chunk_bytes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chunk_bytes & (self.chunk_bytes - 1):
            raise ValueError(f"chunk_bytes: {self.chunk_bytes} is no power of two; give one")
        if self.chunks > 1 << CHUNK_BITS:
            least = 1 << (-(-self.expert_bytes >> CHUNK_BITS) - 1).bit_length()
            raise ValueError(
                f"chunk_bytes: {self.chunk_bytes}: experts of {self.expert_bytes} bytes have more than "
                f"{1 << CHUNK_BITS} chunks; give {least} or more"
            )
        for name in ("expert_stride", "staging_stride"):
            if getattr(self, name) < self.expert_bytes:
                raise ValueError(f"{name}: {getattr(self, name)}: experts of {self.expert_bytes} bytes overlap")
        return self


class PrefetchEngineSettings(StrictModel):
    """What is set at run time, while the engine is off and idle.

    Attributes:
        mode: who predicts.
        layers, experts, top_k: of the running model.
        domains: banks of ST-MoE's tables in use.
        next_layer, next_use: which heads are asked, in mode ``LEARNED``.
        distance: layers between a known gate and the target of the next-layer head.
        prefetched: experts of a prediction, at most.
        threshold: least chance of a predicted expert.
        identity_rows: rows of token identity that the image has; 0: none.
        missing: see the class.
        stager: the stager's; its ``shares`` name the model's layers or all of them together.
        link: of transfers.
    """

    mode: Mode = Mode.LEARNED
    layers: int = Field(ge=2)
    experts: int = Field(ge=2)
    top_k: int = Field(ge=1)
    domains: int = Field(default=1, ge=1)
    next_layer: bool = True
    next_use: bool = True
    distance: int = Field(default=1, ge=1)
    prefetched: int = Field(default=8, ge=1)
    threshold: int = Field(default=1, ge=1, le=CERTAIN)
    identity_rows: int = Field(default=0, ge=0)
    missing: Missing = Missing.FETCH
    stager: StagerSettings
    link: LinkSettings = LinkSettings()

    def stager_limits(self, limits: PrefetchEngineLimits) -> StagerLimits:
        """The stager's while it is set so."""
        return limits.stager_of(layers=self.layers, experts=self.experts, top_k=self.top_k)

    def check(self, limits: PrefetchEngineLimits) -> None:
        """Raise unless an engine of ``limits`` can be set so.

        Raises:
            ForestageError: naming the field and what fits.
        """
        for field in ("layers", "experts", "top_k", "domains"):
            value, most = getattr(self, field), getattr(limits, f"{field}_max")
            if value > most:
                raise ForestageError(f"prefetch engine: {field} is {value}; it is generated for at most {most}")
        if self.top_k > self.experts:
            raise ForestageError(f"prefetch engine: top_k is {self.top_k} of {self.experts} experts; give at most all")
        if self.distance >= self.layers:
            raise ForestageError(f"prefetch engine: distance is {self.distance}; give less than {self.layers} layers")
        if self.prefetched > min(limits.net.prefetched_max, self.experts):
            raise ForestageError(
                f"prefetch engine: prefetched is {self.prefetched}; give at most "
                f"{min(limits.net.prefetched_max, self.experts)}"
            )
        self.stager.check(self.stager_limits(limits))
        link = self.link
        if link.outstanding > limits.link.outstanding:
            raise ForestageError(
                f"prefetch engine: outstanding is {link.outstanding}; it is generated for at most "
                f"{limits.link.outstanding}"
            )
        ends = {
            "expert_base": link.expert_base + self.layers * self.experts * link.expert_stride,
            "staging_base": link.staging_base + (limits.places + limits.spare + 1) * link.staging_stride,
        }
        for field, end in ends.items():
            if end >> limits.link.address_bits:
                raise ForestageError(
                    f"prefetch engine: {field}: the last byte lies beyond {limits.link.address_bits} address bits"
                )
