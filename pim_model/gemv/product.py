"""A matrix times input vectors, its rows split over pseudo-channels: clocks, and the share of the limit reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from catalog import DramRecord, ForestageError
from catalog.errors import SettingError
from pim_model.dram.devices import pim_blocks
from pim_model.gemv.bounds import unit_bound
from pim_model.gemv.closed_form import GemvClocks, unit_clocks
from pim_model.gemv.samsung import samsung_clocks
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Program, WeightFormat, gemv_program, weight_bytes

REFRESH_PHASES = 16
"""Beginnings, evenly spaced in tREFI, over which the mean is taken."""

MAX_INPUTS = 16384
"""Of the largest unit."""


class Kernel(StrEnum):
    """Who multiplies."""

    SAMSUNG = "samsung"
    """The published HBM-PIM's kernel."""
    PINGPONG = "pingpong"
    """This project's unit: one half of the banks computes while the other opens its next row."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product of a matrix with some vectors; clocks are of the slowest pseudo-channel.

    Attributes:
        device: Name of the DRAM device.
        kernel: `Kernel`.
        out_features, in_features: Rows and columns of the matrix.
        pseudo_channels: Over which its rows are split.
        rows: Of a pseudo-channel, the most of any.
        format: Of the weights.
        tokens: Vectors.
        weight_reads: Times that the weights are read: a read serves some tokens only.
        bus_phases: Pseudo-channels that take turns on the command buses.
        refresh: Whether all banks are refreshed in every tREFI; the kernel begins right after a refresh.
        compute_cycles: Clocks until the last sums are complete; of several reads, the readouts between are in it.
        readout_cycles: Clocks from there until the results are in the base die (samsung: at the host).
        weight_bytes: Of the matrix, scales included.
        fraction_of_limit: ``weight_bytes · weight_reads`` over what all blocks of all pseudo-channels could read in
            ``compute_cycles``.
        mean_fraction_of_limit: With refresh, over beginnings all through tREFI: a short kernel that begins right after
            a refresh meets none.
        bound_fraction: What no order of commands exceeds (`pim_model.gemv.bounds`); of ``samsung`` the limit itself.
    """

    device: str
    kernel: str
    out_features: int
    in_features: int
    pseudo_channels: int
    rows: int
    format: str
    tokens: int
    weight_reads: int
    bus_phases: int
    refresh: bool
    compute_cycles: int
    readout_cycles: int
    weight_bytes: int
    fraction_of_limit: float
    mean_fraction_of_limit: float
    bound_fraction: float


def product(
    device: DramRecord,
    kernel: Kernel,
    *,
    out_features: int,
    in_features: int,
    pseudo_channels: int = 1,
    weight_format: WeightFormat = WeightFormat.BF16,
    tokens: int = 1,
    refresh: bool = False,
) -> Product:
    """The product by ``kernel``, from its closed form.

    Raises:
        ForestageError: more pseudo-channels than a stack has, or what the kernel cannot do.
    """
    _check(device, out_features, in_features, pseudo_channels, tokens)
    rows = -(-out_features // pseudo_channels)
    phases = device.pseudo_channels_per_command_bus if pseudo_channels > 1 else 1
    run = _samsung if kernel is Kernel.SAMSUNG else _pingpong
    reads, kernels = run(device, rows, in_features, weight_format, tokens, phases)

    def slowest(refresh_in_ck: int | None) -> GemvClocks:
        every = [clocks(refresh_in_ck) for clocks in kernels]
        compute = max(clocks.compute_ck for clocks in every)
        return GemvClocks(compute, max(clocks.compute_ck + clocks.readout_ck for clocks in every) - compute)

    size = weight_bytes(out_features, in_features, weight_format)
    capacity = pseudo_channels * pim_blocks(device).bytes_per_ck

    def fraction(clocks: GemvClocks) -> float:
        return size * reads / (clocks.compute_ck * capacity)

    clocks = slowest(device.trefi_ck if refresh else None)
    mean = fraction(clocks)
    if refresh:
        dues = [device.trefi_ck * number // REFRESH_PHASES for number in range(1, REFRESH_PHASES + 1)]
        mean = size * reads / (sum(slowest(due).compute_ck for due in dues) / len(dues) * capacity)
    bound = 1.0
    if kernel is Kernel.PINGPONG:
        limits = unit_bound(unit_for(device, in_features, phases, 0))
        bound = limits.fraction_with_refresh if refresh else limits.fraction
    return Product(
        device=device.name,
        kernel=kernel.value,
        out_features=out_features,
        in_features=in_features,
        pseudo_channels=pseudo_channels,
        rows=rows,
        format=weight_format.name.lower(),
        tokens=tokens,
        weight_reads=reads,
        bus_phases=phases,
        refresh=refresh,
        compute_cycles=clocks.compute_ck,
        readout_cycles=clocks.readout_ck,
        weight_bytes=size,
        fraction_of_limit=fraction(clocks),
        mean_fraction_of_limit=mean,
        bound_fraction=bound,
    )


Clocks = Callable[[int | None], GemvClocks]
"""The clocks of a kernel by when the first refresh is due; None: none ever is."""


def _samsung(
    device: DramRecord, rows: int, inputs: int, weight_format: WeightFormat, tokens: int, phases: int
) -> tuple[int, list[Clocks]]:
    """How often the weights are read (once a token), and the clocks of each phase of the buses."""
    if weight_format is not WeightFormat.BF16:
        raise SettingError(
            "weight_format",
            "the published part, whose kernel samsung is, multiplies 16-bit floats: give bf16 (FP16 takes the same "
            "clocks), or take the kernel pingpong",
            value=weight_format.name.lower(),
        )

    def one(due: int | None, phase: int) -> GemvClocks:
        return samsung_clocks(device, rows, inputs, refresh_in_ck=due, bus_phases=phases, phase=phase)

    return tokens, [in_turn([partial(one, phase=phase)] * tokens, device.trefi_ck) for phase in range(phases)]


def _pingpong(
    device: DramRecord, rows: int, inputs: int, weight_format: WeightFormat, tokens: int, phases: int
) -> tuple[int, list[Clocks]]:
    """How often the weights are read, and the clocks of each phase of the buses."""
    parts = token_parts(tokens, weight_format)

    def clocks_of(phase: int) -> Clocks:
        unit = unit_for(device, inputs, phases, phase)
        programs = [gemv_program(unit, rows, inputs, weight_format, tokens=part) for part in parts]
        return in_turn([unit_kernel(program, unit) for program in programs], device.trefi_ck)

    return len(parts), [clocks_of(phase) for phase in range(phases)]


def unit_kernel(program: Program, unit: UnitParameters) -> Clocks:
    """The clocks of a program."""
    return lambda due: unit_clocks(program, unit, refresh_in_ck=due)


def token_parts(tokens: int, weight_format: WeightFormat) -> list[int]:
    """Input vectors of each read of the weights: as many as it can take, of the last one the rest.

    Tiles, and with them the place of every weight, depend on the tokens' places (`token_slots`). So where there are
    several reads, the last one's vectors are filled up until they have as many places as the others'.
    """
    most = weight_format.most_tokens
    full, rest = divmod(tokens, most)
    if full and rest:
        rest = max(rest, most // 2 + 1)
    return [most] * full + ([rest] if rest else [])


def in_turn(kernels: Sequence[Clocks], interval: int) -> Clocks:
    """Kernels one after the other, each beginning when the one before has been read out; refreshes go on."""

    def clocks(due: int | None) -> GemvClocks:
        elapsed = 0
        for kernel in kernels[:-1]:
            taken = sum(kernel(due))
            elapsed += taken
            if due is not None:
                due -= taken
                if due <= 0:  # those that came due meanwhile have been served
                    due += -(-(1 - due) // interval) * interval
        last = kernels[-1](due)
        return GemvClocks(elapsed + last.compute_ck, last.readout_ck)

    return clocks


def unit_for(device: DramRecord, inputs: int, phases: int, phase: int) -> UnitParameters:
    """A unit whose buffer holds ``inputs``.

    Raises:
        ForestageError: if none does.
    """
    if inputs > MAX_INPUTS:
        raise ForestageError(
            f"PIM unit: a vector of {inputs} elements; its buffer holds at most {MAX_INPUTS}: split the matrix"
        )
    longest = max(64, -(-inputs // 32) * 32)
    return UnitParameters(device=device, max_inputs=longest, bus_phases=phases, phase=phase)  # type: ignore[arg-type]


def _check(device: DramRecord, out_features: int, in_features: int, pseudo_channels: int, tokens: int) -> None:
    pim_blocks(device)
    for name, value in {"out_features": out_features, "in_features": in_features, "tokens": tokens}.items():
        if value < 1:
            raise SettingError(name, f"is {value}; give at least 1")
    if not 1 <= pseudo_channels <= device.pseudo_channels:
        raise SettingError(
            "pseudo_channels", f"{pseudo_channels}; a stack of {device.name} has {device.pseudo_channels}"
        )
