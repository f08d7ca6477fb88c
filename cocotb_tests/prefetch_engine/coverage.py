"""What the regression of the whole engine has seen: bins, filled by replays that showed no difference.

A bin is a mode of prediction, a class of shapes, what became of a demand, whether channels waited at random, and what
went wrong. It is filled by a *run* in which all of it occurred, not necessarily at once. Each run writes a file of what
it saw; all files together, of the same sources, are the coverage::

    python -m cocotb_tests.prefetch_engine.coverage [--json] [FOLDER]
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import NamedTuple

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import atomic_path
from predictor.engine.counters import EngineCounter
from predictor.engine.events import EVENT_ERRORS, EngineError
from predictor.engine.settings import Mode

FOLDER = "FORESTAGE_COVERAGE"
"""Environment variable: the folder in which runs leave what they saw; without it they leave nothing."""


class Shape(Enum):
    """Of the model that is configured, by its experts a layer."""

    SMALL = "below 32 experts"
    GPT_OSS = "32 to 127 experts"
    WIDE = "128 experts"

    @classmethod
    def of(cls, experts: int) -> "Shape":
        """The class of a model of so many ``experts`` a layer."""
        return cls.SMALL if experts < 32 else cls.GPT_OSS if experts < 128 else cls.WIDE


class Demand(Enum):
    """What became of a demand."""

    HIT = "resident"
    LATE = "queued or moving already"
    MISS = "absent"


class Waits(Enum):
    """Back-pressure on all channels."""

    NONE = "none"
    RANDOM = "random"


class Error(Enum):
    """What went wrong."""

    NONE = "nothing"
    READ = "a read was refused"
    WRITE = "a write was refused"
    RLAST = "RLAST was missing, or early"
    EVENT = "an event was bad"
    IMAGE = "an image was bad"


class Bin(NamedTuple):
    """See the module."""

    mode: Mode
    shape: Shape
    demand: Demand
    waits: Waits
    error: Error

    @property
    def unreachable(self) -> str:
        """Why no run can fill it; empty if one can."""
        if self.error is Error.IMAGE and self.mode is not Mode.LEARNED:
            return "an image is loaded for mode LEARNED alone"
        return ""


BINS = tuple(Bin(*of) for of in product(Mode, Shape, Demand, Waits, Error))

_COUNTERS = {
    Demand.HIT: EngineCounter.HITS,
    Demand.LATE: EngineCounter.PROMOTED,
    Demand.MISS: EngineCounter.WAITS,
}
_ERRORS = {
    Error.READ: EngineError.READ,
    Error.WRITE: EngineError.WRITE,
    Error.RLAST: EngineError.LAST,
    Error.EVENT: EVENT_ERRORS,
    Error.IMAGE: EngineError.IMAGE_SHAPE | EngineError.IMAGE_CHECKSUM | EngineError.IMAGE_READ,
}


class Seen(StrictModel):
    """What one run saw.

    Attributes:
        sources: digest of the circuit's and the twin's sources.
        run: digest of what was run.
        mode, experts: that were configured.
        waits: chance of a wait, in 256ths.
        demands: by ``Demand``, how many.
        errors: bits of ``EngineError``.
    """

    sources: str
    run: str
    mode: Mode
    experts: int
    waits: int
    demands: dict[Demand, int]
    errors: int

    @property
    def bins(self) -> set[Bin]:
        """That it fills."""
        found = EngineError(self.errors)
        errors = [error for error, bits in _ERRORS.items() if found & bits] or [Error.NONE]
        demands = [demand for demand, count in self.demands.items() if count]
        waits = Waits.RANDOM if self.waits else Waits.NONE
        return {Bin(self.mode, Shape.of(self.experts), *of) for of in product(demands, [waits], errors)}


@lru_cache(maxsize=1)
def sources() -> str:
    """Digest of the sources that the coverage is of."""
    digest = hashlib.sha256()
    for package in ("staging", "predictor", "rtl", "cocotb_tests"):
        for path in sorted(Path(str(import_module(package).__file__)).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def seen(mode: Mode, experts: int, *, counters: Mapping[str, int], errors: int, waits: int, run: str) -> Seen:
    """What a run saw.

    Args:
        mode, experts: that were configured.
        counters: the hardware's, by the name of ``EngineCounter`` in small letters.
        errors: its sticky ones.
        waits: chance of a wait, in 256ths.
        run: what distinguishes it from other runs.
    """
    return Seen(
        sources=sources(),
        run=hashlib.sha256(run.encode()).hexdigest()[:16],
        mode=mode,
        experts=experts,
        waits=waits,
        demands={demand: counters[counter.name.lower()] for demand, counter in _COUNTERS.items()},
        errors=errors,
    )


def leave(what: Seen) -> None:
    """Leave it in the folder that the environment names, if it names one; the same run again replaces it."""
    if not (folder := os.environ.get(FOLDER)):
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with atomic_path(Path(folder) / f"{what.run}.json") as path:
        path.write_text(what.model_dump_json(indent=1) + "\n")


class Coverage(StrictModel):
    """All runs together.

    Attributes:
        runs: that are of these sources; ``stale``: that are of others, and are not counted.
        filled: how many runs filled a bin, by its names.
        empty: bins that can be filled, and are not.
        unreachable: bins that cannot, with the reason.
    """

    runs: int
    stale: int
    filled: dict[str, int]
    empty: tuple[str, ...]
    unreachable: dict[str, str]


def name(of: Bin) -> str:
    """A bin in words."""
    return " ".join(part.name.lower() for part in of)


def merge(runs: Iterable[Seen]) -> Coverage:
    """What runs of the present sources filled.

    Raises:
        ValueError: a run filled a bin that is said to be out of reach.
    """
    every = list(runs)
    fresh = [one for one in every if one.sources == sources()]
    counts = dict.fromkeys(BINS, 0)
    for one in fresh:
        for of in sorted(one.bins, key=name):
            if of.unreachable:
                raise ValueError(f"coverage: {name(of)} was filled, though {of.unreachable}")
            counts[of] += 1
    return Coverage(
        runs=len(fresh),
        stale=len(every) - len(fresh),
        filled={name(of): count for of, count in counts.items() if count},
        empty=tuple(name(of) for of, count in counts.items() if not count and not of.unreachable),
        unreachable={name(of): of.unreachable for of in BINS if of.unreachable},
    )


def read(folder: Path) -> list[Seen]:
    """What runs left in a folder.

    Raises:
        ForestageError: for a folder that is not there, or a file of another form.
    """
    if not folder.is_dir():
        raise ForestageError(f"{folder}: no such folder; run the long tests, which fill it")
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ForestageError(f"{path}: not JSON ({error}); remove it") from error
        if not isinstance(values, dict):
            raise ForestageError(f"{path}: not an object; remove it")
        found.append(Seen.parse(values, origin=str(path)))
    return found


def table(coverage: Coverage) -> str:
    """A line for each mode, class and back-pressure; for each error a letter for each demand that was seen.

    H: hit, L: late, M: miss; a point: not seen; a dash: cannot be.
    """
    heading = f"{'mode':9}{'experts':9}{'waits':8}" + "".join(f"{error.name.lower():7}" for error in Error)
    lines = [heading.rstrip()]
    for mode, shape, waits in product(Mode, Shape, Waits):
        cells = []
        for error in Error:
            cell = ""
            for demand in Demand:
                of = Bin(mode, shape, demand, waits, error)
                mark = demand.name[0] if name(of) in coverage.filled else "."
                cell += "-" if of.unreachable else mark
            cells.append(f"{cell:7}")
        lines.append(f"{mode.name.lower():9}{shape.name.lower():9}{waits.name.lower():8}{''.join(cells)}".rstrip())
    reachable = len(BINS) - len(coverage.unreachable)
    lines.append(f"{len(coverage.filled)} of {reachable} bins are filled, by {coverage.runs} runs")
    reasons = sorted(set(coverage.unreachable.values()))
    lines += [f"- {reason}" for reason in reasons]
    if coverage.stale:
        lines.append(f"{coverage.stale} runs are of other sources and are not counted")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the coverage; returns the exit status."""
    parser = argparse.ArgumentParser(description="Print what the regression of the prefetch engine has seen.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("out") / "coverage")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    try:
        coverage = merge(read(options.folder))
    except ForestageError as error:
        print(f"forestage: {error}", file=sys.stderr)
        return 2
    print(coverage.model_dump_json(indent=1) if options.json else table(coverage))
    return 0


if __name__ == "__main__":
    sys.exit(main())
