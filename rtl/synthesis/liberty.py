"""Cell libraries in Liberty: what a mapper has to be told of them, and whether they are any."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.errors import ForestageError

DONT_USE = {
    "sky130_fd_sc_hd": ("sky130_fd_sc_hd__lpflow_*", "sky130_fd_sc_hd__probe*"),
    "asap7sc7p5t": ("*x1p*_ASAP7*", "*xp*_ASAP7*", "SDF*", "ICG*", "DLL*"),
}
"""Start of a library's name → cells that are not for logic (isolation, probes, clock gates, scan) or too weak to be
used, as the OpenROAD flow's platforms exclude them (evidence: background knowledge)."""


@dataclass
class _Cell:
    """What is read of a cell."""

    name: str
    area: float | None = None
    sequential: bool = False
    pins: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def is_buffer(self) -> bool:
        """Whether it has one input, and one output that follows it."""
        ins = [name for name, pin in self.pins.items() if pin.get("direction") == "input"]
        outs = [pin for pin in self.pins.values() if pin.get("direction") == "output"]
        return len(ins) == len(outs) == 1 and outs[0].get("function", "").strip("() ") == ins[0]


@dataclass(frozen=True)
class Library:
    """Cell libraries that are used together.

    Attributes:
        names: The libraries' own names, in the order of their files.
        files: The files unpacked, in a temporary folder.
        sha256: Of each file as it was given, packed or not.
        areas: Cell → its area (µm²).
        sequential: Names of the flip-flops, latches and clock gates.
        driver: The smallest buffer, taken to drive what flip-flops drive.
        dont_use: Patterns of cells that are not to be used.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    areas: dict[str, float]
    sequential: frozenset[str]
    driver: str
    dont_use: tuple[str, ...]

    @property
    def target(self) -> str:
        """What the libraries' names have in common."""
        first, last = min(self.names), max(self.names)
        common = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        return first[:common].rstrip("_-") or first

    @property
    def excluded(self) -> tuple[str, ...]:
        """The cells that are not to be used."""
        return tuple(name for name in sorted(self.areas) if any(_matches(name, pattern) for pattern in self.dont_use))


def read_libraries(paths: Sequence[Path], folder: Path) -> Library:
    """Read the Liberty files ``paths``, each as it is or packed by gzip, and unpack them into ``folder``.

    Raises:
        ForestageError: a file cannot be read or is no Liberty, two have a cell of the same name, or together they lack
            a flip-flop or a buffer.
    """
    names: list[str] = []
    files: list[Path] = []
    sums: list[str] = []
    cells: dict[str, tuple[_Cell, Path]] = {}
    for path in paths:
        packed = _read(path)
        text = _unpack(path, packed)
        name, found = _parse(path, text)
        for cell in found:
            if cell.name in cells:
                raise ForestageError(
                    f"{path}: cell {cell.name}: is in {cells[cell.name][1]} too; give libraries of one kind and corner"
                )
            cells[cell.name] = cell, path
        file = folder / f"library{len(files)}.lib"
        file.write_text(text, encoding="utf-8")
        names.append(name)
        files.append(file)
        sums.append(hashlib.sha256(packed).hexdigest())
    shown = ", ".join(str(path) for path in paths)
    sequential = frozenset(name for name, (cell, _) in cells.items() if cell.sequential)
    if not sequential:
        raise ForestageError(
            f"{shown}: no flip-flop; give the library's file of sequential cells too (--liberty again)"
        )
    dont_use = tuple(p for start, patterns in DONT_USE.items() if names[0].startswith(start) for p in patterns)
    usable = [cell for cell, _ in cells.values() if not any(_matches(cell.name, pattern) for pattern in dont_use)]
    buffers = [cell for cell in usable if cell.is_buffer and cell.area is not None]
    if not buffers:
        raise ForestageError(f"{shown}: no buffer; give the library's file of buffers too (--liberty again)")
    driver = min(buffers, key=lambda cell: (cell.area, cell.name))
    return Library(
        names=tuple(names),
        files=tuple(files),
        sha256=tuple(sums),
        areas={name: cell.area for name, (cell, _) in cells.items() if cell.area is not None},
        sequential=sequential,
        driver=driver.name,
        dont_use=dont_use,
    )


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), name) is not None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ForestageError(f"{path}: cannot read the cell library ({error.strerror})") from error


def _unpack(path: Path, packed: bytes) -> str:
    """The text of a file, unpacked if its first bytes are gzip's, whatever it is called."""
    try:
        return (gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise ForestageError(f"{path}: damaged gzip ({error}); fetch the file again") from error
    except UnicodeDecodeError as error:
        raise ForestageError(f"{path}: no text; give a Liberty file (.lib), as it is or packed by gzip") from error


_NAME = r'\(\s*"?([^"()\s]+)"?\s*\)'
_LIBRARY = re.compile(rf"\blibrary\s*{_NAME}\s*\{{")
_TOKEN = re.compile(
    r"\b(?P<group>cell|pin|ff|ff_bank|latch|latch_bank|statetable)\s*\((?P<name>[^()]*)\)\s*\{"
    r"|\b(?P<key>area|direction|function|clock_gating_integrated_cell)\s*:\s*\"?(?P<value>[^\";\n]*)"
    r"|(?P<open>\{)|(?P<close>\})"
)


def _parse(path: Path, text: str) -> tuple[str, list[_Cell]]:
    """The library's name, and its cells."""
    # Nearly all of a library are rows of its tables, which would only make this slow.
    rows = (line for line in text.splitlines() if line.lstrip()[:1] != '"')
    bare = re.sub(r"/\*.*?\*/", "", "\n".join(rows), flags=re.DOTALL)
    library = _LIBRARY.search(bare)
    if library is None:
        raise ForestageError(f"{path}: no 'library (…) {{'; give a Liberty file (.lib), as it is or packed by gzip")
    cells: list[_Cell] = []
    depth, pin, pin_depth = 1, {}, 0
    for token in _TOKEN.finditer(bare, library.end()):
        if token["close"]:
            depth -= 1
            if depth == 0:
                break
            continue
        if token["group"] == "cell" and depth == 1:
            cells.append(_Cell(token["name"].strip(' "')))
        elif token["group"] == "pin" and depth == 2:
            pin = cells[-1].pins.setdefault(token["name"].strip(' "'), {})
            pin_depth = depth + 1
        elif token["group"] and depth == 2:
            cells[-1].sequential = True
        elif token["key"] and depth == 2 and cells:
            if token["key"] == "area":
                cells[-1].area = _number(path, cells[-1].name, token["value"].strip())
            elif token["key"].startswith("clock_gating"):
                cells[-1].sequential = True
        elif token["key"] and depth == pin_depth and depth == 3:
            pin[token["key"]] = token["value"].strip()
        depth += bool(token["group"] or token["open"])
    if depth:
        raise ForestageError(f"{path}: ends in the middle of the library; fetch the file again")
    if not cells:
        raise ForestageError(f"{path}: no cells; give a library of standard cells")
    return library[1], cells


def _number(path: Path, cell: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ForestageError(f"{path}: cell {cell}: area: '{text}' is no number; correct the library") from None
