"""The cache of compiled kernels: a change in any file that a kernel sees makes it anew."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog.compiled import SUFFIXES
from catalog.sources import sources_digest
from catalog.user_cache import UNUSED_DAYS

ROOT = Path(__file__).resolve().parents[2]

MAIN = """
from predictor.doubling import twice
print(twice(1))
"""

KERNEL = """
from staging.constants import FACTOR
from catalog.compiled import njit

@njit()
def twice(value):
    return value * FACTOR
"""


def write_house(folder: Path) -> None:
    """A house of packages in which a kernel of one compiles in a constant of another."""
    for package in ("catalog", "traces", "staging", "predictor"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("")
    for file in ("catalog/sources.py", "catalog/user_cache.py", "catalog/compiled.py"):
        shutil.copyfile(ROOT / file, folder / file)
    (folder / "staging" / "constants.py").write_text("FACTOR = 2\n")
    (folder / "predictor" / "doubling.py").write_text(KERNEL)


def run(house: Path, cache: Path, **settings: str) -> str:
    """What the house's kernel says in a process of its own."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"},
        "FORESTAGE_CACHE": str(cache),
        "PYTHONPATH": str(house),
        "PYTHONDONTWRITEBYTECODE": "1",
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-c", MAIN], cwd=house, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_constant_changed_in_another_file_changes_the_result(tmp_path: Path) -> None:
    house, cache = tmp_path / "house", tmp_path / "cache"
    write_house(house)
    assert run(house, cache) == "2"
    kept = sorted(cache.rglob("*.nbc"))
    assert len(kept) == 1, "the kernel was not kept"
    when = kept[0].stat().st_mtime_ns
    assert run(house, cache) == "2"
    assert kept[0].stat().st_mtime_ns == when, "the kernel was compiled again for nothing"
    (house / "staging" / "constants.py").write_text("FACTOR = 3\n")
    assert run(house, cache) == "3"
    (house / "staging" / "constants.py").write_text("FACTOR = 2\n")
    assert run(house, cache) == "2"


def test_the_users_folder_of_numba_is_kept_to(tmp_path: Path) -> None:
    house, own = tmp_path / "house", tmp_path / "own"
    write_house(house)
    assert run(house, tmp_path / "cache", NUMBA_CACHE_DIR=str(own)) == "2"
    assert len(list(own.rglob("*.nbc"))) == 1
    assert not (tmp_path / "cache").exists()


def test_without_a_folder_to_write_kernels_are_compiled_all_the_same(tmp_path: Path) -> None:
    house = tmp_path / "house"
    write_house(house)
    (tmp_path / "file").write_text("")
    assert run(house, tmp_path / "file" / "cache") == "2"


def test_folders_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    house, cache = tmp_path / "house", tmp_path / "cache"
    write_house(house)
    old, young = cache / "kernels" / "old", cache / "kernels" / "young"
    for folder, days in ((old, UNUSED_DAYS + 1), (young, UNUSED_DAYS - 1)):
        folder.mkdir(parents=True)
        when = time.time() - days * 86400
        os.utime(folder, (when, when))
    assert run(house, cache) == "2"
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("change", ["content", "name", "figures"])
def test_every_source_counts(change: str, tmp_path: Path) -> None:
    (tmp_path / "package" / "inner").mkdir(parents=True)
    source, figures = tmp_path / "package" / "inner" / "a.py", tmp_path / "package" / "b.toml"
    source.write_text("A = 1")
    figures.write_text("a = 1")
    before = sources_digest(tmp_path / "package", SUFFIXES)
    (tmp_path / "package" / "notes.md").write_text("no source")
    assert sources_digest(tmp_path / "package", SUFFIXES) == before
    if change == "content":
        source.write_text("A = 2")
    elif change == "name":
        source.rename(source.with_name("c.py"))
    else:
        figures.write_text("a = 2")
    assert sources_digest(tmp_path / "package", SUFFIXES) != before


def test_every_kernel_is_decorated_here() -> None:
    """A kernel that numba's own decorator caches would be stale."""
    sources = [path for path in ROOT.glob("*/**/*.py") if path.parts[len(ROOT.parts)] not in (".venv", "tests")]
    text_of = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources}
    importing = re.compile(r"^\s*(?:from|import) numba\b", re.MULTILINE)
    strangers = {name for name, text in text_of.items() if importing.search(text)}
    # Types, parallel loops and instructions of the processor, which are compiled into kernels that are decorated here.
    without_decorators = {
        "gpu_reference/experts/host_kernel.py",
        "gpu_reference/experts/host_products.py",
        "traces/handle.py",
    }
    assert strangers == {"catalog/compiled.py", *without_decorators}
    decorator = re.compile(r"numba\.(?:n?jit|vectorize|guvectorize|cfunc|stencil)\b|from numba import .*\bn?jit\b")
    assert not [name for name in without_decorators if decorator.search(text_of[name])]
