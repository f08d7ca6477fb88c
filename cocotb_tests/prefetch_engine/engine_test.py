"""In the simulator: configure the engine, let the runner offer its events, sleep until all is done, read the counters.

Nothing here looks at a single cycle: the bench logs, ``cocotb_tests.prefetch_engine.run`` reads.
"""

import random
import time
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from cocotb_tests import exchange
from cocotb_tests.axi_lite import AxiLiteMaster

_PERIOD_NS = 2
_SLEEP_CYCLES = 2000
_HUNG_CYCLES = 400_000
_INPUTS = ("count", "token_cycles", "gate_cycles", "layer_cycles", "expert_cycles", "share", "seed")


async def _reset(dut: Any, inputs: dict[str, int]) -> None:
    """Reset with the runner's inputs set."""
    dut.rst.value = 1
    dut.go.value = 0
    dut.keep.value = 0
    for name in _INPUTS:
        getattr(dut, name).value = inputs[name]
    Clock(dut.clk, _PERIOD_NS, unit="ns").start()
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def _sleep_until_done(dut: Any, count: int) -> None:
    """Until the last event is accepted.

    Raises:
        AssertionError: if none is accepted for long.
    """
    before, waited = -1, 0
    while (accepted := dut.accepted.value.to_unsigned()) < count:
        exchange.report_progress(accepted)
        waited = waited + _SLEEP_CYCLES if accepted == before else 0
        assert waited < _HUNG_CYCLES, f"event {accepted} is not accepted for {waited} cycles"
        before = accepted
        await Timer(_SLEEP_CYCLES * _PERIOD_NS, unit="ns")
    exchange.report_progress(count)
    await RisingEdge(dut.clk)


@cocotb.test()
async def run(dut: Any) -> None:
    """Write the registers that the stimulus names, go, read those that it names."""
    stimulus = exchange.read_stimulus()
    await _reset(dut, stimulus["inputs"])
    waits = random.Random(stimulus["inputs"]["seed"]) if stimulus["inputs"]["share"] < 256 else None
    bus = AxiLiteMaster(dut, "control", waits=waits)
    for offset, value in stimulus["writes"]:
        await bus.write(offset, value)
    await _until_idle(bus, stimulus)
    dut.go.value = 1
    started = time.perf_counter()
    await _sleep_until_done(dut, stimulus["inputs"]["count"])
    await _until_idle(bus, stimulus)
    running_s = time.perf_counter() - started
    cycles = dut.cycle.value.to_unsigned()
    registers = {name: await bus.read(offset) for name, offset in stimulus["reads"].items()}
    dut.keep.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    exchange.write_results(
        {
            "cycles": cycles,
            "running_s": running_s,
            "registers": registers,
            "breaches": dut.breaches.value.to_unsigned(),
            "interrupt": int(dut.interrupt.value),
            "violations": bus.violations,
        }
    )


async def _until_idle(bus: AxiLiteMaster, stimulus: dict[str, Any]) -> None:
    """Until STATUS says that nothing is in work.

    Raises:
        AssertionError: if it is so for long.
    """
    for _ in range(_HUNG_CYCLES // 10):
        if not await bus.read(stimulus["status"]) & stimulus["busy"]:
            return
    raise AssertionError("the engine stays busy")
