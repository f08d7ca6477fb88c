"""A machine with PyTorch and a package's wheels needs nothing else to measure, decode and compare."""

import os
import subprocess
import sys
from pathlib import Path

from catalog.user_cache import user_cache
from tests.study.reference.made_records import LRU, decoded, made_material, made_record, routed

ROOT = Path(__file__).resolve().parents[3]

THERE = (
    "torch", "triton", "functorch", "torchgen", "numpy", "numba", "llvmlite", "safetensors", "transformers", "typer",
    "rich", "jinja2", "matplotlib", "ml_dtypes", "psutil", "pynvml",
    "pydantic", "pydantic_core", "annotated_types", "typing_inspection",
)  # fmt: skip
"""What such a machine has, and the wheels."""

NEEDED_BY_THESE = (
    "typing_extensions", "filelock", "sympy", "mpmath", "networkx", "fsspec", "markupsafe", "click", "shellingham",
    "markdown_it", "mdurl", "pygments", "yaml", "regex", "requests", "tqdm", "packaging", "huggingface_hub",
    "tokenizers", "annotated_doc", "httpx", "hf_xet", "cycler", "kiwisolver", "contourpy", "dateutil", "six", "PIL",
    "pyparsing", "fontTools",
)  # fmt: skip

RUN = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

allowed = sys.argv.pop(1).split(",")

class Nothing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if path is None and name not in allowed:
            found = PathFinder.find_spec(name)
            places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
            if any("site-packages" in place for place in places):
                raise ModuleNotFoundError(f"not on that machine: {name}", name=name)

sys.meta_path.insert(0, Nothing())
from study.cli import main
main()
"""


def run(tmp_path: Path, *arguments: object, without: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process that imports nothing else, in a home without anything."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(user_cache("kernels"))),
    }
    allowed = ",".join(name for name in (*THERE, *NEEDED_BY_THESE) if name != without)
    command = [sys.executable, "-c", RUN, allowed, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)


def test_measuring_needs_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    done = run(
        tmp_path, "reference", "measure", "--model", "OLMoE-1B-7B", "--suite", "quick", "--device", "cpu", "--only",
        "launches", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.exists()


def test_comparing_needs_nothing_else(tmp_path: Path) -> None:
    routed().save(tmp_path / "made.safetensors")
    material = made_material(routed())
    made_record(material, [decoded(material, LRU, "LRU", steps=3)]).save(tmp_path / "record.json")
    done = run(
        tmp_path, "reference", "compare", "--record", "record.json", "--trace", "made.safetensors", "--tokens", 400
    )
    assert done.returncode == 0, done.stderr
    assert "1 row, 1 of them within" in done.stdout


def test_what_is_not_there_is_noticed(tmp_path: Path) -> None:
    done = run(tmp_path, "reference", "compare", "--help", without="pydantic")
    assert "not on that machine: pydantic" in done.stderr
