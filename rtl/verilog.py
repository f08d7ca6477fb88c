"""A component as Verilog that any tool reads."""

import re
from collections.abc import Callable
from itertools import count, groupby, pairwise

from amaranth.back import verilog
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib import wiring

from catalog.progress import Progress

CHECKS_MACRO = "FORESTAGE_CHECKS"

# Yosys writes a clocked check as a process of its own.
_PROCESS = re.compile(r"^  always @\(posedge clk\) begin\n(?:   .*\n)*?  end\n", re.MULTILINE)
# A check: what it says when it fails, then an assertion, which is no Verilog-2005 and which Verilator asks each time
# whether it is on.
_CHECK = re.compile(r"^( +)if \(!(\S+ ?)\)\n +(\$write\(.*\);)\n(?: *)assert \(\2\);\n", re.MULTILINE)

# Yosys writes every row of a memory's initial contents on a line of its own.
_CONTENTS = re.compile(r"^  initial begin\n((?:    (?:\\\S+ |\w+)\[\d+\] = \S+;\n)+)  end\n", re.MULTILINE)
_ROW = re.compile(r"^    (\S+ ?)\[(\d+)\] = (\S+);\n", re.MULTILINE)
# A part of a register that is a constant: a process that reads nothing, which no simulator would ever begin.
_CONSTANT = re.compile(r"^  always @\*\n(    \S+ ?\[\d+(?::\d+)?\] = \d+'h[0-9a-f]+;\n)", re.MULTILINE)
_BLOCK, _INDEX = "initial_contents_", "initial_row"


class SharedParts:
    """What the Verilog has once each, by their modules' names; the platform of a conversion.

    Args:
        contents: whether memories in ``texts`` begin with contents.

    Attributes:
        contents: as above.
        makers: of parts that are components.
        texts: of modules that are written as they stand.
    """

    def __init__(self, *, contents: bool = True) -> None:
        self.contents = contents
        self.makers: dict[str, Callable[[], wiring.Component]] = {}
        self.texts: dict[str, str] = {}


class Shared(wiring.Component):
    """A component of which a design has several that are alike: one module of the Verilog, and instances of it.

    Amaranth writes a module for each component, and takes its time for each. Elsewhere, as in Amaranth's simulator,
    this is the component itself, a level down. It has the component's ports.
    """

    def __init__(self, make: Callable[[], wiring.Component], name: str) -> None:
        self._make, self._name = make, name
        with_ports = make()
        with_ports._MustUse__silence = True  # only its signature is used
        super().__init__(with_ports.signature)

    def elaborate(self, platform: object) -> Module:
        """An instance, or the component."""
        m = Module()
        if not isinstance(platform, SharedParts):
            m.submodules.part = part = self._make()
            wiring.connect(m, wiring.flipped(self), part)
            return m
        platform.makers[self._name] = self._make
        ports = [
            ("i" if member.flow is wiring.In else "o", "__".join(map(str, path)), Value.cast(value))
            for path, member, value in self.signature.flatten(self)
        ]
        m.submodules.part = Instance(self._name, ("i", "clk", ClockSignal()), ("i", "rst", ResetSignal()), *ports)
        return m


def to_verilog(component: wiring.Component, name: str, progress: Progress | None = None) -> str:
    """The Verilog of ``component``, top module ``name``: the same text on every machine.

    Its checks (``rtl.checks``) stand between ``ifdef FORESTAGE_CHECKS`` and ``endif``. Rows of a memory that begin
    alike are filled by a loop. `Shared` parts are modules of their own names behind it. ``progress`` is called with
    (texts written, texts known so far): the component's own, and one of each such part.
    """
    parts = SharedParts()
    text = _one_verilog(component, name, parts)
    written: set[str] = set()
    while waiting := [part for part in parts.makers if part not in written]:
        for part in waiting:
            if progress is not None:
                progress(1 + len(written), 1 + len(parts.makers))
            text += _one_verilog(parts.makers[part](), part, parts)
            written.add(part)
    return text + "".join(parts.texts[name] for name in sorted(parts.texts))


def _one_verilog(component: wiring.Component, name: str, parts: SharedParts) -> str:
    """The Verilog of a component without its shared parts."""
    # Source locations would name the folders of this machine.
    text = verilog.convert(component, name=name, platform=parts, emit_src=False, strip_internal_attrs=True)
    if "[-1:0]" in text:
        raise AssertionError(f"{name}: a signal of no bits, of which Verilog makes one of two; give it a bit")
    text = _CONSTANT.sub(r"  initial\n\1", text)
    guarded = _PROCESS.sub(_guarded, text)
    bare = re.sub(rf"^`ifdef {CHECKS_MACRO}\n.*?^`endif\n", "", guarded, flags=re.MULTILINE | re.DOTALL)
    if re.search(r"\b(assert|assume|cover)\b *\(|\$(write|display|stop)\b", bare):
        raise AssertionError(f"{name}: a check of the generated Verilog is not guarded; its form is a new one")
    return _fill_by_loops(guarded)


def _guarded(process: re.Match[str]) -> str:
    """The process, guarded where it is a check; none is both a check and a register."""
    if "assert (" not in process[0]:
        return process[0]
    if "<=" in process[0]:
        raise AssertionError("the generated Verilog has a process that checks and assigns; its form is a new one")
    stops, checks = _CHECK.subn(r"\1if (!\2) begin\n\1  \3\n\1  $stop;\n\1end\n", process[0])
    if checks != process[0].count("assert ("):
        raise AssertionError("a check of the generated Verilog says nothing; its form is a new one")
    return f"`ifdef {CHECKS_MACRO}\n{stops}`endif\n"


def _fill_by_loops(text: str) -> str:
    """``text`` with one ``for`` loop in place of neighbouring rows of a memory that begin alike (Verilog-2001)."""
    if _BLOCK in text or _INDEX in text:
        raise AssertionError(f"the generated Verilog has the name {_BLOCK} or {_INDEX}, which its loops take")
    numbers = count()

    def looped(block: re.Match[str]) -> str:
        rows = [(name, int(row), value) for name, row, value in _ROW.findall(block[1])]
        if any(row != before + 1 or name != of for (of, before, _), (name, row, _) in pairwise(rows)):
            raise AssertionError("the generated Verilog fills a memory out of order; its form is a new one")
        lines = []
        for (name, value), group in groupby(rows, key=lambda row: (row[0], row[2])):
            alike = [row for _, row, _ in group]
            if len(alike) == 1:
                lines.append(f"    {name}[{alike[0]}] = {value};\n")
            else:
                steps = f"{_INDEX} = {alike[0]}; {_INDEX} <= {alike[-1]}; {_INDEX} = {_INDEX} + 1"
                lines.append(f"    for ({steps})\n      {name}[{_INDEX}] = {value};\n")
        if len(lines) == len(rows):
            return block[0]
        return f"  initial begin : {_BLOCK}{next(numbers)}\n    integer {_INDEX};\n{''.join(lines)}  end\n"

    return _CONTENTS.sub(looped, text)
