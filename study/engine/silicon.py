"""What the parts of the prefetch engine take in silicon, by the committed records of their synthesis."""

from pathlib import Path
from typing import NamedTuple

from rtl.synthesis.figures import read_record

PARTS = {
    "engine-net": "net: sums, scores, selection",
    "engine-text": "memory of the text, image loader",
    "engine-tables": "tables",
    "engine-table-port": "their port",
    "engine-stager": "stager",
    "engine-link": "link, DMA",
    "engine-front-end": "front end",
    "engine-arbiter": "arbiter",
    "engine-notices": "notices",
    "engine-registers": "registers",
    "engine-bus": "bus slave",
    "engine-counters": "counters",
    "engine-tallies": "what is counted of the stager",
}
"""The units of ``rtl.synthesis`` that make up the engine, with the default limits."""


class PartSilicon(NamedTuple):
    """A part of the engine in a library's cells.

    Attributes:
        unit, part: its name in ``rtl.synthesis``, and in words.
        area_um2: of its cells, without memories.
        longest_path_ns: of the logic between registers; ``None``: not known.
        sram_bits: of its memories.
    """

    unit: str
    part: str
    area_um2: float
    longest_path_ns: float | None
    sram_bits: int


def silicon(records: Path, target: str) -> list[PartSilicon]:
    """Of each part that has a record in the folder ``records`` for ``target``.

    Raises:
        ForestageError: a record cannot be read.
    """
    found = []
    for unit, part in PARTS.items():
        path = records / f"{unit}.{target}.json"
        if path.exists():
            record = read_record(path)
            path_ns = None if record.path is None else record.path.ns
            found.append(PartSilicon(unit, part, record.total["area_um2"], path_ns, record.sram_bits))
    return found
