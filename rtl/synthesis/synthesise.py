"""Synthesise a unit by name."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from catalog.progress import Progress
from predictor.st_moe.parameters import EngineLimits
from rtl.synthesis import cells, ecp5
from rtl.synthesis.figures import Block, Synthesis, total_of
from rtl.synthesis.hierarchy import design_of
from rtl.synthesis.liberty import Library, read_libraries
from rtl.synthesis.units import UNITS, Sum, Unit, unit_of
from rtl.yosys import require_extra, tool_versions


def synthesise(
    name: str,
    limits: EngineLimits,
    liberty: Sequence[Path],
    progress: Progress,
    options: ecp5.Options = ecp5.ONE_PLACEMENT,
) -> Synthesis:
    """Area and speed of the unit ``name``: of its cells with the libraries ``liberty``, on an ECP5 without any.

    Args:
        name: Of ``rtl.synthesis.units.UNITS``.
        limits: The prefetch engine's.
        liberty: Liberty files to use together.
        progress: Told how far it is.
        options: How it is placed on the ECP5.

    Raises:
        ForestageError: an unknown unit, a missing tool, a library that is none, a unit that does not fit.
    """
    unit = unit_of(name)
    require_extra()
    with tempfile.TemporaryDirectory(prefix="forestage-synthesis-") as temporary:
        folder = Path(temporary)
        library = read_libraries(liberty, folder) if liberty else None
        if isinstance(unit, Unit):
            return _synthesise(name, unit, limits, library, folder, progress, options)
        parts = []
        for part in unit.parts:
            inside = folder / part
            inside.mkdir()
            single = UNITS[part]
            if isinstance(single, Sum):
                raise AssertionError(f"{name}: {part}: a sum of sums")
            parts.append(_synthesise(part, single, limits, library, inside, progress, options))
        return _added(name, unit, parts)


def _synthesise(
    name: str,
    unit: Unit,
    limits: EngineLimits,
    library: Library | None,
    folder: Path,
    progress: Progress,
    options: ecp5.Options,
) -> Synthesis:
    design = design_of(unit.make(limits))
    parameters = limits.model_dump() if unit.limited else {}
    if library is None:
        placed = ecp5.place(design, folder, progress, options)
        return Synthesis(
            unit=name,
            target=ecp5.target(options.speed_grade),
            parameters=parameters,
            blocks=placed.blocks,
            total=total_of(placed.blocks) | {f"placed_{figure}": value for figure, value in placed.used.items()},
            path=placed.path,
            fmax_mhz=placed.fmax_mhz,
            fmax_of_seeds_mhz=placed.fmax_of_seeds_mhz,
            not_counted=ecp5.NOT_COUNTED,
            tools=tool_versions(),
        )
    mapped = cells.map_to_cells(design, library, folder, progress)
    return Synthesis(
        unit=name,
        target=library.target,
        parameters=parameters,
        blocks=mapped.blocks,
        total=total_of(mapped.blocks),
        memories=mapped.memories,
        sram_bits=sum(memory.instances * memory.bits for memory in mapped.memories if not memory.flip_flops),
        path=mapped.path,
        not_counted=cells.NOT_COUNTED,
        tools=tool_versions(),
        inputs=dict(zip(library.names, library.sha256, strict=True)),
    )


def _added(name: str, unit: Sum, parts: Sequence[Synthesis]) -> Synthesis:
    """The sum of ``parts``; its path is the longest of theirs."""
    blocks, memories = [], []
    for part in parts:
        times = unit.parts[part.unit]
        blocks += [
            Block(
                name=f"{part.unit}.{block.name}".rstrip("."),
                instances=times * block.instances,
                figures=block.figures,
            )
            for block in part.blocks
        ]
        memories += [
            memory.model_copy(
                update={
                    "block": f"{part.unit}.{memory.block}".rstrip("."),
                    "instances": times * memory.instances,
                }
            )
            for memory in part.memories
        ]
    total = {
        figure: round(sum(unit.parts[part.unit] * part.total[figure] for part in parts), 4) for figure in parts[0].total
    }
    slowest = max(parts, key=lambda part: part.path.ns if part.path else 0)
    clocks = [part.fmax_mhz for part in parts if part.fmax_mhz is not None]
    path = slowest.path and slowest.path.model_copy(
        update={"start": f"{slowest.unit}: {slowest.path.start}", "end": f"{slowest.unit}: {slowest.path.end}"}
    )
    return Synthesis(
        unit=name,
        target=parts[0].target,
        parameters=parts[0].parameters,
        blocks=tuple(blocks),
        total=total,
        memories=tuple(memories),
        sram_bits=sum(unit.parts[part.unit] * part.sram_bits for part in parts),
        path=path,
        fmax_mhz=min(clocks) if clocks else None,
        not_counted=f"what lies between the parts, each synthesised by itself; {parts[0].not_counted}",
        tools=parts[0].tools,
        inputs=parts[0].inputs,
    )
