"""In the simulator: software that does everything wrong before it does it right, and while the engine runs.

Each wrong thing is told by a sticky error and, where enabled, by the interrupt, and changes nothing: the run that
follows is compared as any other.
"""

from typing import Any

import cocotb
from cocotb.triggers import Timer

from catalog.errors import ForestageError
from cocotb_tests.axi_lite import SLVERR
from cocotb_tests.prefetch_engine.engine_test import Bench
from cocotb_tests.prefetch_engine.learned_memory import SPOILED
from predictor.engine.events import EngineError
from predictor.engine.limits import BEAT_BYTES
from predictor.engine.settings import Mode
from rtl.prefetch.address_map import Command, Interrupt, address_map


class Misuse:
    """What is done wrong, with the answer that each must get."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._bus, self._driver, self._map = bench.bus, bench.driver, address_map(bench.limits)

    async def refused(self, register: str, value: int, error: EngineError = EngineError.CONFIGURATION) -> None:
        """A write of ``register`` is answered by SLVERR, is told, calls, and changes nothing."""
        offset = self._map.offset(register)
        readable = self._map.register(register).readable
        before = await self._bus.read(offset) if readable else 0
        await self._bus.write(offset, value, response=SLVERR)
        await self.told(error)
        assert not readable or await self._bus.read(offset) == before, f"{register} has changed"

    async def told(self, error: EngineError) -> None:
        """Exactly ``error`` is set and calls; it is cleared."""
        found = await self._driver.errors()
        assert found == error, f"errors: {found!r} instead of {error!r}"
        assert await self._bench.calls(), f"{error!r} does not call"
        assert Interrupt.ERROR in await self._driver.interrupts()
        await self._bench.clear_errors()
        assert not await self._bench.calls(), "it calls for nothing"

    async def before(self) -> None:
        """At rest, after everything was set up: settings out of range, images that are bad."""
        await self._driver.enable_interrupts(Interrupt.ERROR)
        await self._driver.set_mode(Mode.OFF)
        await self.refused("LAYERS", 0)
        await self.refused("EXPERTS", 1 << 20)
        await self._bus.write(self._map.offset("IDENTITY"), 1, response=SLVERR)
        await self.refused("MODE", 3)
        await self.refused("COMMAND", int(Command.CLEAR | Command.LOAD))
        if self._bench.of["sections"]:
            await self._bad_images()

    async def _bad_images(self) -> None:
        good = self._bench.of["sections"][0]
        layers = await self._driver.get("layers")
        for bad, error in {
            "checksum": EngineError.IMAGE_CHECKSUM,
            "nothing": EngineError.IMAGE_SHAPE,
            "shape": EngineError.IMAGE_SHAPE,
        }.items():
            base = {"checksum": SPOILED, "nothing": 2 * SPOILED, "shape": good}[bad]
            await self._driver.set("image_base", base // BEAT_BYTES)
            await self._driver.set("layers", layers - 1 if bad == "shape" else layers)
            is_refused = False
            try:
                await self._driver.load()
            except ForestageError:
                is_refused = True
            assert is_refused, f"an image of a bad {bad} was loaded"
            await self.told(error)
            await self.refused("MODE", int(Mode.LEARNED))
        await self._driver.set("layers", layers)

    async def while_running(self) -> None:
        """Events are in work: nothing that is locked may be written, nor the mode."""
        count, accepted = self._bench.of["inputs"]["count"], self._bench.dut.accepted
        while accepted.value.to_unsigned() < count // 4:
            await Timer(200, unit="ns")
        assert (await self._driver.status()).busy
        for register, value in {"LAYERS": 1, "TOP_K": 1, "LINK_EXPERT_BYTES": 64, "MODE": int(Mode.OFF)}.items():
            await self.refused(register, value)
        await self.refused("COMMAND", int(Command.CLEAR))
        await self.refused("COMMAND", int(Command.LOAD))
        assert accepted.value.to_unsigned() < count, "the events were over before all was tried"


@cocotb.test()
async def run(dut: Any) -> None:
    """As ``engine_test.run``, and wrong."""
    bench = Bench(dut)
    await bench.reset()
    is_left = True
    while is_left:
        misuse = Misuse(bench)
        await bench.configure()
        await misuse.before()
        await bench.configure()
        bench.go()
        await misuse.while_running()
        await bench.finish()
        is_left = await bench.next()
