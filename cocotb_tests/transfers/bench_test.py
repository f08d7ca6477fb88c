"""In the simulator: start the bench, wait until it has finished, and hand its files over.

The files that the bench and the models read are there already (``cocotb_tests.transfers.moves``).
"""

from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from cocotb_tests import exchange
from cocotb_tests.models import files


@cocotb.test()
async def move(dut: Any) -> None:
    """One run of the bench."""
    stimulus, folder = exchange.read_stimulus(), Path.cwd()
    data_bytes = stimulus["data_bytes"]
    edge = RisingEdge(dut.clk)
    dut.rst.value, dut.keep.value = 1, 0
    Clock(dut.clk, 2, unit="ns").start()
    for _ in range(3):
        await edge
    dut.rst.value = 0
    await RisingEdge(dut.finished)
    hung = bool(dut.hung.value)
    dut.keep.value = 1
    for _ in range(3):
        await edge
    addresses, masks, words = files.read_written(folder, "staging", data_bytes)
    ends = [[int(number) for number in line.split()] for line in (folder / "ends.log").read_text().splitlines()]
    exchange.write_results(
        {
            "hung": hung,
            "strays": dut.strays.value.to_signed(),
            "breaches": [line for name in ("far", "staging") for line in files.read_breaches(folder, name)],
            "ends": np.array(ends, np.int64).reshape(-1, 3),
            "reads": _table(files.read_bursts(folder, "far")[0], 6),
            "writes": _table(files.read_bursts(folder, "staging")[1], 7),
            "addresses": addresses,
            "masks": masks,
            "words": words,
        }
    )


def _table(bursts: list[Any], columns: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    rows = [[getattr(burst, name) for name in burst.__slots__] for burst in bursts]
    return np.array(rows, np.int64).reshape(-1, columns)
