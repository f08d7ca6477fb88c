"""Memory that computes the experts which lie in it (PIM): where it is, and what is assumed of it."""

from typing import Literal

from pydantic import Field, model_validator

from catalog.config import StrictModel

Where = Literal["device", "host"]
StoredFormat = Literal["bf16", "int8", "mxfp4"]


class InMemory(StrictModel):
    """PIM stacks in which all routed experts of the model lie.

    No such part is on sale: beyond HBM2 even the blocks at the banks are an assumption (`catalog/data/dram.toml`), and
    so is every number here that names no paper.
    """

    where: Where = Field(
        default="device",
        description="device: stacks of their own beside the device's memory, behind a link between devices, as "
        "AttAcc's; host: the host's memory is made of them, behind the host link",
    )
    dram: str = Field(default="HBM3", description="DRAM device of the catalogue with compute at its banks")
    stacks: int = Field(default=8, ge=1, le=1024, description="Stacks (8: Sieve's machine, arXiv 2605.11277)")
    stack_gb: float = Field(
        default=12.0,
        gt=0,
        le=1024,
        description="Capacity of a stack, 10⁹ bytes (12: Sieve's 96 GB in 8 stacks, half of what they hold without "
        "PIM)",
    )
    pseudo_channels_per_expert: int | None = Field(
        default=None,
        ge=1,
        description="Pseudo-channels over which an expert's intermediate rows are spread; none: those of a stack",
    )
    weight_format: StoredFormat | None = Field(
        default=None,
        description="Format in which the memory computes; none: the model's own. In another one all experts lie there "
        "twice, as it is the model's own that the device fetches",
    )
    tokens_per_read: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="Tokens that one read of the weights serves, at most, for which they are laid out; none: as many "
        "as the unit's lanes allow (bf16 4, int8 2, mxfp4 1)",
    )
    refresh: bool = Field(default=True, description="Whether the memory is refreshed")
    device_link_gb_per_s: float | None = Field(
        default=None,
        ge=1e-3,
        le=100_000,
        description="Link between devices in place of the machine's, GB/s per direction; of where = device alone",
    )
    latency_us: float = Field(
        default=1.0,
        ge=0,
        le=1e6,
        description="One way between device and memory beside the bytes, µs (assumption: a message and its notice)",
    )
    partial_sums: Literal["device", "stack"] = Field(
        default="device",
        description="Who adds the outputs of an expert's pseudo-channels: device: each one's FP32 vector crosses the "
        "link; stack: adders in the stack (assumption), and one vector of each stack crosses it",
    )

    @model_validator(mode="after")
    def _one_link(self) -> "InMemory":
        if self.where == "host" and self.device_link_gb_per_s is not None:
            raise ValueError("memory of the host lies behind the host link: leave out device_link_gb_per_s")
        return self
