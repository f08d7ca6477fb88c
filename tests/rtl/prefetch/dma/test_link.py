"""The link with the stager's twin: what arrives is there, byte by byte; it stops for demands; it takes its cycles."""

import random

import pytest

from rtl.prefetch.dma.layouts import LinkRequest
from staging.stager.answers import Kind
from staging.transfer.limits import TransferSettings
from staging.transfer.timing import MemoryTiming, ServiceTiming
from tests.rtl.prefetch.dma.link_bench import (
    LIMITS,
    SETTINGS,
    SHAPE,
    Run,
    expert_at,
    lies_at,
    place_at,
    run,
    start_cycles,
)
from tests.rtl.prefetch.dma.memory_bench import Faults, Log


def there(key: int, place: int, log: Log) -> None:
    assert lies_at(key, place, log), f"key {key} does not lie at place {place}"


@pytest.mark.parametrize(("seed", "waits"), [(0, 0.0), (1, 0.4)])
def test_what_arrives_lies_at_its_place(seed: int, waits: float) -> None:
    result = run(arrivals=16, seed=seed, waits=waits, on_arrival=there)
    assert result.strays == 0
    assert result.failed == 0
    assert result.kinds[Kind.PAUSE] > 0


def expected(result: Run, latency: int, answer: int) -> None:
    """Each service by the formula: where it stops, and when it tells."""
    timing = ServiceTiming(
        LIMITS,
        MemoryTiming(latency=latency, answer=answer),
        TransferSettings(outstanding=SETTINGS["outstanding"]),
        start_cycles(),
        SETTINGS["expert_bytes"],
        1 << SETTINGS["chunk_log2"],
    )
    has: dict[int, tuple[int, int]] = {}  # keys that were paused, or go on: since when, and how many chunks
    for service in result.services:
        since, first = has.pop(service.key, (0, 0))
        if any(since <= cycle < service.start and key == service.key for cycle, key in result.drops):
            first = 0
        where = expert_at(service.key), place_at(service.place), first
        chunks = next(
            (
                chunk
                for chunk in range(first + 1, timing.chunks)
                if result.stops[service.start + timing.issued(*where, chunk)]
            ),
            timing.chunks,
        )
        assert service.told - service.start == timing.passed(*where, chunks)
        assert (service.ends_with is LinkRequest.ARRIVE) == (chunks == timing.chunks)
        if chunks < timing.chunks and service.place != SHAPE.all_places:
            has[service.key] = service.told, chunks


@pytest.mark.parametrize(("latency", "answer"), [(7, 2), (20, 9)])
def test_a_service_takes_the_cycles_that_the_twin_says(latency: int, answer: int) -> None:
    result = run(arrivals=16, seed=latency, latency=latency, answer_latency=answer)
    assert any(service.ends_with is LinkRequest.PREEMPT for service in result.services)
    expected(result, latency, answer)


def test_faults_fail_the_transfer_and_the_link_goes_on() -> None:
    chance = random.Random(1)
    faults = Faults(
        reads={chance.randrange(600): (0, chance.choice((2, 3))) for _ in range(40)},
        lasts={chance.randrange(600): 0 for _ in range(8)},
        writes={chance.randrange(600): 2 for _ in range(15)},
    )
    result = run(arrivals=30, seed=2, waits=0.2, faults=faults, on_arrival=there)
    assert result.failed > 5
    assert len(result.arrived) > 5
