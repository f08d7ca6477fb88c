"""What can be synthesised, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.lib import wiring

from catalog.errors import unknown_name
from pim_model.tile import TileParameters
from predictor.st_moe.parameters import EngineLimits
from rtl.pim.tile import DotProductLanes, GemvSequencer, PimTile
from rtl.prefetch.engine import PrefetchEngine
from rtl.prefetch.history import History
from rtl.prefetch.issuer import RequestIssuer
from rtl.prefetch.register_file import RegisterFile
from rtl.prefetch.scorer import Scorer
from rtl.prefetch.tables import TableMemory
from rtl.prefetch.updater import Updater


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


UNITS: dict[str, Unit | Sum] = {
    "prefetch-engine": _engine("the prefetch engine of ST-MoE's tables", PrefetchEngine),
    "prefetch-history": _engine("its history", History),
    "prefetch-issuer": _engine("its request issuer", RequestIssuer),
    "prefetch-registers": _engine("its registers", RegisterFile),
    "prefetch-scorer": _engine("its scorer", Scorer),
    "prefetch-tables": _engine("its table memory", TableMemory),
    "prefetch-updater": _engine("its updater", Updater),
    "pim-tile": Unit(what="the int8 PIM tile", make=lambda _: PimTile(TileParameters())),
    "pim-tile-lanes": Unit(what="its multipliers and accumulators", make=lambda _: DotProductLanes(TileParameters())),
    "pim-tile-sequencer": Unit(what="its sequencer", make=lambda _: GemvSequencer(TileParameters())),
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
