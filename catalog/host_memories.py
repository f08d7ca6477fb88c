"""Memories of hosts, each with the processor that reads it."""

from typing import Annotated

from pydantic import Field

from catalog.machines import GigabytesPerSecond, Share, Teraflops
from catalog.records import Record


class HostMemoryRecord(Record):
    """A host's memory and processor, as far as they can compute what lies there.

    Attributes:
        memory_gb_per_s: peak bandwidth, 10⁹ bytes a second.
        memory_utilisation: share of the peak that processor and link can reach together.
        compute_tflops: operations that the processor reaches on experts, two per multiply-add.
        latency_us: one way between device and processor, beside the bytes.
    """

    memory_gb_per_s: GigabytesPerSecond
    memory_utilisation: Share
    compute_tflops: Teraflops
    latency_us: Annotated[float, Field(gt=0, le=1e6)]

    @property
    def usable_bytes_per_s(self) -> int:
        """Bandwidth that can be used."""
        return round(self.memory_gb_per_s * self.memory_utilisation * 1e9)
