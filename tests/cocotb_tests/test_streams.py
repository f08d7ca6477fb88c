"""The protocol's rule, on waveforms that keep and break it."""

import pytest

from cocotb_tests.streams import StableUntilReady

Cycle = tuple[bool, bool, int]  # valid, ready, payload


@pytest.mark.parametrize(
    ("wave", "violations"),
    [
        ([(True, False, 5), (True, False, 5), (True, True, 5), (True, True, 6), (False, True, 0)], []),
        ([(False, False, 1), (False, True, 2), (True, True, 3), (False, False, 4)], []),
        ([(True, False, 5), (False, False, 5)], ["cycle 1: requests withdrew its payload"]),
        ([(True, False, 5), (True, True, 6)], ["cycle 1: requests changed its payload from 0x5"]),
        ([(True, True, 5), (True, False, 7), (False, True, 7)], ["cycle 2: requests withdrew its payload"]),
    ],
)
def test_a_payload_stays_until_it_is_taken(wave: list[Cycle], violations: list[str]) -> None:
    rule = StableUntilReady("requests")
    for cycle, (valid, ready, payload) in enumerate(wave):
        rule.sample(cycle, valid, ready, payload)
    assert rule.violations == violations
