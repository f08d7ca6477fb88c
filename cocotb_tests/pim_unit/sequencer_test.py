"""In the simulator: the sequencer by itself runs a plan, and its commands are recorded.

Inputs are there from the first clock on, and results are taken at once; what remains is the sequencer's own pace.
"""

from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from cocotb_tests import exchange
from cocotb_tests.pim_unit.bus_recorder import BusRecorder

_PROGRESS_CYCLES = 2000


@cocotb.test()
async def replay(dut: Any) -> None:
    """Reset, wait, start, record until it is done and a little beyond."""
    stimulus = exchange.read_stimulus()
    for name in ("start", "cancel", "refresh_enable", "plan"):
        getattr(dut, name).value = 0
    for name, value in stimulus["inputs"].items():
        getattr(dut, name).value = value
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="ns").start()
    edge = RisingEdge(dut.clk)
    for _ in range(2):
        await edge
    dut.rst.value = 0
    dut.plan.value = int(stimulus["plan"], 16)
    dut.refresh_enable.value = int(stimulus["refresh"])
    recorder = BusRecorder(dut)
    cycle, first, done = 0, None, None
    while cycle < stimulus["max_cycles"] and (done is None or cycle < done + stimulus["surplus_cycles"]):
        if cycle == stimulus["start_cycle"]:
            dut.start.value = 1
        await edge
        recorder.sample(cycle)
        if first is None:
            if dut.started.value:
                first = cycle + 1
                dut.start.value = 0
        elif done is None and dut.done.value:
            done = cycle
        cycle += 1
        if cycle % _PROGRESS_CYCLES == 0:
            exchange.report_progress(cycle)
    exchange.write_results(
        {**recorder.take(), "first_cycle": -1 if first is None else first, "done_cycle": -1 if done is None else done}
    )
