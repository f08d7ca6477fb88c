"""Area and energy of on-chip memory, as published: what netlists without memories are to be read with."""

from pydantic import Field, model_validator

from catalog.config import StrictModel
from catalog.records import PositiveFloat, PositiveInt, Record


class SramAccess(StrictModel):
    """Energy of one access.

    Attributes:
        bytes: capacity of the memory.
        pj_per_bit: a read or a write, for each bit of the word.
    """

    bytes: PositiveInt
    pj_per_bit: PositiveFloat


class SramRecord(Record):
    """SRAM of a process.

    Attributes:
        node_nm: the process, as its maker calls it.
        cell_libraries: targets of a synthesis that it is read with; empty where it stands for itself.
        area_um2_per_bit: of a macro, or of the bit cell alone (the source says which).
        array_share: share of a macro that is bit cells; 1 where the area is a macro's.
        accesses: energies, by ascending capacity; empty where there is no source.
    """

    node_nm: PositiveInt
    cell_libraries: tuple[str, ...] = ()
    area_um2_per_bit: PositiveFloat
    array_share: float = Field(default=1.0, gt=0, le=1)
    accesses: tuple[SramAccess, ...] = ()

    @model_validator(mode="after")
    def _ascending(self) -> "SramRecord":
        sizes = [access.bytes for access in self.accesses]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"accesses: capacities must ascend, found {sizes}")
        return self

    def area_um2(self, bits: int) -> float:
        """Of so many bits, however they are divided among memories."""
        return bits * self.area_um2_per_bit / self.array_share

    def access_pj(self, width: int, depth: int) -> float | None:
        """Of one access to a memory of ``depth`` words of ``width`` bits.

        That of the smallest capacity given that holds it; of the largest where none does, which is then too little.
        ``None`` where the source gives no energy.
        """
        if not self.accesses:
            return None
        held = [access for access in self.accesses if 8 * access.bytes >= width * depth]
        return width * (held[0] if held else self.accesses[-1]).pj_per_bit
