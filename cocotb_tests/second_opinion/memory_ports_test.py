"""In the simulator: cocotbext-axi's memories on the DMA's two ports; every byte that should move does, and no other.

The stimulus: ``descriptors`` i64 ``[n, 3]`` (source, destination, bytes), whose destinations do not overlap, ``waits``
and ``seed``.
"""

import itertools
import logging
import random
import warnings
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiRamWrite, AxiReadBus, AxiWriteBus

from cocotb_tests import exchange

_SIZE = 1 << 17
_HUNG_CYCLES = 200_000


def _pauses(seed: float) -> Iterator[bool]:
    own = random.Random(seed)
    return (own.random() < 0.4 for _ in itertools.count())


@cocotb.test()
async def memory_ports(dut: Any) -> None:
    """Move, then compare the whole of the written memory."""
    stimulus = exchange.read_stimulus()
    generator = random.Random(stimulus["seed"])
    warnings.simplefilter("ignore", DeprecationWarning)  # cocotbext-axi 0.1.28 calls what cocotb 2 will remove
    logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
    dut.rst.value = 1
    dut.descriptors__valid.value = 0
    dut.ends__ready.value = 1
    dut.outstanding.value = stimulus["outstanding"]
    dut.share.value = 256
    dut.silence.value = 1 << 16
    Clock(dut.clk, 2, unit="ns").start()
    far = AxiRamRead(AxiReadBus.from_prefix(dut, "far_"), dut.clk, dut.rst, size=_SIZE)
    staging = AxiRamWrite(AxiWriteBus.from_prefix(dut, "staging_"), dut.clk, dut.rst, size=_SIZE)
    content = generator.randbytes(_SIZE)
    before = bytes(generator.randbytes(_SIZE))
    far.write(0, content)
    staging.write(0, before)
    if stimulus["waits"]:
        for channel in (far.ar_channel, far.r_channel, staging.aw_channel, staging.w_channel, staging.b_channel):
            channel.set_pause_generator(_pauses(generator.random()))
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    descriptors = stimulus["descriptors"].tolist()
    expected = bytearray(before)
    ends: list[int] = []
    told = cycles = 0
    places = stimulus["places"]
    while len(ends) < len(descriptors):
        if told < len(descriptors):
            values = dict(zip(("source", "destination", "bytes"), descriptors[told], strict=True))
            dut.descriptors__payload.value = sum(value << places[name] for name, value in values.items())
        dut.descriptors__valid.value = int(told < len(descriptors))
        await RisingEdge(dut.clk)
        if told < len(descriptors) and dut.descriptors__ready.value:
            end = values["destination"] + values["bytes"]
            expected[values["destination"] : end] = content[values["source"] : values["source"] + values["bytes"]]
            told += 1
        if dut.ends__valid.value:
            ends.append(dut.ends__payload.value.to_unsigned())
        cycles += 1
        assert cycles < _HUNG_CYCLES, f"hung after {len(ends)} of {len(descriptors)}"
    found = staging.read(0, _SIZE)
    different = sum(a != b for a, b in zip(found, expected, strict=True))
    exchange.write_results(
        {"bytes": int(sum(row[2] for row in descriptors)), "different": different, "ends": ends, "cycles": cycles}
    )
