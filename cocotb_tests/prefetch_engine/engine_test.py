"""In the simulator: configure the engine, let the runner offer its events, sleep until all is done, read the counters;
then, without a reset, the next run.

Nothing here looks at a single cycle: the bench logs, ``cocotb_tests.prefetch_engine.run`` reads.
"""

import random
import time
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge, Timer
from cocotb.utils import get_sim_time

from cocotb_tests import exchange
from cocotb_tests.axi_lite import AxiLiteMaster
from cocotb_tests.models.files import loaded_addresses, read_bursts, read_written
from cocotb_tests.prefetch_engine.logs import BURST_FIELDS
from predictor.engine.events import EngineError
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import PrefetchEngineSettings
from predictor.row_network.text_traffic import TextSettings
from predictor.st_moe.parameters import EngineConfiguration
from rtl.prefetch.address_map import Command
from rtl.prefetch.driver import PrefetchEngineDriver

_PERIOD_NS = 2
_SLEEP_CYCLES = 2000
_POLL_CYCLES = 200
_HUNG_CYCLES = 400_000
_INPUTS = ("count", "token_cycles", "gate_cycles", "layer_cycles", "expert_cycles", "share", "seed")


class Bench:
    """The bench and the engine in it; ``runs`` are what it is told, one after the other.

    Attributes:
        limits: of the engine.
        bus, driver: of its registers.
        nth: which run it is.
        cleared: errors of this run that the script looked at, and cleared.
    """

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        stimulus = exchange.read_stimulus()
        self.runs: list[dict[str, Any]] = stimulus["runs"]
        for nth, of in enumerate(self.runs):
            of["table_image"] = stimulus.get(f"{nth}.table_image")
        self._bursts: bool = stimulus["bursts"]
        self.limits = PrefetchEngineLimits.model_validate(stimulus["limits"])
        inputs = self.runs[0]["inputs"]
        self.bus = AxiLiteMaster(dut, "control", waits=random.Random(inputs["seed"]) if inputs["share"] < 256 else None)
        self.driver = PrefetchEngineDriver(
            self.limits, self.bus.read, self.bus.write, self._clear_text, pause=self._pause
        )
        self.nth = 0
        self.cleared = EngineError(0)
        self._found: dict[str, Any] = {}
        self._read: dict[str, int] = {}  # bytes of each file that were read after the runs before
        self._breaches = 0
        self._violations = 0
        self._events = 0

    @property
    def of(self) -> dict[str, Any]:
        """What the present run is told."""
        return self.runs[self.nth]

    async def reset(self) -> None:
        """Reset with the runner's inputs set."""
        dut = self.dut
        dut.rst.value = 1
        dut.go.value = 0
        dut.keep.value = 0
        self._set_inputs()
        for _ in range(3):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)
        self._reset_ns = get_sim_time("ns")

    async def next(self) -> bool:
        """Whether there is another run; the bench is then ready for it, the engine as it is."""
        if self.nth + 1 == len(self.runs):
            return False
        self._events += self.of["inputs"]["count"]
        self.nth += 1
        self.cleared = EngineError(0)
        for path in Path().glob(f"{self.nth}.*"):
            path.replace(path.name.partition(".")[2])
        self.dut.go.value = 0
        self.dut.keep.value = 0
        self._set_inputs()
        for _ in range(3):
            await RisingEdge(self.dut.clk)
        await self.driver.command(Command.CLEAR_ERRORS)
        return True

    def _set_inputs(self) -> None:
        for name in _INPUTS:
            getattr(self.dut, name).value = self.of["inputs"][name]

    async def configure(self) -> None:
        """All that software does before the first event."""
        of, driver = self.of, self.driver
        await driver.identify()
        if of["table_image"] is not None:
            await driver.load_tables(of["table_image"])
        await driver.configure(
            PrefetchEngineSettings.model_validate(of["settings"]),
            tables=None if of["tables"] is None else EngineConfiguration.model_validate(of["tables"]),
            text=None if of["text"] is None else TextSettings.model_validate(of["text"]),
            image_base=of["sections"],
        )
        for layer, expert, fixed in of["preloaded"]:
            await driver.preload(layer, [expert])
            if fixed:
                await driver.fix(layer, [expert])
        await driver.wait_idle()
        await driver.command(Command.CLEAR_COUNTERS)

    async def calls(self) -> bool:
        """Whether the interrupt calls, as soon as it knows."""
        for _ in range(3):
            await RisingEdge(self.dut.clk)
        return bool(self.dut.interrupt.value)

    async def clear_errors(self) -> None:
        """Clear the sticky errors, and note them.

        Raises:
            AssertionError: they cannot be cleared.
        """
        found = await self.driver.errors()
        self.cleared |= found
        await self.driver.command(Command.CLEAR_ERRORS)
        assert not await self.driver.errors() & found, "errors cannot be cleared"

    async def _clear_text(self, first: int, count: int) -> None:
        """The model holds 0 there, as each run begins with what was loaded alone.

        Raises:
            AssertionError: something was loaded there.
        """
        loaded = loaded_addresses(Path("text.load"), BEAT_BYTES)
        assert not ((first <= loaded) & (loaded < first + count)).any(), "texts lie where an image does"

    async def _pause(self) -> None:
        """What passes between two polls of the engine: without Python."""
        await Timer(_POLL_CYCLES * _PERIOD_NS, unit="ns")
        await RisingEdge(self.dut.clk)

    def go(self) -> None:
        """Events are offered from now on."""
        self.dut.go.value = 1
        # The memories count 1 in the cycle that the reset ended in; the bench counts 0 in the one after this.
        self._before_go = round((get_sim_time("ns") - self._reset_ns) / _PERIOD_NS) + 2

    async def finish(self) -> None:
        """Wait until all is done, and note what is left behind."""
        dut, driver = self.dut, self.driver
        started = time.perf_counter()
        await self._sleep_until_done()
        await driver.wait_idle()
        running_s = time.perf_counter() - started
        cycles = dut.cycle.value.to_unsigned()
        counters = {counter.name: value for counter, value in (await driver.counters()).items()}
        errors = int(await driver.errors())
        dut.keep.value = 1
        for _ in range(3):
            await RisingEdge(dut.clk)
        breaches, violations = dut.breaches.value.to_unsigned(), self.bus.violations
        found = {
            "cycles": cycles,
            "running_s": running_s,
            "counters": counters,
            "errors": errors,
            "cleared": int(self.cleared),
            "breaches": breaches - self._breaches,
            "violations": violations[self._violations :],
            **self._read_staging(),
            **(self._read_bursts() if self._bursts else {}),
        }
        self._breaches, self._violations = breaches, len(violations)
        self._found |= {f"{self.nth}.{name}": value for name, value in found.items()}
        exchange.write_results(self._found)

    async def _sleep_until_done(self) -> None:
        """Until the last event is accepted.

        Raises:
            AssertionError: if none is accepted for long.
        """
        count = self.of["inputs"]["count"]
        before, waited = -1, 0
        while (accepted := self.dut.accepted.value.to_unsigned()) < count:
            exchange.report_progress(self._events + accepted)
            waited = waited + _SLEEP_CYCLES if accepted == before else 0
            assert waited < _HUNG_CYCLES, f"run {self.nth}: event {accepted} is not accepted for {waited} cycles"
            before = accepted
            await Timer(_SLEEP_CYCLES * _PERIOD_NS, unit="ns")
        exchange.report_progress(self._events + count)
        await RisingEdge(self.dut.clk)

    def _read_staging(self) -> dict[str, Any]:
        """What this run wrote to the staging buffer, as arrays."""
        addresses, strobes, data = read_written(Path(), "staging", BEAT_BYTES)
        return {"staging_address": addresses, "staging_mask": strobes, "staging_word": data}

    def _read_bursts(self) -> dict[str, Any]:
        """The memories' bursts, in the bench's cycles."""
        found: dict[str, Any] = {}
        for name in ("far", "staging", "text"):
            first = self._from(Path(f"{name}.log"))
            reads, writes = read_bursts(Path(), name, first)
            bursts: dict[str, list[Any]] = {"reads": reads, "writes": writes}
            for kind, of in bursts.items():
                rows = [[getattr(burst, field) for field in BURST_FIELDS[kind]] for burst in of]
                table = np.array(rows, np.int64).reshape(-1, len(BURST_FIELDS[kind]))
                table[:, 2:] -= self._before_go
                found[f"{name}_{kind}"] = table
        return found

    def _from(self, path: Path) -> int:
        """Where this run begins in a file, which has been flushed."""
        first = self._read.get(path.name, 0)
        self._read[path.name] = path.stat().st_size
        return first


@cocotb.test()
async def run(dut: Any) -> None:
    """Configure, go, and read what is left behind; as often as there are runs."""
    bench = Bench(dut)
    await bench.reset()
    is_left = True
    while is_left:
        await bench.configure()
        bench.go()
        await bench.finish()
        is_left = await bench.next()
