"""The files of the hardware: Verilog of every top module, SystemRDL of its registers."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from catalog import load_catalog
from catalog.files import write_text
from pim_model.unit.parameters import UnitParameters
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.systemrdl import systemrdl
from rtl.pim import address_map as pim_unit
from rtl.pim.unit import generate_verilog
from rtl.prefetch.tables.address_map import address_map
from rtl.prefetch.tables.engine import TableEngine
from rtl.verilog import to_verilog


@lru_cache(maxsize=4)
def prefetch_engine_verilog(limits: EngineLimits) -> str:
    """The prefetch engine as Verilog, top module ``prefetch_engine``; the same text on every machine."""
    return to_verilog(TableEngine(limits), "prefetch_engine")


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


FILES: dict[str, Callable[[EngineLimits], str]] = {
    "pim_unit.rdl": lambda _: systemrdl(pim_unit.address_map(pim_parameters())),
    "pim_unit.v": lambda _: pim_unit_verilog(pim_parameters()),
    "prefetch_engine.rdl": lambda limits: systemrdl(address_map(limits)),
    "prefetch_engine.v": prefetch_engine_verilog,
}
"""What is written, by name: the Verilog of every top module, and the registers of those that have any."""


def generate(out: Path, limits: EngineLimits) -> list[Path]:
    """Write every one of ``FILES`` into ``out``; returns the paths in order of name.

    Raises:
        ForestageError: if ``out`` cannot be written.
    """
    texts = {name: text_of(limits) for name, text_of in sorted(FILES.items())}
    paths = []
    for name, text in texts.items():
        path = Path(out) / name
        write_text(path, text)
        paths.append(path)
    return paths
