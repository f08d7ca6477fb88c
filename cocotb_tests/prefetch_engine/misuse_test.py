"""In the simulator: software that does everything wrong before it does it right, and while the engine runs.

Each wrong thing is told by a sticky error and, where enabled, by the interrupt, and changes nothing: the run that
follows is compared as any other.
"""

from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, Timer

from catalog.errors import ForestageError
from cocotb_tests import exchange
from cocotb_tests.axi_lite import SLVERR, AxiLiteMaster
from cocotb_tests.prefetch_engine import engine_test
from predictor.engine.events import EngineError
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import Mode
from rtl.prefetch.address_map import Command, Interrupt, address_map
from rtl.prefetch.driver import PrefetchEngineDriver

MODULE = "cocotb_tests.prefetch_engine.misuse_test"
SPOILED = 1 << 27
"""Where a copy of the first section lies whose last bit is another."""


class Misuse:
    """What is done wrong, with the answer that each must get."""

    def __init__(self, dut: Any, stimulus: dict[str, Any]) -> None:
        self._dut, self._stimulus = dut, stimulus
        limits = PrefetchEngineLimits.model_validate(stimulus["limits"])
        self.bus = AxiLiteMaster(dut, "control")
        self.driver = PrefetchEngineDriver(limits, self.bus.read, self.bus.write)
        self._map = address_map(limits)

    async def refused(self, register: str, value: int, error: EngineError = EngineError.CONFIGURATION) -> None:
        """A write of ``register`` is answered by SLVERR, is told, calls, and changes nothing."""
        offset = self._map.offset(register)
        readable = self._map.register(register).readable
        before = await self.bus.read(offset) if readable else 0
        await self.bus.write(offset, value, response=SLVERR)
        await self.told(error)
        assert not readable or await self.bus.read(offset) == before, f"{register} has changed"

    async def told(self, error: EngineError) -> None:
        """Exactly ``error`` is set and calls; it is cleared."""
        found = await self.driver.errors()
        assert found == error, f"errors: {found!r} instead of {error!r}"
        assert self._dut.interrupt.value, f"{error!r} does not call"
        assert Interrupt.ERROR in await self.driver.interrupts()
        await self.driver.command(Command.CLEAR_ERRORS)
        for _ in range(3):
            await RisingEdge(self._dut.clk)
        assert await self.driver.errors() == EngineError(0), "errors cannot be cleared"
        assert not self._dut.interrupt.value, "it calls for nothing"

    async def before(self) -> None:
        """At rest, after everything was set up: settings out of range, images that are bad."""
        await self.driver.enable_interrupts(Interrupt.ERROR)
        await self.driver.set_mode(Mode.OFF)
        await self.refused("LAYERS", 0)
        await self.refused("EXPERTS", 1 << 20)
        await self.bus.write(self._map.offset("IDENTITY"), 1, response=SLVERR)
        await self.refused("MODE", 3)
        await self.refused("COMMAND", int(Command.CLEAR | Command.LOAD))
        if self._stimulus["sections"]:
            await self._bad_images()

    async def _bad_images(self) -> None:
        good = self._stimulus["sections"][0]
        layers = await self.driver.get("layers")
        for bad, error in {
            "checksum": EngineError.IMAGE_CHECKSUM,
            "nothing": EngineError.IMAGE_SHAPE,
            "shape": EngineError.IMAGE_SHAPE,
        }.items():
            base = {"checksum": SPOILED, "nothing": 2 * SPOILED, "shape": good}[bad]
            await self.driver.set("image_base", base // BEAT_BYTES)
            await self.driver.set("layers", layers - 1 if bad == "shape" else layers)
            is_refused = False
            try:
                await self.driver.load()
            except ForestageError:
                is_refused = True
            assert is_refused, f"an image of a bad {bad} was loaded"
            await self.told(error)
            await self.refused("MODE", int(Mode.LEARNED))
        await self.driver.set("layers", layers)

    async def while_running(self, count: int) -> None:
        """Events are in work: nothing that is locked may be written, nor the mode."""
        while self._dut.accepted.value.to_unsigned() < count // 4:
            await Timer(200, unit="ns")
        assert (await self.driver.status()).busy
        for register, value in {"LAYERS": 1, "TOP_K": 1, "LINK_EXPERT_BYTES": 64, "MODE": int(Mode.OFF)}.items():
            await self.refused(register, value)
        await self.refused("COMMAND", int(Command.CLEAR))
        await self.refused("COMMAND", int(Command.LOAD))
        assert self._dut.accepted.value.to_unsigned() < count, "the events were over before all was tried"


@cocotb.test()
async def run(dut: Any) -> None:
    """As ``engine_test.run``, and wrong."""
    stimulus = exchange.read_stimulus()
    await engine_test.reset(dut, stimulus["inputs"])
    misuse = Misuse(dut, stimulus)
    await engine_test.configure(misuse.driver, stimulus)
    await misuse.before()
    await engine_test.configure(misuse.driver, stimulus)
    dut.go.value = 1
    await misuse.while_running(stimulus["inputs"]["count"])
    await engine_test.finish(dut, misuse.bus, misuse.driver, stimulus, before_go=0)
