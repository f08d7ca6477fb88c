"""Arrays of bit patterns through a component: some in Amaranth's simulator, many through copies under Verilator."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from numpy.typing import NDArray

from cocotb_tests.vectors import run_vectors
from rtl.verilog import to_verilog
from tests.rtl.simulate import simulate

# Of each input port the pattern in each clock, in an unsigned type as wide as the port.
Inputs = Mapping[str, NDArray[Any]]


def in_amaranth(component: Any, inputs: Inputs, output: str, latency: int) -> NDArray[np.uint64]:
    """What ``output`` is for each row of ``inputs``, given one a clock; with no latency, there is no clock."""
    (count,) = {len(values) for values in inputs.values()}
    columns = [(Value.cast(getattr(component, name)), values.tolist()) for name, values in inputs.items()]
    result = Value.cast(getattr(component, output))
    found = []

    async def bench(ctx: Any) -> None:
        for clock in range(count + latency):
            for port, values in columns:
                ctx.set(port, values[min(clock, count - 1)])
            found.append(ctx.get(result))
            await (ctx.tick() if latency else ctx.delay(1e-9))

    if latency:
        simulate(component, bench)
    else:
        simulator = Simulator(component)
        simulator.add_testbench(bench)
        simulator.run()
    mask = (1 << len(result)) - 1
    return np.array([value & mask for value in found[latency:]], np.uint64)


class _Copies(wiring.Component):
    """Several of one component side by side: each port as an array of theirs."""

    def __init__(self, make: Callable[[], wiring.Component], count: int) -> None:
        self.parts: list[Any] = [make() for _ in range(count)]
        members = self.parts[0].signature.members
        super().__init__(
            {
                name: (In if member.flow == In else Out)(count * len(Value.cast(getattr(self.parts[0], name))))
                for name, member in members.items()
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number, part in enumerate(self.parts):
            m.submodules[f"part{number}"] = part
            for name, member in part.signature.members.items():
                inner = Value.cast(getattr(part, name))
                outer = getattr(self, name).word_select(number, len(inner))
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


def under_verilator(
    make: Callable[[], wiring.Component], inputs: Inputs, output: str, latency: int, *, copies: int = 16
) -> NDArray[Any]:
    """As `in_amaranth`; result in the output's own type. All ports are 8, 16, 32 or 64 bits wide."""
    (count,) = {len(values) for values in inputs.values()}
    clocks = -(-count // copies)
    rows = {}
    for name, values in inputs.items():
        # The last row again: fills the last clock, and the clocks in which the pipeline empties.
        padded = np.concatenate([values, np.repeat(values[-1:], (clocks + latency) * copies - count)])
        rows[name] = padded.reshape(clocks + latency, copies).view(np.uint8)
    found = run_vectors(to_verilog(_Copies(make, copies), "copies"), "copies", rows, [output])[output]
    octets = found.shape[1] // copies
    return np.ascontiguousarray(found[latency:]).view(f"u{octets}").reshape(-1)[:count]
