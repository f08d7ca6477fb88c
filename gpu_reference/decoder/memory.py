"""The memory that a decoder takes, and what to ask for where there is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from catalog.errors import ForestageError
from gpu_reference.decoder.shape import DecoderShape

ACTIVATION_BYTES = 1 << 29
"""Left free on a GPU for what a call computes; an assumption, enough for a prefill of some thousand tokens."""

GB = 1e9

CONTAINERS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files with a container's limit and what is used of it, in the two versions of Linux's control groups."""


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be taken on ``device``; ``None`` where nothing says so.

    On a CPU: what the system has, and no more than what its container has left.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(0, free + cached - ACTIVATION_BYTES)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    found += [left for left in map(_left_in, CONTAINERS) if left is not None]
    return min(found, default=None)


def _left_in(files: tuple[str, str]) -> int | None:
    """What a container's limit leaves of it; files that the system would take back count as used."""
    try:
        limit, used = (Path(name).read_text(encoding="ascii").strip() for name in files)
    except OSError:
        return None
    return max(0, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else None


def what_fits(shape: DecoderShape, dtype: torch.dtype, *, slots: int, max_context: int, free: int, where: str) -> str:
    """One line: what the decoder takes, what is ``free``, and which max_context or slots would fit."""
    fixed = shape.fixed_bytes(dtype)
    spare = free - fixed
    cache = shape.cache_bytes(dtype, slots=slots, max_context=max_context)
    told = (
        f"{shape.model.name}: out of memory on {where}: weights take {fixed / GB:.2f} GB, the cache of {slots} slots "
        f"of {max_context} tokens {cache / GB:.2f} GB, {max(free, 0) / GB:.2f} GB are free"
    )
    fits = []
    context = _largest(lambda tokens: shape.cache_bytes(dtype, slots=slots, max_context=tokens), max_context, spare)
    if context:
        fits.append(f"max_context {context}")
    fewer = _largest(lambda count: shape.cache_bytes(dtype, slots=count, max_context=max_context), slots, spare)
    if fewer:
        fits.append(f"{fewer} slot{'s' if fewer > 1 else ''}")
    if fits:
        return f"{told}; {' or '.join(fits)} would fit"
    return f"{told}; the weights alone leave no room for one token: take bf16, fewer layers or another device"


@contextmanager
def enough_memory(
    shape: DecoderShape, dtype: torch.dtype, *, slots: int, max_context: int, device: torch.device
) -> Iterator[None]:
    """Allocate a decoder inside this context.

    Raises:
        ForestageError: before anything is allocated where too little is free, or when the device refuses: what fits.
    """
    free = free_bytes(device)
    needed = shape.fixed_bytes(dtype) + shape.cache_bytes(dtype, slots=slots, max_context=max_context)

    def refusal(available: int) -> ForestageError:
        return ForestageError(
            what_fits(shape, dtype, slots=slots, max_context=max_context, free=available, where=str(device))
        )

    if free is not None and needed > free:
        raise refusal(free)
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on a GPU, a plain RuntimeError of the CPU's allocator
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        # More was promised than there is; a part of it must go to others.
        raise refusal(min(needed - 1, free if free is not None else needed - 1)) from error


def _largest(nbytes: Callable[[int], int], limit: int, spare: int) -> int:
    """The largest number below ``limit`` for which ``nbytes`` (rising) is at most ``spare``; 0: none."""
    low, high = 0, limit - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if nbytes(middle) <= spare else (low, middle - 1)
    return low
