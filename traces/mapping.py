"""Mapped files and the process's memory.

A page of a mapped file stays in the process's resident memory from the first touch until the system wants it back, so
a walk over a large trace would look as large as its file. Whoever walks lets go of what is behind.
"""

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


def release(array: npt.NDArray[Any]) -> None:
    """Let go of every resident page of the file that ``array`` is a view of; nothing, where it is of no file.

    The contents stay as they are: a page touched again is mapped again, as a rule from the system's file cache.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
