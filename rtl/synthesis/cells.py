"""Map a component to standard cells: area per block, and the longest path between registers."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from catalog.errors import ForestageError
from catalog.progress import Progress
from rtl.synthesis.figures import Block, LongestPath, Memory
from rtl.synthesis.hierarchy import TOP, Design
from rtl.synthesis.liberty import Library
from rtl.yosys import YosysError, abc_program, run_yosys

FLIP_FLOP_BITS = 1024
"""A memory of at most so many bits, or one that is read without a clock, becomes flip-flops; any other is taken for an
SRAM and left out."""

NOT_COUNTED = (
    "wires, clock tree, tie cells, SRAM and the buffers of nets between blocks (the path has them); the path is that "
    "of the logic between registers, without the registers' own delay and set-up, of a netlist that has not been placed"
)

# abc's steps: a balanced mapping for delay; then buffers for fan-outs above 12, and sizes. The period of 100 ps cannot
# be met: it asks for speed. Without -l, dc2 saves area at the cost of levels: of a tree of carries it makes a chain.
_ABC = (
    "strash;&get,-n;&fraig,-x;&put;scorr;dc2,-l;strash;dch;map,-B,0.9,-D,100;"
    "topo;buffer,-c,-N,12;topo;upsize;dnsize;stime"
)

_TIME = "topo; buffer -c -N 12; topo; stime -p"


@dataclass(frozen=True)
class MappedCells:
    """What the mapping found.

    Attributes:
        blocks: Figures ``area_um2``, ``flip_flop_area_um2`` and ``cells``.
        memories: All memories.
        path: The longest path; ``None`` if there is no logic.
    """

    blocks: tuple[Block, ...]
    memories: tuple[Memory, ...]
    path: LongestPath | None


def map_to_cells(design: Design, library: Library, folder: Path, progress: Progress) -> MappedCells:
    """Map ``design`` to ``library``, with ``folder`` for files in between.

    Every block is mapped by itself, so that its area is its own; the longest path is that of all together.

    Raises:
        ForestageError: the library cannot be used.
    """
    steps = 4
    progress(0, steps)
    (folder / "design.il").write_text(design.text)
    prepare = ["read_rtlil design.il", f"hierarchy -check -top {TOP}", "chformal -remove", "delete t:$print"]
    # Constants told by cases are logic here: Yosys would make memories of them, and they are no SRAM.
    run_yosys([*prepare, "proc -norom", f"synth -top {TOP} -booth -run begin:fine", "write_rtlil coarse.il"], folder)
    found = list(_memories((folder / "coarse.il").read_text()))
    progress(1, steps)

    (folder / "drive.constr").write_text(f"set_driving_cell {library.driver}\nset_load 0\n")
    liberty = " ".join(f"-liberty {file}" for file in library.files)
    dont_use = " ".join(f"-dont_use {pattern}" for pattern in library.dont_use)
    small = [f"memory_map {module}/{cell}" for module, cell, memory in found if memory.flip_flops]
    mapping = [
        "read_rtlil coarse.il",
        *small,
        "setundef -zero",
        "opt -fast -full",
        "opt -undriven -fine",
        "techmap",
        "opt -fast",
        f"dfflibmap {dont_use} {liberty}",
        "opt -fast",
        f"abc {liberty} {dont_use} -constr drive.constr -script +{_ABC}",
        "opt_clean -purge",
        "write_rtlil mapped.il",
        f"tee -q -o stat.txt stat -json {liberty}",
    ]
    try:
        run_yosys(mapping, folder)
    except YosysError as error:
        raise ForestageError(f"{', '.join(library.names)}: the cells cannot be used: {error}") from error
    progress(2, steps)
    blocks = _blocks(design, library, folder)
    progress(3, steps)
    path = _longest_path(library, folder)
    progress(4, steps)
    memories = tuple(
        memory.model_copy(update={"block": design.labels[module], "instances": design.instances[module]})
        for module, _, memory in found
    )
    return MappedCells(blocks=blocks, memories=memories, path=path)


_MODULE = re.compile(r"^module \\(\S+)\n(.*?)^end$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^  cell (\S+) (\S+)\n(.*?)^  end$", re.MULTILINE | re.DOTALL)


def _memories(text: str) -> Iterable[tuple[str, str, Memory]]:
    """Module, cell and figures of every memory in RTLIL."""
    for module in _MODULE.finditer(text):
        for kind, cell, body in _CELL.findall(module[2]):
            if not kind.startswith("$mem"):
                continue
            value = dict(re.findall(r"^    parameter (?:signed )?\\(\S+) (.*)$", body, re.MULTILINE))
            clocked = value["RD_CLK_ENABLE"].partition("'")[2]
            memory = Memory(
                block=module[1],
                name=value["MEMID"].strip('"\\').rpartition(".")[2].lstrip("\\") or "memory",
                depth=int(value["SIZE"]),
                width=int(value["WIDTH"]),
                read_ports=int(value["RD_PORTS"]),
                write_ports=int(value["WR_PORTS"]),
            )
            flip_flops = memory.bits <= FLIP_FLOP_BITS or "0" in clocked
            yield module[1], cell, memory.model_copy(update={"flip_flops": flip_flops})


def _blocks(design: Design, library: Library, folder: Path) -> tuple[Block, ...]:
    """Area and cells of every block, from its cells and the areas that Yosys read from the library."""
    used: dict[str, Counter[str]] = {}
    for found in _MODULE.finditer((folder / "mapped.il").read_text()):
        used[found[1]] = Counter(kind.removeprefix("\\") for kind, _, _ in _CELL.findall(found[2]))
    inner = {*design.instances}
    blocks = []
    for module, instances in design.instances.items():
        cells = {kind: n for kind, n in used[module].items() if not kind.startswith("$") and kind not in inner}
        unknown = {kind for kind in cells if kind not in library.areas}
        if unknown:
            raise AssertionError(f"{module}: cells that are not the library's: {sorted(unknown)}")
        area = {kind: n * library.areas[kind] for kind, n in cells.items()}
        flip_flops = sum(a for kind, a in area.items() if kind in library.sequential)
        figures = {
            "area_um2": round(sum(area.values()), 4),
            "flip_flop_area_um2": round(flip_flops, 4),
            "cells": sum(cells.values()),
        }
        blocks.append(Block(name=design.labels[module], instances=instances, figures=figures))
    return tuple(blocks)


def _longest_path(library: Library, folder: Path) -> LongestPath | None:
    """Time the logic of all blocks together, from and to registers, memories and ports.

    The flat netlist without its registers is one network for abc.
    """
    kinds = {kind for kind, _, _ in _CELL.findall((folder / "mapped.il").read_text())}
    combinational = {f"\\{name}" for name in library.areas.keys() - library.sequential}
    logic = sorted(kinds & combinational)
    if not logic:
        return None
    flat = [
        *(f"read_liberty -lib -ignore_miss_func {file}" for file in library.files),
        "read_rtlil mapped.il",
        f"hierarchy -top {TOP}",
        "flatten",
        "splitnets -ports",
        "opt_clean -purge",
        "select -set logic " + " ".join(f"t:{kind[1:]}" for kind in logic),
        "submod -name logic @logic",
        "write_rtlil registers.il",
        "hierarchy -top logic",
        "write_blif -gates -true - $true -false - $false -undef - $undef logic.blif",
    ]
    run_yosys(flat, folder)
    return timed(library, folder)


_CONSTANT = re.compile(r"(?<==)\$(?:true|false|undef)(?=\s)")


def timed(library: Library, folder: Path) -> LongestPath:
    """The longest path of the gates in ``logic.blif``, between the registers of ``registers.il``, both in ``folder``.

    A constant is an input that does not change. Each gate gets one of its own: it drives no wire, and as one input it
    would be loaded by all gates that it is tied to, which may be thousands. Nets between blocks get buffers as those in
    blocks have them.
    """
    constants = count()
    blif = _CONSTANT.sub(lambda found: f"{found[0]}${next(constants)}", (folder / "logic.blif").read_text())
    if used := re.findall(r"=(\$(?:true|false|undef)\$\d+)(?=\s)", blif):
        blif = blif.replace("\n.inputs", f"\n.inputs {' '.join(used)}", 1)
    (folder / "timed.blif").write_text(blif)
    # abc sizes gates as it buffers nets: it must not know the cells that are not to be used.
    without = " ".join(f"-X {name}" for name in library.excluded)
    reads = "; ".join(f"read_lib {without} -w {'-m ' if n else ''}{file}" for n, file in enumerate(library.files))
    done = subprocess.run(
        [abc_program(), "-c", f"{reads}; read_blif timed.blif; read_constr drive.constr; {_TIME}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    delay = re.search(r"Delay = *([\d.]+) ps", said)
    ends = re.search(r"Start-point = pi(\d+)(?: \(.*?\))?\.  End-point = po(\d+)", said)
    if delay is None or ends is None:
        raise AssertionError(f"abc did not time the netlist: {(done.stdout + done.stderr)[-400:]}")
    inputs = re.findall(r"^\.inputs (.*)$", blif, re.MULTILINE)[0].split()
    outputs = re.findall(r"^\.outputs (.*)$", blif, re.MULTILINE)[0].split()
    return LongestPath(
        ns=round(float(delay[1]) / 1000, 4),
        start=inputs[int(ends[1])],
        end=_register_of(outputs[int(ends[2])], library, (folder / "registers.il").read_text()),
    )


def _register_of(port: str, library: Library, text: str) -> str:
    """The output of the register that an output ``port`` of the logic feeds; the net itself, if it feeds none.

    ``text`` is the RTLIL of the registers with the logic as one cell.
    """
    cells = [
        (kind.removeprefix("\\"), dict(re.findall(r"^    connect \\(\S+) (\S+)$", body, re.MULTILINE)))
        for kind, _, body in _CELL.findall(text)
    ]
    net = next((ports[port] for kind, ports in cells if kind == "logic" and port in ports), port)
    for kind, ports in cells:
        outputs = [value for name, value in ports.items() if name.startswith("Q")]
        if kind in library.sequential and net in ports.values() and net not in outputs and outputs:
            return outputs[0].removeprefix("\\")
    return net.removeprefix("\\")
