"""In the simulator: cocotbext-axi's AXI4-Lite master on a control port, against what the address map says.

The stimulus: ``map`` (``engine`` or ``tables``) and the ``limits`` it is of, ``prefix`` of the bus, ``waits``,
``seed``, how many ``transfers``, and which inputs are ``quiet``. The hardware is off, so that what is locked can be
written.
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
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from cocotb_tests import exchange
from predictor.engine.limits import PrefetchEngineLimits
from predictor.st_moe.parameters import EngineLimits
from rtl.bus.register_map import DATA_BYTES, Access, AddressMap, Register
from rtl.prefetch.address_map import address_map as engine_map
from rtl.prefetch.tables.address_map import address_map as tables_map

# What is more than a value that is kept.
_ACTING = {"MODE", "CONTROL", "COMMAND", "SHARE"}


def _map(stimulus: dict[str, Any]) -> AddressMap:
    if stimulus["map"] == "engine":
        return engine_map(PrefetchEngineLimits.model_validate(stimulus["limits"]))
    return tables_map(EngineLimits.model_validate(stimulus["limits"]))


class Model:
    """What the registers and the table hold, by the address map."""

    def __init__(self, found: AddressMap, generator: random.Random) -> None:
        self.map, self.random = found, generator
        memory = found.memory
        assert memory is not None
        self.memory = memory
        self.kept = [
            register
            for register in found.registers
            if register.writable and register.readable and register.name not in _ACTING
        ]
        self.words = {register.offset: register.reset for register in found.registers if self.is_steady(register)}
        self.table: dict[int, bytes] = {}
        used = {register.offset for register in found.registers}
        self.holes = [offset for offset in range(0, memory.offset, DATA_BYTES) if offset not in used]

    def is_steady(self, register: Register) -> bool:
        """Whether it reads what was written last, or is constant."""
        return (
            register.readable
            and register.name not in _ACTING
            and all(one.access is not Access.STATE for one in register.fields)
        )

    def word(self, register: Register) -> int:
        """A word for a register, of values in and out of range."""
        if self.random.random() < 0.2:
            return self.random.getrandbits(32)
        value = 0
        for one in register.fields:
            most = (1 << one.width) - 1 if one.maximum is None else one.maximum
            chosen = self.random.choice((one.minimum, most, self.random.randint(one.minimum, most), most + 1))
            value |= (chosen << one.lowest_bit) & 0xFFFF_FFFF
        return value

    def takes(self, register: Register, value: int) -> bool:
        """Whether a word may be written."""
        if value & ~sum(one.mask for one in register.fields):
            return False
        for one in register.fields:
            part = (value & one.mask) >> one.lowest_bit
            if not one.minimum <= part <= (one.mask >> one.lowest_bit if one.maximum is None else one.maximum):
                return False
        return True


class Port:
    """The master and the model; counts what was done and what differs."""

    def __init__(self, dut: Any, stimulus: dict[str, Any]) -> None:
        bus = AxiLiteBus.from_prefix(dut, stimulus["prefix"] + "_")
        self.master = AxiLiteMaster(bus, dut.clk, dut.rst)
        self.random = random.Random(stimulus["seed"])
        self.model = Model(_map(stimulus), self.random)
        self.differences: list[str] = []
        self.refused = self.transfers = 0
        if stimulus["waits"]:
            channels = (
                self.master.write_if.aw_channel, self.master.write_if.w_channel, self.master.write_if.b_channel,
                self.master.read_if.ar_channel, self.master.read_if.r_channel,
            )  # fmt: skip
            for channel in channels:
                channel.set_pause_generator(self._pauses())

    def _pauses(self) -> Iterator[bool]:
        own = random.Random(self.random.random())
        return (own.random() < 0.5 for _ in itertools.count())

    def expect(self, what: str, expected: Any, found: Any) -> None:
        """Compare."""
        if expected != found:
            self.differences.append(f"{what}: expected {expected}, found {found}")

    async def read(self, what: str, address: int, expected: bytes | None, length: int = DATA_BYTES) -> None:
        """A read that must answer ``expected``; ``None``: an error."""
        answer = await self.master.read(address, length)
        self.transfers += 1
        self.refused += expected is None
        self.expect(f"read of {what}, response", AxiResp.SLVERR if expected is None else AxiResp.OKAY, answer.resp)
        if expected is not None:
            self.expect(f"read of {what}", expected.hex(), bytes(answer.data).hex())

    async def write(self, what: str, address: int, data: bytes, *, taken: bool) -> None:
        """A write that must be taken, or refused."""
        answer = await self.master.write(address, data)
        self.transfers += 1
        self.refused += not taken
        self.expect(
            f"write of {data.hex()} to {what}, response", AxiResp.OKAY if taken else AxiResp.SLVERR, answer.resp
        )

    async def register_write(self) -> None:
        """A word to a register; what is refused changes nothing."""
        model = self.model
        register = self.random.choice(model.kept)
        value = model.word(register)
        taken = model.takes(register, value)
        await self.write(register.name, register.offset, value.to_bytes(4, "little"), taken=taken)
        if taken:
            model.words[register.offset] = value
        await self.register_read(register.offset)

    async def register_read(self, offset: int | None = None) -> None:
        """A word of a register that keeps what it is given."""
        chosen = self.random.choice(list(self.model.words)) if offset is None else offset
        await self.read(f"register at {chosen:#x}", chosen, self.model.words[chosen].to_bytes(4, "little"))

    async def short_write(self) -> None:
        """Part of a word, which is refused, also where the whole word would be taken."""
        register = self.random.choice(self.model.kept)
        first = self.random.choice((0, 0, 0, 1, 2, 3))
        length = self.random.randint(1, 4 - first) if first else self.random.randint(1, 3)
        data = self.model.words[register.offset].to_bytes(4, "little")[first : first + length]
        await self.write(f"part of {register.name}", register.offset + first, data, taken=False)
        await self.register_read(register.offset)

    async def hole(self) -> None:
        """A place that is no register."""
        place = self.random.choice(self.model.holes)
        await self.read("no register", place, None)
        await self.write("no register", place, bytes(4), taken=False)

    async def block(self) -> None:
        """Words of a row of the table in one go, read back behind each other."""
        memory = self.model.memory
        place = memory.offset + self.random.randrange(memory.rows) * memory.stride
        data = self.random.randbytes(DATA_BYTES * memory.words)
        await self.write("the table", place, data, taken=True)
        self.model.table[place] = data
        for known in self.random.sample(list(self.model.table), min(3, len(self.model.table))):
            await self.read("the table", known, self.model.table[known], len(data))

    async def crowd(self) -> None:
        """Reads and writes at once, as many as the master likes to have under way."""
        constants = [register for register in self.model.map.registers if register.constant]
        memory = self.model.memory
        rows = self.random.sample(range(memory.rows), min(4, memory.rows))
        writes = {memory.offset + row * memory.stride: self.random.randbytes(4 * memory.words) for row in rows}
        tasks = [cocotb.start_soon(self.write("the table", at, data, taken=True)) for at, data in writes.items()]
        tasks += [
            cocotb.start_soon(self.read(one.name, one.offset, one.reset.to_bytes(4, "little"))) for one in constants
        ]
        for task in tasks:
            await task
        self.model.table |= writes


@cocotb.test()
async def control_port(dut: Any) -> None:
    """Registers after reset, then transfers of all kinds in random order."""
    stimulus = exchange.read_stimulus()
    warnings.simplefilter("ignore", DeprecationWarning)  # cocotbext-axi 0.1.28 calls what cocotb 2 will remove
    logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
    dut.rst.value = 1
    for name in stimulus["quiet"]:
        getattr(dut, name).value = 0
    Clock(dut.clk, 2, unit="ns").start()
    port = Port(dut, stimulus)
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    for register in port.model.map.registers:
        if port.model.is_steady(register):
            await port.register_read(register.offset)
        elif not register.readable:
            await port.read(register.name, register.offset, None)
    kinds = [port.register_write, port.register_read, port.short_write, port.hole, port.block, port.crowd]
    while port.transfers < stimulus["transfers"]:
        await port.random.choices(kinds, weights=(8, 4, 2, 1, 2, 1))[0]()
    for offset in port.model.words:
        await port.register_read(offset)
    exchange.write_results({"transfers": port.transfers, "refused": port.refused, "differences": port.differences[:20]})
