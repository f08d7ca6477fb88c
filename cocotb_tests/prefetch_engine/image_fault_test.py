"""In the simulator: images whose reads are refused, until one is not: the run that follows is compared as any other."""

from typing import Any

import cocotb

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.engine_test import Bench
from cocotb_tests.prefetch_engine.misuse_test import Misuse
from predictor.engine.events import EngineError
from predictor.engine.settings import Mode
from rtl.prefetch.address_map import Interrupt

LEAST_REFUSED = 2
"""Images whose reads are refused, so that the engine was seen to go on after one."""


@cocotb.test()
async def run(dut: Any) -> None:
    """As ``engine_test.run``, after images that could not be read."""
    bench = Bench(dut)
    await bench.reset()
    misuse = Misuse(bench)
    await bench.driver.enable_interrupts(Interrupt.ERROR)
    refused = 0
    is_loaded = False
    while not is_loaded:
        try:
            await bench.configure()
            is_loaded = True
        except ForestageError:
            refused += 1
            await misuse.told(EngineError.IMAGE_READ)
            assert not (await bench.driver.status()).loaded
            assert await bench.driver.get("mode") == Mode.OFF
            await misuse.refused("MODE", int(Mode.LEARNED))
    assert refused >= LEAST_REFUSED, f"{refused} images were refused"
    bench.go()
    await bench.finish()
