"""Large arrays in mapped temporary files, and how the memory of mapped files is released.

A page of a mapped file stays in the process's resident memory from its first use until the system reclaims it, so a
walk over a large trace would seem to need as much memory as its file. Code that walks therefore releases what it has
passed.
"""

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError

IN_MEMORY_BYTES = 64 << 20
"""An array with more bytes is kept in a mapped temporary file."""


def new_array(shape: Sequence[int], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """An array of zeros, in memory or in a mapped temporary file that exists as long as any view of it.

    The file has no name and lies in the folder that ``TMPDIR`` names. Who fills the array in parts calls ``release``
    after each.

    Raises:
        ForestageError: if the folder has no room for it.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY_BYTES:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="forestage-") as file:
            if hasattr(os, "posix_fallocate"):  # room is reserved now: a full disk met later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            mode: Literal["r+", "w+"] = "r+" if os.fstat(file.fileno()).st_size else "w+"
            return np.asarray(np.memmap(file, dtype, mode, shape=tuple(shape)))
    except OSError as error:
        raise ForestageError(
            f"{tempfile.gettempdir()}: no room for {size >> 20} MiB ({error.strerror}); "
            "set TMPDIR to a folder on a larger disk"
        ) from error


def release(array: npt.NDArray[Any]) -> None:
    """Release every resident page of the file of which ``array`` is a view; do nothing if it is not mapped.

    The contents do not change: a page that is used again is mapped again, usually from the system's file cache.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
