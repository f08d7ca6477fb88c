"""In the simulator: the PIM unit with its DRAM, its streams and its register bus, driven by a script.

There is no arithmetic here: `cocotb_tests.pim_unit.replay` gives the script and judges what comes back. One coroutine
drives and samples everything once a cycle; the script, which speaks to the unit through its driver, is another.
"""

import random
import time
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from cocotb_tests import exchange
from cocotb_tests.axi_lite import SLVERR, AxiLiteMaster
from cocotb_tests.axi_stream import AxiStreamSink, AxiStreamSource
from cocotb_tests.pim_unit.bus_recorder import BusRecorder
from cocotb_tests.pim_unit.dram_model import DramModel
from pim_model.unit.parameters import UnitParameters
from rtl.pim.address_map import address_map
from rtl.pim.driver import Descriptor, UnitDriver

_PROGRESS_CYCLES = 2000
_POLL_CYCLES = 50


class ScriptTimeout(AssertionError):
    """A step of the script that waited longer than it may."""


class Bench:
    """Everything around the unit.

    Attributes:
        cycle: The cycle in progress; 0 is the first after reset.
    """

    def __init__(self, dut: Any, stimulus: dict[str, Any]) -> None:
        self._dut = dut
        self._edge = RisingEdge(dut.clk)
        self.cycle = 0
        self.x = AxiStreamSource(dut, "x", stimulus["x_pattern"])
        self.y = AxiStreamSink(dut, "y", stimulus["y_pattern"])
        self.buses = BusRecorder(dut)
        self.dram = DramModel(
            dut,
            stimulus["contents"],
            first_row=stimulus["first_row"],
            latency=stimulus["latency"],
            row_commands=stimulus["row_commands"],
            column_commands=stimulus["column_commands"],
            fields=stimulus["fields"],
            seed=stimulus["seed"],
        )
        self._running = True

    async def reset(self) -> None:
        """Reset with all inputs quiet; leaves at the beginning of cycle 0."""
        self._dut.rst.value = 1
        Clock(self._dut.clk, 2, unit="ns").start()
        for _ in range(2):
            await self._edge
        self._dut.rst.value = 0

    async def run_cycles(self) -> None:
        """Cycle by cycle, until the script has ended."""
        while self._running:
            cycle = self.cycle
            self.x.drive(cycle)
            self.y.drive(cycle)
            self.dram.drive(cycle)
            await self._edge
            self.buses.sample(cycle)
            self.dram.sample(cycle, self.buses.row, self.buses.column)
            self.x.sample(cycle)
            self.y.sample(cycle)
            self.cycle += 1
            if self.cycle % _PROGRESS_CYCLES == 0:
                exchange.report_progress(self.cycle)

    def end(self) -> None:
        """Let ``run_cycles`` end with the cycle in progress."""
        self._running = False


class Script:
    """The steps that a script may have, in terms of the unit's driver.

    Attributes:
        results: What they found, by name.
    """

    def __init__(self, dut: Any, bench: Bench, stimulus: dict[str, Any]) -> None:
        self._bench, self._stimulus = bench, stimulus
        self._edge = RisingEdge(dut.clk)
        waits = random.Random(stimulus["seed"]) if stimulus["bus_waits"] else None
        self._bus = AxiLiteMaster(dut, "control", waits=waits) if hasattr(dut, "control__awvalid") else None
        self.results: dict[str, Any] = {"marks": {}, "status": {}, "refresh_at_start": {}, "counters": {}, "reads": {}}

    @property
    def bus(self) -> AxiLiteMaster:
        """The register bus."""
        assert self._bus is not None, "the unit has no register bus"
        return self._bus

    @property
    def driver(self) -> UnitDriver:
        """The unit's."""
        parameters = UnitParameters.model_validate(self._stimulus["parameters"])
        return UnitDriver(parameters, self.bus.read, self.bus.write)

    @property
    def violations(self) -> list[str]:
        """Breaches of the bus's protocol by the unit."""
        return self._bus.violations if self._bus is not None else []

    async def run(self) -> None:
        """Step by step."""
        for name, *arguments in self._stimulus["script"]:
            await getattr(self, name)(*arguments)

    async def identify(self) -> None:
        """Check every constant register."""
        await self.driver.identify()

    async def control(self, refresh: bool) -> None:
        """Whether refreshes are issued."""
        await self.driver.control(refresh=refresh)

    async def clear_counters(self) -> None:
        """All become 0."""
        await self.driver.clear(status=False, counters=True)

    async def start(self, fields: dict[str, int]) -> None:
        """START with a descriptor."""
        await self.driver.start(Descriptor(**fields))  # type: ignore[arg-type]

    async def abort(self) -> None:
        """ABORT."""
        await self.driver.abort()

    async def clear(self) -> None:
        """Sticky bits become 0."""
        await self.driver.clear()

    async def refused_start(self) -> None:
        """A START that the unit must answer with an error."""
        parameters = UnitParameters.model_validate(self._stimulus["parameters"])
        registers = address_map(parameters)
        await self.bus.write(registers.offset("COMMAND"), registers.mask("COMMAND", "start"), response=SLVERR)

    async def send(self, packet: int) -> None:
        """Queue a packet of x."""
        self._bench.x.send(self._stimulus[f"x_{packet}"], self._stimulus[f"x_last_{packet}"])

    async def send_beats(self, beats: list[list[int]], last: list[int]) -> None:
        """Queue these beats of x, and their TLAST."""
        self._bench.x.send(np.array(beats, np.uint8), np.array(last, np.uint8))

    async def mark(self, name: str) -> None:
        """Remember the cycle."""
        self.results["marks"][name] = self._bench.cycle

    async def pause(self, cycles: int) -> None:
        """Wait."""
        for _ in range(cycles):
            await self._edge

    async def finish(self, name: str, most_cycles: int) -> None:
        """Wait until no program is in work; then keep status and counters."""
        end = self._bench.cycle + most_cycles
        while (status := await self.driver.status()).busy:
            if self._bench.cycle > end:
                raise ScriptTimeout(f"program {name} is in work after {most_cycles} cycles")
            await self.pause(_POLL_CYCLES)
        await self.mark(f"status {name}")
        found = dict(vars(status))
        found |= {"errors": sorted(error.name for error in status.errors), "refusal": status.refusal.name}
        self.results["status"][name] = found
        self.results["refresh_at_start"][name] = await self.driver.refresh_at_start()
        self.results["counters"] = {counter.name: value for counter, value in (await self.driver.counters()).items()}

    async def until_beats(self, count: int, most_cycles: int) -> None:
        """Wait for so many beats of y; where they do not come, the comparison will say what is missing."""
        end = self._bench.cycle + most_cycles
        while self._bench.y.count < count and self._bench.cycle < end:
            await self._edge

    async def until_columns(self, count: int, most_cycles: int) -> None:
        """Wait until so many commands have stood on the column bus."""
        end = self._bench.cycle + most_cycles
        while (found := self._bench.buses.columns) < count:
            if self._bench.cycle > end:
                raise ScriptTimeout(f"{found} column commands after {most_cycles} cycles, not {count}")
            await self._edge

    async def consume(self, taking: bool) -> None:
        """Whether beats of y are taken at all."""
        self._bench.y.taking = taking


@cocotb.test()
async def replay(dut: Any) -> None:
    """Reset, run the script, hand over everything that was seen."""
    stimulus = exchange.read_stimulus()
    bench = Bench(dut, stimulus)
    script = Script(dut, bench, stimulus)
    await bench.reset()
    started = time.perf_counter()
    cycles = cocotb.start_soon(bench.run_cycles())
    await script.run()
    bench.end()
    await cycles
    simulating_s = time.perf_counter() - started
    beats = bench.y.take()
    exchange.write_results(
        {
            **bench.buses.take(),
            **{f"y_{name}": values for name, values in beats.items()},
            "x_taken": bench.x.taken,
            "x_left": bench.x.left,
            "refused": bench.dram.refused,
            **script.results,
            "protocol": bench.y.violations + script.violations,
            "cycles": bench.cycle,
            "simulating_s": simulating_s,
        }
    )
