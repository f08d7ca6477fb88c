"""What can be synthesised, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from amaranth.lib import wiring

from catalog import load_catalog
from catalog.errors import unknown_name
from pim_model.unit.events import UnitCounter
from pim_model.unit.parameters import READBACK_LATENCY_CK, UnitParameters
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.axi_lite import AxiLiteSlave
from rtl.bus.counters import Counters
from rtl.pim.address_map import ADDRESS_BITS
from rtl.pim.base_die.epilogue import Epilogue
from rtl.pim.base_die.input_buffer import InputBuffer, InputReceiver
from rtl.pim.base_die.output_queue import OutputQueue
from rtl.pim.base_die.planner import Planner
from rtl.pim.base_die.program_control import ProgramControl
from rtl.pim.base_die.sequencer import Sequencer
from rtl.pim.block.block import BankBlock
from rtl.pim.register_file import RegisterFile
from rtl.pim.unit import tag_layout
from rtl.prefetch.tables.engine import TableEngine
from rtl.prefetch.tables.history import History
from rtl.prefetch.tables.issuer import RequestIssuer
from rtl.prefetch.tables.memory import TableMemory
from rtl.prefetch.tables.register_file import RegisterFile as EngineRegisters
from rtl.prefetch.tables.scorer import Scorer
from rtl.prefetch.tables.updater import Updater


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A component to synthesise.

    Attributes:
        what: What it is, in words.
        make: Makes it, with the prefetch engine's limits where it has any.
        limited: Whether ``make`` minds the limits.
    """

    what: str
    make: Callable[[EngineLimits], wiring.Component]
    limited: bool = False


@dataclass(frozen=True, kw_only=True)
class Sum:
    """A unit too large to be synthesised at once: so many of other units, with nothing between them.

    Attributes:
        what: What it is, in words.
        parts: Name of a unit → how many of it.
    """

    what: str
    parts: dict[str, int]


def _engine(what: str, make: Callable[[EngineLimits], wiring.Component]) -> Unit:
    return Unit(what=what, make=make, limited=True)


def _base_die(what: str, make: Callable[[UnitParameters], wiring.Component]) -> Unit:
    return Unit(what=f"of its base die, {what}", make=lambda _: make(hbm2_pim_unit()))


@cache
def hbm2_pim_unit() -> UnitParameters:
    """The unit of one pseudo-channel of HBM2-PIM."""
    return UnitParameters(device=load_catalog().dram.find("HBM2-PIM"))


UNITS: dict[str, Unit | Sum] = {
    "pim-unit": Sum(
        what="the PIM expert unit of one pseudo-channel of HBM2-PIM",
        parts={
            "pim-block": 8,
            "pim-bus": 1,
            "pim-registers": 1,
            "pim-control": 1,
            "pim-planner": 1,
            "pim-sequencer": 1,
            "pim-receiver": 1,
            "pim-buffer": 1,
            "pim-epilogue": 1,
            "pim-queue": 1,
            "pim-counters": 1,
        },
    ),
    "pim-block": Unit(what="its compute at one pair of banks", make=lambda _: BankBlock()),
    "pim-bus": Unit(what="of its base die, the bus slave", make=lambda _: AxiLiteSlave(ADDRESS_BITS)),
    "pim-registers": _base_die("the registers", RegisterFile),
    "pim-control": _base_die("the control of programs", lambda _: ProgramControl(READBACK_LATENCY_CK)),
    "pim-planner": _base_die("the planner", Planner),
    "pim-sequencer": _base_die("the sequencer of commands", Sequencer),
    "pim-receiver": _base_die("the receiver of inputs", InputReceiver),
    "pim-buffer": _base_die("the input buffer and the quantiser", InputBuffer),
    "pim-epilogue": _base_die("scales, bias and activation", lambda _: Epilogue(tag_layout().size)),
    "pim-queue": _base_die("the output queue", OutputQueue),
    "pim-counters": _base_die("the counters", lambda _: Counters(UnitCounter)),
    "prefetch-engine": _engine("the prefetch engine of ST-MoE's tables", TableEngine),
    "prefetch-history": _engine("its history", History),
    "prefetch-issuer": _engine("its request issuer", RequestIssuer),
    "prefetch-registers": _engine("its registers", EngineRegisters),
    "prefetch-scorer": _engine("its scorer", Scorer),
    "prefetch-tables": _engine("its table memory", TableMemory),
    "prefetch-updater": _engine("its updater", Updater),
}
"""Every unit; a new one is a line here."""


def unit_of(name: str) -> Unit | Sum:
    """The unit ``name``.

    Raises:
        SettingError: there is none of that name; the nearest is named.
    """
    if name not in UNITS:
        raise unknown_name("unit", name, UNITS)
    return UNITS[name]


def is_limited(name: str) -> bool:
    """Whether the unit ``name`` is generated with the prefetch engine's limits.

    Raises:
        SettingError: there is no such unit.
    """
    unit = unit_of(name)
    if isinstance(unit, Sum):
        return any(is_limited(part) for part in unit.parts)
    return unit.limited
