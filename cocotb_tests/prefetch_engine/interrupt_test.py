"""In the simulator: the interrupt, while memories fail: it calls for what is enabled alone, until software clears it.

The run goes on meanwhile, and is compared as any other. Its errors must be reads and writes that are refused, some of
them late.
"""

from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, Timer, with_timeout

from cocotb_tests.prefetch_engine.engine_test import Bench
from predictor.engine.events import EngineError
from rtl.prefetch.address_map import Command, Interrupt

_ALL = EngineError((max(EngineError) << 1) - 1)


async def _of_commands(bench: Bench) -> None:
    """LOADED and HOST are set by what was configured; they call when they are enabled, until they are cleared."""
    driver = bench.driver
    causes = [*([Interrupt.LOADED] if bench.of["sections"] else []), Interrupt.HOST]
    for cause in causes:
        assert cause in await driver.interrupts()
        assert not await bench.calls(), f"{cause!r} calls, and is not enabled"
        await driver.enable_interrupts(cause)
        assert await bench.calls(), f"{cause!r} does not call"
        await driver.enable_interrupts(Interrupt(0))
    await driver.enable_interrupts(Interrupt.LOADED | Interrupt.HOST)
    await driver.command(Command.CLEAR_INTERRUPTS)
    assert await driver.interrupts() == Interrupt(0)
    assert not await bench.calls(), "cleared causes call"
    await driver.clear()
    assert await driver.interrupts() == Interrupt.HOST
    assert await bench.calls()
    await driver.command(Command.CLEAR_INTERRUPTS)
    assert not await bench.calls()


async def _of_errors(bench: Bench) -> None:
    """While events are in work."""
    dut, driver = bench.dut, bench.driver
    await driver.enable_interrupts(Interrupt.ERROR, _ALL & ~EngineError.READ)
    while EngineError.READ not in await driver.errors():
        await Timer(50, unit="ns")
    assert not await bench.calls(), "an error calls that is not enabled"
    assert Interrupt.ERROR not in await driver.interrupts()
    await driver.enable_interrupts(Interrupt.ERROR, _ALL)
    assert await bench.calls(), "an error that is set does not call when it is enabled"
    assert await driver.interrupts() == Interrupt.ERROR
    # A cause that is cleared is set again while its error is.
    await driver.command(Command.CLEAR_INTERRUPTS)
    assert await bench.calls(), "an error no longer calls, though it is set"
    await bench.clear_errors()
    assert not await bench.calls(), "an error calls that is cleared"
    for _ in range(2):
        await with_timeout(RisingEdge(dut.interrupt), 1, "ms")
        assert await driver.errors() & (EngineError.READ | EngineError.WRITE)
        await bench.clear_errors()
        assert not await bench.calls()
    await driver.enable_interrupts(Interrupt(0))
    assert dut.accepted.value.to_unsigned() < bench.of["inputs"]["count"], "the events were over before all was tried"


@cocotb.test()
async def run(dut: Any) -> None:
    """As ``engine_test.run``, and the interrupt is looked at."""
    bench = Bench(dut)
    await bench.reset()
    await bench.configure()
    await _of_commands(bench)
    await bench.driver.command(Command.CLEAR_COUNTERS)
    bench.go()
    await _of_errors(bench)
    await bench.finish()
    assert await bench.driver.errors(), "nothing failed while errors do not call"
    assert not await bench.calls(), "it calls, and nothing is enabled"
