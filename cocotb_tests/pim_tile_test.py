"""In the simulator: stream a stimulus through `rtl.pim.tile.PimTile` and record what comes out, and when.

There is no arithmetic here: payloads arrive as bytes (`cocotb_tests.pim_replay` packs them), results leave as read.
One coroutine drives and samples everything once a cycle, which is much faster than one for each stream.
"""

import time
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from cocotb_tests import exchange

_PROGRESS_CYCLES = 2000


class Producer:
    """Drives one stream: raises valid where its pattern says so, and holds it until the item is taken."""

    def __init__(self, dut: Any, stream: str, items: NDArray[np.uint8], pattern: NDArray[np.bool_]) -> None:
        self._valid, self._ready = getattr(dut, f"{stream}__valid"), getattr(dut, f"{stream}__ready")
        self._payload = getattr(dut, f"{stream}__payload")
        # Next item last, to be popped.
        self._items = [int.from_bytes(item.tobytes(), "little") for item in items[::-1]]
        self._pattern = pattern.tolist()
        self._offered = False

    def drive(self, cycle: int) -> None:
        """Set the stream for ``cycle``."""
        if not self._offered and self._items and self._pattern[cycle % len(self._pattern)]:
            self._offered = True
            self._valid.value = 1
            self._payload.value = self._items[-1]

    def sample(self, cycle: int) -> None:
        """See, at the end of ``cycle``, whether the item was taken."""
        if self._offered and self._ready.value:
            self._items.pop()
            if self._items and self._pattern[(cycle + 1) % len(self._pattern)]:
                self._payload.value = self._items[-1]
            else:
                self._offered = False
                self._valid.value = 0


class Consumer:
    """Takes what a stream offers, ready where its pattern says so, and remembers it with its cycle."""

    def __init__(self, dut: Any, stream: str, pattern: NDArray[np.bool_]) -> None:
        self._valid, self._ready = getattr(dut, f"{stream}__valid"), getattr(dut, f"{stream}__ready")
        self._payload = getattr(dut, f"{stream}__payload")
        self._pattern = pattern.tolist()
        self._is_ready = False
        self.payloads: list[int] = []
        self.cycles: list[int] = []

    def drive(self, cycle: int) -> None:
        """Set ready for ``cycle``."""
        ready = self._pattern[cycle % len(self._pattern)]
        if ready != self._is_ready:
            self._ready.value = int(ready)
            self._is_ready = ready

    def sample(self, cycle: int) -> None:
        """Take, at the end of ``cycle``, what is offered."""
        if self._is_ready and self._valid.value:
            self.payloads.append(self._payload.value.to_unsigned())
            self.cycles.append(cycle)


@cocotb.test()
async def replay(dut: Any) -> None:
    """Stream the stimulus in, until all results are out or the cycles run out."""
    stimulus = exchange.read_stimulus()
    producers = [
        Producer(dut, name, stimulus[name], stimulus[f"{name}_pace"]) for name in ("vector", "command", "weights")
    ]
    results = Consumer(dut, "results", stimulus["results_pace"])
    dut.rst.value = 1
    for name in ("vector", "command", "weights"):
        getattr(dut, f"{name}__valid").value = 0
    dut.results__ready.value = 0
    Clock(dut.clk, 2, unit="ns").start()
    edge = RisingEdge(dut.clk)
    await edge
    dut.rst.value = 0
    cycle, started = 0, time.perf_counter()
    while len(results.cycles) < stimulus["results"] and cycle < stimulus["max_cycles"]:
        for producer in producers:
            producer.drive(cycle)
        results.drive(cycle)
        await edge
        for producer in producers:
            producer.sample(cycle)
        results.sample(cycle)
        cycle += 1
        if cycle % _PROGRESS_CYCLES == 0:
            exchange.report_progress(cycle)
    simulating_s = time.perf_counter() - started
    # A result too many would be as wrong as one too few.
    dut.results__ready.value = 1
    surplus = 0
    for _ in range(stimulus["surplus_cycles"]):
        await edge
        surplus += int(dut.results__valid.value)
    exchange.write_results(
        {
            "payloads": np.array(results.payloads, np.uint64),
            "cycles": np.array(results.cycles, np.int64),
            "surplus": surplus,
            "simulating_s": simulating_s,
        }
    )
