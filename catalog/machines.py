"""Machines: compute, memory, links, buffers, and the prefetch engine's clock and bus."""

from typing import Annotated

from pydantic import Field, model_validator

from catalog.records import PositiveInt, Record

GigabytesPerSecond = Annotated[float, Field(gt=0, le=100_000)]
"""10⁹ bytes a second; the bound catches a value given in bytes or megabytes a second."""
Teraflops = Annotated[float, Field(gt=0, le=100_000)]
Gigabytes = Annotated[float, Field(gt=0, le=100_000)]
Share = Annotated[float, Field(gt=0, le=1)]


class MachineRecord(Record):
    """One device and its links: peak figures, and the shares of them that models assume can be reached.

    Attributes:
        compute_tflops: dense peak at 16 bits (BF16), two operations per multiply-add.
        fp8_tflops: dense peak at 8 bits.
        compute_utilisation, memory_utilisation: share of the peak that published models count on.
        measured_matmul_tflops: measured with a large BF16 matrix product.
        measured_copy_gb_per_s: measured with a device-to-device copy; reads and writes both count.
        memory_gb: capacity, 10⁹ bytes.
        memory_gb_per_s: peak bandwidth.
        memory_stacks: HBM stacks.
        dram: the stacks' DRAM device in the catalogue, if known.
        device_link_gb_per_s: bandwidth to other devices, per direction.
        host_link_gb_per_s: bandwidth to host memory, per direction.
        host_link: name of that link.
        host_memory: the host's memory and processor in the catalogue, if known.
        staging_buffer_bytes: on-chip buffer for expert weights (and the key-value cache).
        activation_buffer_bytes: on-chip buffer for activations.
        engine_clock_ghz: clock of the prefetch engine.
        engine_bus_bits: width of the prefetch engine's data bus.
    """

    compute_tflops: Teraflops
    fp8_tflops: Teraflops | None = None
    compute_utilisation: Share = 1.0
    memory_utilisation: Share = 1.0
    measured_matmul_tflops: Teraflops | None = None
    measured_copy_gb_per_s: GigabytesPerSecond | None = None
    memory_gb: Gigabytes | None = None
    memory_gb_per_s: GigabytesPerSecond
    memory_stacks: PositiveInt | None = None
    dram: str | None = None
    device_link_gb_per_s: GigabytesPerSecond | None = None
    host_link_gb_per_s: GigabytesPerSecond | None = None
    host_link: str | None = None
    host_memory: str | None = None
    staging_buffer_bytes: PositiveInt | None = None
    activation_buffer_bytes: PositiveInt | None = None
    engine_clock_ghz: Annotated[float, Field(gt=0, le=10)]
    engine_bus_bits: Annotated[int, Field(ge=8, le=4096, multiple_of=8, strict=True)]

    @model_validator(mode="after")
    def _consistent(self) -> "MachineRecord":
        if (self.host_link is None) != (self.host_link_gb_per_s is None):
            raise ValueError("host_link and host_link_gb_per_s come together")
        return self

    @property
    def engine_gb_per_s(self) -> float:
        """Peak bandwidth of the prefetch engine's bus."""
        return self.engine_clock_ghz * self.engine_bus_bits / 8
