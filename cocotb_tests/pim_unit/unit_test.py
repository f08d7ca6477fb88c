"""In the simulator: the PIM unit with its DRAM, its streams and its register bus, driven by a script.

There is no arithmetic here, and no knowledge of the unit's registers: `cocotb_tests.pim_unit.replay` writes the script
and judges what comes back. One coroutine drives and samples everything once a cycle; the script is another.
"""

import random
import time
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from cocotb_tests import exchange
from cocotb_tests.axi_lite import AxiLiteMaster
from cocotb_tests.axi_stream import AxiStreamSink, AxiStreamSource
from cocotb_tests.pim_unit.bus_recorder import BusRecorder
from cocotb_tests.pim_unit.dram_model import DramModel

_PROGRESS_CYCLES = 2000


class ScriptTimeout(AssertionError):
    """A step of the script that waited longer than it may."""


class Bench:
    """Everything around the unit.

    Attributes:
        cycle: The cycle in progress; 0 is the first after reset.
    """

    def __init__(self, dut: Any, stimulus: dict[str, Any]) -> None:
        self._dut, self._stimulus = dut, stimulus
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
        waits = random.Random(stimulus["seed"]) if stimulus["bus_waits"] else None
        self.bus = AxiLiteMaster(dut, "control", waits=waits) if hasattr(dut, "control__awvalid") else None
        self.reads: dict[str, int] = {}
        self.marks: dict[str, int] = {}
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

    async def run_script(self) -> None:
        """Step by step."""
        for step in self._stimulus["script"]:
            await getattr(self, f"_{step[0]}")(*step[1:])
        self._running = False

    async def _write(self, address: int, value: int, response: int = 0) -> None:
        assert self.bus is not None
        await self.bus.write(address, value, response=response)

    async def _read(self, name: str, address: int) -> None:
        assert self.bus is not None
        self.reads[name] = await self.bus.read(address)

    async def _mark(self, name: str) -> None:
        self.marks[name] = self.cycle

    async def _send(self, packet: int) -> None:
        stimulus = self._stimulus
        self.x.send(stimulus[f"x_{packet}"], stimulus[f"x_last_{packet}"])

    async def _wait(self, cycles: int) -> None:
        for _ in range(cycles):
            await self._edge

    async def _until(self, address: int, mask: int, value: int, most_cycles: int, pause: int) -> None:
        """Read a register again and again until ``mask`` of it is ``value``."""
        assert self.bus is not None
        end = self.cycle + most_cycles
        while (found := await self.bus.read(address)) & mask != value:
            if self.cycle > end:
                raise ScriptTimeout(f"register {address:#x} is {found:#x} after {most_cycles} cycles")
            await self._wait(pause)

    async def _until_beats(self, count: int, most_cycles: int) -> None:
        """Until so many beats of y have been taken, or the time is over: the comparison will say what is missing."""
        end = self.cycle + most_cycles
        while self.y.count < count and self.cycle < end:
            await self._edge

    async def _until_columns(self, count: int, most_cycles: int) -> None:
        """Until so many commands have stood on the column bus."""
        end = self.cycle + most_cycles
        while self.buses.columns < count:
            if self.cycle > end:
                raise ScriptTimeout(f"{self.buses.columns} column commands after {most_cycles} cycles, not {count}")
            await self._edge


@cocotb.test()
async def replay(dut: Any) -> None:
    """Reset, run the script, hand over everything that was seen."""
    stimulus = exchange.read_stimulus()
    bench = Bench(dut, stimulus)
    await bench.reset()
    started = time.perf_counter()
    cycles = cocotb.start_soon(bench.run_cycles())
    await bench.run_script()
    await cycles
    simulating_s = time.perf_counter() - started
    beats = bench.y.take()
    exchange.write_results(
        {
            **bench.buses.take(),
            **{f"y_{name}": values for name, values in beats.items()},
            "x_taken": bench.x.taken,
            "refused": bench.dram.refused,
            "reads": bench.reads,
            "marks": bench.marks,
            "protocol": bench.y.violations + (bench.bus.violations if bench.bus else []),
            "cycles": bench.cycle,
            "simulating_s": simulating_s,
        }
    )
