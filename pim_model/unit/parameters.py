"""What a PIM expert unit is generated with, and the clocks that follow from it and its DRAM device."""

import math
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.dram import DramRecord, PimBlocks
from catalog.errors import ForestageError

LANES = 16
"""Multipliers of a block; inputs of a chunk."""

PASSES = 4
"""Clocks in which a block takes in a column; the shortest interval between columns."""

COLUMN_BYTES = 32

ACCUMULATORS = 32
"""Accumulators of one of a block's two accumulator banks."""

INPUT_REGISTERS = 16
"""Input registers of a block, 32 bytes each: a ring. With 8, four tokens a weight read (BF16) cost 4 % of the rate."""

MOST_INPUT_REGISTERS_OF_CHUNK = 4
"""A chunk of four tokens (BF16)."""

OCTET = 8
"""Rows of a block that one readback takes, 32 bits each."""

MAX_ROWS = 65535
"""Rows of a matrix that a descriptor can name."""

MOST_POSTPONED_REFRESHES = 8
"""All-bank refreshes that a DRAM allows to be postponed (JESD235)."""

LANE_LATENCY_CK = 18
"""Clocks from the first clock of a pass's operands to the one in which its accumulator holds the sum."""

READBACK_LATENCY_CK = 24
"""Clocks from the base die's receiving a readback of gate and up rows to the first in which their products count as
inputs of ``down``: then they are in the input buffer."""


class UnitParameters(StrictModel):
    """What the unit is generated with.

    Attributes:
        device: The DRAM device; it has blocks at its bank pairs.
        max_inputs: Longest input vector of a phase that the base die's buffer holds, for each token.
        output_beats: Beats of the output queue.
        bank_rows: Rows of a bank.
        bus_phases: 2: another pseudo-channel shares the command buses, and this one issues column commands only in
            clocks of its own parity, row commands only in its own row slots. 1: the buses are its own.
        phase: Which of the phases is this pseudo-channel's.
    """

    device: DramRecord
    max_inputs: Annotated[int, Field(ge=64, le=16384, multiple_of=32)] = 4096
    output_beats: Annotated[int, Field(ge=16, le=1024)] = 128
    bank_rows: Annotated[int, Field(ge=64, le=65536)] = 16384
    bus_phases: Literal[1, 2] = 1
    phase: Annotated[int, Field(ge=0, le=1)] = 0

    @model_validator(mode="after")
    def _possible(self) -> "UnitParameters":
        blocks = self.device.pim
        if blocks is None:
            raise ValueError(f"device {self.device.name} has no compute at its banks")
        if blocks.banks_per_block != 2:
            raise ValueError(f"device {self.device.name}: {blocks.banks_per_block} banks a block; the unit needs 2")
        if blocks.datapath_bits != 8 * COLUMN_BYTES or self.device.burst_bytes != COLUMN_BYTES:
            raise ValueError(f"device {self.device.name}: its blocks and bursts must be {COLUMN_BYTES} bytes wide")
        if blocks.operation_interval_ck < PASSES:
            raise ValueError(
                f"device {self.device.name}: operation_interval_ck is {blocks.operation_interval_ck}; a block needs "
                f"{PASSES} clocks for a column"
            )
        if blocks.blocks < 2:
            raise ValueError(f"device {self.device.name}: one block; the unit needs at least 2")
        if self.device.row_bursts.bit_count() != 1:
            raise ValueError(f"device {self.device.name}: row_bursts is {self.device.row_bursts}; give a power of two")
        if self.phase >= self.bus_phases:
            raise ValueError(
                f"phase is {self.phase}; with bus_phases {self.bus_phases} it is 0 to {self.bus_phases - 1}"
            )
        return self

    @property
    def blocks(self) -> PimBlocks:
        """The device's blocks."""
        assert self.device.pim is not None, "checked when it was made"
        return self.device.pim

    @property
    def timings(self) -> "UnitTimings":
        """The unit's clocks."""
        return UnitTimings.of(self)


class UnitTimings(NamedTuple):
    """Smallest distances, in clocks, between what the unit issues; see ``of`` for their sources.

    A tuple, as compiled kernels take it.

    Attributes:
        interval: PIM to PIM; readback to readback.
        act_to_pim: A half's last ACT to its first PIM.
        pim_to_close: A half's last PIM to its PREH, any last PIM to PREAB.
        act_to_close: A half's last ACT to its PREH, the last ACT to PREAB.
        close_to_act: PREH or PREAB to ACT, and to REFAB.
        act_to_act: ACT to ACT.
        group_window, act_to_act_group: ACT to the ``group_window``-th ACT after it, whose bank group is the same.
        four_acts: ACT to the fourth ACT after it.
        refresh: REFAB to whatever is next.
        refresh_interval: Clocks from one refresh's being due to the next's.
        act_on_bus: Clocks for which an ACT occupies the row bus.
        load_to_load: LDI to LDI.
        load_to_readback, readback_to_load: Turning the data bus.
        load_to_use: A chunk's last LDI to its first MAC.
        use_to_load: A chunk's last MAC to the LDI that reuses its registers.
        tile_to_readback: A tile's last column to its readback.
        read_latency: PIM, or readback, to its data's arrival.
        write_latency: LDI to its data's arrival.
        readback_to_input: Readback of gate and up rows to their products' counting as inputs of ``down``.
        column_period, column_phase: Column commands are issued in clocks ≡ phase (mod period).
        row_period, row_phase: Row commands likewise.
        blocks: Blocks, and so ACTs that open a half.
    """

    interval: int
    act_to_pim: int
    pim_to_close: int
    act_to_close: int
    close_to_act: int
    act_to_act: int
    group_window: int
    act_to_act_group: int
    four_acts: int
    refresh: int
    refresh_interval: int
    act_on_bus: int
    load_to_load: int
    load_to_readback: int
    readback_to_load: int
    load_to_use: int
    use_to_load: int
    tile_to_readback: int
    read_latency: int
    write_latency: int
    readback_to_input: int
    column_period: int
    column_phase: int
    row_period: int
    row_phase: int
    blocks: int

    @property
    def refresh_bound(self) -> int:
        """Most clocks from a refresh's being due to its REFAB, if no refresh is under way.

        In the clock before, a bank may have been opened, or a column read: the banks stay open for the longer of the
        distances from there to PREAB. Each of the two commands may wait for the row bus's slot.
        """
        still_open = max(self.act_to_close, self.pim_to_close, self.act_on_bus) - 1
        return still_open + self.close_to_act + 2 * (self.row_period - 1)

    @classmethod
    def of(cls, parameters: UnitParameters) -> "UnitTimings":
        """The clocks of a unit, from its device's constraints.

        In a PIM command the bank's columns reach the block as late as a read's would reach the pins (CL), and an LDI's
        data reach the input registers as a write's reach the bank (CWL): assumptions, as nobody has published the
        latencies inside a part. ACTs follow the blocks' order, which goes round the bank groups.

        Raises:
            ForestageError: a tRRD_L that going round the bank groups does not hide.
        """
        device = parameters.device
        interval = parameters.blocks.operation_interval_ck
        act_on_bus = math.ceil(device.activate_command_ck)
        load_to_load = max(device.burst_ck, device.tccd_s_ck)
        if load_to_load < 2:
            raise ForestageError(
                f"dram '{device.name}': burst_ck is {device.burst_ck} and tccd_s_ck {device.tccd_s_ck}; the unit's "
                "sequencer needs two clocks from load to load: one of them must be 2"
            )
        if device.trc_ck > device.tras_ck + device.trp_ck + device.trrd_s_ck:
            raise ForestageError(
                f"dram '{device.name}': trc_ck is {device.trc_ck}; beyond tras_ck + trp_ck + trrd_s_ck the unit's "
                "sequencer would break it"
            )
        landed = device.cwl_ck + device.burst_ck
        shared = parameters.bus_phases
        return cls(
            interval=interval,
            act_to_pim=device.trcd_read_ck,
            pim_to_close=device.trtp_l_ck,
            act_to_close=device.tras_ck,
            close_to_act=device.trp_ck,
            act_to_act=max(device.trrd_s_ck, act_on_bus),
            group_window=device.bank_groups,
            act_to_act_group=device.trrd_l_ck,
            four_acts=device.tfaw_ck,
            refresh=device.trfc_ck,
            refresh_interval=device.trefi_ck,
            act_on_bus=act_on_bus,
            load_to_load=load_to_load,
            load_to_readback=max(1, landed + 2 - device.cl_ck),
            readback_to_load=device.cl_ck + device.burst_ck + 2 - device.cwl_ck,
            load_to_use=max(1, landed - device.cl_ck),
            use_to_load=max(1, device.cl_ck + interval - landed + 1),
            tile_to_readback=interval + LANE_LATENCY_CK,
            read_latency=device.cl_ck,
            write_latency=device.cwl_ck,
            readback_to_input=device.cl_ck + READBACK_LATENCY_CK,
            column_period=shared,
            column_phase=parameters.phase,
            row_period=shared * act_on_bus if shared > 1 else 1,
            row_phase=parameters.phase * act_on_bus,
            blocks=parameters.blocks.blocks,
        )
