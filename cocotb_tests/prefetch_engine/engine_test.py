"""In the simulator: configure the engine, let the runner offer its events, sleep until all is done, read the counters.

Nothing here looks at a single cycle: the bench logs, ``cocotb_tests.prefetch_engine.run`` reads.
"""

import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from cocotb.utils import get_sim_time

from cocotb_tests import exchange
from cocotb_tests.axi_lite import AxiLiteMaster
from cocotb_tests.models.files import read_bursts, read_written
from cocotb_tests.prefetch_engine.logs import BURST_FIELDS, read_lines
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


async def reset(dut: Any, inputs: dict[str, int]) -> None:
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


def _poll_pause(dut: Any) -> Callable[[], Awaitable[None]]:
    """What passes between two polls of the engine: without Python."""

    async def pause() -> None:
        await Timer(_POLL_CYCLES * _PERIOD_NS, unit="ns")
        await RisingEdge(dut.clk)

    return pause


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
    """Configure, go, and read what is left behind."""
    stimulus = exchange.read_stimulus()
    inputs = stimulus["inputs"]
    await reset(dut, inputs)
    reset_ns = get_sim_time("ns")
    bus = AxiLiteMaster(dut, "control", waits=random.Random(inputs["seed"]) if inputs["share"] < 256 else None)
    driver = PrefetchEngineDriver(
        PrefetchEngineLimits.model_validate(stimulus["limits"]), bus.read, bus.write, pause=_poll_pause(dut)
    )
    await configure(driver, stimulus)
    dut.go.value = 1
    # The memories count 1 in the cycle that the reset ended in; the bench counts 0 in the one after this.
    before_go = round((get_sim_time("ns") - reset_ns) / _PERIOD_NS) + 2
    await finish(dut, bus, driver, stimulus, before_go=before_go)


async def finish(
    dut: Any, bus: AxiLiteMaster, driver: PrefetchEngineDriver, stimulus: dict[str, Any], *, before_go: int
) -> None:
    """Wait until all is done, and write down what is left behind; ``before_go``: cycles of the memories before the
    bench's first."""
    started = time.perf_counter()
    await _sleep_until_done(dut, stimulus["inputs"]["count"])
    await driver.wait_idle()
    running_s = time.perf_counter() - started
    cycles = dut.cycle.value.to_unsigned()
    counters = {counter.name: value for counter, value in (await driver.counters()).items()}
    errors = int(await driver.errors())
    dut.keep.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    exchange.write_results(
        {
            "cycles": cycles,
            "running_s": running_s,
            "counters": counters,
            "errors": errors,
            "breaches": dut.breaches.value.to_unsigned(),
            "interrupt": int(dut.interrupt.value),
            "violations": bus.violations,
            **_logs(stimulus["logs"]),
            **(_bursts(before_go) if stimulus["bursts"] else {}),
        }
    )


async def configure(driver: PrefetchEngineDriver, stimulus: dict[str, Any]) -> None:
    """All that software does before the first event."""
    settings = PrefetchEngineSettings.model_validate(stimulus["settings"])
    tables = stimulus["tables"]
    await driver.identify()
    if "table_image" in stimulus:
        await driver.load_tables(stimulus["table_image"])
    await driver.configure(
        settings,
        tables=None if tables is None else EngineConfiguration.model_validate(tables),
        text=None if stimulus["text"] is None else TextSettings.model_validate(stimulus["text"]),
        image_base=stimulus["sections"],
    )
    for layer, expert, fixed in stimulus["preloaded"]:
        await driver.preload(layer, [expert])
        if fixed:
            await driver.fix(layer, [expert])
    await driver.wait_idle()
    await driver.command(Command.CLEAR_COUNTERS)


def _logs(bits: dict[str, int]) -> dict[str, Any]:
    """All logs of the bench, and what lies in the staging buffer, as arrays."""
    folder = Path()
    found: dict[str, Any] = {}
    for name, size in bits.items():
        found[f"{name}_cycle"], found[f"{name}_payload"] = read_lines(folder / f"{name}.log", size)
    addresses, strobes, data = read_written(folder, "staging", BEAT_BYTES)
    found |= {"staging_address": addresses, "staging_mask": strobes, "staging_word": data}
    return found


def _bursts(before_go: int) -> dict[str, Any]:
    """The bursts of the memories that hold experts, in the bench's cycles."""
    found: dict[str, Any] = {}
    for name in ("far", "staging"):
        reads, writes = read_bursts(Path(), name)
        bursts: dict[str, list[Any]] = {"reads": reads, "writes": writes}
        for kind, of in bursts.items():
            rows = [[getattr(burst, field) for field in BURST_FIELDS[kind]] for burst in of]
            table = np.array(rows, np.int64).reshape(-1, len(BURST_FIELDS[kind]))
            table[:, 2:] -= before_go
            found[f"{name}_{kind}"] = table
    return found
