"""A component's modules: like ones made one, and how often each is in the whole."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from rtl.verilog import SharedParts
from rtl.yosys import run_yosys

TOP = "top"

_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module (\\\S+)\n.*?^end$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"\\\S*\[\S*")
_CELL = re.compile(r"^ +cell (\\\S+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Design:
    """A design of which no two modules are alike.

    Attributes:
        text: Its RTLIL, top module ``TOP``.
        paths: Instance, by the path to it (the top's is empty) → its module, in order of depth and place.
    """

    text: str
    paths: dict[str, str]

    @property
    def instances(self) -> dict[str, int]:
        """Module → how often it is in the whole."""
        return dict(Counter(self.paths.values()))

    @property
    def labels(self) -> dict[str, str]:
        """Module → what to call it: the path to it, or to the first of those that are alike; the top has no path."""
        return {name: re.sub(r"\$\d+(?=\.|$)", "", name).removeprefix(TOP).lstrip(".") for name in self.instances}


def design_of(component: wiring.Component) -> Design:
    """The modules of ``component``, its checks included.

    Amaranth writes a module for each instance; those that are alike to the letter become one here, so that each is
    mapped once. A part that is `rtl.verilog.Shared` is one module from the start, by its own name.
    """
    # Yosys takes its time for each word that a memory begins with, and a macro of SRAM begins with none.
    parts = SharedParts(contents=False)
    texts = [rtlil.convert(component, name=TOP, platform=parts, emit_src=False)]
    written: set[str] = set()
    while waiting := [part for part in parts.makers if part not in written]:
        for part in waiting:
            if part == TOP or part.startswith(f"{TOP}."):
                raise AssertionError(f"a shared part is called {part}, which is a name of the whole")
            texts.append(rtlil.convert(parts.makers[part](), name=part, platform=parts, emit_src=False))
            written.add(part)
    if parts.texts:
        texts.append(_of_verilog("".join(parts.texts[name] for name in sorted(parts.texts))))
    return _merged(plainly_named("\n".join(texts)))


def plainly_named(text: str) -> str:
    """RTLIL without brackets in names.

    Amaranth calls element 7 of an array ``x[7]``; so Yosys calls bit 7 of ``x``, and it takes the one for the other.
    """
    return _NAME.sub(lambda name: name[0].replace("[", "<").replace("]", ">"), text)


def _of_verilog(text: str) -> str:
    """The RTLIL of modules in Verilog."""
    with tempfile.TemporaryDirectory(prefix="forestage-verilog-") as folder:
        (Path(folder) / "parts.v").write_text(text)
        # What is written where nothing is may be anything.
        run_yosys(
            ["read_verilog parts.v", "proc", "opt_expr -mux_undef", "clean", "write_rtlil parts.il"], Path(folder)
        )
        return (Path(folder) / "parts.il").read_text()


def _merged(text: str) -> Design:
    modules = {found[1]: found[0] for found in _MODULE.finditer(text)}
    while True:
        first: dict[str, str] = {}
        same: dict[str, str] = {}
        for name, body in modules.items():
            known = first.setdefault(body.replace(f"module {name}\n", "module\n", 1), name)
            if known != name:
                same[name] = known
        if not same:
            break
        modules = {name: _renamed(body, same) for name, body in modules.items() if name not in same}
    return Design(text="\n".join(modules.values()) + "\n", paths=dict(_walk("", f"\\{TOP}", modules)))


def _renamed(body: str, same: dict[str, str]) -> str:
    """A module's text with every cell of the one module that is like its own."""
    return _CELL.sub(lambda cell: cell[0].replace(cell[1], same.get(cell[1], cell[1]), 1), body)


def _walk(path: str, module: str, modules: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Path and module of an instance and of all below it."""
    yield path, module.removeprefix("\\")
    for kind, name in _CELL.findall(modules[module]):
        yield from _walk(f"{path}.{name[1:]}".lstrip("."), kind, modules)
