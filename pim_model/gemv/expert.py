"""A whole expert in one memory stack: clocks, time, bandwidth, energy, and what reading it elsewhere takes.

The expert is split over the stack's pseudo-channels along its intermediate axis: each has some rows of gate and up, and
the same columns of ``down``, so that it runs from the input vector to a partial output, ``hidden`` FP32 numbers a
token. Shared scales of MXFP4 lie along that axis in 32s, so that its slices are multiples of 32. The partial outputs
are read over the pins and summed outside.

Counted one after the other, which is an assumption on the safe side (the unit's streams could overlap):

    the input vectors over the pins, to all pseudo-channels at once · the unit (`closed_form`) · its readout into the
    base die · the partial outputs over the pins.

More tokens than a read of the weights serves take several reads. With refresh, clocks are means over beginnings all
through tREFI. The slowest pseudo-channel counts.
"""

from dataclasses import dataclass

from catalog import DramRecord, ForestageError, ModelRecord
from catalog.errors import SettingError
from pim_model.dram.devices import pim_blocks
from pim_model.energy import EnergyEvents
from pim_model.gemv.bounds import unit_bound
from pim_model.gemv.product import Clocks, in_turn, token_parts, unit_for, unit_kernel
from pim_model.unit.parameters import COLUMN_BYTES, LANES
from pim_model.unit.program import ExpertKind, Program, WeightFormat, expert_program, weight_bytes

BEGINNINGS = 8
"""Beginnings, evenly spaced in tREFI, over which means are taken."""

KINDS = {"swiglu": ExpertKind.SWIGLU, "gpt_oss_swiglu": ExpertKind.GPT_OSS}
"""The catalogue's activations that the unit has."""


@dataclass(frozen=True, kw_only=True)
class ExpertShape:
    """An expert, whole.

    Attributes:
        hidden: Width of its input and output.
        intermediate: Width inside.
        kind: What happens between its matrices.
        bias: Whether every matrix has one.
    """

    hidden: int
    intermediate: int
    kind: ExpertKind
    bias: bool

    @classmethod
    def of(cls, model: ModelRecord) -> "ExpertShape":
        """The shape of a model's routed experts.

        Raises:
            ForestageError: experts that the unit cannot run.
        """
        kind = KINDS.get(model.activation)
        if kind is None or model.expert_matrices != 3:
            raise ForestageError(
                f"model {model.name}: activation: {model.activation} with {model.expert_matrices} matrices; the PIM "
                f"unit runs experts of three matrices with {' or '.join(KINDS)}"
            )
        return cls(hidden=model.hidden, intermediate=model.expert_intermediate, kind=kind, bias=model.expert_bias)

    def weight_bytes(self, weight_format: WeightFormat) -> int:
        """Bytes of the three matrices, scales included, biases not."""
        gate_up = weight_bytes(2 * self.intermediate, self.hidden, weight_format)
        return gate_up + weight_bytes(self.hidden, self.intermediate, weight_format)


@dataclass(frozen=True, kw_only=True)
class ExpertRun:
    """One expert in one stack.

    Attributes:
        pseudo_channels: Those that have a slice.
        slices: Sizes of slices → how many pseudo-channels have one.
        weight_reads: Times that the weights are read.
        input_cycles, compute_cycles, readout_cycles, output_cycles: Clocks of the parts, in their order.
        time_s: All of them.
        weight_bytes: Of the expert, scales included.
        gb_per_s: ``weight_bytes · weight_reads`` over ``compute_cycles``.
        fraction_of_limit: That, over what all blocks of the stack can read.
        bound_fraction: What no order of commands exceeds.
        bound_s: ``time_s``, if the weights were read at that bound and nothing else took time.
        events: What costs energy, in all pseudo-channels together. Rows opened again after refreshes are counted from
            the mean number of refreshes. Input vectors and partial outputs pass between pins and base die, but are
            counted as host accesses to cells: an upper bound.
    """

    pseudo_channels: int
    slices: dict[int, int]
    weight_reads: int
    input_cycles: int
    compute_cycles: int
    readout_cycles: int
    output_cycles: int
    time_s: float
    weight_bytes: int
    gb_per_s: float
    fraction_of_limit: float
    bound_fraction: float
    bound_s: float
    events: EnergyEvents

    @property
    def cycles(self) -> int:
        """All parts."""
        return self.input_cycles + self.compute_cycles + self.readout_cycles + self.output_cycles


def slices_of(intermediate: int, pseudo_channels: int, weight_format: WeightFormat) -> dict[int, int]:
    """Sizes of the slices of an expert → how many pseudo-channels have one; as even as the format lets them be."""
    unit = 32 if weight_format is WeightFormat.MXFP4 else 1
    units = -(-intermediate // unit)
    small, larger = divmod(units, pseudo_channels)
    sizes = [(small + 1) * unit] * larger + [small * unit] * (pseudo_channels - larger)
    sizes = [size for size in sizes if size]
    # The last block of a shared scale may be cut short.
    sizes[-1] -= units * unit - intermediate
    return {size: sizes.count(size) for size in sorted(set(sizes), reverse=True)}


def run_expert(
    device: DramRecord,
    shape: ExpertShape,
    weight_format: WeightFormat,
    tokens: int,
    *,
    refresh: bool = True,
    pseudo_channels: int | None = None,
) -> ExpertRun:
    """The expert in one stack of ``device``, from the closed form.

    Args:
        device: The DRAM.
        shape: The expert.
        weight_format: Of its weights.
        tokens: Vectors that it is given.
        refresh: Whether all banks are refreshed.
        pseudo_channels: Over which it is split; None: the whole stack.

    Raises:
        ForestageError: what the unit cannot do.
    """
    if tokens < 1:
        raise SettingError("tokens", f"is {tokens}; give at least 1")
    blocks = pim_blocks(device)
    channels = device.pseudo_channels if pseudo_channels is None else pseudo_channels
    if not 1 <= channels <= device.pseudo_channels:
        raise SettingError("pseudo_channels", f"{channels}; a stack of {device.name} has {device.pseudo_channels}")
    phases = device.pseudo_channels_per_command_bus if channels > 1 else 1
    slices, parts = slices_of(shape.intermediate, channels, weight_format), token_parts(tokens, weight_format)
    programs = {size: _programs(device, shape, weight_format, size, parts, phases) for size in slices}
    slowest = [_in_turn(device, shape, programs[size], phase, phases) for size in slices for phase in range(phases)]
    compute, total = _means(device, slowest, refresh=refresh)
    in_bursts = -(-shape.hidden * 2 * tokens // device.burst_bytes)
    out_bursts = -(-shape.hidden * 4 * tokens // device.burst_bytes)
    used = sum(slices.values())
    cycles = total + (in_bursts + out_bursts) * device.burst_ck
    refreshes = total / device.trefi_ck if refresh else 0.0
    size, limit = shape.weight_bytes(weight_format), device.pseudo_channels * blocks.bytes_per_ck
    bound = unit_bound(unit_for(device, max(shape.hidden, shape.intermediate), phases, 0))
    bound_fraction = bound.fraction_with_refresh if refresh else bound.fraction
    seconds = device.tck_ns * 1e-9
    return ExpertRun(
        pseudo_channels=used,
        slices=slices,
        weight_reads=len(parts),
        input_cycles=in_bursts * device.burst_ck,
        compute_cycles=compute,
        readout_cycles=total - compute,
        output_cycles=out_bursts * device.burst_ck,
        time_s=cycles * seconds,
        weight_bytes=size,
        gb_per_s=size * len(parts) / (compute * seconds) / 1e9,
        fraction_of_limit=size * len(parts) / (compute * limit),
        bound_fraction=bound_fraction,
        bound_s=size * len(parts) / (limit * bound_fraction) * seconds,
        events=_events(
            device,
            slices,
            programs,
            (in_bursts * device.burst_bytes, out_bursts * device.burst_bytes),
            (total, (in_bursts + out_bursts) * device.burst_ck),
            refreshes,
        ),
    )


def _programs(
    device: DramRecord, shape: ExpertShape, weight_format: WeightFormat, size: int, parts: list[int], phases: int
) -> list[Program]:
    unit = unit_for(device, max(shape.hidden, shape.intermediate), phases, 0)
    bias = shape.bias
    return [
        expert_program(
            unit,
            shape.hidden,
            size,
            weight_format,
            shape.kind,
            tokens=part,
            gate_up_bias=bias,
            down_bias=bias,
        )
        for part in parts
    ]


def _in_turn(device: DramRecord, shape: ExpertShape, programs: list[Program], phase: int, phases: int) -> Clocks:
    """The reads of one slice's weights, one after the other, by when the first refresh is due."""
    unit = unit_for(device, max(shape.hidden, shape.intermediate), phases, phase)
    return in_turn([unit_kernel(program, unit) for program in programs], device.trefi_ck)


def _means(device: DramRecord, slices: list[Clocks], *, refresh: bool) -> tuple[int, int]:
    """Clocks until the slowest slice's sums are complete, and until all have been read out."""
    dues: list[int | None] = [None]
    if refresh:
        dues = [device.trefi_ck * number // BEGINNINGS for number in range(1, BEGINNINGS + 1)]
    compute = total = 0
    for due in dues:
        every = [clocks(due) for clocks in slices]
        compute += max(clocks.compute_ck for clocks in every)
        total += max(clocks.compute_ck + clocks.readout_ck for clocks in every)
    return round(compute / len(dues)), round(total / len(dues))


def _events(
    device: DramRecord,
    slices: dict[int, int],
    programs: dict[int, list[Program]],
    hosted: tuple[int, int],
    cycles: tuple[int, int],
    refreshes: float,
) -> EnergyEvents:
    """What costs energy, in all pseudo-channels together.

    Args:
        device: The DRAM.
        slices: Sizes of slices → how many pseudo-channels have one.
        programs: Of each size.
        hosted: Bytes that each pseudo-channel is sent, and that are read from it.
        cycles: Clocks of the unit, and of the transfers before and after it, in which all banks are closed.
        refreshes: Of each pseudo-channel.
    """
    channels, blocks = sum(slices.values()), pim_blocks(device).blocks
    columns = transfers = multiply_adds = activations = 0
    for size, number in slices.items():
        for program in programs[size]:
            for phase in program.phases:
                of_octet = phase.constants_of_octet + program.tokens
                columns += number * blocks * sum(phase.columns_of_tile(tile) for tile in phase.tiles)
                activations += number * blocks * phase.row_sets
                transfers += number * phase.chunks * len(phase.tiles) * program.loads_of_chunk
                transfers += number * blocks * of_octet * sum(tile.octets for tile in phase.tiles)
                rows = sum(tile.rows_per_block for tile in phase.tiles)
                multiply_adds += number * blocks * rows * phase.chunks * LANES * program.tokens
    unit_ck, transfer_ck = cycles
    closed_ck = min(unit_ck, refreshes * device.trfc_ck)
    return EnergyEvents(
        # Both halves are opened again after a refresh.
        activations=round(activations + refreshes * channels * 2 * blocks),
        host_write_bytes=channels * hosted[0],
        host_read_bytes=channels * hosted[1],
        in_bank_bytes=columns * COLUMN_BYTES,
        base_die_bytes=transfers * device.burst_bytes,
        all_bank_refreshes=refreshes * channels,
        multiply_adds=multiply_adds,
        active_ns=channels * (unit_ck - closed_ck) * device.tck_ns,
        precharged_ns=channels * (closed_ck + transfer_ck) * device.tck_ns,
    )
