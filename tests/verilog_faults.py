"""Faults in the text of generated Verilog, so that a test sees what notices them.

All faults of a design are planted in one text; the simulator's argument ``+fault=N`` switches the N-th on (from 1; 0 or
nothing: none), so one build serves them all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

_SWITCH = """
  integer fault = 0;
  initial if (!$value$plusargs("fault=%d", fault)) fault = 0;
  reg [2:0] fault_phase = 0;
  always @(posedge clk) fault_phase <= fault_phase + 3'd1;
"""


@dataclass(frozen=True)
class Fault:
    """A wrong assignment or connection.

    Attributes:
        shows: what must be said of it.
        module: last part of the module's name; empty for the top. Of a module that the design has several times, all.
        target: what is assigned, as the text has it (``x <=``, ``assign x =``, ``x =``), or a connection (``.x``);
            everywhere in the module.
        wrong: the expression in its stead; ``{}`` stands for the right one, ``fault_phase`` counts cycles modulo 8.
        waits: whether it shows only where streams and bus wait.
    """

    shows: str
    module: str
    target: str
    wrong: str
    waits: bool = False


def plant(verilog: str, faults: Sequence[Fault]) -> str:
    """The text with all faults, switched off.

    Raises:
        AssertionError: a fault's module or target is not in the text.
    """
    for number, fault in enumerate(faults, 1):
        name = rf"(?:\S*\.)?{fault.module}(?:\$\d+)? ?" if fault.module else r"[a-z_]+ "
        module = re.search(rf"^module (?:\\)?{name}\(.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
        if module is None and not fault.module:
            module = re.search(r"^module [a-z_]+\(.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
        assert module is not None, f"no module {fault.module}"
        text = module[0]
        if "integer fault = 0;" not in text:
            text = re.sub(r"\);\n", lambda end: end[0] + _SWITCH, text, count=1)
        if fault.target.startswith("."):
            pattern, close = rf"({re.escape(fault.target)})\((.+)\)(?=,?$)", ")"
        else:
            pattern, close = rf"(?<=^)( +{re.escape(fault.target)}) (.+);$", ";"
        start = "(" if close == ")" else " "

        def faulty(
            found: re.Match[str], wrong: str = fault.wrong, n: int = number, o: str = start, c: str = close
        ) -> str:
            return f"{found[1]}{o}fault == {n} ? {wrong.replace('{}', f'({found[2]})')} : {found[2]}{c}"

        text, planted = re.subn(pattern, faulty, text, flags=re.MULTILINE)
        assert planted, f"{fault.module} has no {fault.target}"
        verilog = verilog[: module.start()] + text + verilog[module.end() :]
    return verilog


def some(faults: list[Fault], kept: int) -> list[Any]:
    """Their numbers; all but every ``kept``-th take part in the long tests only."""
    return [
        pytest.param(n, id=fault.shows.replace(" ", "-"), marks=[] if n % kept == 1 else pytest.mark.long)
        for n, fault in enumerate(faults, 1)
    ]
