"""In the simulator: the net is loaded, told events and items, and everything that it says is recorded.

There is no arithmetic here: `cocotb_tests.net.lock_step` gives the payloads and judges what comes back.
"""

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from cocotb_tests import exchange

_PROGRESS_EVENTS = 50


def _numbers(rows: NDArray[np.uint8]) -> list[int]:
    """Rows of bytes, little-endian, as numbers."""
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


class _Source:
    """Offers payloads one after the other, after waits where there are any."""

    def __init__(self, dut: Any, name: str, payloads: list[int], waits: random.Random | None) -> None:
        self._valid, self._payload, self._ready = (getattr(dut, f"{name}__{part}") for part in _PARTS)
        self._payloads, self._waits = payloads, waits
        self._offers = False
        self.next = 0
        self.offered: list[int] = []
        self.taken: list[int] = []

    def drive(self, cycle: int, limit: int) -> None:
        """Offer the next payload, if it is below ``limit``."""
        if self._offers or self.next >= min(limit, len(self._payloads)):
            return
        if self._waits is not None and self._waits.random() < 0.5:
            return
        self._payload.value = self._payloads[self.next]
        self._valid.value = 1
        self._offers = True
        self.offered.append(cycle)

    def sample(self, cycle: int) -> None:
        """Whether the payload was taken."""
        if self._offers and self._ready.value:
            self.taken.append(cycle)
            self.next += 1
            self._offers = False
            self._valid.value = 0


_PARTS = ("valid", "payload", "ready")


@cocotb.test()
async def lock_step(dut: Any) -> None:
    """Reset, load, run until every event is done."""
    stimulus = exchange.read_stimulus()
    waits = random.Random(stimulus["seed"]) if stimulus["waits"] else None
    edge = RisingEdge(dut.clk)
    for name in ("events__valid", "items__valid", "prefetch__ready", "values__ready", "read_values", "values_group"):
        getattr(dut, name).value = 0
    dut.load.value = 0
    for name, value in stimulus["inputs"].items():
        getattr(dut, name).value = value
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="ns").start()
    for _ in range(2):
        await edge
    dut.rst.value = 0
    for word in _numbers(stimulus["loads"]):
        dut.load.value = word
        await edge
    dut.load.value = 0

    events = _Source(dut, "events", _numbers(stimulus["events"]), waits)
    items = _Source(dut, "items", _numbers(stimulus["items"]), waits)
    ends = stimulus["item_ends"].tolist()  # of each event: the items up to its last
    prefetch, values, scored = dut.prefetch__payload, dut.values__payload, dut.scored
    prefetches: list[tuple[int, int, int, int]] = []  # came, taken, payload, deadline
    answers: list[tuple[int, int, int]] = []  # came, taken, payload
    rows: list[int] = []
    scores: list[int] = []
    groups = stimulus["groups"]
    came_prefetch = came_values = -1
    takes_prefetch, reading = waits is None, -1
    dut.prefetch__ready.value = takes_prefetch
    cycle, total = 0, len(ends)
    quiet = 0
    while quiet < 2:
        events.drive(cycle, total)
        items.drive(cycle, ends[min(events.next, total - 1)])
        await edge
        before = events.next
        events.sample(cycle)
        items.sample(cycle)
        word = int(scored.value)
        if word & 1:
            scores.append(word)
        if dut.prefetch__valid.value:
            if came_prefetch < 0:
                came_prefetch = cycle
            if takes_prefetch:
                prefetches.append((came_prefetch, cycle, int(prefetch.value), int(dut.deadline.value)))
                came_prefetch = -1
                takes_prefetch = waits is None
            elif waits is not None:
                takes_prefetch = waits.random() < 0.5
            dut.prefetch__ready.value = takes_prefetch
        if dut.values__valid.value:
            if came_values < 0:
                came_values = cycle
            if 1 <= reading <= groups:
                rows.append(int(dut.values_row.value))
            if reading == groups + 1:
                answers.append((came_values, cycle, int(values.value)))
                came_values, reading = -1, -1
                dut.values__ready.value = 0
            else:
                reading += 1
                dut.read_values.value = reading < groups
                dut.values_group.value = min(reading, groups - 1)
                dut.values__ready.value = reading == groups + 1
        cycle += 1
        if events.next != before and events.next % _PROGRESS_EVENTS == 0:
            exchange.report_progress(events.next)
        quiet = quiet + 1 if events.next == total and not dut.busy.value else 0
    exchange.write_results(
        {
            "accepted": np.array(events.taken, np.int64),
            "offered": np.array(events.offered, np.int64),
            "items_offered": np.array(items.offered, np.int64),
            "prefetches": [(a, b, f"{c:x}", d) for a, b, c, d in prefetches],
            "values": [(a, b, f"{c:x}") for a, b, c in answers],
            "rows": [f"{row:x}" for row in rows],
            "scores": np.array(scores, np.uint64),
            "cycles": cycle,
        }
    )
