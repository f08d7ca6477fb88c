"""What is simulated: one frozen configuration."""

from typing import Literal, Self

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from perfmodel.in_memory_config import InMemory

Scope = Literal["layer", "global"]


class SimulationConfig(StrictModel):
    """One device decodes; its experts live in host memory.

    How many the device holds is given by exactly one of ``capacity_experts``, ``capacity_fraction`` and
    ``capacity_gb``.
    """

    sizes_of: str | None = Field(
        default=None,
        description="Catalogue model whose layer and expert sizes are used; none takes the trace's own model",
    )
    allow_other_shape: bool = Field(
        default=False, description="Let sizes_of name a model whose experts or top_k differ from the trace's"
    )
    machine: str = Field(default="A100-80GB", description="Catalogue machine")
    capacity_experts: int | None = Field(
        default=None, ge=0, description="Experts that the device holds, in all; 0: none is kept when its layer has run"
    )
    capacity_fraction: float | None = Field(default=None, ge=0, le=1, description="The share of all experts held")
    capacity_gb: float | None = Field(default=None, gt=0, description="What the device holds, in units of 10⁹ bytes")
    scope: Scope = Field(
        default="layer", description="layer: each layer has an equal share of the places; global: all layers share them"
    )
    engine_cycles: int = Field(
        default=0,
        ge=0,
        le=10**9,
        description="Cycles of the prefetch engine for a gate's event (assumption: none)",
    )
    link_gb_per_s: float | None = Field(
        default=None, ge=1e-3, le=100_000, description="Host link in place of the machine's, GB/s per direction"
    )
    transfer_latency_us: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Of each transfer, before its first byte, the link moving nothing else, µs (assumption: none)",
    )
    chunk_bytes: int = Field(
        default=1 << 20,
        ge=4096,
        description="Granularity at which a demand overtakes a prefetch on the link (assumption; 4096: a page)",
    )
    host_memory: str | None = Field(default=None, description="Host memory of the catalogue; none takes the machine's")
    host_gb_per_s: float | None = Field(
        default=None,
        ge=1e-3,
        le=100_000,
        description="Bandwidth of the host memory that can be used, in place of the catalogue's, GB/s",
    )
    host_tflops: float | None = Field(
        default=None,
        ge=1e-3,
        le=100_000,
        description="Arithmetic that the host's processor reaches, in place of the catalogue's, TFLOPS",
    )
    host_latency_us: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="One way between device and host's processor beside the bytes, µs; none takes the host memory's, 0 "
        "where no record is used",
    )
    shared_host_memory: bool = Field(
        default=True, description="The link's reads take bandwidth of the host memory from the processor"
    )
    in_memory: InMemory | None = Field(
        default=None, description="Memory in which all experts lie and that computes them (PIM); none: there is none"
    )

    @model_validator(mode="after")
    def _one_capacity(self) -> Self:
        given = [self.capacity_experts, self.capacity_fraction, self.capacity_gb]
        if sum(value is not None for value in given) > 1:
            raise ValueError("give one of capacity_experts, capacity_fraction and capacity_gb, not several")
        return self

    def capacity(self, *, layers: int, experts: int, expert_bytes: int) -> int:
        """How many experts the device holds, over all layers; never more than the model has.

        Raises:
            ForestageError: if no capacity is given, or a share of less than one expert.
        """
        everything = layers * experts
        if self.capacity_experts is not None:
            capacity = self.capacity_experts
        elif self.capacity_fraction is not None:
            # The 1e-9 keeps a share that means a whole number of experts whole: 0.29 · 100 is 28.999….
            capacity = int(self.capacity_fraction * everything + 1e-9)
            if capacity == 0 < self.capacity_fraction:
                raise ForestageError(
                    f"capacity_fraction: {self.capacity_fraction:g} of {everything} experts is less than one; give "
                    f"{1 / everything:.2g} or more, or 0 for a device that keeps none"
                )
        elif self.capacity_gb is not None:
            capacity = int(self.capacity_gb * 1e9) // expert_bytes
        else:
            raise ForestageError(
                "simulation: capacity: not given; give capacity_experts, capacity_fraction or capacity_gb"
            )
        return min(capacity, everything)
