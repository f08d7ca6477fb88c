"""In the simulator: the stager runs a script's commands, one after the other, and all that it answers is recorded."""

from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from cocotb_tests import exchange

_PROGRESS_COMMANDS = 500
_HUNG_CYCLES = 1_000_000


class _Bench:
    """The stager's ports, and the record."""

    def __init__(self, dut: Any, stimulus: dict[str, Any]) -> None:
        self.dut, self.edge = dut, RisingEdge(dut.clk)
        self.lanes, self.value_bits = stimulus["lanes"], stimulus["value_bits"]
        self.cycles: list[int] = []
        self.levels: list[int] = []
        self.done: list[str] = []
        self.actions: list[str] = []
        self.actions_of: list[int] = []
        """The command of each action."""

    async def tell(self, nth: int, payload: int, values: list[int]) -> None:
        """A command, until the next could be taken."""
        dut, edge = self.dut, self.edge
        ready, actions, done, reads = dut.commands__ready, dut.actions, dut.done, dut.values__read
        dut.commands__payload.value = payload
        dut.commands__valid.value = 1
        await edge
        dut.commands__valid.value = 0
        cycles, ended = 0, 0
        while True:
            await edge
            cycles += 1
            if ready.value:
                break
            if (said := actions.value.to_unsigned()) & 1:  # valid is the lowest bit
                self.actions.append(f"{said:x}")
                self.actions_of.append(nth)
            if (end := done.value.to_unsigned()) & 1:
                ended = end
            if reads.value:
                self._show(values, int(dut.values__word.value))
            if cycles > _HUNG_CYCLES:
                raise RuntimeError(f"command {nth} does not end")
        self.cycles.append(cycles)
        self.done.append(f"{ended:x}")
        levels = (dut.demand_waits, dut.queue_empty, dut.moving, dut.moving_demanded)
        self.levels.append(sum(int(level.value) << at for at, level in enumerate(levels)))

    def _show(self, values: list[int], word: int) -> None:
        """The values of a word, from this edge on."""
        mask = (1 << self.value_bits) - 1
        shown = 0
        for at, value in enumerate(values[word * self.lanes :][: self.lanes]):
            shown |= (value & mask) << (at * self.value_bits)
        self.dut.values__values.value = shown

    async def look(self, key: int) -> tuple[str, str]:
        """Entry and value of a key, as its struct's word."""
        self.dut.look__key.value = key
        self.dut.look__read.value = 1
        for _ in range(4):
            await self.edge
        return f"{self.dut.look__entry.value.to_unsigned():x}", f"{self.dut.look__value.value.to_unsigned():x}"


@cocotb.test()
async def replay(dut: Any) -> None:
    """Reset, write the shares, clear, run the commands, read everything back."""
    stimulus = exchange.read_stimulus()
    for name in ("commands__valid", "commands__payload", "values__values", "shares__valid", "look__key", "look__read"):
        getattr(dut, name).value = 0
    dut.settings.value = int(stimulus["settings"], 16)
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="ns").start()
    bench = _Bench(dut, stimulus)
    for _ in range(2):
        await bench.edge
    dut.rst.value = 0
    await bench.edge
    for layer, share in enumerate(stimulus["shares"]):
        dut.shares__layer.value, dut.shares__share.value = layer, share
        dut.shares__valid.value = 1
        await bench.edge
    dut.shares__valid.value = 0
    values = iter(stimulus["values"].tolist())
    has_values = stimulus["has_values"].tolist()
    payloads = [int.from_bytes(payload.tobytes(), "little") for payload in stimulus["payloads"]]
    for nth, payload in enumerate(payloads):
        await bench.tell(nth, payload, next(values) if has_values[nth] else [])
        if nth % _PROGRESS_COMMANDS == 0:
            exchange.report_progress(nth)
    looked = [await bench.look(key) for key in stimulus["keys"].tolist()]
    exchange.write_results(
        {
            "cycles": np.array(bench.cycles, np.int64),
            "levels": np.array(bench.levels, np.int64),
            "done": bench.done,
            "actions": bench.actions,
            "actions_of": np.array(bench.actions_of, np.int64),
            "entries": [entry for entry, _ in looked],
            "values": [value for _, value in looked],
            "queue": f"{dut.queue__keys.value.to_unsigned():x}",
            "queue_demanded": f"{dut.queue__demanded.value.to_unsigned():x}",
            "queue_waiting": int(dut.queue__waiting.value),
            "counters": f"{dut.counters.value.to_unsigned():x}",
        }
    )
