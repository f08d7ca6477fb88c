"""A unit in Amaranth's simulator with its memory, its streams and its driver: for units with few blocks."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Program
from rtl.pim.base_die.layouts import ColumnCommand, RowCommand
from rtl.pim.driver import UnitDriver
from rtl.pim.unit import PimUnit
from tests.rtl.bus import axi_driver
from tests.rtl.simulate import simulate


class Refused(AssertionError):
    """The unit answered an error."""


class UnitBench:
    """The unit and what is around it.

    Attributes:
        dut: The unit.
        driver: Its driver.
        beats: y's beats that were taken, as (data, keep, last).
        commands: What stood on the ports, as (clock, name, half, block).
        x: Beats to be sent, as (data, last).
        open_rows: Of each half and block.
        y_ready: Whether y's beats are taken.
    """

    def __init__(self, parameters: UnitParameters, contents: np.ndarray) -> None:
        """``contents`` [halves, rows, columns, blocks, 32], as ``pim_model.numerics.image`` has them."""
        self.dut, self._parameters, self._contents = PimUnit(parameters), parameters, contents
        self.beats: list[tuple[int, int, int]] = []
        self.commands: list[tuple[int, str, int, int]] = []
        self.x: deque[tuple[int, int]] = deque()
        self.open_rows: dict[tuple[int, int], int] = {}
        self.y_ready = True
        self.clock = 0
        self._ended = False
        self.driver = UnitDriver(parameters, self._read, self._write)
        self._ctx: Any = None

    async def _read(self, address: int) -> int:
        data, response = await axi_driver.read(self._ctx, self.dut.control, address)
        if response != axi_driver.OKAY:
            raise Refused(f"read of {address:#x}")
        return data

    async def _write(self, address: int, value: int) -> None:
        if await axi_driver.write(self._ctx, self.dut.control, address, value) != axi_driver.OKAY:
            raise Refused(f"write of {value:#x} to {address:#x}")

    def run(self, script: Callable[["UnitBench"], Awaitable[None]]) -> None:
        """Run a script with everything around it."""

        async def scripted(ctx: Any) -> None:
            self._ctx = ctx
            await script(self)
            self._ended = True

        simulate(self.dut, scripted, self._around)

    async def ticks(self, count: int) -> None:
        """Wait."""
        for _ in range(count):
            await self._ctx.tick()

    async def _around(self, ctx: Any) -> None:
        """Memory and streams, clock by clock."""
        dut, pending, rows = self.dut, {}, self.open_rows
        latency = self._parameters.device.cl_ck
        while not self._ended:
            ctx.set(dut.column_data, pending.pop(self.clock, 0x5A5A_5A5A))
            ctx.set(dut.x.tvalid, bool(self.x))
            if self.x:
                ctx.set(dut.x.tdata, self.x[0][0])
                ctx.set(dut.x.tlast, self.x[0][1])
            y_ready = self.y_ready
            ctx.set(dut.y.tready, y_ready)
            sampled = await ctx.tick().sample(
                dut.row, dut.column, dut.x.tready, dut.y.tvalid, dut.y.tdata, dut.y.tkeep, dut.y.tlast
            )
            row, column, x_ready, y_valid, data, keep, last = sampled[2:]
            if self.x and x_ready and ctx.get(dut.x.tvalid):
                self.x.popleft()
            if y_valid and y_ready:
                self.beats.append((data, keep, last))
            if column.valid:
                name = ColumnCommand(column.command).name
                self.commands.append((self.clock, name, column.half, column.block))
                if name == "PIM":
                    opened = [rows[column.half, block] for block in range(self._parameters.blocks.blocks)]
                    assert len(set(opened)) == 1
                    words = self._contents[column.half, opened[0], column.column]
                    pending[self.clock + latency] = int.from_bytes(words.tobytes(), "little")
            if row.valid:
                name = RowCommand(row.command).name
                self.commands.append((self.clock, name, row.half, row.block))
                if name == "ACT":
                    rows[row.half, row.block] = row.row
                elif name == "PREAB":
                    rows.clear()
                elif name == "PREH":
                    for block in range(self._parameters.blocks.blocks):
                        rows.pop((row.half, block), None)
            self.clock += 1


def x_beats(x: np.ndarray) -> list[tuple[int, int]]:
    """BF16 bits [tokens, inputs] as beats with TLAST."""
    tokens, inputs = x.shape
    filled = np.pad(x, ((0, 0), (0, -inputs % 16)))
    words = [filled[t, c : c + 16] for c in range(0, filled.shape[1], 16) for t in range(tokens)]
    return [
        (int.from_bytes(word.astype("<u2").tobytes(), "little"), number == len(words) - 1)
        for number, word in enumerate(words)
    ]


def y_beats(program: Program, blocks: int, bits: np.ndarray) -> list[tuple[int, int, int]]:
    """FP32 bits [tokens, rows] as the unit gives them."""
    phase, found = program.phases[-1], []
    for tile in program.phases[-1].tiles:
        for block in range(blocks):
            for octet in range(tile.octets):
                first = tile.first_row + block * tile.rows_per_block + 8 * octet
                end = min(first + 8, tile.first_row + (block + 1) * tile.rows_per_block, phase.rows)
                for token in range(program.tokens):
                    for row in range(first, end, 2):
                        high = int(bits[token, row + 1]) if row + 1 < end else 0
                        found.append((int(bits[token, row]) | high << 32, 0xFF if row + 1 < end else 0x0F, 0))
    return [*found[:-1], (*found[-1][:2], 1)]
