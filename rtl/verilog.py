"""A component as Verilog that any tool reads."""

import re

from amaranth.back import verilog
from amaranth.lib import wiring

CHECKS_MACRO = "FORESTAGE_CHECKS"

# Yosys writes a clocked check as a process of its own.
_PROCESS = re.compile(r"^  always @\(posedge clk\) begin\n(?:   .*\n)*?  end\n", re.MULTILINE)


def to_verilog(component: wiring.Component, name: str) -> str:
    """The Verilog of ``component``, top module ``name``: the same text on every machine.

    Its checks (``rtl.checks``) stand between ``ifdef FORESTAGE_CHECKS`` and ``endif``.
    """
    # Source locations would name the folders of this machine.
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    guarded = _PROCESS.sub(_guarded, text)
    bare = re.sub(rf"^`ifdef {CHECKS_MACRO}\n.*?^`endif\n", "", guarded, flags=re.MULTILINE | re.DOTALL)
    if re.search(r"\b(assert|assume|cover)\b *\(|\$(write|display)\b", bare):
        raise AssertionError(f"{name}: a check of the generated Verilog is not guarded; its form is a new one")
    return guarded


def _guarded(process: re.Match[str]) -> str:
    """The process, guarded where it is a check; none is both a check and a register."""
    if "assert (" not in process[0]:
        return process[0]
    if "<=" in process[0]:
        raise AssertionError("the generated Verilog has a process that checks and assigns; its form is a new one")
    return f"`ifdef {CHECKS_MACRO}\n{process[0]}`endif\n"
