"""A cell library of a handful of cells, and a circuit for it, whose figures are known by hand."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

_TIMING = """
      timing () {{
        related_pin : "{pin}";
        timing_sense : {sense};
        cell_rise (scalar) {{ values ("{ns}"); }}
        cell_fall (scalar) {{ values ("{ns}"); }}
        rise_transition (scalar) {{ values ("0.01"); }}
        fall_transition (scalar) {{ values ("0.01"); }}
      }}"""


def _pin(name: str) -> str:
    return f"    pin ({name}) {{ direction : input; capacitance : 0.001; }}\n"


def _cell(name: str, area: float, function: str, ns: float, pins: str, sense: str = "negative_unate") -> str:
    timing = "".join(_TIMING.format(pin=pin, sense=sense, ns=ns) for pin in pins)
    output = f'    pin (Y) {{ direction : output; function : "{function}"; max_capacitance : 1.0;{timing}\n    }}\n'
    return f"  cell ({name}) {{\n    area : {area};\n{''.join(map(_pin, pins))}{output}  }}\n"


FLIP_FLOP = """  cell ("DFF") {
    area : 10;
    ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    pin (CK) { direction : input; clock : true; capacitance : 0.001; }
    pin (D) { direction : input; capacitance : 0.001; }
    pin (Q) { direction : output; function : "IQ"; }
  }
"""

HEADER = """library (tiny) {
  /* no cell (is) { here */
  delay_model : table_lookup;
  time_unit : "1ns";
  voltage_unit : "1V";
  current_unit : "1mA";
  capacitive_load_unit (1, pf);
"""

CELLS = {
    "INV": _cell("INV", 1.0, "!A", 0.1, "A"),
    "BUF": _cell("BUF", 2.0, "A", 0.1, "A", "positive_unate"),
    "NAND": _cell("NAND", 2.5, "!(A B)", 0.2, "AB"),
    "DFF": FLIP_FLOP,
}


def library(*without: str, weak: bool = False) -> str:
    """The library's text, ``without`` some of its cells; ``weak``: with a small and slow inverter and buffer."""
    cells = {name: text for name, text in CELLS.items() if name not in without}
    if weak:
        cells["WEAKINV"] = _cell("WEAKINV", 0.5, "!A", 2.0, "A")
        cells["WEAKBUF"] = _cell("WEAKBUF", 1.0, "A", 2.0, "A", "positive_unate")
    return HEADER + "".join(cells.values()) + "}\n"


class Toggle(wiring.Component):
    """A flip-flop and one inverter."""

    q: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.q.eq(~self.q)
        return m


class Mask(wiring.Component):
    """The lowest bits of a word, told by cases: constants, and no memory."""

    count: In(6)
    mask: Out(63)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.Switch(self.count):
            for count in range(64):
                with m.Case(count):
                    m.d.sync += self.mask.eq((1 << count) - 1)
        return m


class Pair(wiring.Component):
    """Two that are alike, a large memory and a small one."""

    address: In(8)
    data: In(8)
    write: In(1)
    large: Out(8)
    small: Out(8)
    toggles: Out(2)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number in range(2):
            m.submodules[f"toggle{number}"] = toggle = Toggle()
            m.d.comb += self.toggles[number].eq(toggle.q)
        for name, depth, out in (("many", 256, self.large), ("few", 4, self.small)):
            m.submodules[name] = memory = Memory(shape=8, depth=depth, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(self.address),
                write.data.eq(self.data),
                write.en.eq(self.write),
                read.addr.eq(self.address),
                read.en.eq(1),
                out.eq(read.data),
            ]
        return m


class Accumulator(wiring.Component):
    """A register to which ``addend`` is added in every clock."""

    def __init__(self, bits: int) -> None:
        super().__init__({"addend": In(bits), "total": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.total.eq(self.total + self.addend)
        return m
