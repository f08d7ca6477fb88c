"""The DMA under Verilator between two memories: bytes, bursts, throughput, and faults by the hundred."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from cocotb_tests.models.files import CUT, LAST, RESPONSE, WRITE, Fault, pattern
from cocotb_tests.transfers.moves import MemoryTiming, Moved, expected_memory, move
from staging.transfer.bursts import Burst, Descriptor, legalise
from staging.transfer.limits import TransferError, TransferLimits, TransferSettings

WIDE = TransferLimits()
NARROW = TransferLimits(data_bytes=8, burst_beats=32, outstanding=4, landing_beats=128, descriptors=4)
EXPERT_BYTES = 13_219_200
"""One expert of gpt-oss-20b (MXFP4)."""


def some_descriptors(count: int, seed: int, most: int, space: int = 1 << 40) -> list[Descriptor]:
    """Descriptors of any alignment and size; destinations have gaps and do not overlap."""
    chance, destination, chosen = random.Random(seed), chance_free_start(seed), []
    for _ in range(count):
        length = chance.choice((1, 2, 7, 8, 9, 63, 64, 65, chance.randint(1, most), chance.randint(1, most)))
        destination += chance.randint(0, 200)
        chosen.append(Descriptor(chance.randrange(space), destination, length))
        destination += length
    chance.shuffle(chosen)
    return chosen


def chance_free_start(seed: int) -> int:
    """Where the first destination lies."""
    return 4096 * seed + seed % 64


def check(moved: Moved, descriptors: Sequence[Descriptor], limits: TransferLimits) -> None:
    """Every descriptor ended well, every byte and no other was written, once, by the twin's bursts in their order."""
    assert not moved.hung
    assert moved.breaches == []
    assert moved.strays == 0
    assert moved.errors == [TransferError.NONE] * len(descriptors)
    addresses, content = expected_memory(descriptors)
    np.testing.assert_array_equal(moved.memory[0], addresses)
    np.testing.assert_array_equal(moved.memory[1], content)
    reads = [burst for d in descriptors for burst in legalise(d.source, d.bytes, limits)]
    writes = [burst for d in descriptors for burst in legalise(d.destination, d.bytes, limits)]
    assert [Burst(burst.address, burst.beats) for burst in moved.reads] == reads
    assert [Burst(burst.address, burst.beats) for burst in moved.writes] == writes


@pytest.mark.parametrize("waits", [0, 60, 200])
def test_any_alignment_and_size_arrives_byte_by_byte(waits: int) -> None:
    descriptors = some_descriptors(120, waits, 600)
    timing = MemoryTiming(latency=17, waits=waits)
    check(move(NARROW, descriptors, far=timing, staging=timing, waits=waits, seed=waits), descriptors, NARROW)


def test_the_read_channel_is_busy_if_the_bursts_on_their_way_cover_the_latency() -> None:
    descriptors = [Descriptor(1 << 20, 64, 32 * 8 * 60)]
    covered = move(NARROW, descriptors, far=MemoryTiming(latency=90))
    assert covered.read_busy == 1
    check(covered, descriptors, NARROW)
    assert move(NARROW, descriptors, far=MemoryTiming(latency=300)).read_busy < 0.5


def test_a_slow_memory_is_as_busy_as_it_can_be() -> None:
    descriptors = [Descriptor(1 << 20, 64, 32 * 8 * 20)]
    slow_source = move(NARROW, descriptors, far=MemoryTiming(latency=20, interval=3))
    assert slow_source.read_busy == pytest.approx(1 / 3, abs=1e-3)
    slow_target = move(NARROW, descriptors, staging=MemoryTiming(interval=3))
    assert slow_target.read_busy == pytest.approx(1 / 3, abs=0.1)


def check_faulty(moved: Moved, descriptors: Sequence[Descriptor]) -> None:
    """All ended; what ended well is all there; nothing was written where nothing belongs."""
    assert not moved.hung
    assert moved.breaches == []
    assert len(moved.errors) == len(descriptors)
    addresses, content = moved.memory
    everywhere, _ = expected_memory(descriptors)
    assert np.isin(addresses, everywhere).all()
    for descriptor, error in zip(descriptors, moved.errors, strict=True):
        if error is TransferError.NONE:
            ends = [descriptor.destination, descriptor.destination + descriptor.bytes]
            first, after = np.searchsorted(addresses, ends)
            assert after - first == descriptor.bytes
            np.testing.assert_array_equal(content[first:after], pattern(descriptor.source, descriptor.bytes))


def some_faults(bursts: int, seed: int, share: float) -> list[Fault]:
    """In about ``share`` of the bursts something is wrong, a tenth of it with the order of the beats."""
    chance, faults = random.Random(seed), []
    for burst in range(bursts):
        if chance.random() < share:
            kind = chance.choices((RESPONSE, WRITE, LAST, CUT), (5, 4, 1, 1))[0]
            beat = chance.choice((1, 2, 8) if kind == CUT else (0, 0, 1, 7))
            faults.append(Fault(kind, burst, beat, chance.choice((2, 3))))
    return faults


def transfers_with_faults(count: int, seed: int, waits: int) -> Moved:
    descriptors = some_descriptors(count, seed, 700)
    faults = some_faults(4 * count, seed, 0.05)
    timing = MemoryTiming(latency=11, waits=waits)
    settings = TransferSettings(silence=150)
    moved = move(
        NARROW,
        descriptors,
        settings=settings,
        far=timing,
        staging=timing,
        waits=waits,
        faults=faults,
        seed=seed,
        patience=20_000,
    )
    check_faulty(moved, descriptors)
    return moved


@pytest.mark.parametrize("waits", [0, 80])
def test_transfers_with_faults_all_end_and_spoil_no_other(waits: int) -> None:
    errors = transfers_with_faults(300, 3, waits).errors
    assert set(errors) >= {
        TransferError.NONE,
        TransferError.READ_SLVERR,
        TransferError.READ_DECERR,
        TransferError.READ_LAST,
        TransferError.WRITE_SLVERR,
        TransferError.WRITE_DECERR,
    }
    assert errors.count(TransferError.NONE) > len(errors) / 2


def test_the_same_seed_gives_the_same_run() -> None:
    once, again = (transfers_with_faults(60, 5, 80) for _ in range(2))
    assert (once.ended, once.errors, once.reads) == (again.ended, again.errors, again.reads)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_transfers_with_faults(seed: int) -> None:
    transfers_with_faults(1000, 100 + seed, (0, 30, 80, 160)[seed % 4])


@pytest.mark.long
def test_a_wide_bus_of_500_cycles_latency_is_busy_over_64_mib() -> None:
    descriptors = [Descriptor(1 << 30, 1 << 20, 64 << 20)]
    moved = move(WIDE, descriptors, far=MemoryTiming(latency=500), timeout_s=1800)
    check(moved, descriptors, WIDE)
    assert moved.read_busy >= 0.99


@pytest.mark.long
@pytest.mark.parametrize(("source", "destination"), [(1 << 30, 1 << 20), ((1 << 30) + 61, (1 << 20) + 3)])
@pytest.mark.parametrize("waits", [0, 100])
def test_a_whole_expert_arrives_byte_by_byte(source: int, destination: int, waits: int) -> None:
    descriptors = [Descriptor(source, destination, EXPERT_BYTES)]
    timing = MemoryTiming(latency=500, waits=waits)
    moved = move(WIDE, descriptors, far=timing, staging=MemoryTiming(latency=20, waits=waits), seed=7, timeout_s=1800)
    check(moved, descriptors, WIDE)


@pytest.mark.long
def test_thousands_of_descriptors_of_any_alignment_and_size_on_a_wide_bus() -> None:
    for seed in range(4):
        descriptors = some_descriptors(1000, seed, 9000)
        waits = (0, 20, 100, 220)[seed]
        timing = MemoryTiming(latency=100, waits=waits)
        check(move(WIDE, descriptors, far=timing, staging=timing, waits=waits, seed=seed), descriptors, WIDE)
