"""The DMA against its twin, cycle by cycle, between memories that are always ready."""

import random

import pytest

from staging.transfer.bursts import Descriptor
from staging.transfer.limits import TransferLimits, TransferSettings
from staging.transfer.timing import MemoryTiming, transfer_times
from tests.rtl.prefetch.dma.memory_bench import move

SMALL = TransferLimits(
    data_bytes=4, address_bits=20, burst_beats=8, outstanding=3, landing_beats=16, write_outstanding=2, descriptors=3
)
ROOMY = SMALL.model_copy(update={"outstanding": 8, "landing_beats": 64, "write_outstanding": 8, "descriptors": 5})


def check(limits: TransferLimits, descriptors: list[Descriptor], memory: MemoryTiming, **settings: int) -> None:
    log = move(limits, descriptors, latency=memory.latency, answer_latency=memory.answer, settings=settings)
    twin = transfer_times(limits, descriptors, memory, TransferSettings(**settings))
    first = log.accepted[0]
    assert [cycle - first for cycle in log.accepted] == list(twin.accepted)
    assert [cycle - first for cycle, _ in log.reads] == list(twin.asked)
    assert [cycle - first for cycle in log.beats] == list(twin.beats)
    assert [cycle - first for cycle, _ in log.ends] == list(twin.ended)


@pytest.mark.parametrize("limits", [SMALL, ROOMY])
@pytest.mark.parametrize("seed", range(8))
def test_the_circuit_takes_the_cycles_that_the_twin_says(limits: TransferLimits, seed: int) -> None:
    chance, destination, descriptors = random.Random(seed), 0, []
    for _ in range(12):
        length = chance.choice((1, 2, 3, 4, 5, 32, 33, chance.randint(1, 200)))
        descriptors.append(Descriptor(chance.randrange(1 << 18), destination + chance.randint(0, 5), length))
        destination += length + 8
    memory = MemoryTiming(latency=chance.choice((1, 2, 7, 30)), answer=chance.choice((1, 2, 9)))
    check(limits, descriptors, memory, share=chance.choice((256, 256, 100, 9)), outstanding=chance.choice((1, 2, 3)))


def test_one_descriptor_in_figures() -> None:
    times = transfer_times(SMALL, [Descriptor(0, 0, 32)], MemoryTiming(latency=10, answer=1))
    assert times.accepted == (0,)
    assert times.asked == (2,)
    assert times.beats == tuple(range(12, 20))
    assert times.written == tuple(range(16, 24))
    assert times.ended == (25,)


def test_nothing_to_move_is_refused() -> None:
    with pytest.raises(ValueError, match="no descriptors"):
        transfer_times(SMALL, [], MemoryTiming())
    with pytest.raises(ValueError, match="an illegal one"):
        transfer_times(SMALL, [Descriptor(0, 0, 0)], MemoryTiming())
