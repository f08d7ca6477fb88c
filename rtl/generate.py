"""The files of the hardware, by unit: the Verilog of its top module, and SystemRDL of its registers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from catalog import load_catalog
from catalog.config import StrictModel
from catalog.errors import unknown_name
from catalog.files import write_text
from catalog.progress import Progress
from pim_model.unit.parameters import UnitParameters
from predictor.engine.limits import PrefetchEngineLimits
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.register_map import AddressMap
from rtl.bus.systemrdl import systemrdl
from rtl.pim.address_map import address_map as pim_registers
from rtl.pim.unit import generate_verilog
from rtl.prefetch.address_map import address_map as engine_registers
from rtl.prefetch.engine import PrefetchEngine
from rtl.prefetch.tables.address_map import address_map as table_registers
from rtl.prefetch.tables.engine import TableEngine
from rtl.verilog import to_verilog


def prefetch_engine_verilog(limits: PrefetchEngineLimits, progress: Progress | None = None) -> str:
    """The whole prefetch engine, top module ``prefetch_engine``; the same text on every machine.

    With nets it takes a minute or two; ``progress`` is called with (modules written, modules known).
    """
    return to_verilog(PrefetchEngine(limits), "prefetch_engine", progress)


@lru_cache(maxsize=4)
def table_engine_verilog(limits: EngineLimits) -> str:
    """The engine of ST-MoE's tables, top module ``table_engine``; the same text on every machine."""
    return to_verilog(TableEngine(limits), "table_engine")


PIM_DEVICE = "HBM2-PIM"
"""The DRAM of the catalogue for which the PIM unit is written."""


def pim_parameters() -> UnitParameters:
    """The PIM unit that is written."""
    return UnitParameters(device=load_catalog().dram.find(PIM_DEVICE))


def pim_unit_verilog(parameters: UnitParameters) -> str:
    """The PIM unit as Verilog, top module ``pim_unit``; the same text on every machine. It takes some 13 seconds."""
    return _pim_unit_verilog(parameters.model_dump_json())


@lru_cache(maxsize=4)
def _pim_unit_verilog(parameters: str) -> str:
    return generate_verilog(UnitParameters.model_validate_json(parameters))


@dataclass(frozen=True, kw_only=True)
class TopModule:
    """A unit with registers, whose files are written.

    Attributes:
        what: it is, in words.
        defaults: limits or parameters that it is generated with where none are given.
        verilog: its text; reports the modules written.
        registers: its address map.
    """

    what: str
    defaults: Callable[[], StrictModel]
    verilog: Callable[[Any, Progress | None], str]
    registers: Callable[[Any], AddressMap]


DEFAULT_UNIT = "prefetch-engine"

TOP_MODULES: dict[str, TopModule] = {
    DEFAULT_UNIT: TopModule(
        what="the whole prefetch engine",
        defaults=PrefetchEngineLimits,
        verilog=prefetch_engine_verilog,
        registers=engine_registers,
    ),
    "table-engine": TopModule(
        what="the engine of ST-MoE's tables, by itself",
        defaults=EngineLimits,
        verilog=lambda limits, _: table_engine_verilog(limits),
        registers=table_registers,
    ),
    "pim-unit": TopModule(
        what=f"the PIM expert unit of one pseudo-channel of {PIM_DEVICE}",
        defaults=pim_parameters,
        verilog=lambda parameters, _: pim_unit_verilog(parameters),
        registers=pim_registers,
    ),
}
"""By their names in ``rtl.synthesis.units``."""


def top_module(unit: str) -> TopModule:
    """The unit of that name.

    Raises:
        SettingError: there is none; the nearest is named.
    """
    if unit not in TOP_MODULES:
        raise unknown_name("unit", unit, TOP_MODULES)
    return TOP_MODULES[unit]


def generate(
    out: Path, unit: str = DEFAULT_UNIT, limits: StrictModel | None = None, progress: Progress | None = None
) -> list[Path]:
    """Write ``unit``'s Verilog and SystemRDL into ``out``, named by it; returns their paths in order of name.

    Args:
        out: a folder, made where it is absent.
        unit: of ``TOP_MODULES``.
        limits: of the unit's kind; its defaults where None.
        progress: called with (modules written, modules known).

    Raises:
        ForestageError: if ``out`` cannot be written; ``unit`` is not known.
    """
    of = top_module(unit)
    limits = of.defaults() if limits is None else limits
    stem = unit.replace("-", "_")
    texts = {f"{stem}.rdl": systemrdl(of.registers(limits)), f"{stem}.v": of.verilog(limits, progress)}
    paths = []
    for name, text in texts.items():
        paths.append(Path(out) / name)
        write_text(paths[-1], text)
    return paths
