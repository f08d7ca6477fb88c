"""What cells of a Liberty library take when something toggles, when the clock ticks and when nothing does."""

import re
from dataclasses import dataclass, field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from rtl.synthesis.liberty import Library

_TOKEN = re.compile(
    r"\b(?P<group>\w+)\s*\((?P<name>[^(){}]*)\)\s*\{"
    r"|\b(?P<values>values)\s*\((?P<rows>[^()]*)\)\s*;?"
    r"|\b(?P<unit>capacitive_load_unit)\s*\(\s*(?P<number>[\d.]+)\s*,\s*\"?(?P<prefix>[a-zA-Z]+)\"?\s*\)"
    r"|\b(?P<key>\w+)\s*:\s*\"?(?P<value>[^\";\n]*)"
    r"|(?P<open>\{)|(?P<close>\})"
)
_FARAD = {"ff": 1.0, "pf": 1e3}
_WATT = {"pw": 1e-3, "nw": 1.0, "uw": 1e3}  # in nW


class CellEnergy(StrictModel):
    """A library's cells, as far as energies of areas are concerned.

    Each figure by area is a sum over the library's usable cells, one of each, divided by that of their areas: which of
    them a netlist has, its areas do not say.

    Attributes:
        volts: of the supply.
        flip_flop: name of the smallest flip-flop with an output that follows its input, as the mapping takes it; it
            stands for all.
        flip_flop_um2: its area.
        clock_fj: a cycle of the clock in one flip-flop whose output stays: clock pin, and inside.
        flip_flop_input_ff: its data pin.
        flip_flop_toggle_fj: inside it, of a toggle of its output.
        input_ff_per_um2: pins of the logic's inputs.
        toggle_fj_per_um2: inside the logic's cells, of a toggle of every output.
        flip_flop_leakage_nw: of a flip-flop, and ``leakage_nw_per_um2`` of the logic.
    """

    volts: float
    flip_flop: str
    flip_flop_um2: float
    clock_fj: float
    flip_flop_input_ff: float
    flip_flop_toggle_fj: float
    input_ff_per_um2: float
    toggle_fj_per_um2: float
    flip_flop_leakage_nw: float
    leakage_nw_per_um2: float


@dataclass
class _Power:
    """A group of internal power: fJ of each edge, at the middle of its table."""

    ground: bool = False
    rise: float | None = None
    fall: float | None = None


@dataclass
class _Pin:
    direction: str = ""
    clock: bool = False
    capacitance: float | None = None
    function: str = ""
    powers: list[_Power] = field(default_factory=list)

    @property
    def drawn(self) -> list[_Power]:
        """What is drawn from the supply; what goes to ground is the same again."""
        return [power for power in self.powers if not power.ground and None not in (power.rise, power.fall)]


@dataclass
class _Cell:
    area: float = 0
    state: str = ""
    next_state: str = ""
    leakage: float | None = None
    leakages: list[float] = field(default_factory=list)
    pins: dict[str, _Pin] = field(default_factory=dict)

    def inputs(self) -> list[_Pin]:
        """Those that are no clock."""
        return [pin for pin in self.pins.values() if pin.direction == "input" and not pin.clock]

    def follows(self) -> bool:
        """Whether it is a flip-flop with an output that is its input a clock later, not inverted."""
        inverted = self.next_state.lstrip("(").startswith("!")
        outputs = [pin.function.strip("() ") for pin in self.pins.values() if pin.direction == "output"]
        return self.state != "" and any((output == self.state) is not inverted for output in outputs)

    def toggle(self) -> float:
        """Inside, of one toggle of each output."""
        outputs = [pin for pin in self.pins.values() if pin.direction == "output"]
        return sum(_mean([_sum(power) / 2 for power in pin.drawn]) for pin in outputs if pin.drawn)

    @property
    def leaks(self) -> float:
        """The cell's own figure, else the mean over its states."""
        return self.leakage if self.leakage is not None else _mean(self.leakages)


def cell_energy(library: Library) -> CellEnergy:
    """Read the energies of a library's cells.

    Raises:
        ForestageError: it has no voltage, capacitances or internal power, or a unit that is not known.
    """
    cells: dict[str, _Cell] = {}
    volts: set[float] = set()
    for file, name in zip(library.files, library.names, strict=True):
        found, at = _parse(file.read_text(encoding="utf-8"), name)
        cells |= found
        volts.add(at)
    if len(volts) != 1:
        raise ForestageError(f"{', '.join(library.names)}: supplies of {sorted(volts)} V; give libraries of one corner")
    (supply,) = volts
    excluded = set(library.excluded)
    usable = {
        name: cell for name, cell in cells.items() if name in library.areas and cell.area > 0 and name not in excluded
    }
    flip_flops = {
        name: cell
        for name, cell in usable.items()
        if cell.follows() and any(pin.clock and pin.capacitance for pin in cell.pins.values())
    }
    logic = [cell for name, cell in usable.items() if name not in library.sequential and cell.inputs()]
    if not flip_flops or not logic:
        raise ForestageError(
            f"{', '.join(library.names)}: no capacitance of a clock or of any gate; give the whole library"
        )
    chosen = min(flip_flops, key=lambda name: (flip_flops[name].area, name))
    flip_flop = flip_flops[chosen]
    clock = next(pin for pin in flip_flop.pins.values() if pin.clock)
    still = [power for power in clock.drawn if power.rise and power.fall] or clock.drawn
    area = sum(cell.area for cell in logic)
    toggles = sum(cell.toggle() for cell in logic)
    if not still or not toggles:
        raise ForestageError(f"{', '.join(library.names)}: no internal_power; give a library that has it")
    return CellEnergy(
        volts=supply,
        flip_flop=chosen,
        flip_flop_um2=flip_flop.area,
        clock_fj=(clock.capacitance or 0) * supply**2 + _mean([_sum(power) for power in still]),
        flip_flop_input_ff=_mean([pin.capacitance or 0 for pin in flip_flop.inputs()]),
        flip_flop_toggle_fj=flip_flop.toggle(),
        input_ff_per_um2=sum(pin.capacitance or 0 for cell in logic for pin in cell.inputs()) / area,
        toggle_fj_per_um2=toggles / area,
        flip_flop_leakage_nw=flip_flop.leaks,
        leakage_nw_per_um2=sum(cell.leaks for cell in logic) / area,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _sum(power: _Power) -> float:
    return (power.rise or 0) + (power.fall or 0)


def _parse(text: str, library: str) -> tuple[dict[str, _Cell], float]:
    """The cells in fF, fJ and nW, and the supply's volts."""
    cells: dict[str, _Cell] = {}
    farad = watt = volts = 0.0
    path: list[str] = []
    cell, pin, power = _Cell(), _Pin(), _Power()
    leak: dict[str, str] = {}
    for token in _TOKEN.finditer(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)):
        if token["group"]:
            group, name = token["group"], token["name"].strip(' "')
            path.append(group)
            inside = path[1:-1]
            if group == "cell":
                cell = cells.setdefault(name, _Cell())
            elif group == "pin" and inside == ["cell"]:
                pin = cell.pins.setdefault(name, _Pin())
            elif group == "internal_power" and inside == ["cell", "pin"]:
                power = _Power()
                pin.powers.append(power)
            elif group == "ff" and inside == ["cell"]:
                cell.state = name.split(",")[0].strip(' "')
            elif group == "leakage_power":
                leak = {}
        elif token["open"]:
            path.append("")
        elif token["close"]:
            if path and path[-1] == "leakage_power" and "value" in leak and "VSS" not in leak.get("related_pg_pin", ""):
                cell.leakages.append(float(leak["value"]) * watt)
            if path:
                path.pop()
        elif token["unit"]:
            farad = float(token["number"]) * _unit(_FARAD, token["prefix"], library)
        elif token["values"]:
            if path[1:-1] == ["cell", "pin", "internal_power"] and path[-1] in ("rise_power", "fall_power"):
                energy = _middle(token["rows"]) * farad
                if path[-1] == "rise_power":
                    power.rise = energy
                else:
                    power.fall = energy
        else:
            key, value, where = token["key"], token["value"].strip(), path[1:]
            if where == [] and key == "nom_voltage":
                volts = float(value)
            elif where == [] and key == "leakage_power_unit":
                amount, prefix = re.fullmatch(r"([\d.]*)\s*(\w+)", value).groups()  # type: ignore[union-attr]
                watt = float(amount or 1) * _unit(_WATT, prefix, library)
            elif where == ["cell"] and key == "area":
                cell.area = float(value)
            elif where == ["cell"] and key == "cell_leakage_power":
                cell.leakage = float(value) * watt
            elif where == ["cell", "pin"] and key == "direction":
                pin.direction = value
            elif where == ["cell", "pin"] and key == "function":
                pin.function = value
            elif where == ["cell", "ff"] and key == "next_state":
                cell.next_state = value
            elif where == ["cell", "pin"] and key == "clock":
                pin.clock = value == "true"
            elif where == ["cell", "pin"] and key == "capacitance":
                pin.capacitance = float(value) * farad
            elif where == ["cell", "leakage_power"]:
                leak[key] = value
            elif where == ["cell", "pin", "internal_power"] and key == "related_pg_pin":
                power.ground = value in ("VSS", "VGND", "GND")
    if not volts or not farad or not watt:
        raise ForestageError(
            f"{library}: no nom_voltage, capacitive_load_unit or leakage_power_unit; give the whole library"
        )
    # Energies are in capacitance · voltage²; these units are so that volts are.
    return cells, volts


def _middle(rows: str) -> float:
    """The middle entry of the middle row of a table."""
    table = [[float(entry) for entry in row.replace(",", " ").split()] for row in re.findall(r'"([^"]*)"', rows)]
    row = table[len(table) // 2]
    return row[len(row) // 2]


def _unit(known: dict[str, float], prefix: str, library: str) -> float:
    if prefix.lower() not in known:
        raise ForestageError(f"{library}: a unit of {prefix}, which is not one of {', '.join(known)}")
    return known[prefix.lower()]
