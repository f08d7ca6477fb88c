"""`make mutants`: small faults planted in the code, one at a time; which share of them do the tests beside it notice?

cosmic-ray knows the faults and plants them; here a sample of them is drawn (the same for the same seed), each package
alike, and for each the tests of its package (``tests/<package>``) run in a copy of the tree until one fails, those
first that name what the changed file defines. A fault that changes nothing counts as missed, so a share of 100 %
cannot be reached. What was tried is kept in a file of JSON lines: the same command goes on where it was interrupted,
for packages whose code and tests are still the same.
"""

import ast
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from rich.console import Console
from rich.progress import track
from rich.table import Table

from catalog.sources import sources_digest
from study.stages import PACKAGES

ROOT = Path(__file__).resolve().parents[1]

OPERATORS = (
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Add", "FloorDiv_Mul", "Div_Mul")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("LShift_RShift", "RShift_LShift", "BitAnd_BitOr", "Mod_FloorDiv")),
    "AddNot",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
)
"""Of cosmic-ray's, those that a person's slip looks like; removed decorators and swapped names are not among them."""

GUARDS = {"dataclass": {"frozen", "kw_only", "slots"}, "zip": {"strict"}}
"""Options that act only on a programmer's slip, as types do: no test of what the code does could notice them."""

TIMEOUT_FACTOR = 3.0
"""A run of the tests may take so many times as long as on the sound code; then the fault counts as noticed."""

LIKELIEST = 2
"""Files of tests that run before the others are collected."""


@dataclass(frozen=True)
class Fault:
    """A fault: the ``occurrence``-th place in ``file`` (from the root) where ``operator`` finds something to change."""

    file: str
    operator: str
    occurrence: int

    @property
    def package(self) -> str:
        """The package of its file."""
        return self.file.split("/")[0]

    def planted(self, source: str) -> str | None:
        """``source`` with the fault in it; ``None`` if it says the same or is no longer Python, as ``f(+, key)`` is."""
        changed = mutate_code(source, get_operator(f"core/{self.operator}")(), self.occurrence)
        try:
            same = changed is None or said(changed) == said(source)
        except SyntaxError:
            return None
        return None if same else changed


def said(source: str) -> str:
    """What ``source`` says, without layout, comments and ``GUARDS``."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in GUARDS:
            node.keywords = [option for option in node.keywords if option.arg not in GUARDS[node.func.id]]
    return ast.dump(tree)


def faults_of(file: Path, root: Path = ROOT) -> Iterator[Fault]:
    """Every fault that can be planted in ``file`` of the tree at ``root``."""
    tree = get_ast(file.read_text(encoding="utf-8"))
    nodes = list(ast_nodes(tree))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        for occurrence in range(places):
            yield Fault(file.relative_to(root).as_posix(), name, occurrence)


def drawn(package: str, count: int, seed: int, root: Path = ROOT) -> list[Fault]:
    """``count`` of the package's faults (all, where it has fewer), every place as likely as the next."""
    every = [fault for file in sorted((root / package).rglob("*.py")) for fault in faults_of(file, root)]
    random.Random(f"{seed} {package}").shuffle(every)
    real = (fault for fault in every if fault.planted((root / fault.file).read_text(encoding="utf-8")) is not None)
    return list(islice(real, count))


class Copy:
    """A copy of the tree, in which faults are planted and tests run, recorded traces beside it if there are any."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "forestage"
        self._runner: subprocess.Popen[str] | None = None
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.root / name)
        if (ROOT.parent / "shared").is_dir():
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        self.environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": str(folder / "kernels"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(self.root),  # before the installed ones, for tests that start a process elsewhere
        }

    def tests(self, package: str) -> list[Path]:
        """The package's files of tests."""
        return sorted((self.root / "tests" / package).rglob("test_*.py"))

    def likely_first(self, fault: Fault) -> list[Path]:
        """The package's files of tests; first those named as the fault's file, or that name most of what it defines."""
        path = self.root / fault.file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)} | {path.stem}

        def likely(test: Path) -> tuple[bool, int]:
            return path.stem in test.stem, len(defined & words(test))

        return sorted(self.tests(fault.package), key=likely, reverse=True)

    def state(self, package: str) -> str:
        """A digest of the package's code and tests: what was found holds for these."""
        parts = (sources_digest(folder, {".py"}) for folder in (self.root / package, self.root / "tests" / package))
        return " ".join(part[:16] for part in parts)

    def passes(self, tests: list[Path], timeout_s: float | None = None) -> bool:
        """Whether the files of tests pass in time."""
        if self._runner is None:
            self._runner = subprocess.Popen(
                [sys.executable, "tests/warm_pytest.py"], cwd=self.root, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        assert self._runner.stdin is not None
        assert self._runner.stdout is not None
        self._runner.stdin.write(json.dumps({"tests": [str(test) for test in tests], "timeout_s": timeout_s}) + "\n")
        self._runner.stdin.flush()
        return json.loads(self._runner.stdout.readline()) == 0

    def close(self) -> None:
        """End the process that runs tests."""
        if self._runner is not None:
            self._runner.communicate()

    def notices(self, fault: Fault, timeout_s: float) -> tuple[bool, str]:
        """Whether the tests fail with the fault in place, and the line that it changes."""
        file = self.root / fault.file
        source = file.read_text(encoding="utf-8")
        changed = fault.planted(source)
        assert changed is not None
        before, after = next(
            (pair for pair in zip(source.splitlines(), changed.splitlines(), strict=False) if pair[0] != pair[1]),
            ("", ""),
        )
        tests = self.likely_first(fault)
        file.write_text(changed, encoding="utf-8")
        try:
            # The likeliest alone, as collecting all of a large package takes longer than they do.
            parts = (tests[:LIKELIEST], tests[LIKELIEST:])
            passed = all(self.passes(part, timeout_s) for part in parts if part)
            return not passed, f"{before.strip()}  →  {after.strip()}"
        finally:
            file.write_text(source, encoding="utf-8")


@cache
def words(file: Path) -> frozenset[str]:
    """The words of a file."""
    return frozenset(re.findall(r"\w+", file.read_text(encoding="utf-8")))


def wilson(noticed: int, tried: int) -> tuple[float, float]:
    """The 95 % score interval of a share (E. B. Wilson, JASA 22, 1927)."""
    z = 1.96
    share, spread = noticed / tried, z * z / tried
    half = z * math.sqrt(share * (1 - share) / tried + spread / (4 * tried))
    return (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)


def table(results: list[dict[str, Any]]) -> Table:
    """The share noticed, by package."""
    shown = Table("package", "tried", "noticed", "share", "95 % interval")
    for package in (*PACKAGES, "all"):
        own = [result for result in results if package in ("all", result["fault"]["file"].split("/")[0])]
        if own:
            noticed = sum(result["noticed"] for result in own)
            low, high = wilson(noticed, len(own))
            share = f"{noticed / len(own):.0%}"
            shown.add_row(package, str(len(own)), str(noticed), share, f"{low:.0%} to {high:.0%}")
    return shown


def main(
    packages: Annotated[list[str] | None, typer.Argument(help="Packages; all, if none is named")] = None,
    count: Annotated[int, typer.Option(help="Faults a package", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the sample")] = 0,
    out: Annotated[Path, typer.Option(help="JSON lines: what was tried; goes on from it")] = Path("out/mutants.jsonl"),
) -> None:
    """Plant faults and print which share of them the tests notice, by package."""
    console = Console()
    chosen = packages or list(PACKAGES)
    for name in chosen:
        if name not in PACKAGES:
            raise typer.BadParameter(f"{name}: no package; choose of {', '.join(PACKAGES)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="forestage-mutants-") as folder,
        out.open("a") as log,
        closing(Copy(Path(folder))) as copy,
    ):
        for package in chosen:
            state = copy.state(package)
            tried = {Fault(**result["fault"]): result for result in known if result["state"] == state}
            faults = drawn(package, count, seed, copy.root)
            still_open = [fault for fault in faults if fault not in tried]
            if still_open:
                began = time.monotonic()  # with kernels not yet compiled, as with a fault
                if not copy.passes(copy.tests(package)):
                    console.print(f"{package}: its tests fail on the sound code; mend them first")
                    raise typer.Exit(2)
                timeout_s = 30 + TIMEOUT_FACTOR * (time.monotonic() - began)
            for fault in track(still_open, package, console=console):
                noticed, change = copy.notices(fault, timeout_s)
                tried[fault] = {"fault": asdict(fault), "state": state, "noticed": noticed, "change": change}
                log.write(json.dumps(tried[fault], ensure_ascii=False) + "\n")
                log.flush()
            results += [tried[fault] for fault in faults]
    console.print(table(results))
    for result in results:
        if not result["noticed"]:
            console.print(f"missed: {result['fault']['file']}: {result['change']}", markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
