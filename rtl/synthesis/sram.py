"""What the memories of a synthesis would take: an estimate from published figures, beside what was mapped."""

from catalog import Catalog
from catalog.config import StrictModel
from catalog.sram import SramRecord
from rtl.synthesis.figures import Memory, Synthesis


class MemoryEstimate(StrictModel):
    """Of a memory in SRAM.

    Attributes:
        block, name: as in the synthesis.
        area_um2: of all instances.
        access_pj: of one access to one instance, a whole word; ``None`` where there is no source.
    """

    block: str
    name: str
    area_um2: float
    access_pj: float | None


class SramEstimate(StrictModel):
    """Of all memories in SRAM.

    Attributes:
        figures: name of the catalogue's record.
        sources: where its figures come from, by field.
        area_um2: sum over all memories.
        memories: each.
    """

    figures: str
    sources: dict[str, str]
    area_um2: float
    memories: tuple[MemoryEstimate, ...]


def record_for(target: str, catalog: Catalog) -> SramRecord | None:
    """The figures that a target's memories are read with; ``None`` if the catalogue has none."""
    return next((record for record in catalog.sram if target in record.cell_libraries), None)


def estimate(synthesis: Synthesis, catalog: Catalog) -> SramEstimate | None:
    """Area and energy of the memories that are in no area; ``None`` where there are none, or no figures for them."""
    record = record_for(synthesis.target, catalog)
    memories = [memory for memory in synthesis.memories if not memory.flip_flops]
    if record is None or not memories:
        return None
    found = tuple(_memory(memory, record) for memory in memories)
    fields = ("area_um2_per_bit", "array_share", "accesses") if record.accesses else ("area_um2_per_bit", "array_share")
    told = {field: record.source_of(field) for field in fields}
    return SramEstimate(
        figures=record.name,
        sources={field: f"{source.source} [{source.evidence}]" for field, source in told.items()},
        area_um2=round(sum(memory.area_um2 for memory in found), 1),
        memories=found,
    )


def _memory(memory: Memory, record: SramRecord) -> MemoryEstimate:
    access = record.access_pj(memory.width, memory.depth)
    return MemoryEstimate(
        block=memory.block,
        name=memory.name,
        area_um2=round(record.area_um2(memory.instances * memory.bits), 1),
        access_pj=None if access is None else round(access, 3),
    )
