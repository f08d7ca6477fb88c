"""The net by itself under Verilator: every score, chance, answer and cycle against the twins of its heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from cocotb_tests.build import build
from cocotb_tests.net.script import NetScript, Told
from cocotb_tests.simulation import run as run_simulation
from predictor.row_network.cycles import NetSchedule
from predictor.row_network.limits import NetLimits
from rtl.prefetch.net.layouts import NetEventKind, item_layout, net_event_layout
from rtl.prefetch.net.net import Net
from rtl.prefetch.net.scores.layouts import PART_BITS, load_layout, prefetch_layout, scored_layout, values_layout
from rtl.verilog import to_verilog

TOP = "net"
PREFETCHED, VALUE_LANES, DEADLINE_BITS = 8, 4, 32


@dataclass(frozen=True, kw_only=True)
class NetReplayResult:
    """A replay and its comparison.

    Attributes:
        mismatches: scores, answers and cycles that differ from the twins'.
        first_mismatch: the first of them in words; empty where there is none.
        events, scores, answers: compared.
        cycles: of the whole run, after loading.
        latencies: cycles from the acceptance of a GATE that waits for no text to its PREFETCH.
        wall_s: seconds of the simulator, its start included.
    """

    mismatches: int
    first_mismatch: str
    events: int
    scores: int
    answers: int
    cycles: int
    latencies: tuple[int, ...]
    wall_s: float


@lru_cache(maxsize=4)
def _verilog(limits: str) -> str:
    net = Net(
        NetLimits.model_validate_json(limits),
        prefetched=PREFETCHED,
        value_lanes=VALUE_LANES,
        deadline_bits=DEADLINE_BITS,
    )
    return to_verilog(net, TOP)


def net_verilog(limits: NetLimits) -> str:
    """The net as Verilog, top module ``net``."""
    return _verilog(limits.model_dump_json())


def replay_net(
    script: NetScript,
    limits: NetLimits,
    *,
    waits: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> NetReplayResult:
    """Run ``script`` in a net of ``limits`` and compare everything with the twins.

    Args:
        script: what is told, and what is to be answered.
        limits: the net.
        waits: whether streams wait at random; cycles are not compared then.
        seed: of the waits.
        progress: called with the number of events so far.

    Raises:
        ForestageError: hardware runs are not possible here, or a head does not fit.
        SimulationError: the simulation failed.
    """
    for head, program in enumerate(script.programs):
        if program is not None:
            program.check_limits(limits, head, origin="net")
    items = [item for told in script.told for item in told.items]
    ends = np.cumsum([len(told.items) for told in script.told])
    defaults = {"layer": 0, "known": 0, "starts_sequence": 0}
    events = [{**defaults, **told.event} for told in script.told]
    simulation = run_simulation(
        build(net_verilog(limits), TOP),
        "cocotb_tests.net.net_test",
        stimulus={
            "inputs": {
                "next_layer": int(script.programs[0] is not None),
                "next_use": int(script.programs[1] is not None),
                "by_routing": int(script.by_routing),
                "wanted": script.wanted,
                "threshold": script.threshold,
            },
            "loads": _loads(script, limits),
            "events": packed(net_event_layout(limits, DEADLINE_BITS), events),
            "items": packed(item_layout(limits), items),
            "item_ends": ends,
            "groups": -(-_experts(script) // VALUE_LANES),
            "waits": waits,
            "seed": seed,
        },
        timeout_s=600 + len(events),
        progress=progress,
    )
    comparison = _Comparison(script, limits, simulation.values, ends)
    comparison.scores()
    comparison.answers()
    if not waits:
        comparison.cycles()
    return NetReplayResult(
        mismatches=comparison.mismatches,
        first_mismatch=comparison.first,
        events=len(events),
        scores=len(simulation.values["scores"]),
        answers=len(comparison.prefetches) + len(comparison.values),
        cycles=simulation.values["cycles"],
        latencies=tuple(comparison.latencies),
        wall_s=simulation.wall_s,
    )


def packed(layout: data.StructLayout, values: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
    """Payloads u8 ``[values, bytes]``, little-endian."""
    size = -(-layout.size // 8)
    words = [layout.const(value).as_value().value for value in values]
    return np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8).reshape(-1, size)


def _loads(script: NetScript, limits: NetLimits) -> NDArray[np.uint8]:
    """What the load bus is told, a row a clock."""
    layout = load_layout(limits)
    size = -(-layout.size // 8)
    shift = layout["data"].offset
    words = []
    for head, program in enumerate(script.programs):
        for memory, contents in (program.contents() if program is not None else {}).items():
            for address, word in enumerate(contents.data):
                for part in range(-(-8 * len(word) // PART_BITS)):
                    fields = {"valid": 1, "head": head, "memory": memory, "address": address, "part": part}
                    first = part * PART_BITS // 8
                    value = int.from_bytes(word[first : first + PART_BITS // 8].tobytes(), "little")
                    words.append(layout.const(fields).as_value().value | value << shift)
    return np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8).reshape(-1, size)


def _experts(script: NetScript) -> int:
    return next(program for program in script.programs if program is not None).settings.experts


class _Comparison:
    """What the net said, and what it should have said."""

    def __init__(self, script: NetScript, limits: NetLimits, values: dict[str, Any], ends: NDArray[np.int64]) -> None:
        self._script, self._limits, self._values, self._ends = script, limits, values, ends
        self.mismatches, self.first = 0, ""
        self.latencies: list[int] = []
        layout = prefetch_layout(limits, PREFETCHED)
        self.prefetches = []
        for came, taken, word, deadline in values["prefetches"]:
            found = layout.from_bits(int(word, 16))
            best = [(found.experts[n], found.chances[n]) for n in range(found.count)]
            self.prefetches.append((came, taken, (found.layer, deadline, best)))
        groups = -(-_experts(script) // VALUE_LANES)
        self.values = []
        for n, (came, taken, word) in enumerate(values["values"]):
            rows = [int(row, 16) for row in values["rows"][n * groups : (n + 1) * groups]]
            bits = (limits.next_use.questions * 65535).bit_length()
            row = [word >> bits * lane & ((1 << bits) - 1) for word in rows for lane in range(VALUE_LANES)]
            layer = values_layout(limits).from_bits(int(word, 16)).layer
            self.values.append((came, taken, (layer, row[: _experts(script)])))

    def equal(self, what: str, expected: Any, found: Any) -> None:
        """Count a difference."""
        if expected != found:
            self.mismatches += 1
            self.first = self.first or f"{what}: {found}, the twin's is {expected}"

    def scores(self) -> None:
        """Every score and chance."""
        words = self._values["scores"].astype(np.uint64)
        layout = scored_layout(self._limits)

        def field(name: str) -> NDArray[np.int64]:
            one = layout[name]
            return (words >> np.uint64(one.offset) & np.uint64((1 << one.width) - 1)).astype(np.int64)

        fields = {name: field(name) for name in ("head", "slot", "target", "answer", "score", "chance")}
        expected = [one for told in self._script.told for one in told.scores]
        self.equal("number of scores", sum(len(one[3]) for one in expected), len(words))
        at = 0
        for head, slot, target, scores, chances in expected:
            part = slice(at, at + len(scores))
            at += len(scores)
            where = f"head {head}, slot {slot}, layer {target}"
            for name, value in (("head", head), ("slot", slot), ("target", target)):
                self.equal(f"{name} of {where}", {value}, set(fields[name][part].tolist()))
            self.equal(f"answers of {where}", list(range(len(scores))), fields["answer"][part].tolist())
            self.equal(f"scores of {where}", scores.tolist(), fields["score"][part].tolist())
            self.equal(f"chances of {where}", chances.tolist(), fields["chance"][part].tolist())

    def answers(self) -> None:
        """Every PREFETCH and VALUES."""
        prefetches = [one for told in self._script.told for one in told.prefetches]
        values = [(told.event["layer"], told.values) for told in self._script.told if told.values is not None]
        self.equal("number of PREFETCH answers", len(prefetches), len(self.prefetches))
        self.equal("number of VALUES answers", len(values), len(self.values))
        for wanted, (_, _, found) in zip(prefetches, self.prefetches, strict=False):
            self.equal("PREFETCH", wanted, found)
        for expected, (_, _, values_found) in zip(values, self.values, strict=False):
            self.equal("VALUES", expected, values_found)

    def cycles(self) -> None:
        """When every answer came and every event was taken."""
        schedule = NetSchedule(*self._script.programs, lanes=self._limits.lanes)
        prefetches, values = iter(self.prefetches), iter(self.values)
        begins = 0
        free = 0
        for n, (told, accepted) in enumerate(zip(self._script.told, self._values["accepted"].tolist(), strict=True)):
            offered = self._values["offered"][n]
            self.equal(f"cycle in which event {n} is taken", max(free, offered), accepted)
            ends = int(self._ends[n])
            items = (self._values["items_offered"][begins:ends] - accepted).tolist()
            begins = ends
            free = self._event(schedule, told, accepted, items, prefetches, values)

    def _event(
        self, schedule: NetSchedule, told: Told, accepted: int, items: list[int], prefetches: Any, values: Any
    ) -> int:
        """The cycle from which on the event after ``told`` is taken."""
        cycles = self._script.cycles_of(schedule, told, items)
        free = accepted + cycles.next
        for after in cycles.prefetches:
            came, taken, _ = next(prefetches, (-1, -1, None))
            self.equal("cycles to PREFETCH", after, came - accepted)
            free = max(free, taken + 1)
            if told.event["kind"] == NetEventKind.GATE and not told.items:
                self.latencies.append(came - accepted)
        if cycles.values:
            came, taken, _ = next(values, (-1, -1, None))
            self.equal("cycles to VALUES", cycles.values, came - accepted)
            free = max(free, taken + 1)
        return free
