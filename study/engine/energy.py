"""Energy of the prefetch engine's decisions, from a lock-step run and the committed records: an estimate."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from catalog import load_catalog
from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.sram import SramRecord
from cocotb_tests import memory_accesses
from cocotb_tests.prefetch_engine.run import COUNTED_NET, SAIF, engine_verilog
from cocotb_tests.prefetch_engine.trace_replay import TraceReplayResult
from predictor.engine.limits import PrefetchEngineLimits
from rtl.synthesis.cell_energy import CellEnergy
from rtl.synthesis.energy import NOT_COUNTED, Access, Energy, sram_energy, toggling, unit_energy
from rtl.synthesis.figures import Synthesis, read_record
from rtl.synthesis.instances import block_name, instances
from rtl.synthesis.saif import Activity, Nets, read_saif
from rtl.synthesis.sram import record_for
from study.engine.silicon import PARTS
from traces import RoutingTrace

PLACES = {
    "engine-net": "core/learned/net",
    "engine-text": "core/learned/text",
    "engine-tables": "core/tables",
    "engine-table-port": "core/table_port",
    "engine-stager": "core/stager",
    "engine-link": "core/link",
    "engine-front-end": "core/front_end",
    "engine-arbiter": "core/arbiter",
    "engine-notices": "core/notices",
    "engine-registers": "registers",
    "engine-bus": "slave",
    "engine-counters": "counters",
    "engine-tallies": "core/tallies",
}
"""Where each unit of ``rtl.synthesis`` is in the engine."""
_TOP = "prefetch_engine"
_MEMORY_ENERGIES = "oconnor-2017"


class PartEnergy(StrictModel):
    """A part of the engine, by decision.

    Attributes:
        unit, part: its name in ``rtl.synthesis``, and in words.
        area_um2: of its cells; ``None`` where it has no record, so that only its memories are counted.
        toggles: of a net in a cycle, the mean.
        bits: read from SRAM and written to it.
        energy: pJ.
    """

    unit: str
    part: str
    area_um2: float | None
    toggles: float
    bits: float
    energy: Energy


class EngineEnergy(StrictModel):
    """A run's decisions.

    Attributes:
        model: whose routing it was; ``mode`` who predicted.
        target: the cells, and ``cells`` their figures.
        tokens, decisions: of the run; a decision is a GATE that is taken: one layer of one token.
        cycles: from the first in which an event may be offered, to the last event taken.
        clock_ghz: assumed.
        parts: largest first; ``total`` is theirs, pJ a decision.
        without_record: units whose cells are in no figure.
        power_w: at the simulated rate of events.
        idle_w: of the cells with nothing toggling but the clock; what memories are read meanwhile is not in it.
        experts_moved: a decision, ``moved_pj`` for them, with the real expert's bytes over the pins of HBM2; ``None``
            where the catalogue has no such model.
        not_counted: what none of it contains.
        sram_figures: name of the catalogue's record.
    """

    model: str
    mode: str
    target: str
    cells: CellEnergy
    tokens: int
    decisions: int
    cycles: int
    clock_ghz: float
    parts: tuple[PartEnergy, ...]
    total: Energy
    without_record: tuple[str, ...]
    power_w: float
    idle_w: float
    experts_moved: float
    moved_pj: float | None
    not_counted: str = NOT_COUNTED
    sram_figures: str


def recorded_engine(trace: RoutingTrace, origin: str) -> PrefetchEngineLimits:
    """The engine of which the records are.

    Raises:
        ForestageError: the trace's model is too large for it.
    """
    limits = PrefetchEngineLimits()
    found = (trace.layers, trace.experts, trace.top_k)
    most = (limits.layers_max, limits.experts_max, limits.top_k_max)
    if any(one > bound for one, bound in zip(found, most, strict=True)):
        raise ForestageError(
            f"{origin}: {found[0]} layers of {found[1]} experts, top-{found[2]}: the records are of an engine for "
            f"{most[0]} of {most[1]}, top-{most[2]}; give a smaller model's trace"
        )
    return limits


def require_records(target: str, records: Path) -> SramRecord:
    """The SRAM's figures for the cells ``target``, of which the folder ``records`` has the engine's units.

    Raises:
        ForestageError: it has not, or the catalogue has no energies of such SRAM.
    """
    figures = record_for(target, load_catalog())
    if figures is None or not figures.accesses or not (records / f"engine-net.{target}.json").exists():
        raise ForestageError(
            f"{target}: no record of the engine's units in these cells, or no energy of SRAM beside them; "
            "give the library of a record in records/synthesis"
        )
    return figures


def energy_of_run(
    run: TraceReplayResult,
    folder: Path,
    cells: CellEnergy,
    target: str,
    records: Path,
    *,
    clock_ghz: float = 1.0,
) -> EngineEnergy:
    """What a run's decisions take.

    Args:
        run: in which hardware and twin did the same, of ``recorded_engine``.
        folder: what it left of its activity.
        cells, target: of the library.
        records: folder of the synthesis' records.
        clock_ghz: of the engine.

    Raises:
        ForestageError: there are no records for the library's cells, or no energies of their SRAM; or a record has
            other memories than the engine that ran.
    """
    figures = require_records(target, records)
    activity = read_saif(folder / SAIF, counted=COUNTED_NET)
    modules = {_bare(path): module for path, module in instances(engine_verilog(run.limits), _TOP).items()}
    asked = memory_accesses.read_accesses(folder / memory_accesses.FILE)
    decisions = run.steps
    parts = []
    for unit, place in PLACES.items():
        record_path = records / f"{unit}.{target}.json"
        nets = _within(activity, modules, place)
        accesses = _accesses(asked, place)
        energy = sram_energy(accesses, figures)
        area = None
        if record_path.exists():
            record = read_record(record_path)
            _check_memories(record, accesses)
            area = record.total["area_um2"]
            energy += unit_energy(record, nets, cells, cycles=activity.cycles, clock_ns=1 / clock_ghz)
        parts.append(
            PartEnergy(
                unit=unit,
                part=PARTS[unit],
                area_um2=area,
                toggles=toggling([one for found in nets.values() for one in found], activity.cycles).rate,
                bits=sum(access.bits for access in accesses if access.is_sram) / decisions,
                energy=energy.scaled(1 / decisions),
            )
        )
    parts.sort(key=lambda part: -part.energy.total)
    total = sum((part.energy for part in parts), Energy())
    run_s = activity.cycles / clock_ghz / 1e9
    idle_w = total.idle * decisions / run_s / 1e12
    moved = sum(run.counters[name] for name in ("loads_demanded", "loads_late", "loads_ahead")) / decisions
    return EngineEnergy(
        model=run.model,
        mode=run.mode,
        target=target,
        cells=cells,
        tokens=run.tokens,
        decisions=decisions,
        cycles=activity.cycles,
        clock_ghz=clock_ghz,
        parts=tuple(parts),
        total=total,
        without_record=tuple(part.unit for part in parts if part.area_um2 is None),
        power_w=total.total * decisions / run_s / 1e12,
        idle_w=idle_w,
        experts_moved=moved,
        moved_pj=_moved_pj(run.model, moved),
        sram_figures=figures.name,
    )


def _moved_pj(model: str, experts: float) -> float | None:
    """So many experts' bytes over the pins of HBM2."""
    catalog = load_catalog()
    record = catalog.match_model(model) or catalog.models.get(model)
    if record is None:
        return None
    return 8 * experts * record.expert_bytes * catalog.energy.find(_MEMORY_ENERGIES).host_read_pj_per_bit


def _bare(path: str) -> str:
    """A path without the numbers that Amaranth appends to names that it has twice."""
    return re.sub(r"\$\d+(?=/|$)", "", path)


def _within(activity: Activity, modules: Mapping[str, str], place: str) -> dict[str, list[Nets]]:
    """Block → the nets of its instances, of the unit at ``place``."""
    found: dict[str, list[Nets]] = {}
    for path, nets in activity.instances.items():
        inside = _bare(path).partition("engine/")[2]
        if inside in modules and (inside == place or inside.startswith(f"{place}/")):
            found.setdefault(block_name(modules[inside], modules[place]), []).append(nets)
    if not found:
        raise ForestageError(f"the toggle counts have no instance {place}; count those of the whole engine")
    return found


def _check_memories(record: Synthesis, accesses: Sequence[Access]) -> None:
    """Refuse where not every memory of the record was counted, or the record is of another circuit."""
    counted = sum(access.depth * access.width for access in accesses if access.is_sram)
    if counted != record.sram_bits:
        raise ForestageError(
            f"{record.unit}: the record of its synthesis has {record.sram_bits} bits of SRAM, and {counted} ran; "
            f"make it again: forestage rtl synthesise --unit {record.unit} --liberty … --save"
        )


def _accesses(asked: list[memory_accesses.MemoryAccesses], place: str) -> list[Access]:
    """What the memories of the unit at ``place`` were asked."""
    start = f"engine.{place.replace('/', '.')}."
    return [
        Access(
            name=memory.path,
            depth=memory.depth,
            width=memory.width,
            bits=memory.bits_read + memory.bits_written,
            clocked=memory.clocked,
        )
        for memory in asked
        if start in _bare(memory.path.replace(".", "/")).replace("/", ".")
    ]
