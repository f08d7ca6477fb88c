"""The DMA between two small memories: every byte, every burst, every end."""

import random

import pytest

from staging.transfer.bursts import Descriptor, legalise
from staging.transfer.limits import TransferError, TransferLimits
from tests.rtl.prefetch.dma.memory_bench import Faults, Log, far_byte, move

SMALL = TransferLimits(
    data_bytes=4, address_bits=20, burst_beats=8, outstanding=3, landing_beats=16, write_outstanding=2, descriptors=3
)


def some_descriptors(count: int, seed: int, most: int = 120) -> list[Descriptor]:
    """Descriptors of any alignment and size, whose destinations do not overlap."""
    chance, destination, chosen = random.Random(seed), 5, []
    for _ in range(count):
        length = chance.choice((1, 2, 3, 4, 5, 31, 32, 33, chance.randint(1, most)))
        destination += chance.randint(0, 9)
        chosen.append(Descriptor(chance.randrange(1 << 18), destination, length))
        destination += length
    return chosen


def bytes_of(descriptors: list[Descriptor]) -> dict[int, int]:
    """What the staging memory must hold, and nothing else."""
    return {d.destination + n: far_byte(d.source + n) for d in descriptors for n in range(d.bytes)}


def check(log: Log, descriptors: list[Descriptor]) -> None:
    assert [error for _, error in log.ends] == [TransferError.NONE] * len(descriptors)
    assert log.staging == bytes_of(descriptors)
    assert [b for _, b in log.reads] == [b for d in descriptors for b in legalise(d.source, d.bytes, SMALL)]
    assert [b for _, b in log.writes] == [b for d in descriptors for b in legalise(d.destination, d.bytes, SMALL)]
    assert len(log.answers) == len(log.writes)
    assert log.strays == 0


@pytest.mark.parametrize("source", range(4))
@pytest.mark.parametrize("destination", range(4))
def test_every_pair_of_places_in_a_beat_and_small_sizes(source: int, destination: int) -> None:
    descriptors = [Descriptor(100 * n + source, 64 * n + destination, n) for n in range(1, 14)]
    check(move(SMALL, descriptors), descriptors)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("waits", [0.0, 0.3, 0.8])
def test_any_alignment_and_size_with_and_without_waits(seed: int, waits: float) -> None:
    descriptors = some_descriptors(25, seed)
    check(move(SMALL, descriptors, latency=seed * 4 + 1, waits=waits, seed=seed), descriptors)


def ends_of(log: Log) -> list[TransferError]:
    return [TransferError(error) for _, error in log.ends]


def untouched(log: Log, descriptors: list[Descriptor]) -> bool:
    """Whether the descriptors without an error moved all their bytes, and no byte lies outside the destinations."""
    good = [d for d, error in zip(descriptors, ends_of(log), strict=True) if error is TransferError.NONE]
    anywhere = {d.destination + n for d in descriptors for n in range(d.bytes)}
    return bytes_of(good).items() <= log.staging.items() and set(log.staging) <= anywhere


BLOCKS = [Descriptor(4096 * n + 1, 64 * n + 2, 60) for n in range(5)]
"""Each reads two bursts and writes two."""


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(reads={2: (3, 2)}), TransferError.READ_SLVERR),
        (Faults(reads={3: (0, 3)}), TransferError.READ_DECERR),
        (Faults(writes={2: 2}), TransferError.WRITE_SLVERR),
        (Faults(writes={3: 3}), TransferError.WRITE_DECERR),
        (Faults(reads={2: (1, 2)}, writes={3: 3}), TransferError.READ_SLVERR),
    ],
)
def test_a_refused_burst_fails_its_descriptor_and_no_other(faults: Faults, error: TransferError) -> None:
    log = move(SMALL, BLOCKS, faults=faults)
    assert ends_of(log) == [TransferError.NONE, error, *[TransferError.NONE] * 3]
    assert untouched(log, BLOCKS)


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(lasts={2: 7}), TransferError.READ_LAST),  # missing
        (Faults(lasts={2: 2}), TransferError.READ_LAST),  # early, and the burst goes on
        (Faults(cut={2: 3}), TransferError.READ_LAST),  # the next burst's beats come early
        (Faults(cut={2: 4}, lasts={2: 3}), TransferError.READ_LAST),  # early, and the burst ends with it
        (Faults(cut={9: 3}), TransferError.READ_SILENCE),  # nothing comes after it
    ],
)
def test_what_comes_after_a_lost_beat_is_thrown_away_and_then_all_goes_on(faults: Faults, error: TransferError) -> None:
    log = move(SMALL, BLOCKS, faults=faults, settings={"silence": 20})
    assert error in ends_of(log)
    assert set(ends_of(log)) == {TransferError.NONE, error}
    assert untouched(log, BLOCKS)
    assert ends_of(move(SMALL, BLOCKS, settings={"silence": 20})) == [TransferError.NONE] * 5


ILLEGAL = [Descriptor(0, 0, 0), Descriptor((1 << 20) - 4, 0, 5), Descriptor(0, (1 << 20) - 4, 5)]


def test_an_illegal_descriptor_is_said_so_and_moves_nothing() -> None:
    descriptors = [BLOCKS[0], ILLEGAL[0], ILLEGAL[1], BLOCKS[1], ILLEGAL[2], BLOCKS[2]]
    log = move(SMALL, descriptors)
    none, bad = TransferError.NONE, TransferError.DESCRIPTOR
    assert ends_of(log) == [none, bad, bad, none, bad, none]
    assert [d.is_legal(SMALL) for d in descriptors] == [True, False, False, True, False, True]
    assert log.staging == bytes_of(BLOCKS[:3])
    edge = [Descriptor((1 << 20) - 5, 64, 5)]
    assert move(SMALL, edge).staging == bytes_of(edge)


def test_many_faults_at_random_lose_nothing_and_hang_nothing() -> None:
    for seed in range(8):
        chance = random.Random(seed)
        descriptors = some_descriptors(20, seed)
        faults = Faults(
            reads={chance.randrange(60): (chance.randrange(4), chance.choice((2, 3))) for _ in range(3)},
            lasts={chance.randrange(60): chance.randrange(8) for _ in range(2)},
            cut={chance.randrange(60): chance.randrange(1, 4) for _ in range(1)},
            writes={chance.randrange(60): chance.choice((2, 3)) for _ in range(3)},
        )
        log = move(SMALL, descriptors, waits=chance.choice((0.0, 0.5)), seed=seed, faults=faults,
                   settings={"silence": 80})  # fmt: skip
        assert len(log.ends) == len(descriptors)
        assert untouched(log, descriptors)


@pytest.mark.parametrize("share", [1, 16, 128])
def test_a_share_limits_the_beats_that_are_asked_for(share: int) -> None:
    descriptors = [Descriptor(0, 0, 32 * (12 if share > 1 else 2))]
    log = move(SMALL, descriptors, settings={"share": share})
    cycles = log.reads[-1][0] - log.reads[0][0]
    beats = sum(burst.beats for _, burst in log.reads[:-1])
    assert share * cycles / 256 - beats == pytest.approx(0, abs=1 + share / 128)
    check(log, descriptors)


def test_fewer_bursts_under_way_if_the_register_says_so() -> None:
    log = move(SMALL, [Descriptor(0, 0, 256)], settings={"outstanding": 1}, latency=10)
    over = iter(log.beats[7::8])
    assert all(asked > next(over) for asked, _ in log.reads[1:])
