"""Copies between host and device, and within the device."""

from collections.abc import Iterable

import torch

from gpu_reference.devices import one_thread
from gpu_reference.measuring.bench import Bench, Figures, Skipped, check_same
from gpu_reference.measuring.clock import Work
from gpu_reference.records.micro import MicroKind

KIB, MIB = 1 << 10, 1 << 20

POOL_BYTES = {"quick": 128 * MIB, "full": 1024 * MIB}
"""Copies go through so much memory, so that no cache holds it."""

BATCH_BYTES = 64 * MIB
"""Copies that are queued after each other move about so much together."""
MOST_QUEUED = 64


def copies(bench: Bench) -> Figures:
    """Copies to and from the device by size, streams and kind of host memory, one stream first."""
    for memory in ("pinned", "pageable"):
        if memory == "pinned" and not bench.on_cuda:
            continue  # memory that a CPU copies from is not pinned
        for kind in (MicroKind.COPY_TO_DEVICE, MicroKind.COPY_FROM_DEVICE):
            yield from _between(bench, kind, memory, (1,))


def copies_on_streams(bench: Bench) -> Figures:
    """Copies from and to pinned memory on several streams at once."""
    if not bench.on_cuda:
        raise Skipped("a CPU has no streams")
    for kind in (MicroKind.COPY_TO_DEVICE, MicroKind.COPY_FROM_DEVICE):
        yield from _between(bench, kind, "pinned", (2, 4) if bench.is_full else (2,))


def copies_within_device(bench: Bench) -> Figures:
    """Copies in the device's memory, by size."""
    source, there = (random_bytes(bench, POOL_BYTES[bench.suite] // 2, bench.device) for _ in range(2))
    for size in sizes(bench):
        work = _piecewise(source, there, size, 1, 1)
        work(0)
        error = check_same("copy within the device", there[:size], source[:size])
        yield bench.micro(
            MicroKind.COPY_WITHIN_DEVICE,
            work,
            queued=queued_copies(size),
            by_device=True,
            size=size,
            error=error,
            copy_bytes=size,
        )


def sizes(bench: Bench) -> tuple[int, ...]:
    """Bytes of the copies, ascending; an expert of the model as the catalogue has it is one."""
    plain = (64 * KIB, 256 * KIB, MIB, 2 * MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB)
    wanted = plain if bench.is_full else (64 * KIB, MIB, 2 * MIB, 16 * MIB)
    return tuple(sorted({*wanted, min(bench.model.expert_bytes, POOL_BYTES[bench.suite] // 2)}))


def queued_copies(size: int) -> int:
    """Copies of ``size`` bytes that are launched after each other."""
    return max(2, min(MOST_QUEUED, BATCH_BYTES // size))


def random_bytes(bench: Bench, size: int, device: str, *, pinned: bool = False) -> torch.Tensor:
    """``size`` random bytes (a multiple of 8), u8, in the device's or the host's memory."""
    words = torch.empty(size // 8, dtype=torch.int64, device=device, pin_memory=pinned)
    return words.random_(generator=bench.generator(device)).view(torch.uint8)


def _between(bench: Bench, kind: MicroKind, memory: str, streams: Iterable[int]) -> Figures:
    pool = POOL_BYTES[bench.suite]
    host = random_bytes(bench, pool, "cpu", pinned=memory == "pinned")
    device = torch.zeros(pool, dtype=torch.uint8, device=bench.device)
    source, there = (host, device) if kind is MicroKind.COPY_TO_DEVICE else (device, host)
    if kind is MicroKind.COPY_FROM_DEVICE:
        device.copy_(host)
        host.zero_()
    with one_thread():
        for size in sizes(bench):
            for count in streams:
                # The last round of copies first, so that it is seen to move what lies at the end.
                queued = queued_copies(size)
                work = _piecewise(source, there, size, count, queued)
                for piece in range(queued):
                    work(piece)
                bench.clock.synchronise()
                moved = min(pool // size, queued * count) * size
                error = check_same(kind.value, there[:moved], source[:moved])
                for pieces in (queued, 1):
                    yield bench.micro(
                        kind,
                        _piecewise(source, there, size, count, pieces),
                        queued=pieces,
                        by_device=pieces > 1 and memory == "pinned",
                        size=size * count,
                        error=error,
                        memory=memory,
                        copy_bytes=size,
                        streams=count,
                    )


def _piecewise(source: torch.Tensor, there: torch.Tensor, size: int, streams: int, queued: int) -> Work:
    """One piece: ``streams`` copies of ``size`` bytes each, at once; each piece moves other bytes."""
    places = len(source) // size

    def copy(number: int) -> None:
        at = number % places * size
        there[at : at + size].copy_(source[at : at + size], non_blocking=True)

    if streams == 1:
        return copy
    side = [torch.cuda.Stream() for _ in range(streams)]
    main = torch.cuda.current_stream()

    def round_of_copies(piece: int) -> None:
        for index, stream in enumerate(side):
            if piece % queued == 0:
                stream.wait_stream(main)
            with torch.cuda.stream(stream):
                copy(piece * streams + index)
            if piece % queued == queued - 1:
                main.wait_stream(stream)

    return round_of_copies
