"""Bus model of an AXI4-Lite master, for designs whose bus carries the canonical channel names."""

import random
from typing import Any

from cocotb.triggers import RisingEdge

from cocotb_tests.streams import StableUntilReady

OKAY = 0
SLVERR = 2
_DEAD_CYCLES = 1000


class AxiLiteError(AssertionError):
    """A response other than the one expected, or none."""


class AxiLiteMaster:
    """One transfer at a time, for one coroutine at a time.

    Attributes:
        violations: breaches of the protocol by the slave.
    """

    def __init__(self, dut: Any, prefix: str, *, waits: random.Random | None = None) -> None:
        """``prefix`` as in ``control__awaddr``; with ``waits`` the master delays every channel at random."""
        self._dut = dut
        self._prefix = prefix
        self._edge = RisingEdge(dut.clk)
        self._waits = waits
        self._rules = {channel: StableUntilReady(f"{prefix} {channel}") for channel in "br"}
        for name in ("awvalid", "wvalid", "arvalid", "bready", "rready", "awprot", "arprot"):
            self._signal(name).value = 0
        self._signal("wstrb").value = 0b1111

    @property
    def violations(self) -> list[str]:
        """Breaches of the protocol by the slave."""
        return [violation for rule in self._rules.values() for violation in rule.violations]

    async def write(self, address: int, value: int, *, response: int = OKAY, strobe: int = 0b1111) -> None:
        """Write a word.

        Raises:
            AxiLiteError: if the slave's response is not ``response``, or it does not answer.
        """
        self._signal("awaddr").value = address
        self._signal("wdata").value = value
        self._signal("wstrb").value = strobe
        starts = {channel: self._pause() for channel in ("aw", "w")}
        for cycle in range(_DEAD_CYCLES):
            for channel in starts:
                if cycle >= starts[channel]:
                    self._signal(f"{channel}valid").value = 1
            await self._edge
            for channel in tuple(starts):
                if cycle >= starts[channel] and self._signal(f"{channel}ready").value:
                    self._signal(f"{channel}valid").value = 0
                    del starts[channel]
            if not starts:
                break
        got = await self._response("b", "bresp")
        if got != response:
            raise AxiLiteError(f"write of {value:#x} to {address:#x}: response {got}, expected {response}")

    async def read(self, address: int, *, response: int = OKAY) -> int:
        """Read a word.

        Raises:
            AxiLiteError: as ``write``.
        """
        self._signal("araddr").value = address
        self._signal("arvalid").value = 1
        for _ in range(_DEAD_CYCLES):
            await self._edge
            if self._signal("arready").value:
                break
        self._signal("arvalid").value = 0
        got = await self._response("r", "rresp")
        if got != response:
            raise AxiLiteError(f"read of {address:#x}: response {got}, expected {response}")
        return self._data

    async def _response(self, channel: str, code: str) -> int:
        """Take the response of ``b`` or ``r``; the data of a read is kept in ``_data``."""
        ready = self._signal(f"{channel}ready")
        pause = self._pause()
        ready.value = int(pause == 0)
        for cycle in range(_DEAD_CYCLES):
            await self._edge
            valid = bool(self._signal(f"{channel}valid").value)
            response = self._signal(code).value.to_unsigned()
            self._data = self._signal("rdata").value.to_unsigned() if channel == "r" else 0
            self._rules[channel].sample(cycle, valid, cycle >= pause, self._data << 2 | response)
            if valid and cycle >= pause:
                ready.value = 0
                return response
            if cycle + 1 >= pause:
                ready.value = 1
        raise AxiLiteError(f"{self._prefix}: no answer on channel {channel} within {_DEAD_CYCLES} cycles")

    def _pause(self) -> int:
        """Cycles to wait before a channel moves."""
        return 0 if self._waits is None else self._waits.choice((0, 0, 1, 3))

    def _signal(self, name: str) -> Any:
        return getattr(self._dut, f"{self._prefix}__{name}")
