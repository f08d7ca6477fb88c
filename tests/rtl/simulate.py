"""Run one testbench on one component in Amaranth's simulator."""

from collections.abc import Awaitable, Callable
from typing import Any

from amaranth.lib import wiring
from amaranth.sim import Simulator


def simulate(component: wiring.Component, *testbenches: Callable[[Any], Awaitable[None]]) -> None:
    """Clock ``component`` until every testbench has ended."""
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    simulator.run()
