"""Release the memory of mapped files.

A page of a mapped file stays in the process's resident memory from its first use until the system reclaims it, so a
walk over a large trace would seem to need as much memory as its file. Code that walks therefore releases what it has
passed.
"""

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


def release(array: npt.NDArray[Any]) -> None:
    """Release every resident page of the file of which ``array`` is a view; do nothing if it is not mapped.

    The contents do not change: a page that is used again is mapped again, usually from the system's file cache.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
