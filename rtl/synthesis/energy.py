"""Energy of a unit, from its record's areas and from what toggled and was accessed in a simulation: an estimate."""

from collections.abc import Mapping, Sequence

from catalog.config import StrictModel
from catalog.sram import SramRecord
from rtl.synthesis.cell_energy import CellEnergy
from rtl.synthesis.cells import FLIP_FLOP_BITS
from rtl.synthesis.figures import Block, Synthesis
from rtl.synthesis.saif import Nets

NOT_COUNTED = (
    "wires, clock tree, glitches, SRAM that nobody accesses (its leakage); the gates toggle as the nets of the RTL do, "
    "and have the pins and insides of the library's mean cell by area"
)


class Access(StrictModel):
    """What a simulation asked of a memory.

    Attributes:
        name: where it is.
        depth, width: words, and bits of a word.
        bits: read and written.
        clocked: whether it is read with a clock; else it is made of flip-flops.
    """

    name: str
    depth: int
    width: int
    bits: int
    clocked: bool

    @property
    def is_sram(self) -> bool:
        """Whether the synthesis leaves it out of the cells."""
        return self.clocked and self.depth * self.width > FLIP_FLOP_BITS


class Energy(StrictModel):
    """In a time, pJ.

    Attributes:
        clock: flip-flops' clock pins and what moves behind them when nothing else does; no clock gate stops any.
        logic: gates and flip-flops that toggle.
        sram: accesses.
        leakage: of cells.
    """

    clock: float = 0
    logic: float = 0
    sram: float = 0
    leakage: float = 0

    @property
    def total(self) -> float:
        """All of it."""
        return self.clock + self.logic + self.sram + self.leakage

    @property
    def idle(self) -> float:
        """What it takes if nothing toggles."""
        return self.clock + self.leakage

    def scaled(self, factor: float) -> "Energy":
        """So many times as much."""
        return Energy(**{name: factor * value for name, value in self})

    def __add__(self, other: "Energy") -> "Energy":
        return Energy(**{name: value + getattr(other, name) for name, value in self})


class Toggling(StrictModel):
    """How much nets toggle.

    Attributes:
        bits: nets of one bit.
        toggles: of all of them, either way.
        cycles: in which.
    """

    bits: int
    toggles: int
    cycles: int

    @property
    def rate(self) -> float:
        """Toggles of a net in a cycle."""
        return self.toggles / (self.bits * self.cycles) if self.bits else 0.0


def toggling(nets: Sequence[Nets], cycles: int) -> Toggling:
    """Of all ``nets`` together."""
    return Toggling(bits=sum(of.bits for of in nets), toggles=sum(of.toggles for of in nets), cycles=cycles)


def unit_energy(
    record: Synthesis, nets: Mapping[str, Sequence[Nets]], cells: CellEnergy, *, cycles: int, clock_ns: float
) -> Energy:
    """Of a unit's cells in ``cycles``.

    A block's cells toggle as its own nets do, whose instances are all counted. A block that has none of its own
    toggles as the whole unit.

    Args:
        record: of its synthesis, whose blocks are named as ``nets``' keys.
        nets: block → its instances' nets; blocks that the record has not by name count for the whole alone.
        cells: of the library that it was mapped to.
        cycles: in which they toggled.
        clock_ns: of a cycle.
    """
    whole = toggling([one for found in nets.values() for one in found], cycles).rate
    total = Energy()
    for block in record.blocks:
        own = toggling(nets.get(block.name, ()), cycles)
        rate = own.rate if own.bits else whole
        total += _block(block, cells, rate, clock_ns).scaled(block.instances * cycles)
    return total


def _block(block: Block, cells: CellEnergy, rate: float, clock_ns: float) -> Energy:
    """Of one instance in one cycle."""
    flip_flop_area = block.figures["flip_flop_area_um2"]
    logic_area = block.figures["area_um2"] - flip_flop_area
    flip_flops = flip_flop_area / cells.flip_flop_um2
    pins_ff = logic_area * cells.input_ff_per_um2 + flip_flops * cells.flip_flop_input_ff
    inside_fj = logic_area * cells.toggle_fj_per_um2 + flip_flops * cells.flip_flop_toggle_fj
    leakage_nw = logic_area * cells.leakage_nw_per_um2 + flip_flops * cells.flip_flop_leakage_nw
    return Energy(
        clock=flip_flops * cells.clock_fj / 1e3,
        logic=rate * (pins_ff * cells.volts**2 / 2 + inside_fj) / 1e3,
        leakage=leakage_nw * clock_ns / 1e6,
    )


def sram_energy(accesses: Sequence[Access], figures: SramRecord) -> Energy:
    """Of the accesses to what is SRAM, each bit at the energy of the nearest published capacity.

    Raises:
        ValueError: the figures have no energies.
    """
    total = 0.0
    for access in accesses:
        if not access.is_sram:
            continue
        word = figures.access_pj(access.width, access.depth)
        if word is None:
            raise ValueError(f"{figures.name}: has no energy of an access")
        total += word * access.bits / access.width
    return Energy(sram=total)
