"""DRAM devices: timing constraints, geometry and, where a device computes in memory, its blocks."""

import math
from fractions import Fraction
from typing import Annotated

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.records import Evidence, PositiveFloat, PositiveInt, Record

SCALED_TIMINGS = (
    "cl_ck", "cwl_ck", "trcd_read_ck", "trcd_write_ck", "trp_ck", "tras_ck", "trc_ck", "trrd_s_ck", "trrd_l_ck",
    "tfaw_ck", "twr_ck", "trtp_s_ck", "trtp_l_ck", "twtr_s_ck", "twtr_l_ck", "trfc_ck", "trfc_per_bank_ck",
)  # fmt: skip
"""Shortest times, assumed to be fixed in ns. Column-to-column spacings are not among them: all published presets keep
them at the same number of clocks whatever tCK is, and tCCD_S is the time the burst itself occupies the bus."""

SCALED_INTERVALS = ("trefi_ck", "trefi_per_bank_ck")
"""Longest times, fixed in ns; rounded down."""


class PimBlocks(StrictModel):
    """Compute blocks at the banks of one pseudo-channel.

    Attributes:
        blocks: MAC blocks.
        banks_per_block: banks that share a block.
        datapath_bits: bits that one block takes from its bank per operation.
        operation_interval_ck: clocks between all-bank operations.
    """

    blocks: PositiveInt
    banks_per_block: PositiveInt
    datapath_bits: PositiveInt
    operation_interval_ck: PositiveInt

    @property
    def lanes(self) -> int:
        """16-bit MAC lanes of one block."""
        return self.datapath_bits // 16

    @property
    def bytes_per_ck(self) -> float:
        """Weight bytes that all blocks of a pseudo-channel take per clock."""
        return self.blocks * self.datapath_bits / 8 / self.operation_interval_ck


class DramRecord(Record):
    """A DRAM device; ``_ck`` counts clocks of ``tck_ns``.

    Attributes:
        data_rate_gbps: gigabits per second and pin.
        tck_ns: clock period.
        pseudo_channel_bits: data pins of a pseudo-channel.
        burst_length: transfers in a burst.
        burst_ck: clocks that a burst occupies the data bus.
        bank_groups: bank groups per stack ID.
        banks_per_group: banks in each bank group.
        stack_ids: ranks that share the pseudo-channel.
        row_bursts: bursts in a row.
        pseudo_channels: pseudo-channels of a stack.
        pseudo_channels_per_command_bus: pseudo-channels that share a row and a column command bus; 1 if each has its
            own.
        activate_command_ck: clocks for which an ACT occupies the row command bus.
        trtp_s_ck: read to precharge, where the read is in another bank group (if the device distinguishes).
        trtp_l_ck: read to precharge, same bank group.
        tccd_r_ck: column to column across stack IDs; ``None`` if there is only one stack ID.
        trfc_ck: duration of an all-bank refresh.
        trfc_per_bank_ck: duration of a per-bank refresh.
        trefi_ck: interval between all-bank refreshes.
        trefi_per_bank_ck: interval between per-bank refreshes as the preset counts it (over the banks of both
            pseudo-channels or stack IDs).
        pim: compute at the banks, or ``None``.
    """

    data_rate_gbps: Annotated[float, Field(gt=0, le=64)]
    tck_ns: Annotated[float, Field(gt=0.05, le=20)]
    pseudo_channel_bits: PositiveInt
    burst_length: PositiveInt
    burst_ck: PositiveInt
    bank_groups: PositiveInt
    banks_per_group: PositiveInt
    stack_ids: PositiveInt = 1
    row_bursts: PositiveInt
    pseudo_channels: PositiveInt
    pseudo_channels_per_command_bus: PositiveInt = 1
    activate_command_ck: PositiveFloat = 1.0
    cl_ck: PositiveInt
    cwl_ck: PositiveInt
    trcd_read_ck: PositiveInt
    trcd_write_ck: PositiveInt
    trp_ck: PositiveInt
    tras_ck: PositiveInt
    trc_ck: PositiveInt
    tccd_s_ck: PositiveInt
    tccd_l_ck: PositiveInt
    tccd_r_ck: PositiveInt | None = None
    trrd_s_ck: PositiveInt
    trrd_l_ck: PositiveInt
    tfaw_ck: PositiveInt
    twr_ck: PositiveInt
    trtp_s_ck: PositiveInt
    trtp_l_ck: PositiveInt
    twtr_s_ck: PositiveInt
    twtr_l_ck: PositiveInt
    trfc_ck: PositiveInt
    trfc_per_bank_ck: PositiveInt
    trefi_ck: PositiveInt
    trefi_per_bank_ck: PositiveInt
    pim: PimBlocks | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "DramRecord":
        burst_ns = self.burst_length / self.data_rate_gbps
        if not math.isclose(burst_ns, self.burst_ck * self.tck_ns, rel_tol=1e-3):
            raise ValueError(
                f"a burst of {self.burst_length} at {self.data_rate_gbps} Gb/s takes {burst_ns:.4g} ns, but burst_ck · "
                f"tck_ns is {self.burst_ck * self.tck_ns:.4g}; check data_rate_gbps (gigabits a second and pin), tck_ns"
            )
        if self.trfc_ck >= self.trefi_ck:
            raise ValueError(
                f"trefi_ck is {self.trefi_ck}, but a refresh takes trfc_ck = {self.trfc_ck}: nothing else could run; "
                "check both"
            )
        if self.pseudo_channels % self.pseudo_channels_per_command_bus:
            raise ValueError(
                f"pseudo_channels_per_command_bus: {self.pseudo_channels_per_command_bus} does not divide the stack's "
                f"{self.pseudo_channels} pseudo-channels"
            )
        if self.pim and self.pim.blocks * self.pim.banks_per_block != self.banks:
            raise ValueError(f"pim: blocks · banks_per_block must be the {self.banks} banks of a pseudo-channel")
        return self

    @property
    def burst_bytes(self) -> int:
        """Bytes of a burst."""
        return self.pseudo_channel_bits * self.burst_length // 8

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of one bank in one pseudo-channel."""
        return self.row_bursts * self.burst_bytes

    @property
    def banks(self) -> int:
        """Banks of a pseudo-channel, over all stack IDs."""
        return self.stack_ids * self.bank_groups * self.banks_per_group

    @property
    def pseudo_channel_gb_per_s(self) -> float:
        """Peak bandwidth of a pseudo-channel's pins."""
        return self.pseudo_channel_bits * self.data_rate_gbps / 8

    @property
    def stack_gb_per_s(self) -> float:
        """Peak bandwidth of a stack's pins."""
        return self.pseudo_channels * self.pseudo_channel_gb_per_s

    def at_data_rate(self, data_rate_gbps: float, *, name: str) -> "DramRecord":
        """This device at another data rate: shortest times become ``ceil(ns / tCK)``, refresh intervals the floor.

        The arithmetic is exact (rates are taken as the decimals they print as), so that no rounding error adds a clock
        to a timing that divides evenly. The result's evidence is "assumption".
        """
        ratio = Fraction(str(data_rate_gbps)) / Fraction(str(self.data_rate_gbps))
        scaled = {timing: math.ceil(getattr(self, timing) * ratio) for timing in SCALED_TIMINGS}
        scaled |= {interval: math.floor(getattr(self, interval) * ratio) for interval in SCALED_INTERVALS}
        changed = {
            "name": name,
            "aliases": (),
            "data_rate_gbps": data_rate_gbps,
            "tck_ns": self.tck_ns / float(ratio),
            "source": f"{self.name} timings in ns at {data_rate_gbps} Gb/s",
            "evidence": Evidence.ASSUMPTION,
        }
        return DramRecord.model_validate({**self.model_dump(), **scaled, **changed})
