"""Arrays through a component under Verilator: one row of each input a clock, one row of each output back."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.build import build
from cocotb_tests.simulation import run as run_simulation

Rows = NDArray[np.uint8]


def run_vectors(
    verilog: str, top: str, inputs: Mapping[str, Rows], outputs: Sequence[str], *, timeout_s: float = 600.0
) -> dict[str, Rows]:
    """What the outputs of ``top`` are in each clock; the first is the one after reset.

    Args:
        verilog: The text of all modules.
        top: Name of the top module; its clock is ``clk``, its reset ``rst``.
        inputs: For each input port its value in each clock, u8 ``[clocks, bytes]``, the lowest byte first.
        outputs: Names of the output ports to record.
        timeout_s: Wall-clock limit of the simulation.

    Returns:
        For each of ``outputs`` its value in each clock, as in ``inputs``. A combinational output is that of the same
        clock's inputs.
    """
    (clocks,) = {len(rows) for rows in inputs.values()}
    stimulus = {f"in_{name}": rows for name, rows in inputs.items()}
    result = run_simulation(
        build(verilog, top),
        "cocotb_tests.vectors_test",
        stimulus={"inputs": list(inputs), "outputs": list(outputs), "clocks": clocks, **stimulus},
        timeout_s=timeout_s,
    )
    return {name: result.values[f"out_{name}"] for name in outputs}
