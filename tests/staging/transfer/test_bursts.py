"""The legaliser's twin: bursts cover the bytes once, in order, and keep AXI4's rules."""

import random

import pytest

from staging.transfer.bursts import Burst, legalise
from staging.transfer.limits import PAGE_BYTES, TransferLimits

WIDE = TransferLimits()
NARROW = TransferLimits(data_bytes=4, burst_beats=256, landing_beats=256)


def test_bursts_of_a_whole_page_and_of_its_ends() -> None:
    assert legalise(0, 8192, WIDE) == [Burst(0, 64), Burst(4096, 64)]
    assert legalise(4095, 2, WIDE) == [Burst(4032, 1), Burst(4096, 1)]
    assert legalise(4100, 1, WIDE) == [Burst(4096, 1)]
    assert legalise(8, 2056, NARROW) == [Burst(8, 254), Burst(1024, 256), Burst(2048, 4)]


@pytest.mark.parametrize("limits", [WIDE, NARROW, TransferLimits(burst_beats=4, landing_beats=8)])
def test_bursts_cover_the_bytes_and_cross_no_boundary(limits: TransferLimits) -> None:
    chance = random.Random(1)
    for _ in range(2000):
        address, length = chance.randrange(1 << 40), chance.choice((1, 63, 64, 65, 4096, chance.randint(1, 40000)))
        bursts = legalise(address, length, limits)
        width = limits.data_bytes
        ends = [burst.address + burst.beats * width for burst in bursts]
        assert [burst.address for burst in bursts[1:]] == ends[:-1]
        assert bursts[0].address <= address < bursts[0].address + width
        assert ends[-1] - width < address + length <= ends[-1]
        for burst, end in zip(bursts, ends, strict=True):
            assert 1 <= burst.beats <= limits.burst_beats <= 256
            assert burst.address % width == 0
            assert burst.address // PAGE_BYTES == (end - 1) // PAGE_BYTES


def test_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        legalise(0, 0, WIDE)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data_bytes": 48}, "data_bytes: 48 is not a power of two"),
        ({"burst_beats": 128}, "burst_beats: 128 beats of 64 bytes exceed 4096 bytes; give at most 64"),
        ({"landing_beats": 32}, "landing_beats: 32 cannot hold a burst of 64"),
    ],
)
def test_limits_that_do_not_fit_are_refused(fields: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TransferLimits(**fields)
