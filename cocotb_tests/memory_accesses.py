"""Bits that a simulation reads from and writes to each memory of generated Verilog."""

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catalog.errors import ForestageError

FILE = "memory-accesses.txt"
"""What a counting model leaves in the simulator's folder."""
COUNTED_MACRO = "FORESTAGE_COUNTED"
"""The condition under which accesses count: true in all of a simulation, where it is not defined."""

_NAME = r"(?:\\\S+ |\w+)"
_MODULE = re.compile(rf"^module ({_NAME}).*?^endmodule", re.MULTILINE | re.DOTALL)
_MEMORY = re.compile(
    rf"^  (?:\(\* [^()]* \*\) )?reg (?:\[(\d+):0\] ?)?({_NAME}) *\[(?:(\d+):0|0:(\d+))\];$", re.MULTILINE
)
_ARRAY = re.compile(rf"^[^=\n]*\b(?:reg|logic)\b[^=\n]* {_NAME} *\[[^\n]*\] *;.*$", re.MULTILINE)
"""Any declaration of an array, however it is written."""


@dataclass(frozen=True, kw_only=True)
class MemoryAccesses:
    """Of one memory.

    Attributes:
        path: of the instance that it is in, from the top module, then its own name; dots between.
        depth, width: words, and bits of a word.
        bits_read, bits_written: with a clock; what is read without one is not counted, and ``clocked`` is false.
    """

    path: str
    depth: int
    width: int
    bits_read: int
    bits_written: int
    clocked: bool

    @property
    def bits(self) -> int:
        """Its capacity."""
        return self.depth * self.width


def counting(verilog: str) -> str:
    """``verilog`` with a counter beside each access to a memory; its simulation ends by writing them to ``FILE``.

    Raises:
        AssertionError: a memory is declared in a way that is not known here.
    """
    return f"`ifndef {COUNTED_MACRO}\n`define {COUNTED_MACRO} 1'b1\n`endif\n" + _MODULE.sub(_counted, verilog)


def read_accesses(path: Path) -> list[MemoryAccesses]:
    """The memories in the file ``path`` that a simulation left, by path.

    Raises:
        ForestageError: it cannot be read, or says something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ForestageError(f"{path}: cannot read the accesses to memories ({error.strerror})") from error
    found: dict[tuple[str, int, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for number, line in enumerate(lines, 1):
        try:
            scope, name, depth, width, kind, bits = line.split()
            found[f"{scope}.{name}", int(depth), int(width)][kind] += int(bits)
        except ValueError:
            raise ForestageError(f"{path}: line {number}: no access to a memory: {line!r}") from None
    return [
        MemoryAccesses(
            path=where,
            depth=depth,
            width=width,
            bits_read=of.get("read", 0),
            bits_written=of.get("write", 0),
            clocked="unclocked" not in of,
        )
        for (where, depth, width), of in sorted(found.items())
    ]


def _counted(module: re.Match[str]) -> str:
    """A module with its counters."""
    text = module[0]
    counters: list[tuple[str, int, int, str]] = []
    for array in _ARRAY.findall(text):
        if not _MEMORY.match(array):
            raise AssertionError(f"a memory whose accesses are not counted: {array.strip()}")
    for top, name, last, alternate in _MEMORY.findall(text):
        width, depth = int(top or 0) + 1, int(last or alternate) + 1
        row = rf"{re.escape(name)} *\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
        memory = (name.strip().removeprefix("\\"), depth, width)
        writes = rf"^( +(?:if \(.*\) )?)({row}(?:\[\d+:\d+\])? <= .*;)$"
        reads = rf"^( +(?:if \(.*\) )?)({_NAME} *<= {row};)$"
        for kind, statement in (("write", writes), ("read", reads)):
            beside = partial(_beside, counters=counters, of=(*memory, kind))
            text = re.sub(statement, beside, text, flags=re.MULTILINE)
        if not any(of[:3] == memory and of[3] == "read" for of in counters):
            counters.append((*memory, "unclocked"))
    if not counters:
        return text
    lines = [f"  reg [63:0] _forestage_counted_{nth} = 0;" for nth in range(len(counters))]
    lines += ["  integer _forestage_counts;", "  final begin", f'    _forestage_counts = $fopen("{FILE}", "a");']
    lines += [
        f'    $fdisplay(_forestage_counts, "%m {name} {depth} {width} {kind} %0d", _forestage_counted_{nth});'
        for nth, (name, depth, width, kind) in enumerate(counters)
    ]
    lines += ["    $fclose(_forestage_counts);", "  end", "endmodule"]
    return text.removesuffix("endmodule") + "\n".join(lines)


def _beside(found: re.Match[str], *, counters: list[tuple[str, int, int, str]], of: tuple[str, int, int, str]) -> str:
    """A statement that accesses a memory, and its count."""
    _, _, width, kind = of
    part = re.search(r"\]\[(\d+):(\d+)\] <=", found[2]) if kind == "write" else None
    bits = int(part[1]) - int(part[2]) + 1 if part else width
    count = f"_forestage_counted_{len(counters)}"
    counters.append(of)
    return f"{found[1]}begin {found[2]} if (`{COUNTED_MACRO}) {count} = {count} + 64'd{bits}; end"
