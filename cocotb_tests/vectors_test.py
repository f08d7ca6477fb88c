"""In the simulator: give a pipeline its inputs clock by clock and record its outputs (`cocotb_tests.vectors`)."""

from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from cocotb_tests import exchange


@cocotb.test()
async def replay(dut: Any) -> None:
    """Drive every input after each rising edge, and sample every output in the middle of the same clock."""
    stimulus = exchange.read_stimulus()
    inputs = [
        (getattr(dut, name), [int.from_bytes(row, "little") for row in stimulus[f"in_{name}"]])
        for name in stimulus["inputs"]
    ]
    outputs = [(getattr(dut, name), name, bytearray()) for name in stimulus["outputs"]]
    for port, _ in inputs:
        port.value = 0
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="ns").start()
    rising, falling = RisingEdge(dut.clk), FallingEdge(dut.clk)
    await rising
    await rising
    dut.rst.value = 0
    for clock in range(stimulus["clocks"]):
        for port, values in inputs:
            port.value = values[clock]
        await falling
        for port, _, taken in outputs:
            taken += port.value.to_unsigned().to_bytes((len(port) + 7) // 8, "little")
        await rising
    exchange.write_results(
        {f"out_{name}": np.frombuffer(taken, np.uint8).reshape(stimulus["clocks"], -1) for _, name, taken in outputs}
    )
